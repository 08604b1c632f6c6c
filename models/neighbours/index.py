"""The index: embeddings of the patches of a version in both sensors, and where each patch is found again, on disk.

Batches of embeddings -> a folder with `s1.npy` and `s2.npy` (float32 [M, E], unit norm,
to be memory-mapped), `patches.csv` (one line a patch) and `index.json`, which appears
last: what has none is no index. Written by `embedding.py`; read by `python -m pipeline
search`. NumPy only; the folder may lie on an object store.
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
from beam_jobs.contracts.locations import Location, locate, staged
from beam_jobs.contracts.manifest import CODE_VERSION
from models.health.retrieval import cross_modal_ranks, recall_metrics

FloatArray = npt.NDArray[np.float32]
Embeddings = Mapping[Sensor, FloatArray]

FORMAT_VERSION = 1
"""Of all files of an index together."""
INFO_NAME, TABLE_NAME = "index.json", "patches.csv"
MAX_RECALL_PATCHES = 20_000
"""Recall compares all with all: of more patches so many are taken, evenly over the index. These take seconds."""


class IndexedPatch(NamedTuple):
    """One line of the table; a name that the shard contract has means the same here."""

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
    """Place in the shard, from 0."""

    def acquired_at(self, sensor: Sensor) -> int:
        """Seconds since 1970, UTC."""
        return self.s1_acquired_at if sensor == "s1" else self.s2_acquired_at


_READERS: tuple[Callable[[str], Any], ...] = tuple(
    # Scenes, blocks and shards repeat: one text each instead of one a line.
    sys.intern if kind is str else kind
    for kind in get_type_hints(IndexedPatch).values()
)


@dataclass(frozen=True, kw_only=True)
class IndexSource:
    """What an index was made of.

    Attributes:
        encoder: directory of the published encoder.
        encoder_config_sha256: of the config that its model card holds.
        pairs: version directory of the patches.
        manifest_sha256: of its manifest.
        splits: that were embedded.
        num_records: in these splits; what has no data in one sensor is not in the
            index.
    """

    encoder: str
    encoder_config_sha256: str
    pairs: str
    manifest_sha256: str
    splits: tuple[str, ...]
    num_records: int


@dataclass(frozen=True, kw_only=True)
class IndexInfo:
    """What an index is: `index.json`.

    Attributes:
        source: what it was made of.
        num_patches: M.
        embedding_dim: E.
        recall: `recall_at_<k>/<direction>`, 0-1; chance is k / `num_recall_patches`.
        num_recall_patches: that recall was measured on.
        code_version: of the code that made it.
        format_version: of the index.
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
    """An index that was opened; row i of both sensors is `patches[i]`. Embeddings stay on disk."""

    info: IndexInfo
    embeddings: Embeddings
    patches: Sequence[IndexedPatch]


def check_absent(output: str | os.PathLike[str]) -> None:
    """Refuses a folder that holds an index.

    Raises:
        FileExistsError: it does.
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
    """Writes an index, batch after batch; nothing of it is seen before all of it is there.

    Args:
        output: folder without an index.
        source: what the batches are made of.
        batches: unit-norm embeddings [B, E] of each sensor and the B patches they are
            of; B may be 0 and may differ.

    Raises:
        FileExistsError: `output` holds an index.
        ValueError: no patch at all, or an embedding that is not finite.
    """
    check_absent(output)
    folder = locate(output)
    with ExitStack() as stack:
        # First in, last out: the info appears when all that it speaks of is there.
        info_path = stack.enter_context(staged(folder / INFO_NAME))
        table_path = stack.enter_context(staged(folder / TABLE_NAME))
        paths = {
            sensor: stack.enter_context(staged(folder / f"{sensor}.npy")) for sensor in SENSORS
        }
        num_patches = _write_batches(paths, table_path, batches)
        if not num_patches:
            raise ValueError(
                f"an index needs a patch with data in both sensors, got none in {source.num_records} records"
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
    """Opens an index.

    Raises:
        FileNotFoundError: no index, or one that was not written to the end.
        ValueError: of another format, or files that do not belong together.
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
    """The number of patches written."""
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
                        f"patch {bad.patch_id}: its {sensor} embedding must be finite, got NaN or infinity"
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
    """The head of a .npy, which has one size whatever the number of rows: numpy leaves room for the array to grow."""
    file.seek(0)
    np.lib.format.write_array_header_1_0(
        file, {"descr": "<f4", "fortran_order": False, "shape": (num_rows, num_columns)}
    )


def _read_info(path: Location) -> IndexInfo:
    if not path.exists():
        raise FileNotFoundError(f"{path}: there is none, so this is no finished index")
    try:
        values = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path}: must be JSON: {error}") from error
    # First, so that the message is not about a key that the other format has or lacks.
    version = values.get("format_version") if isinstance(values, dict) else None
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{path}: an index of format {version} cannot be read, only {FORMAT_VERSION}: embed again"
        )
    try:
        return settings.from_dict(IndexInfo, values, "index")
    except settings.SettingsError as error:
        raise ValueError(f"{path}: {error}") from error


def _open_rows(path: Location, info: IndexInfo) -> FloatArray:
    expected = (info.num_patches, info.embedding_dim)
    try:
        # An object has no pages to map.
        rows = (
            np.load(path, mmap_mode="r")
            if isinstance(path, Path)
            else np.load(io.BytesIO(path.read_bytes()))
        )
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path}: must be a whole .npy of {expected}: {error}") from error
    if rows.shape != expected or rows.dtype != np.float32:
        raise ValueError(
            f"{path}: must be float32 {expected}, as {INFO_NAME} says, got {rows.dtype} {rows.shape}"
        )
    return rows


def _read_table(path: Location) -> list[IndexedPatch]:
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
