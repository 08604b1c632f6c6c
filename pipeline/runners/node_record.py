"""The record of a run that is done node by node: its settings, and how each node ended.

`<root>/runs/<run id>/` holds `config.yaml` and `nodes/<node>.json`. Every process of
the run reads it, so a scheduler need not carry anything from one node to the next. On
Kubeflow exit codes are lost, and this record is what later nodes go by.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Literal

from beam_jobs.contracts import settings
from beam_jobs.contracts.locations import Location, content_of, locate, staged
from beam_jobs.contracts.settings import SettingsError

BEGIN, REPORT = "begin", "report"
"""The tasks around the nodes of TFX."""
RUNS_DIR = "runs"
CONFIG_NAME = "config.yaml"
Outcome = Literal["done", "cached", "refused", "bad_data", "nothing_new", "skipped", "failed"]
"""How a node ended.

"cached": TFX took its outputs from the cache. "refused", "bad_data" and "nothing_new"
are results: a further try would end the same way. "skipped": a node before it has such
a result. "failed": an error, and a further try may succeed.
"""
GOOD: tuple[Outcome, ...] = ("done", "cached")
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
        began_at: UTC time of the last try, ISO 8601.
        ended_at: UTC time, ISO 8601.
    """

    node: str
    outcome: Outcome
    began_at: str
    ended_at: str
    exit_code: int = 0
    reason: str = ""
    origin: str = ""


class RunFolder:
    """The folder with the record of one run."""

    def __init__(self, root: str, run_id: str) -> None:
        """Name the folder; nothing is read or written.

        Args:
            root: of the run; may be on an object store.
            run_id: id that no other run of this root has.

        Raises:
            SettingsError: the id cannot be the name of a folder.
        """
        if not _RUN_ID.match(run_id):
            raise SettingsError(
                "--run-id: must be up to 100 letters, digits and . _ : + -, and begin with a "
                f"letter or digit, got {run_id!r}"
            )
        self.run_id = run_id
        self.path = f"{root.rstrip('/')}/{RUNS_DIR}/{run_id}"

    @property
    def config_path(self) -> Location:
        """File with the settings of the run."""
        return locate(self.path) / CONFIG_NAME

    def keep_config(self, text: str) -> None:
        """Write the settings of the run, if no node of it did so before.

        Args:
            text: the settings as YAML.

        Raises:
            SettingsError: the run has other settings.
        """
        path = self.config_path
        if not path.exists():
            with staged(path) as file:
                file.write_text(text)
        elif path.read_text() != text:
            raise SettingsError(
                f"{path}: run {self.run_id!r} was begun with other settings, and all its nodes "
                "must have the same: use them, or another --run-id"
            )

    def read(self, node: str) -> NodeRecord | None:
        """Return how a node ended; None: it has not ended.

        Raises:
            DamagedFileError: the file is not what was written.
        """
        path = self._path(node)
        if not path.exists():
            return None
        with content_of(path, "remove it and run the node again"):
            return settings.from_dict(NodeRecord, json.loads(path.read_text()))

    def write(self, record: NodeRecord) -> None:
        """Replace what is known of a node."""
        with staged(self._path(record.node)) as file:
            file.write_text(json.dumps(settings.to_dict(record), indent=2, sort_keys=True) + "\n")

    def _path(self, node: str) -> Location:
        return locate(self.path) / "nodes" / f"{node}.json"
