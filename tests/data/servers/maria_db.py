"""Run a MariaDB server of this machine on a free port, in a folder of the test."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.metadata_store import MetadataConfig

USER, PASSWORD = "terrapair", "p4ss/w:rd @1"
_PATH = f"{os.environ['PATH']}:/usr/sbin"
_SECONDS = 30.0


class Server:
    """A server that can be killed and started again on the same data."""

    def __init__(self, folder: Path) -> None:
        self._data = folder / "mysql"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        options = ["--no-defaults", f"--datadir={self._data}"]
        # A server refuses to run as root unless it is told to.
        options += ["--user=root"] if os.getuid() == 0 else []
        authentication = "--auth-root-authentication-method=normal"
        installer = shutil.which("mariadb-install-db", path=_PATH)
        subprocess.run(
            [installer, *options, "--skip-test-db", authentication], check=True, capture_output=True
        )
        init = folder / "init.sql"
        init.write_text(
            f"CREATE USER '{USER}'@'%' IDENTIFIED BY '{PASSWORD}';\n"
            f"GRANT ALL ON `terrapair%`.* TO '{USER}'@'%';\n"
        )
        self.command = [
            shutil.which("mariadbd", path=_PATH),
            *options,
            f"--port={self.port}",
            "--bind-address=127.0.0.1",
            f"--socket={folder / 's'}",
            "--character-set-server=utf8mb4",
            "--skip-name-resolve",
        ]
        self.start(f"--init-file={init}")

    def config(self, database: str = "terrapair") -> MetadataConfig:
        return MetadataConfig(host="127.0.0.1", port=self.port, user=USER, database=database)

    def start(self, *options: str) -> None:
        self._process = subprocess.Popen([*self.command, *options], stderr=subprocess.DEVNULL)
        end = time.monotonic() + _SECONDS
        while time.monotonic() < end:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                    if connection.recv(16):
                        return
            except OSError:
                time.sleep(0.05)
        raise RuntimeError(f"MariaDB does not answer on port {self.port} after {_SECONDS:.0f} s")

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        # Also after a test killed it.
        self._process.wait()


@contextmanager
def running(folder: Path) -> Iterator[Server]:
    """Yield a server; skip the test where MariaDB is not installed."""
    for program in ("mariadbd", "mariadb-install-db"):
        if shutil.which(program, path=_PATH) is None:
            pytest.skip(f"{program} is not installed: apt-get install mariadb-server-core")
    server = Server(folder)
    try:
        yield server
    finally:
        server.kill()
