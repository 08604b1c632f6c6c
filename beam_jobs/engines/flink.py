"""A Flink cluster as its REST interface tells of it.

Input: the address of the JobManager. Output: its version, whether it restarts jobs, and
its jobs, which can be cancelled.

Source: https://nightlies.apache.org/flink/flink-docs-release-1.19/docs/ops/rest_api/
"""

from __future__ import annotations

import json
import logging
import time
import urllib.error
import urllib.request
from typing import Any

from beam_jobs.contracts.settings import SettingsError
from beam_jobs.errors import DataError

EMBEDDED = ("[local]", "[auto]")
"""Masters that are no address: Beam's job server starts a cluster in itself, or infers
one from its own configuration."""
ENDED_STATES = ("FAILED", "CANCELED", "FINISHED")
_TIMEOUT_SECONDS = 10.0
_CANCEL_SECONDS = 60.0
_LOOK_SECONDS = 0.5
_NO_RESTART = ("", "none", "off", "disable")
"""Restart strategies under which a job fails at the first lost TaskManager."""
_LOGGER = logging.getLogger(__name__)


def address(master: str) -> str:
    """Return the URL of a `--flink_master`; "" = it names no cluster to ask."""
    master = master.strip().rstrip("/")
    if master in EMBEDDED:
        return ""
    return master if master.startswith(("http://", "https://")) else f"http://{master}"


def check(master: str, version: str) -> None:
    """Check that a cluster fits a job, and warn if it does not restart jobs.

    Beam's option `number_of_execution_retries` is no way out: it works for streams only
    (FlinkExecutionEnvironments of Beam 2.70).

    Args:
        master: URL of the REST interface; see `address`.
        version: of `--flink_version`, such as "1.19".

    Raises:
        DataError: reason no_answer; the cluster does not answer.
        SettingsError: it has another version.
    """
    found = str(_ask(master, "config").get("flink-version", ""))
    if found and ".".join(found.split(".")[:2]) != version:
        minor = ".".join(found.split(".")[:2])
        raise SettingsError(
            f"the Flink cluster at {master} is version {found}, and --flink_version is {version}: "
            f"give --flink_version={minor} and a job server of that version"
        )
    config = {entry["key"]: entry["value"] for entry in _ask(master, "jobmanager/config")}
    strategy = config.get("restart-strategy.type", config.get("restart-strategy", ""))
    if str(strategy).lower() in _NO_RESTART:
        _LOGGER.warning(
            "the Flink cluster at %s has no restart strategy: the job fails when one TaskManager "
            "is lost; set restart-strategy.type to fixed-delay in Flink's config.yaml (see "
            "deploy/flink/config.yaml)",
            master,
        )


def cancel(master: str, job_name: str) -> bool:
    """Cancel the running jobs of a name, wait for their end, return if there were any.

    Raises:
        DataError: reason no_answer; the cluster does not answer. Or reason
            folder_in_use; a job does not end in time.
    """
    running = _running(master, job_name)
    for job_id in running:
        _ask(master, f"jobs/{job_id}?mode=cancel", method="PATCH")
    deadline = time.monotonic() + _CANCEL_SECONDS
    while left := _running(master, job_name):
        if time.monotonic() > deadline:
            raise DataError(
                f"the Flink job {left[0]} at {master} was told to stop {_CANCEL_SECONDS:g} s ago "
                "and still runs, perhaps still writes: cancel it, then run the same command again",
                "folder_in_use",
            )
        time.sleep(_LOOK_SECONDS)
    return bool(running)


def _running(master: str, job_name: str) -> list[str]:
    """Return the ids of the jobs of a name that have not ended."""
    jobs = _ask(master, "jobs/overview")["jobs"]
    return [
        job["jid"] for job in jobs if job["name"] == job_name and job["state"] not in ENDED_STATES
    ]


def _ask(master: str, path: str, method: str = "GET") -> Any:
    request = urllib.request.Request(f"{master}/{path}", method=method)
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as answer:
            return json.loads(answer.read() or b"{}")
    except (OSError, ValueError) as error:
        why = error.reason if isinstance(error, urllib.error.URLError) else error
        raise DataError(
            f"no Flink cluster answers at {master} ({why}): check --flink_master, which is the "
            "address of its REST interface",
            "no_answer",
        ) from error
