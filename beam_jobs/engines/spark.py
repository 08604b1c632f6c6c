"""A Spark cluster: whether its master answers.

Input: the address of the master. Output: nothing, or one line that says what is wrong.
Spark itself tries for minutes and then prints a traceback of Java.
"""

from __future__ import annotations

import socket

from beam_jobs.contracts.settings import SettingsError
from beam_jobs.errors import DataError

_SCHEME = "spark://"
_TIMEOUT_SECONDS = 10.0


def check(master: str) -> None:
    """Check that one of the masters of `spark://HOST:PORT,HOST:PORT` answers.

    Masters of other kinds, such as `local[4]` and `yarn`, are not asked.

    Raises:
        SettingsError: a master has no port.
        DataError: reason no_answer; none of them takes a connection.
    """
    if not master.startswith(_SCHEME):
        return
    why = ""
    for place in master.removeprefix(_SCHEME).split(","):
        host, _, port = place.rpartition(":")
        if not host or not port.isdigit():
            raise SettingsError(f"--spark_master_url={master}: must be spark://HOST:PORT")
        try:
            socket.create_connection((host, int(port)), _TIMEOUT_SECONDS).close()
        except (OSError, OverflowError) as error:
            why = str(error)
        else:
            return
    raise DataError(
        f"no Spark master answers at {master} ({why}): check --spark_master_url", "no_answer"
    )
