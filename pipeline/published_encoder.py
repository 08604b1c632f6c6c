"""The published encoder that tasks start from, in place of a pretraining.

The plain values of a run with `encoder` -> the same values, where each task names the
folders that its sensors start from, and their architecture. All is read from the model
cards, before anything is built.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from beam_jobs.config import PatchConfig
from beam_jobs.contracts import manifest, settings, windows
from beam_jobs.contracts.bands import SENSORS, Sensor
from beam_jobs.contracts.locations import Location, glob, locate
from beam_jobs.contracts.manifest import WindowEntry
from beam_jobs.contracts.object_store import is_remote
from beam_jobs.contracts.published import ASSETS_DIR, CARD_NAME, CURE
from beam_jobs.contracts.settings import SettingsError
from models.config import EncoderConfig
from models.published.encoder_card import EncoderCard, read_encoder_card

NO_ENCODER = (
    "starts from a pretrained encoder, but the run has neither `encoder` nor `pretrain`: add "
    "`encoder: <folder of a published encoder>` or `pretrain:`, or set segment.regime scratch"
)
_KEY = "encoder"


@dataclass(frozen=True, kw_only=True)
class Start:
    """The published encoder of one sensor: its folder and its card."""

    folder: str
    card: EncoderCard


def start_tasks(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the run's values with the encoders that its tasks start from.

    Each task that does not train from scratch gets `segment.encoder_paths` for the
    sensors that it names no encoder for. A task without `segment.encoder` gets the
    architecture of its encoders. A run with `pretrain` is returned as it is.

    Args:
        values: values of the run, with its tasks written out; not changed.

    Raises:
        SettingsError: the folder of `encoder` is missing, or holds no trained encoder
            of a sensor that a task needs; a task has another architecture; or a task
            needs an encoder and the run has none.
        DamagedFileError: a model card is not what was written.
    """
    result = copy.deepcopy(dict(values))
    # `RunConfig` refuses both together.
    if result.get("pretrain") is not None:
        return result
    starts = read_starts(result.get(_KEY))
    tasks = result.get("tasks")
    # Values of a wrong type are skipped here: the type check reports them with their
    # path.
    for position, task in enumerate(tasks if isinstance(tasks, list) else []):
        segment = task.get("segment") if isinstance(task, dict) else None
        if isinstance(segment, dict) and isinstance(segment.get("sensors"), list):
            _start_task(segment, starts, f"tasks[{position}]")
    return result


def read_starts(given: Any) -> dict[Sensor, Start]:
    """Return the published encoder of each sensor that a run's `encoder` names.

    Args:
        given: folder with the encoders of one sensor or both, or sensor -> folder;
            None = no encoder.

    Raises:
        SettingsError: `given` is something else, or a folder is missing, holds no
            encoder of its sensor or an untrained one, or lacks its weights.
        DamagedFileError: a card is not what was written.
    """
    if isinstance(given, str):
        card = _read(given)
        return {sensor: _start(given, card, sensor, _KEY) for sensor in card.bands}
    found: dict[Sensor, Start] = {}
    if given is not None and not isinstance(given, Mapping):
        raise SettingsError(
            f"{_KEY}: must be the folder of a published encoder, or a mapping of "
            f"{', '.join(SENSORS)} to folders, got {given!r}"
        )
    for name, folder in (given or {}).items():
        sensor = next((sensor for sensor in SENSORS if sensor == name), None)
        if sensor is None:
            raise SettingsError(f"{_KEY}: must map {', '.join(SENSORS)} to folders, got {name!r}")
        found[sensor] = _start(str(folder), _read(str(folder)), sensor, f"{_KEY}.{sensor}")
    return found


