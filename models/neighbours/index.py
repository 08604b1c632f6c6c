"""The index on disk: embeddings of both sensors, and where to find each patch.

Input: batches of embeddings. Output: a folder with `s1.npy` and `s2.npy` (float32 [M,
E], unit norm, to be memory-mapped), `patches.csv` (one line per patch) and
`index.json`. The last appears only when the others are complete, so a folder without it
is no index. NumPy only. The folder may be on an object store.
"""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, get_type_hints

import numpy as np
import numpy.typing as npt

from beam_jobs.contracts import settings
from beam_jobs.contracts.bands import SENSORS, Sensor
from beam_jobs.contracts.locations import Location, content_of, locate, staged
from beam_jobs.contracts.manifest import CODE_VERSION
from models.health.retrieval import cross_modal_ranks, recall_metrics

FloatArray = npt.NDArray[np.float32]
Embeddings = Mapping[Sensor, FloatArray]

FORMAT_VERSION = 1
"""Version of all files of an index together."""
INFO_NAME, TABLE_NAME = "index.json", "patches.csv"
MAX_RECALL_PATCHES = 20_000
"""Largest number of patches to measure recall on, taken evenly over the index.

Recall compares all patches with all others; for this many it takes seconds.
"""


class IndexedPatch(NamedTuple):
    """One line of the table. Names of the shard contract have the same meaning here."""

    patch_id: str
    split: str
    block: str
    lon: float
    lat: float
    s1_scene_id: str
    s2_scene_id: str
    s1_acquired_at: int
    s2_acquired_at: int
    shard: str
    """Path below the version directory."""
    record: int
    """Position in the shard, from 0."""

    def acquired_at(self, sensor: Sensor) -> int:
        """Return when `sensor` acquired the patch, in seconds since 1970, UTC."""
        return {"s1": self.s1_acquired_at, "s2": self.s2_acquired_at}[sensor]


_READERS: tuple[Callable[[str], Any], ...] = tuple(
    # Scenes, blocks and shards repeat. Interning keeps one string of each.
    sys.intern if kind is str else kind
    for kind in get_type_hints(IndexedPatch).values()
)


@dataclass(frozen=True, kw_only=True)
class IndexSource:
    """What an index was made from.

    Attributes:
        encoder: directory of the published encoder.
        encoder_config_sha256: hash of the config in its model card.
        pairs: version directory of the patches.
        manifest_sha256: hash of the version's manifest.
        splits: splits that were embedded.
        num_records: number of records in these splits. Patches without data in one
            sensor are not in the index.
        patch_width_km: width of a patch on the ground; None in an index that was made
            before it was kept.
    """

    encoder: str
    encoder_config_sha256: str
    pairs: str
    manifest_sha256: str
    splits: tuple[str, ...]
    num_records: int
    patch_width_km: float | None = None


@dataclass(frozen=True, kw_only=True)
class IndexInfo:
    """Description of an index, stored as `index.json`.

    Attributes:
        source: what it was made from.
        num_patches: number of patches M.
        embedding_dim: size E of the embeddings.
        recall: `recall_at_<k>/<direction>`, 0-1; chance is k / `num_recall_patches`.
        num_recall_patches: number of patches that recall was measured on.
        code_version: version of the code that made it.
        format_version: version of the index format.
    """

    source: IndexSource
    num_patches: int
    embedding_dim: int
    recall: dict[str, float] = field(default_factory=dict)
    num_recall_patches: int
    code_version: str = CODE_VERSION
    format_version: int = FORMAT_VERSION


@dataclass(frozen=True, kw_only=True)
class EmbeddingIndex:
    """An open index; row i of both sensors belongs to `patches[i]`.

    Embeddings stay on disk.
    """

    info: IndexInfo
    embeddings: Embeddings
    patches: Sequence[IndexedPatch]


def check_absent(output: str | os.PathLike[str]) -> None:
    """Raise if the folder holds an index.

    Raises:
        FileExistsError: it holds one.
    """
    if (locate(output) / INFO_NAME).exists():
        raise FileExistsError(
            f"{output}: holds an index already, and an index is never overwritten"
        )


def write_index(
    output: str | os.PathLike[str],
    source: IndexSource,
    batches: Iterable[tuple[Embeddings, Sequence[IndexedPatch]]],
) -> IndexInfo:
    """Write an index batch by batch. It becomes visible when it is complete.

    Args:
        output: folder without an index.
        source: what the batches were made from.
        batches: unit-norm embeddings [B, E] of each sensor, and the B patches they
            belong to. B may be 0 and may differ between batches.

    Raises:
        FileExistsError: `output` holds an index.
        ValueError: there is no patch, or an embedding is not finite.
    """
    check_absent(output)
    folder = locate(output)
    with ExitStack() as stack:
        # Contexts close in reverse order: `index.json` appears after the files that it
        # describes.
        info_path = stack.enter_context(staged(folder / INFO_NAME))
        table_path = stack.enter_context(staged(folder / TABLE_NAME))
        paths = {
            sensor: stack.enter_context(staged(folder / f"{sensor}.npy")) for sensor in SENSORS
        }
        num_patches = _write_batches(paths, table_path, batches)
        if not num_patches:
            raise ValueError(
                "an index needs at least one patch with data in both sensors, "
                f"got none in {source.num_records} records"
            )
        embeddings = {sensor: np.load(path, mmap_mode="r") for sensor, path in paths.items()}
        rows = np.unique(
            np.linspace(0, num_patches - 1, min(num_patches, MAX_RECALL_PATCHES)).astype(int)
        )
        info = IndexInfo(
            source=source,
            num_patches=num_patches,
            embedding_dim=embeddings["s1"].shape[1],
            recall=recall_metrics(
                cross_modal_ranks({sensor: array[rows] for sensor, array in embeddings.items()})
            ),
            num_recall_patches=len(rows),
        )
        info_path.write_text(json.dumps(settings.to_dict(info), indent=2, sort_keys=True) + "\n")
    return info


