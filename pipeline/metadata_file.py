"""Check the SQLite file of ML Metadata before a run or a report opens it.

ML Metadata answers a damaged, locked or foreign file with a bare text of its C++ code,
after TFX was imported. SQLite's own module finds the same in milliseconds.
"""

from __future__ import annotations

import sqlite3
import urllib.parse
from contextlib import closing
from pathlib import Path

from beam_jobs.contracts.reasons import Reason
from beam_jobs.errors import DataError

SCHEMA_VERSION = 10
"""Version of the tables that ml-metadata 1.16 and 1.17 read.

Source: ml_metadata/util/metadata_source_query_config.cc, schema_version.
"""
_REASON: Reason = "bad_metadata"
_WAIT_SECONDS = 5.0
"""A run holds the file for milliseconds at a time."""


def check_metadata(path: str | Path, is_written: bool) -> None:
    """Refuse a file that ML Metadata could not use; no file at all is fine.

    Args:
        path: of the SQLite file.
        is_written: whether a run will write it; a report only reads.

    Raises:
        DataError: the file is no database, is damaged, locked, or has the tables of
            another version.
    """
    file = Path(path)
    if not file.exists():
        return
    cure = f"move it away (`mv {file} {file}.damaged`) and run again: all components then run"
    if file.is_dir():
        raise DataError(f"{file}: must be the file of ML Metadata, got a folder: {cure}", _REASON)
    if is_written and not file.stat().st_size:
        # A run that was killed at its start leaves it; ML Metadata makes the tables.
        return
    mode = "rw" if is_written else "ro"
    uri = f"file:{urllib.parse.quote(str(file))}?mode={mode}"
    try:
        with closing(sqlite3.connect(uri, uri=True, timeout=_WAIT_SECONDS)) as database:
            (state,) = database.execute("PRAGMA quick_check(1)").fetchone()
            if state != "ok":
                raise sqlite3.DatabaseError(" ".join(str(state).split()))
            version = _schema_version(database)
            if is_written:
                database.execute("BEGIN IMMEDIATE")
                database.rollback()
    except sqlite3.OperationalError as error:
        if "locked" not in str(error):
            raise DataError(
                f"{file}: cannot open it ({error}): check its rights", _REASON
            ) from error
        raise DataError(
            f"{file}: another process holds the metadata of this run for longer than "
            f"{_WAIT_SECONDS:.0f} s: wait for it, or end it",
            "folder_in_use",
        ) from error
    except sqlite3.DatabaseError as error:
        raise DataError(
            f"{file}: must be the database of ML Metadata, but is damaged or something else "
            f"({error}): {cure}; published models stay",
            _REASON,
        ) from error
    if version != SCHEMA_VERSION:
        found = "no tables of it" if version is None else f"tables of version {version}"
        raise DataError(
            f"{file}: ML Metadata needs tables of version {SCHEMA_VERSION}, got {found}: {cure}, "
            "or use the ml-metadata that wrote it",
            _REASON,
        )


def _schema_version(database: sqlite3.Connection) -> int | None:
    """Return the version of ML Metadata's tables; None: there are none."""
    tables = database.execute("SELECT name FROM sqlite_master WHERE name = 'MLMDEnv'").fetchall()
    if not tables:
        return None
    row = database.execute("SELECT schema_version FROM MLMDEnv").fetchone()
    return None if row is None else int(row[0])
