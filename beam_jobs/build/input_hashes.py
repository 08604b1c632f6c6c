"""Input hashes: one hash of everything that a build reads from its catalogs.

Input: catalogs. Output: a SHA-256 over their items and the content of the files that
they name. Equal hashes mean equal input, wherever the files lie on this machine and
whenever they were copied. Names and times are not part of the hash.

To read every file again before each build would be slow. So a `FileRecord` on disk
holds size, times and hash of each file. A file whose size and times are those of the
record is not read again, unless the caller asks for it. A file that was only touched is
read once and has the same hash as before. Objects of a store are not read at all: their
size and the checksum that the store keeps (the ETag on S3, CRC32C on Google's) stand
for their content.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import os
import sqlite3
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from beam_jobs.build import input_files
from beam_jobs.catalogs import catalog
from beam_jobs.contracts import locations
from beam_jobs.contracts.locations import Location
from beam_jobs.contracts.object_store import is_remote
from beam_jobs.storage import files

RECORD_NAME = ".input-files.sqlite"
"""Name of the record in the folder of an output. It may be deleted at any time."""
NUM_PARALLEL_REQUESTS = 32
"""Objects that a store is asked about at a time."""
SETTLED_SECONDS = 2.0
"""Age that a file must have before its times are believed.

Some file systems keep times in steps of up to two seconds (FAT; NFS and ext3: one). A
file that changes twice within one step has the same times after both changes. Git has
the same rule; see its "racy-git" document.
"""
_ITEMS_AT_A_TIME = 1024
_BLOCK_BYTES = 1 << 20
_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Look:
    """What the system says of a file without reading it.

    The time of the last change of its entry (ctime) is part of it, because programs
    such as `cp -p` and `rsync -t` set the other time back.
    """

    size: int
    mtime_ns: int
    ctime_ns: int

    @staticmethod
    def at(found: os.stat_result) -> _Look:
        return _Look(found.st_size, found.st_mtime_ns, found.st_ctime_ns)


class FileRecord:
    """A record of input files: path -> size, times and SHA-256 of the content.

    It lies on disk, so memory does not grow with the number of files. If its file
    cannot be opened or is damaged, every file is read, which is slower and also right.
    """

    def __init__(self, path: str | os.PathLike[str] | None, believe: bool = True) -> None:
        """Open a record.

        Args:
            path: the SQLite file of this machine; None = keep nothing.
            believe: False = read every file, and only write to the record.
        """
        self._believe = believe
        self._database: sqlite3.Connection | None = None
        if path is not None:
            self._database = _opened(Path(path))

    def known(self, path: str, look: _Look) -> bytes | None:
        """Return the hash of a file if the record has it with the same look."""
        if self._database is None or not self._believe:
            return None
        try:
            row = self._database.execute(
                "SELECT size, mtime_ns, ctime_ns, sha256 FROM files WHERE path = ?",
                (os.fsencode(path),),
            ).fetchone()
        except sqlite3.Error as error:
            self._give_up(error)
            return None
        return row[3] if row is not None and _Look(*row[:3]) == look else None

    def add(self, entries: Iterable[tuple[str, _Look, bytes]]) -> None:
        """Keep the hashes of files."""
        if self._database is None:
            return
        try:
            with self._database:
                self._database.executemany(
                    "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?)",
                    (
                        (os.fsencode(path), look.size, look.mtime_ns, look.ctime_ns, digest)
                        for path, look, digest in entries
                    ),
                )
        except sqlite3.Error as error:
            self._give_up(error)

    def close(self) -> None:
        """Close the file."""
        if self._database is not None:
            self._database.close()
            self._database = None

    def _give_up(self, error: sqlite3.Error) -> None:
        _LOGGER.warning("the record of input files is not used, all are read: %s", error)
        self.close()


@contextmanager
def opened(path: str | os.PathLike[str] | None, believe: bool = True) -> Iterator[FileRecord]:
    """Open a FileRecord for a `with` block; arguments as for the class."""
    record = FileRecord(path, believe)
    try:
        yield record
    finally:
        record.close()


def _opened(path: Path) -> sqlite3.Connection | None:
    """Return the open database; None when it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return _with_table(path)
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError:
            # Damaged. It holds nothing that cannot be read again, so begin a new one.
            path.unlink()
            return _with_table(path)
    except (sqlite3.Error, OSError) as error:
        _LOGGER.warning("%s: the record of input files is not used: %s", path, error)
        return None


def _with_table(path: Path) -> sqlite3.Connection:
    # Another build may be writing: wait for it for up to 30 seconds.
    database = sqlite3.connect(path, timeout=30.0)
    try:
        database.execute(
            "CREATE TABLE IF NOT EXISTS files (path BLOB PRIMARY KEY, size INTEGER, "
            "mtime_ns INTEGER, ctime_ns INTEGER, sha256 BLOB) WITHOUT ROWID"
        )
        database.execute("SELECT path, size, mtime_ns, ctime_ns, sha256 FROM files LIMIT 1")
    except sqlite3.Error:
        database.close()
        raise
    return database


