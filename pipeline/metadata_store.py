"""Where ML Metadata is: an SQLite file, or a MySQL database that many machines share.

MetadataConfig and the environment -> a Place, which is checked and opened here. The
password is read from the environment, and neither a config nor a message shows it.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from beam_jobs.contracts.errors import TerrapairError
from beam_jobs.contracts.settings import SettingsError
from pipeline.metadata_file import check_metadata

ANSWER_SECONDS = 10.0
"""How long a database may take for its first packet."""
_NAME = re.compile(r"[A-Za-z0-9_$-]{1,64}$")
_HEADER_BYTES = 4
_GREETINGS = (10, 255)
"""First byte of a server's first packet: the protocol's version, or an error.

Source: MySQL manual, "Connection Phase"; the three bytes before are the length.
"""


class UnreachableDatabaseError(TerrapairError, RuntimeError):
    """The database cannot be reached, or was lost; a later try may succeed."""


@dataclass(frozen=True, kw_only=True)
class MetadataConfig:
    """A database of MySQL or MariaDB that holds ML Metadata.

    Attributes:
        host: name or address of the server.
        port: of the server.
        database: its name; ML Metadata makes it and its tables, if the user may.
        user: of the database.
        password_variable: environment variable with the password. The password itself
            is in no file.
    """

    host: str
    port: int = 3306
    database: str = "terrapair"
    user: str = "root"
    password_variable: str = "TERRAPAIR_METADATA_PASSWORD"

    def __post_init__(self) -> None:
        if not self.host or "/" in self.host or "@" in self.host:
            raise ValueError(f"host must be the name or address of a server, got {self.host!r}")
        if not 1 <= self.port <= 65535:
            raise ValueError(f"port must be within 1-65535, got {self.port}")
        if not _NAME.match(self.database):
            raise ValueError(
                f"database must be up to 64 letters, digits, _, $ and -, got {self.database!r}"
            )
        if not self.user:
            raise ValueError("user must not be empty")

    def __str__(self) -> str:
        return f"mysql://{self.user}@{self.host}:{self.port}/{self.database}"


@dataclass(frozen=True, kw_only=True)
class Database:
    """A database with the password for it; its text does not show the password."""

    config: MetadataConfig
    password: str = field(repr=False)

    def __str__(self) -> str:
        return str(self.config)


Place = str | Path | Database
"""Path of an SQLite file, or a database."""


def find_place(database: MetadataConfig | None, path: str, environment: Mapping[str, str]) -> Place:
    """Return where the metadata of a run are.

    Args:
        database: `metadata` of the run's config.
        path: SQLite file that a run without a database has.
        environment: variables of the process.

    Raises:
        SettingsError: the variable with the password is not set. An empty one is a
            password.
    """
    if database is None:
        return path
    password = environment.get(database.password_variable)
    if password is None:
        raise SettingsError(
            f"{database.password_variable}: must hold the password of {database.user} at "
            f"{database.host}:{database.port}, which metadata names: export it, or name another "
            "variable in metadata.password_variable"
        )
    return Database(config=database, password=password)


def connection_config(place: Place, *, is_written: bool = True) -> Any:
    """Return the ConnectionConfig with which ML Metadata opens a place.

    Args:
        place: where the metadata are.
        is_written: False opens an SQLite file for reading alone.
    """
    from ml_metadata import proto

    config = proto.ConnectionConfig()
    if isinstance(place, Database):
        found = place.config
        config.mysql.host, config.mysql.port = found.host, found.port
        config.mysql.database, config.mysql.user = found.database, found.user
        config.mysql.password = place.password
        return config
    modes = proto.SqliteMetadataSourceConfig
    config.sqlite.filename_uri = str(place)
    config.sqlite.connection_mode = modes.READWRITE_OPENCREATE if is_written else modes.READONLY
    return config


def check_place(place: Place, *, is_written: bool) -> None:
    """Refuse metadata that a run could not use, before TFX is imported.

    Args:
        place: an SQLite file, or a database, which is opened once.
        is_written: whether a run will write it; a report only reads.

    Raises:
        DataError: see `check_metadata`.
        UnreachableDatabaseError: no MySQL server answers.
        SettingsError: the server refuses user, password or database.
    """
    if not isinstance(place, Database):
        check_metadata(place, is_written)
        return
    check_reachable(place)
    from ml_metadata import metadata_store

    try:
        with _without_stderr():
            metadata_store.MetadataStore(connection_config(place))
    except RuntimeError as error:
        raise refused(place) from error


def refused(place: Database) -> SettingsError:
    """Return the error about a server that answers and does not let ML Metadata in.

    ML Metadata does not say why, not even for a wrong password.
    """
    found = place.config
    return SettingsError(
        f"metadata: the server at {found.host}:{found.port} refuses user {found.user!r} or "
        f"database {found.database!r}: check the password in {found.password_variable}, the "
        "user's rights, and that the user signs in by mysql_native_password"
    )


def check_reachable(place: Place) -> None:
    """Wait for the first packet of a database's server; a file always passes.

    ML Metadata says nothing about a server that is not there but "errno: , error: ".

    Raises:
        UnreachableDatabaseError: there is no connection within `ANSWER_SECONDS`, or
            what answers is no MySQL server.
    """
    if not isinstance(place, Database):
        return
    found = place.config
    why = ""
    try:
        address = (found.host, found.port)
        with socket.create_connection(address, timeout=ANSWER_SECONDS) as connection:
            packet = b""
            while len(packet) <= _HEADER_BYTES:
                received = connection.recv(1024)
                if not received:
                    break
                packet += received
        if len(packet) <= _HEADER_BYTES or packet[_HEADER_BYTES] not in _GREETINGS:
            why = "does not answer as MySQL does"
    except TimeoutError:
        why = f"did not answer within {ANSWER_SECONDS:.0f} s"
    except OSError as error:
        why = f"cannot be reached ({error.strerror or error})"
    if why:
        raise UnreachableDatabaseError(
            f"{place}: the database {why}: check that it runs, metadata.host and metadata.port, "
            "then run the same command again"
        )


@contextlib.contextmanager
def _without_stderr() -> Iterator[None]:
    """Keep what ML Metadata's C++ code prints about a failure off the terminal."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "w") as nothing:
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