def check_bands(
    starts: Mapping[Sensor, Start], sensors: Iterable[Sensor], patch: PatchConfig
) -> None:
    """Refuse encoders that take other bands than the patches will have.

    Args:
        starts: published encoders by sensor.
        sensors: sensors that tasks start from them.
        patch: settings of the patches.

    Raises:
        SettingsError: with the bands of both.
    """
    for sensor in sensors:
        start, bands = starts[sensor], patch.bands(sensor)
        if start.card.bands[sensor] != bands:
            raise SettingsError(
                f"{_KEY}: {start.folder}: the encoder of {sensor} takes the bands "
                f"{', '.join(start.card.bands[sensor])}, but the patches have {', '.join(bands)}: "
                f"set pairs.patch.{sensor}_bands to the encoder's, or import the weights with "
                f"--bands {','.join(bands)}"
            )


@dataclass(frozen=True, kw_only=True)
class SeenPairs:
    """The pairs that published encoders were trained on.

    Attributes:
        versions: version directories that are at hand, to compare labels with.
        unknown: reasons why other pairs cannot be compared, one for each encoder.
    """

    versions: tuple[str, ...]
    unknown: tuple[str, ...]


def seen_pairs(folders: Iterable[str], *, with_remote: bool) -> SeenPairs:
    """Return what is known of the pairs that published encoders were trained on.

    A run publishes `<root>/serving/encoder/<version>` and builds `<root>/data/pairs`.
    So the pairs are at hand as long as the root of that run is complete. The encoders
    that a training began with are looked up too.

    Args:
        folders: of published encoders, or `.keras` files.
        with_remote: look at folders on object stores, too. False where the store may be
            out of reach, as for a pipeline that is only compiled.
    """
    versions: dict[str, None] = {}
    unknown: dict[str, None] = {}
    waiting = list(dict.fromkeys(folders))
    for folder in waiting:
        try:
            if is_remote(folder) and not with_remote:
                raise FileNotFoundError(folder)
            card = read_encoder_card(folder)
        except (OSError, ValueError):
            unknown[f"{folder}: no card at hand says what it was trained on"] = None
            continue
        waiting += [start for start in card.started_from if start not in waiting]
        found = _pairs_at_hand(folder, card)
        versions.update(dict.fromkeys(map(str, found)))
        if found and len(found) == len(_trained(card)):
            continue
        if card.manifest_sha256 is None:
            unknown[f"{folder}: public weights, whose pixels are not at hand"] = None
        else:
            unknown[
                f"{folder}: trained on pairs that are not at hand (manifest "
                f"{card.manifest_sha256[:12]}, span {card.data_span}, version {card.data_version})"
            ] = None
    return SeenPairs(versions=tuple(versions), unknown=tuple(unknown))


def _pairs_at_hand(folder: str, card: EncoderCard) -> list[Location]:
    """Return the versions of an encoder's pairs that are where runs build them."""
    # <root>/serving/encoder/<version>
    root = locate(folder.rstrip("/")).parent.parent.parent / "data" / "pairs"
    return [windows.version_dir(root, entry) for entry in _trained(card) if _is_there(root, entry)]


def _trained(card: EncoderCard) -> list[WindowEntry]:
    """Return the versions whose train patches an encoder was trained on."""
    return [entry for entry in card.data if "train" in entry.splits]


def _is_there(root: Location, entry: WindowEntry) -> bool:
    try:
        return manifest.read(windows.version_dir(root, entry)).sha256 == entry.sha256
    except (OSError, ValueError):
        return False


def _start_task(segment: dict[str, Any], starts: Mapping[Sensor, Start], where: str) -> None:
    """Fill in `encoder_paths` and `encoder` of one task."""
    sensors = [sensor for sensor in SENSORS if sensor in segment["sensors"]]
    paths = segment.get("encoder_paths") or {}
    if not isinstance(paths, dict):
        return
    is_scratch = segment.get("regime") == "scratch"
    missing = [] if is_scratch else [sensor for sensor in sensors if sensor not in paths]
    if missing and not starts:
        raise SettingsError(f"{where}: {NO_ENCODER}")
    for sensor in missing:
        if sensor not in starts:
            folders = ", ".join(dict.fromkeys(start.folder for start in starts.values()))
            raise SettingsError(
                f"{where}: needs an encoder of {sensor}, but `{_KEY}` {folders} holds one of "
                f"{', '.join(starts)}: name a folder for each sensor, "
                f"`{_KEY}: {{s1: <folder>, s2: <folder>}}`, or leave out the task"
            )
    if missing:
        segment["encoder_paths"] = {**paths, **{s: starts[s].folder for s in missing}}
    own = [starts[sensor] for sensor in missing] or _own_starts(segment, starts, where)
    _fill_architecture(segment, own, where)