def content_sha256(
    catalogs: Sequence[str | os.PathLike[str]],
    record: FileRecord | None = None,
    unread: Collection[str] = (),
) -> str:
    """Return a hash of the catalogs' items and of the content of their files.

    The order of the catalogs does not matter, and neither does the folder in which a
    file lies. A file that is missing counts as missing; the build rejects its scene.

    Args:
        catalogs: paths or URIs.
        record: what is known of files; None = read all of them.
        unread: names of assets whose files the build does not read.

    Raises:
        DataError: a catalog cannot be read.
    """
    digests = []
    with ThreadPoolExecutor(NUM_PARALLEL_REQUESTS) as pool:
        hasher = _Hasher(pool, record or FileRecord(None), unread)
        for path in catalogs:
            folder = locations.parse(path).parent
            digest = hashlib.sha256()
            items = catalog.read_items(path)
            while chunk := list(itertools.islice(items, _ITEMS_AT_A_TIME)):
                for part in hasher.digests(chunk, folder):
                    digest.update(part)
            digests.append(digest.hexdigest())
    return hashlib.sha256("".join(sorted(digests)).encode()).hexdigest()


class _Hasher:
    """Hashes items with the content of their files, a chunk of items at a time."""

    def __init__(
        self, pool: ThreadPoolExecutor, record: FileRecord, unread: Collection[str]
    ) -> None:
        self._pool, self._record, self._unread = pool, record, unread
        # Thousands of items in a row may lie in one archive.
        self._latest: dict[str, tuple[_Look, bytes]] = {}

    def digests(self, items: Sequence[dict[str, Any]], folder: Location) -> Iterator[bytes]:
        """Yield a digest of each item."""
        places = [
            [(href, input_files.located(href, folder)) for href in _hrefs(item, self._unread)]
            for item in items
        ]
        paths = {path for found in places for _, path in found if path is not None}
        remote = sorted(filter(is_remote, paths))
        content = dict(zip(remote, self._pool.map(_stored, remote), strict=True))
        content |= self._read_here(sorted(paths.difference(remote)))
        for item, found in zip(items, places, strict=True):
            digest = hashlib.sha256()
            names = {
                href: _name(href) for href, path in found if path is not None and content[path]
            }
            digest.update(_canonical(item, names))
            for _, path in found:
                digest.update((content[path] if path is not None else b"") or b"missing")
                digest.update(b";")
            yield digest.digest()

    def _read_here(self, paths: Sequence[str]) -> dict[str, bytes]:
        """Return path -> digest of the files behind it; empty = there is none."""
        behind = {path: input_files.files_of(path) for path in paths}
        hashes = self._hashes(dict.fromkeys(itertools.chain(*behind.values())))
        return {
            path: b"".join(
                hashlib.sha256(os.path.basename(file).encode(errors="surrogateescape")).digest()
                + hashes[file]
                for file in found
            )
            for path, found in behind.items()
        }

    def _hashes(self, wanted: Iterable[str]) -> dict[str, bytes]:
        hashes: dict[str, bytes] = {}
        latest: dict[str, tuple[_Look, bytes]] = {}
        unknown: list[str] = []
        for file in wanted:
            look = _look(file)
            before = self._latest.get(file)
            if before is not None and before[0] == look:
                latest[file], hashes[file] = before, before[1]
            elif look is not None and (digest := self._record.known(file, look)) is not None:
                hashes[file] = digest
            else:
                unknown.append(file)
        read = list(self._pool.map(_read, unknown))
        hashes |= {file: digest for file, (_, digest) in zip(unknown, read, strict=True)}
        settled = [
            (file, look, digest)
            for file, (look, digest) in zip(unknown, read, strict=True)
            if look is not None
        ]
        if settled:
            self._record.add(settled)
        self._latest = latest | {file: (look, digest) for file, look, digest in settled}
        return hashes


def _look(file: str) -> _Look | None:
    try:
        return _Look.at(os.stat(file))
    except OSError:
        return None


def _read(file: str) -> tuple[_Look | None, bytes]:
    """Return the hash of a file, and its look if that can be believed later.

    A file that cannot be read has the hash of nothing; the build tells why.
    """
    digest, begun = hashlib.sha256(), time.time()
    try:
        with open(file, "rb") as content:
            before = os.fstat(content.fileno())
            while block := content.read(_BLOCK_BYTES):
                digest.update(block)
            after = os.fstat(content.fileno())
    except OSError:
        return None, b"unreadable"
    look = _Look.at(after)
    age = begun - max(look.mtime_ns, look.ctime_ns) / 1e9
    is_settled = look == _Look.at(before) and age >= SETTLED_SECONDS
    return (look if is_settled else None), digest.digest()


def _stored(uri: str) -> bytes:
    """Return what a store says of an object's content; empty = there is none."""
    return (files.stored_content(uri) or "").encode()


def _hrefs(item: dict[str, Any], unread: Collection[str]) -> list[str]:
    assets = item.get("assets")
    found = [
        asset
        for name, asset in (assets.items() if isinstance(assets, dict) else ())
        if name not in unread
    ]
    return [str(asset.get("href", "") if isinstance(asset, dict) else "") for asset in found]


def _name(href: str) -> str:
    """Return an href without its folder, which says nothing of the content."""
    file, sign, member = href.partition("#")
    return f"{file.rpartition('/')[2]}{sign}{member}"


def _canonical(item: dict[str, Any], names: dict[str, str]) -> bytes:
    assets = item.get("assets")
    if isinstance(assets, dict) and names:
        assets = {
            key: {**asset, "href": names.get(str(asset.get("href", "")), asset.get("href"))}
            if isinstance(asset, dict)
            else asset
            for key, asset in assets.items()
        }
        item = {**item, "assets": assets}
    return json.dumps(item, sort_keys=True).encode()
