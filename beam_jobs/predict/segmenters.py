"""Segmenters: a published model as a function of pixels.

Input: a folder `serving/<model>` or one version in it. Output: Segmenter, what the
model card says; and `load`, the SavedModel as this process keeps it. The model runs by
its signature `serving_default`, as in TF Serving.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import tensorflow as tf

from beam_jobs.contracts import published
from beam_jobs.contracts.bands import SENSORS, ProcessingLevel, Sensor
from beam_jobs.contracts.fingerprint import tree_sha256
from beam_jobs.contracts.labels import LabelClass
from beam_jobs.contracts.locations import content_of, locate
from beam_jobs.contracts.object_store import is_remote
from beam_jobs.contracts.records import FloatArray
from beam_jobs.errors import DataError
from beam_jobs.predict.blending import Pixels

_SIGNATURE = "serving_default"


@dataclass(frozen=True, kw_only=True)
class Segmenter:
    """A published segmenter, by its card.

    Attributes:
        path: folder of the version.
        name: of the model.
        version: number of the version; "" for a folder that is none.
        sha256: hash of all files of the model.
        bands: sensor -> names of its bands, in the order of the channels.
        stride: height and width of inputs are multiples of it.
        classes: what the model tells apart, by id.
        threshold: probability above which a pixel is of the second class; None with
            more than two classes: the likeliest class.
        pixel_size_m: of the patches that it was trained on.
        s2_processing_level: of the Sentinel-2 pixels that it was trained on.
        takes_one_of_two: whether it was trained for patches that lack a sensor.
        data_sha256: hash of the manifest of its training data.
        code_version: version of terrapair that wrote it.
    """

    path: str
    name: str
    version: str
    sha256: str
    bands: dict[Sensor, tuple[str, ...]]
    stride: int
    classes: tuple[LabelClass, ...]
    threshold: float | None
    pixel_size_m: float
    s2_processing_level: ProcessingLevel
    takes_one_of_two: bool
    data_sha256: str
    code_version: str

    @property
    def sensors(self) -> tuple[Sensor, ...]:
        """The sensors that the model sees."""
        return tuple(self.bands)


def find(path: str, version: int | None = None) -> Segmenter:
    """Return the segmenter in a folder.

    Args:
        path: folder of one version, or of all versions of a model, of which the newest
            is taken.
        version: number of the wanted version, if `path` holds several.

    Raises:
        DataError: there is no such version, or the model is no segmenter.
        DamagedFileError: the card is damaged.
    """
    folder = _version_dir(path, version)
    card = published.read_card(folder)
    if card.get("task") != "segmentation":
        raise DataError(
            f"{folder}: must be a segmenter, which makes maps, got a model of task "
            f"{card.get('task')!r}",
            "bad_model",
        )
    with content_of(f"{folder}/{published.ASSETS_DIR}/{published.CARD_NAME}", published.CURE):
        bands = {
            name: tuple(card["inputs"][name]["bands"]) for name in SENSORS if name in card["inputs"]
        }
        return Segmenter(
            path=folder,
            name=str(card["name"]),
            version=os.path.basename(folder) if os.path.basename(folder).isdigit() else "",
            sha256=tree_sha256(folder),
            bands=bands,
            stride=int(card["stride"]),
            classes=tuple(
                LabelClass(id=number, name=name, color=color)
                for number, (name, color) in enumerate(
                    zip(card["class_names"], card["class_colors"], strict=True)
                )
            ),
            threshold=card["threshold"],
            pixel_size_m=float(card["pixel_size_m"]),
            s2_processing_level=card["s2_processing_level"] or "L2A",
            takes_one_of_two=len(bands) == 2 and bool(card["config"].get("modality_dropout")),
            data_sha256=str(card["data_manifest_sha256"]),
            code_version=str(card["code_version"]),
        )


def _version_dir(path: str, version: int | None) -> str:
    """Return the folder of the wanted version.

    Raises:
        DataError: there is none.
    """
    root = os.fspath(locate(path))
    if (locate(root) / published.ASSETS_DIR / published.CARD_NAME).exists():
        name = os.path.basename(root)
        if version is not None and name != str(version):
            raise DataError(
                f"{root}: is version {name} itself, but --version is {version}: name the folder "
                "of all versions",
                "bad_model",
            )
        return root
    found = {int(one.name): os.fspath(one) for one in published.versions(root)}
    if version is not None and version in found:
        return found[version]
    if version is not None:
        known = ", ".join(map(str, found)) or "none"
        raise DataError(
            f"{root}: has no version {version}; complete versions are: {known}", "bad_model"
        )
    if not found:
        raise DataError(
            f"{root}: holds no published model: name a folder serving/<model>, or a version in it",
            "bad_model",
        )
    return found[max(found)]


def labelled_version(path: str, label: str, server_dir: str | None = None) -> int:
    """Return the version that has a label, as TensorFlow Serving would take it.

    Args:
        path: folder of all versions of a model.
        label: such as "stable".
        server_dir: folder that `serve-config` wrote; None = `server` beside the folder
            of all models.

    Raises:
        DataError: `path` is one version, there is no such folder of a server, or it
            gives no version this label.
        DamagedFileError: the list of models in it is damaged.
    """
    model_dir = locate(path if is_remote(path) else os.path.abspath(path))
    if (model_dir / published.ASSETS_DIR / published.CARD_NAME).exists():
        raise DataError(
            f"{path}: is version {model_dir.name} itself: for --label, name the folder of all "
            "versions",
            "bad_model",
        )
    server = locate(server_dir) if server_dir else model_dir.parent.parent / published.SERVER_DIR
    file = published.models_file(server)
    try:
        models = published.version_labels(file)
    except FileNotFoundError as error:
        raise DataError(
            f"{file}: no such file, so no version has the label {label!r}: write it by "
            f"`terrapair serve-config`, or name its folder by --server",
            "missing_file",
        ) from error
    labels = models.get(model_dir.name, {})
    if label not in labels:
        known = ", ".join(f"{name} = {version}" for name, version in sorted(labels.items()))
        raise DataError(
            f"{file}: the model {model_dir.name!r} has no version with the label {label!r}; "
            f"labels are: {known or 'none'}",
            "bad_model",
        )
    return labels[label]


def load(segmenter: Segmenter, *, num_threads: int = 0) -> Callable[[Pixels], FloatArray]:
    """Return the function pixels [B, H, W, C] -> probabilities [B, H, W, K] of a model.

    This process loads a model once.

    Args:
        segmenter: of which the SavedModel is loaded.
        num_threads: of TensorFlow, if it has not computed yet in this process; 0 = one
            for each core.

    Raises:
        DataError: the SavedModel cannot be read.
    """
    loaded = _loaded(segmenter.path, segmenter.sha256, num_threads)
    expected = {str(name): len(bands) for name, bands in segmenter.bands.items()}
    if (loaded.num_bands, loaded.num_classes) != (expected, len(segmenter.classes)):
        raise DataError(
            f"{segmenter.path}: the SavedModel takes {loaded.num_bands} and tells "
            f"{loaded.num_classes} classes apart, but its card says {expected} and "
            f"{len(segmenter.classes)}; {published.CURE}",
            "bad_model",
        )

    def probabilities(pixels: Pixels) -> FloatArray:
        found = loaded.signature(
            **{str(name): tf.constant(pixels[name], tf.float32) for name in segmenter.sensors}
        )
        return np.asarray(found["probabilities"])

    return probabilities


@dataclass(frozen=True, kw_only=True)
class _Loaded:
    """A SavedModel in this process.

    Attributes:
        model: keeps the variables, which the signature alone does not.
        signature: of `serving_default`.
        num_bands: input -> number of its channels.
        num_classes: channels of the output.
    """

    model: Any
    signature: Callable[..., dict[str, Any]]
    num_bands: dict[str, int]
    num_classes: int


@lru_cache(maxsize=1)
def _loaded(path: str, sha256: str, num_threads: int) -> _Loaded:
    del sha256  # A part of the key only: another model may be written to the same path.
    if num_threads:
        # TensorFlow refuses when this process has computed before.
        with suppress(RuntimeError):
            tf.config.threading.set_intra_op_parallelism_threads(num_threads)
            tf.config.threading.set_inter_op_parallelism_threads(1)
    # A worker process has not opened the store yet.
    locate(path)
    try:
        model = tf.saved_model.load(path)
        signature = model.signatures[_SIGNATURE]
        inputs = signature.structured_input_signature[1]
        return _Loaded(
            model=model,
            signature=signature,
            num_bands={name: spec.shape[-1] for name, spec in inputs.items()},
            num_classes=signature.structured_outputs["probabilities"].shape[-1],
        )
    except (OSError, KeyError, ValueError, tf.errors.OpError) as error:
        why = " ".join(str(error).split())[:200]
        raise DataError(
            f"{path}: the SavedModel cannot be read ({why}); {published.CURE}", "bad_model"
        ) from error


def averaged(model: Callable[[Pixels], FloatArray]) -> Callable[[Pixels], FloatArray]:
    """Return the mean answer over the eight rotations and reflections of a window."""

    def probabilities(pixels: Pixels) -> FloatArray:
        total: Any = 0.0
        for turns in range(4):
            for is_flipped in (False, True):
                seen = {name: _moved(values, turns, is_flipped) for name, values in pixels.items()}
                total = total + _moved_back(model(seen), turns, is_flipped)
        return np.asarray(total / 8.0, np.float32)

    return probabilities


def _moved(values: FloatArray, turns: int, is_flipped: bool) -> FloatArray:
    turned = np.rot90(values, turns, axes=(1, 2))
    return turned[:, :, ::-1] if is_flipped else turned


def _moved_back(values: FloatArray, turns: int, is_flipped: bool) -> FloatArray:
    return np.rot90(values[:, :, ::-1] if is_flipped else values, -turns, axes=(1, 2))
