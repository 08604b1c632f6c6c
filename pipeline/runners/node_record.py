"""The record of a run that is done node by node: its settings, and how each node ended.

`<root>/runs/<run id>/` holds `config.yaml` and `nodes/<node>.json`. Every process of
the run reads it, so a scheduler need not carry anything from one node to the next. On
Kubeflow exit codes are lost, and this record is what later nodes go by.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from beam_jobs.contracts import settings
from beam_jobs.contracts.locations import content_of, glob, locate, staged
from beam_jobs.contracts.settings import SettingsError
from pipeline.runners.retrying import RetryConfig, retried

T = TypeVar("T")

BEGIN, REPORT = "begin", "report"
"""The tasks around the nodes of TFX."""
RUNS_DIR = "runs"
CONFIG_NAME = "config.yaml"
RESULT_NAME = "result.json"
"""How the run ended; written by "report"."""
_LOGGER = logging.getLogger(__name__)
Outcome = Literal["done", "cached", "refused", "bad_data", "nothing_new", "skipped", "failed"]
"""How a node ended.

"cached": TFX took its outputs from the cache. "refused", "bad_data" and "nothing_new"
are results: a further try would end the same way. "skipped": a node before it has such
a result. "failed": an error, and a further try may succeed.
"""
GOOD: tuple[Outcome, ...] = ("done", "cached")
_TO_AN_END = ("published", "refused", "nothing_new")
"""Outcomes of a run after which the same data need no further one; see `RunEnd`."""
_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:+-]{0,99}$")


@dataclass(frozen=True, kw_only=True)
class NodeRecord:
    """How one node of a run ended.

    Attributes:
        node: its id.
        outcome: how it ended.
        exit_code: that of DESIGN.md's table, 0 after a skip.
        reason: one sentence; "" for a good end.
        origin: node whose result the reason tells; "" for a good end.
        version: "span.version" of its data set that a data job built or found; "" for
            other nodes.
        began_at: UTC time of the last try, ISO 8601.
        ended_at: UTC time, ISO 8601.
        peak_mib: largest memory of the process that ran it, in MiB; 0 = unknown. A pod
            needs this much, and what Kubeflow's own programs need.
    """

    node: str
    outcome: Outcome
    began_at: str
    ended_at: str
    exit_code: int = 0
    reason: str = ""
    origin: str = ""
    version: str = ""
    peak_mib: float = 0.0


def stopping(records: Iterable[NodeRecord]) -> list[NodeRecord]:
    """Return the records that keep later nodes from running.

    A data job without new scenes does not, if another data set of the run has some.
    """
    listed = list(records)
    some_are_new = any(one.version and one.outcome in GOOD for one in listed)
    return [
        one
        for one in listed
        if one.outcome not in GOOD
        and not (one.version and one.outcome == "nothing_new" and some_are_new)
    ]


class RunFolder:
    """The folder with the record of one run."""

    def __init__(self, root: str, run_id: str, retries: RetryConfig | None = None) -> None:
        """Name the folder; nothing is read or written.

        Args:
            root: of the run; may be on an object store.
            run_id: id that no other run of this root has.
            retries: of reading and writing, after transient faults of the store; None =
                the defaults.

        Raises:
            SettingsError: the id cannot be the name of a folder.
        """
        if not _RUN_ID.match(run_id):
            raise SettingsError(
                "--run-id: must be up to 100 letters, digits and . _ : + -, and begin with a "
                f"letter or digit, got {run_id!r}"
            )
        self.run_id = run_id
        self._retries = retries or RetryConfig()
        self.root = root.rstrip("/")
        self.path = f"{self.root}/{RUNS_DIR}/{run_id}"

    @property
    def config_path(self) -> str:
        """File with the settings of the run."""
        return f"{self.path}/{CONFIG_NAME}"

    def read_config(self) -> str | None:
        """Return the settings of the run as YAML; None: it was not begun."""
        return self._read(self.config_path)

    def keep_config(self, text: str) -> None:
        """Write the settings of the run, if no node of it did so before.

        Args:
            text: the settings as YAML.

        Raises:
            SettingsError: the run has other settings.
        """
        kept = self.read_config()
        if kept is None:
            self._write(self.config_path, text)
        elif kept != text:
            raise SettingsError(
                f"{self.config_path}: run {self.run_id!r} was begun with other settings, and all "
                "its nodes must have the same: use them, or another --run-id"
            )

    def read(self, node: str) -> NodeRecord | None:
        """Return how a node ended; None: it has not ended.

        Raises:
            DamagedFileError: the file is not what was written.
        """
        path = f"{self.path}/nodes/{node}.json"
        text = self._read(path)
        if text is None:
            return None
        with content_of(path, "remove it and run the node again"):
            return settings.from_dict(NodeRecord, json.loads(text))

    def write(self, record: NodeRecord) -> None:
        """Replace what is known of a node."""
        self._write_json(f"nodes/{record.node}.json", settings.to_dict(record))

    def versions_of_ended_runs(self, node: str) -> set[str]:
        """Return the versions of a data job that runs of this root have used.

        A run that failed has not, so the next one takes its data.

        Raises:
            DamagedFileError: the result of a run is not what was written.
        """
        found = set()
        runs = f"{self.root}/{RUNS_DIR}"
        for path in self._patiently(lambda: glob(runs, f"*/{RESULT_NAME}")):
            with content_of(path, "remove it"):
                document = json.loads(self._patiently(path.read_text))
                if document["outcome"] in _TO_AN_END and node in document["nodes"]:
                    found.add(document["nodes"][node].get("version", ""))
        return found - {""}

    def write_result(self, document: Mapping[str, Any]) -> None:
        """Replace what is known of the end of the run."""
        self._write_json(RESULT_NAME, document)

    def _write_json(self, name: str, document: Mapping[str, Any]) -> None:
        text = json.dumps(document, indent=2, sort_keys=True)
        self._write(f"{self.path}/{name}", f"{text}\n")

    def _read(self, path: str) -> str | None:
        def read() -> str | None:
            file = locate(path)
            return file.read_text() if file.exists() else None

        return self._patiently(read)

    def _write(self, path: str, text: str) -> None:
        def write() -> None:
            with staged(path) as file:
                file.write_text(text)

        self._patiently(write)

    def _patiently(self, work: Callable[[], T]) -> T:
        return retried(
            work,
            self._retries,
            f"record of run {self.run_id}",
            lambda line, _: _LOGGER.warning(line),
        )