def read_index(folder: str | os.PathLike[str]) -> EmbeddingIndex:
    """Open an index.

    Raises:
        FileNotFoundError: there is no index, or an unfinished one.
        ValueError: the index has another format, or its files do not belong together.
    """
    root = locate(folder)
    info = _read_info(root / INFO_NAME)
    embeddings = {sensor: _open_rows(root / f"{sensor}.npy", info) for sensor in SENSORS}
    patches = _read_table(root / TABLE_NAME)
    if len(patches) != info.num_patches:
        raise ValueError(
            f"{root / TABLE_NAME}: must have {info.num_patches} patches, got {len(patches)}"
        )
    return EmbeddingIndex(info=info, embeddings=embeddings, patches=patches)


def _write_batches(
    paths: Mapping[Sensor, Path],
    table_path: Path,
    batches: Iterable[tuple[Embeddings, Sequence[IndexedPatch]]],
) -> int:
    """Write all batches and return the number of patches."""
    num_patches = embedding_dim = 0
    with ExitStack() as stack:
        files = {sensor: stack.enter_context(path.open("wb")) for sensor, path in paths.items()}
        table = csv.writer(stack.enter_context(table_path.open("w", newline="", encoding="utf-8")))
        table.writerow(IndexedPatch._fields)
        for embeddings, patches in batches:
            for sensor, file in files.items():
                rows = np.ascontiguousarray(embeddings[sensor], "<f4")
                if not np.isfinite(rows).all():
                    bad = patches[int(np.argmin(np.isfinite(rows).all(axis=1)))]
                    raise ValueError(
                        f"patch {bad.patch_id}: its {sensor} embedding must be finite, "
                        "got NaN or infinity"
                    )
                if not file.tell():
                    embedding_dim = rows.shape[1]
                    _write_header(file, 0, embedding_dim)
                file.write(rows.tobytes())
            table.writerows(patches)
            num_patches += len(patches)
        for file in files.values():
            _write_header(file, num_patches, embedding_dim)
    return num_patches


def _write_header(file: BinaryIO, num_rows: int, num_columns: int) -> None:
    """Write the header of a .npy file.

    NumPy reserves room for the number of rows to grow, so its size does not change.
    """
    file.seek(0)
    np.lib.format.write_array_header_1_0(
        file, {"descr": "<f4", "fortran_order": False, "shape": (num_rows, num_columns)}
    )


def _read_info(path: Location) -> IndexInfo:
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file, so this is no finished index")
    try:
        values = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path}: must be JSON: {error}") from error
    # Check the version first: otherwise the message would be about a key that another
    # format has or lacks.
    version = values.get("format_version") if isinstance(values, dict) else None
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{path}: format_version must be {FORMAT_VERSION}, got {version}: "
            "make the index again with embed"
        )
    try:
        return settings.from_dict(IndexInfo, values, "index")
    except settings.SettingsError as error:
        raise ValueError(f"{path}: {error}") from error


def _open_rows(path: Location, info: IndexInfo) -> FloatArray:
    expected = (info.num_patches, info.embedding_dim)
    try:
        # NumPy makes an array as large as the header says before it reads the rows.
        with path.open("rb") as file:
            np.lib.format.read_magic(file)
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        if shape == expected and dtype == np.float32:
            # An object on a store cannot be memory-mapped.
            return (
                np.load(path, mmap_mode="r", allow_pickle=False)
                if isinstance(path, Path)
                else np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
            )
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path}: must be a complete .npy of {expected}: {error}") from error
    raise ValueError(f"{path}: must be float32 {expected} as in {INFO_NAME}, got {dtype} {shape}")


def _read_table(path: Location) -> list[IndexedPatch]:
    with content_of(path, "make the index again with embed"):
        lines = csv.reader(io.StringIO(path.read_text(encoding="utf-8")))
    if tuple(next(lines, ())) != IndexedPatch._fields:
        raise ValueError(f"{path}: its first line must be {','.join(IndexedPatch._fields)}")
    patches = []
    for number, line in enumerate(lines, start=2):
        try:
            patches.append(
                IndexedPatch(*(read(text) for read, text in zip(_READERS, line, strict=True)))
            )
        except ValueError as error:
            raise ValueError(
                f"{path}: line {number}: must have a value for each column: {error}"
            ) from error
    return patches
