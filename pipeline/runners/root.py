"""The root of a run: one run at a time, under a name that TFX can read.

RunConfig -> a lock for as long as the command works, or an error of one line. A verb
such as `run` has the root for itself; nodes of a run work there side by side.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from beam_jobs.contracts.locations import list_tree, locate
from beam_jobs.contracts.settings import SettingsError
from beam_jobs.errors import DataError
from beam_jobs.storage import locks
from pipeline.config import RunConfig

LOCK_NAME = ".lock"
NODE_LOCKS_DIR = "locks"
"""Folder with a lock for each node that works: `<run id>/<node>`."""
_SPECIAL = re.compile(r"[*?\[\\{^$|]")
"""Characters with a meaning in TFX's patterns.

ExampleGen, StatisticsGen and Evaluator find their files by patterns of TensorFlow and
Beam, and ExampleGen reads span and version by a regular expression made of the path. In
none of them can a character of the path be quoted.

Source: tfx/components/example_gen/utils.py, `_glob_to_regex`; tfx/utils/io_utils.py,
`all_files_pattern`; apache_beam/io/filesystem.py, `translate_pattern`.
"""


def check_names(config: RunConfig) -> None:
    """Refuse a root that TFX would take for a pattern.

    Raises:
        SettingsError: the message names the character.
    """
    for name, path in (("root", config.root), ("local_root", config.local_root)):
        found = _SPECIAL.search(path)
        if found:
            raise SettingsError(
                f"{name}: must be a path without {found[0]!r}, got {path!r}: TFX takes the "
                "character for a part of a pattern and would not find the files; use another "
                "folder"
            )


@contextmanager
def hold(config: RunConfig) -> Iterator[None]:
    """Hold the folders of a run until the body ends.

    Raises:
        DataError: another `run`, `retrain`, `claim-check` or `cross-validate` works
            there, or a node.
    """
    with ExitStack() as held:
        for folder in dict.fromkeys(filter(None, (config.root, config.local_root))):
            path = f"{folder.rstrip('/')}/{LOCK_NAME}"
            held.enter_context(locks.hold(path, folder))
        # After the own lock, as nodes do: of two that begin at once, one at least sees
        # the other.
        nodes = locate(f"{config.root.rstrip('/')}/{NODE_LOCKS_DIR}")
        if found := locks.find_held(nodes / name for name in list_tree(nodes)):
            run_id, _, node = found.removeprefix(f"{nodes}/").partition("/")
            raise DataError(
                f"{config.root}: node {node} of run {run_id} works there; wait for the end of that "
                "run",
                "folder_in_use",
            )
        yield


@contextmanager
def hold_node(root: str, run_id: str, node: str) -> Iterator[None]:
    """Hold one node of a run until the body ends; other nodes may work beside it.

    Raises:
        DataError: another process runs the node, or a verb that needs the whole root
            works there.
    """
    base = root.rstrip("/")
    with locks.hold(f"{base}/{NODE_LOCKS_DIR}/{run_id}/{node}", f"node {node} of run {run_id}"):
        if locks.find_held([f"{base}/{LOCK_NAME}"]):
            raise DataError(
                f"{root}: `terrapair run`, or another verb for the whole root, works there; wait "
                f"for it, then run node {node} again",
                "folder_in_use",
            )
        yield
