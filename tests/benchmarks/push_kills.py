"""Kill a process that publishes models, again and again, and look at what it left.

`python -m tests.benchmarks push_kills push_kills_on_store` kills 100 times on a disk
and 20 times on a loopback S3 server. The kills are spread over the steps of a
publication: each file that is copied, the removal of the hidden copy, the history and
the labels. After each kill, what `stable` means must load and answer, and so must every
complete version. Then the next process publishes a model, and nothing of the killed one
may be left.
"""

from __future__ import annotations

import collections
import itertools
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))

import make_segmenter
import s3_server

_NUM_KILLS = {"disk": 100, "store": 20}
_LONGEST_SECONDS = {"disk": 0.003, "store": 0.03}
"""How long after a step began the process is killed, at most."""
_PUBLISHER = """
import os
import sys

from beam_jobs.contracts import object_store
from models.publishing import labels, store
from models.publishing.publication import Approval, publish

def told(name, function):
    def call(*arguments, **named):
        target = os.fspath(arguments[-1]) if name == "copy" else ""
        what = f"{name} {target.removeprefix(sys.argv[1] + '/')}"
        print("began", what, flush=True)
        found = function(*arguments, **named)
        print("ended", what, flush=True)
        return found
    return call

object_store.load_filesystem(sys.argv[1])
store.locations.copy_file = told("copy", store.locations.copy_file)
store.locations.remove_tree = told("remove", store.locations.remove_tree)
os.rename = told("rename", os.rename)
labels.note = told("history", labels.note)
labels.put = told("labels", labels.put)
while True:
    for model in sys.argv[2:]:
        publish(model, sys.argv[1], Approval(reason="drill"))
"""


@dataclass(frozen=True, kw_only=True)
class _Left:
    """What a kill left: faults, and names of numbered folders that hold no model."""

    faults: Sequence[str]
    half: Sequence[str]


def measure() -> dict[str, object]:
    """Return the kills, versions and faults on a disk."""
    with tempfile.TemporaryDirectory() as name:
        return _drill(f"{name}/serving/flood", _models(Path(name)), "disk", dict(os.environ))


def measure_on_store() -> dict[str, object]:
    """Return the same on an object store."""
    with tempfile.TemporaryDirectory() as name, s3_server.running() as variables:
        os.environ.update(variables)
        model_dir = f"{s3_server.new_folder('push-kills')}/flood"
        return _drill(model_dir, _models(Path(name)), "store", dict(os.environ))


def _models(folder: Path) -> list[str]:
    """Return the folders of two models, large enough that a kill can hit the copy."""
    models = []
    for word in ("first", "second"):
        models.append(make_segmenter.publish(folder / word, {"s1": ("VV", "VH")}, name=word))
        (folder / word / "assets.extra" / "weights.bin").write_bytes(os.urandom(2 << 20))
    return models


def _drill(
    model_dir: str, models: list[str], kind: str, environment: Mapping[str, str]
) -> dict[str, object]:
    from beam_jobs.contracts import object_store, published
    from models.publishing import labels, store
    from models.publishing.publication import Approval, is_in_service, publish

    object_store.load_filesystem(model_dir)
    rng = random.Random(0)
    steps = _steps(model_dir, models, environment)
    where = itertools.islice(itertools.cycle(range(steps)), _NUM_KILLS[kind])
    faults: list[str] = []
    half: list[str] = []
    fell: collections.Counter[str] = collections.Counter()
    for step in where:
        pause = rng.uniform(0.0, _LONGEST_SECONDS[kind])
        fell[_kill(model_dir, models, step, pause, environment)] += 1
        left = _look(model_dir)
        faults += left.faults
        half += left.half
        model = next(one for one in models if not is_in_service(one, model_dir))
        version = publish(model, model_dir, Approval(reason="after a kill"))
        if published.in_service(model_dir) != version:
            faults.append(f"{version} is not in service")
        if _look(model_dir).half or any(
            path.name.startswith(store.HIDDEN) for path in store.locate(model_dir).iterdir()
        ):
            faults.append(f"something is left beside {version}")
    return {
        "num_kills": _NUM_KILLS[kind],
        "killed_at": dict(sorted(fell.items())),
        "last_version": int(version.name),
        "num_changes": len(labels.read_history(model_dir)),
        "numbers_without_model": half,
        "faults": faults,
    }


def _steps(model_dir: str, models: list[str], environment: Mapping[str, str]) -> int:
    """Return how many steps a process takes until it has published both models."""
    with _publisher(model_dir, models, environment) as process:
        lines = (line.split() for line in process.stdout or ())
        began = (name for word, name, *_ in lines if word == "began")
        count = num_labels = 0
        while num_labels < len(models):
            num_labels += next(began) == "labels"
            count += 1
        process.kill()
    return count


def _kill(
    model_dir: str, models: list[str], step: int, pause: float, environment: Mapping[str, str]
) -> str:
    """Kill a publisher some time after it began a step; return where that was."""
    with _publisher(model_dir, models, environment) as process:
        assert process.stdout is not None
        seen: list[str] = []
        while sum(line.startswith("began") for line in seen) <= step:
            seen.append(process.stdout.readline())
            if not seen[-1]:
                raise RuntimeError("the publisher ended by itself")
        time.sleep(pause)
        process.kill()
        seen += process.stdout.readlines()
    word, name, *target = seen[-1].split()
    when = "in" if word == "began" else "after"
    if not target:
        return f"{when} {name}"
    # The number of a version, or of its hidden copy, says nothing.
    folder, _, file = target[0].partition("/")
    return f"{when} {'the hidden copy' if folder.startswith('.') else 'the number'}: {file}"


def _publisher(
    model_dir: str, models: list[str], environment: Mapping[str, str]
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _PUBLISHER, model_dir, *models],
        stdout=subprocess.PIPE,
        env=dict(environment),
        text=True,
    )


def _look(model_dir: str) -> _Left:
    """Load what is in service and the newest versions; find numbers without a model."""
    import tensorflow as tf

    from beam_jobs.contracts import published
    from models.publishing import store

    complete = published.versions(model_dir)
    faults = []
    served = published.in_service(model_dir)
    if complete and served is None:
        faults.append("nothing is in service")
    for version in {*complete[-2:], *([served] if served is not None else [])}:
        try:
            tf.saved_model.load(str(version)).signatures["serving_default"]
        except (OSError, KeyError, ValueError) as error:
            faults.append(f"{version}: {error}")
    known = {path.name for path in complete}
    return _Left(
        faults=faults,
        half=[str(number) for number in store.numbers(model_dir) if str(number) not in known],
    )