def _own_starts(
    segment: Mapping[str, Any], starts: Mapping[Sensor, Start], where: str
) -> list[Start]:
    """Return what decides the architecture of a task without an encoder of the run."""
    if "encoder" in segment:
        return []
    if segment.get("regime") == "scratch":
        # Whatever the sensor: new weights can have the architecture of any encoder.
        return list(starts.values())[:1]
    folders = [str(path) for path in segment["encoder_paths"].values()]
    return [
        Start(folder=folder, card=_read(folder, f"{where}.segment.encoder_paths"))
        for folder in folders
        # A file without a card.
        if not folder.endswith(".keras")
    ]


def _fill_architecture(segment: dict[str, Any], starts: Sequence[Start], where: str) -> None:
    """Set `encoder` to that of the published encoders, or refuse another one."""
    for start in starts:
        of_card = start.card.encoder
        given = settings.from_dict(
            EncoderConfig,
            segment.setdefault("encoder", settings.to_dict(of_card)),
            f"{where}.segment.encoder",
        )
        # A segmenter has no embedding, so its size does not matter.
        if (given.backbone, given.norm) != (of_card.backbone, of_card.norm):
            raise SettingsError(
                f"{where}.segment.encoder must be that of {start.folder}, {of_card.backbone} with "
                f"norm {of_card.norm}, got {given.backbone} with norm {given.norm}: leave "
                "segment.encoder out, or start each sensor from one architecture"
            )


def _start(folder: str, card: EncoderCard, sensor: Sensor, key: str) -> Start:
    if sensor not in card.bands:
        raise SettingsError(
            f"{key}: {folder} holds an encoder of {', '.join(card.bands)}, not of {sensor}: name "
            f"the folder of an encoder of {sensor}"
        )
    if card.is_control:
        raise SettingsError(
            f"{key}: {folder} must hold trained encoders, got untrained ones (objective none): "
            "name another folder, or set segment.regime scratch for tasks without pretraining"
        )
    weights = locate(folder) / ASSETS_DIR / f"{sensor}_encoder.keras"
    if not weights.exists():
        raise SettingsError(f"{key}: {weights}: no such weights, but the card names them; {CURE}")
    return Start(folder=folder, card=card)


def _read(folder: str, key: str = _KEY) -> EncoderCard:
    """Return the card of a published encoder.

    Raises:
        SettingsError: there is no such folder, no card in it, or no encoder.
        DamagedFileError: the card is not what was written.
    """
    try:
        return read_encoder_card(folder)
    except SettingsError as error:
        raise SettingsError(f"{key}: {error}: name the folder of an encoder") from error
    except OSError as error:
        versions = glob(folder, f"*/{ASSETS_DIR}/{CARD_NAME}") if folder else []
        if versions:
            newest = max(versions, key=lambda path: path.parent.parent.name.zfill(20))
            cure = f"name one version in it, such as {newest.parent.parent}"
        elif folder and locate(folder).exists():
            cure = "name a folder <serving>/encoder/<version> of a run, or one of import-weights"
        else:
            cure = "check the path; it starts at the folder of the YAML file, or the current one"
        found = "no model card" if folder and locate(folder).exists() else "no such folder"
        raise SettingsError(
            f"{key}: {folder!r} is no published encoder: {found}; {cure}"
        ) from error
