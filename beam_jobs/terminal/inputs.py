"""Check that inputs exist, before TensorFlow or Beam are imported to read them.

A mistyped path then costs a fraction of a second. Paths on object stores are not
looked at: only the libraries can open them.
"""

from __future__ import annotations

import os
from pathlib import Path

from beam_jobs.config import CatalogConfig
from beam_jobs.contracts.object_store import is_remote
from beam_jobs.contracts.reasons import Reason
from beam_jobs.errors import DataError

_MANIFEST = "manifest.json"
_CARD = "assets.extra/model_card.json"
_REASON: Reason = "missing_file"


def check_file(path: str | os.PathLike[str], what: str) -> None:
    """Refuse a path of this machine that is no file.

    Args:
        path: a path, or a URI that is not looked at.
        what: what the file is, for the message, such as "catalog".

    Raises:
        DataError: there is no such file.
    """
    if not is_remote(path) and not Path(path).is_file():
        found = "is a folder, not a file" if Path(path).is_dir() else "no such file"
        raise DataError(f"{path}: cannot read the {what}: {found}", _REASON)


def check_folder(path: str | os.PathLike[str], what: str) -> None:
    """Refuse a path of this machine that is no folder; arguments as for `check_file`.

    Raises:
        DataError: there is no such folder.
    """
    if not is_remote(path) and not Path(path).is_dir():
        found = "is a file, not a folder" if Path(path).is_file() else "no such folder"
        raise DataError(f"{path}: cannot read the {what}: {found}", _REASON)


def check_catalog(path: str | os.PathLike[str]) -> None:
    """Refuse a path of this machine that is neither a catalog file nor a folder.

    Raises:
        DataError: there is neither.
    """
    if not Path(path).is_dir():
        check_file(path, "catalog")


def check_source(source: CatalogConfig) -> None:
    """Refuse a source of scenes whose catalog, folder or lists are missing.

    Raises:
        DataError: the message names the path.
    """
    if source.layout == "stac":
        check_catalog(source.path)
    elif source.layout != "simulated":
        check_folder(source.path, "scenes")
    for split_list in source.split_lists:
        check_file(split_list, "split list")


def check_version(path: str | os.PathLike[str]) -> None:
    """Refuse a folder of this machine that holds no finished version of shards.

    Raises:
        DataError: the folder or its manifest is missing.
    """
    check_folder(path, "version")
    manifest = Path(path) / _MANIFEST
    if not is_remote(path) and not manifest.is_file():
        raise DataError(f"{manifest}: no manifest, so this is no finished version", "no_version")


def check_encoder(path: str | os.PathLike[str]) -> None:
    """Refuse a folder of this machine that holds no published model.

    Raises:
        DataError: the folder or its model card is missing.
    """
    check_folder(path, "encoder")
    card = Path(path) / _CARD
    if not is_remote(path) and not card.is_file():
        raise DataError(f"{card}: no model card, so this is no finished model", _REASON)
