"""The reference: what is kept of a data set with the model that it trained.

It lies in the published version, in `assets.extra/data_reference`. So the reference of
the model in service is in service too, and a rollback brings back the reference of the
older model.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from beam_jobs.contracts import published
from beam_jobs.contracts.locations import content_of, locate
from beam_jobs.contracts.published import ASSETS_DIR, CURE
from models.drift import embedding_drift, summary
from models.drift.embedding_drift import EmbeddingSample
from models.drift.summary import DataSummary

FOLDER = f"{ASSETS_DIR}/data_reference"
"""Folder of a published version with its reference."""
_SUMMARY = "summary.json"
_STATISTICS = "statistics.pb"
_SCHEMA = "schema.pbtxt"
_EMBEDDINGS = "embeddings.npz"


@dataclass(frozen=True, kw_only=True)
class DataReference:
    """What is kept of a data set.

    Attributes:
        summary: figures that are compared.
        statistics: TFDV's statistics of the train split: a serialized
            DatasetFeatureStatisticsList.
        schema: TFDV's schema of the train split, as text of the protocol buffer.
        embeddings: of eval pairs under the encoder that was trained on them; None: the
            reference belongs to a segmenter, or the encoder was not judged yet.
    """

    summary: DataSummary
    statistics: bytes
    schema: str
    embeddings: EmbeddingSample | None = None

    def files(self) -> dict[str, bytes]:
        """Return name -> content of the files that hold the reference."""
        found = {
            _SUMMARY: self.summary.to_json().encode(),
            _STATISTICS: self.statistics,
            _SCHEMA: self.schema.encode(),
        }
        if self.embeddings is not None:
            found[_EMBEDDINGS] = self.embeddings.to_bytes()
        return found


def published_files(reference: DataReference) -> dict[str, bytes]:
    """Return path below a published version -> content of its reference's files."""
    return {f"{FOLDER}/{name}": content for name, content in reference.files().items()}


@dataclass(frozen=True, kw_only=True)
class ServedReference:
    """The reference of the version in service.

    Attributes:
        version_dir: folder of the version.
        data: its reference.
    """

    version_dir: str
    data: DataReference


def read_reference(folder: str | os.PathLike[str], cure: str = CURE) -> DataReference | None:
    """Return the reference in a folder; None: there is none.

    Args:
        folder: that `DataReference.files` were written into.
        cure: what to do about a damaged file.

    Raises:
        DamagedFileError: a file is missing, or is not what was written.
    """
    base = locate(folder)
    if not (base / _SUMMARY).exists():
        return None
    with content_of(base / _SUMMARY, cure):
        figures = summary.from_json((base / _SUMMARY).read_text())
    for name in (_STATISTICS, _SCHEMA):
        with content_of(base / name, cure):
            if not (base / name).exists():
                raise ValueError("the file is missing")
    embeddings = None
    if (base / _EMBEDDINGS).exists():
        with content_of(base / _EMBEDDINGS, cure):
            embeddings = embedding_drift.from_bytes((base / _EMBEDDINGS).read_bytes())
    return DataReference(
        summary=figures,
        statistics=(base / _STATISTICS).read_bytes(),
        schema=(base / _SCHEMA).read_text(),
        embeddings=embeddings,
    )


def find_served(model_dir: str | os.PathLike[str]) -> ServedReference | None:
    """Return the reference of the version of a model that is in service.

    None: nothing is in service, or the version was published without a reference.

    Raises:
        DamagedFileError: see `read_reference`.
    """
    version = published.in_service(model_dir)
    if version is None:
        return None
    found = read_reference(version / FOLDER)
    return None if found is None else ServedReference(version_dir=str(version), data=found)
