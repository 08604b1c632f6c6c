"""Kill a process that publishes models, again and again, and look at what it left.

`python -m tests.benchmarks push_kills push_kills_on_store` kills 100 times on a disk
and 20 times on a loopback S3 server. The kills are spread over the steps of a
publication: each file that is written or copied, the removal of the hidden copy, the
history and the labels. After each kill, what `stable` means must load and answer, and
so must each numbered folder. Then the next process publishes a model, and nothing of
the killed one may be left.
"""

from __future__ import annotations

import collections
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.data.networks import make_segmenter
from tests.data.servers import s3_server

_NUM_KILLS = {"disk": 100, "store": 20}
_LONGEST_SECONDS = {"disk": 0.003, "store": 0.03}
"""How long after a step began the process is killed, at most."""
_PUBLISHER = """
import os
import sys
import time

from beam_jobs.contracts import object_store
from models.publishing import labels, store
from models.publishing.publication import Approval, publish

def told(name, function, position=None):
    def call(*arguments, **named):
        target = "" if position is None else os.fspath(arguments[position])
        what = f"{name} {target.removeprefix(sys.argv[1] + '/')}"
        print("began", what, time.monotonic(), flush=True)
        found = function(*arguments, **named)
        print("ended", what, time.monotonic(), flush=True)
        return found
    return call

object_store.load_filesystem(sys.argv[1])
place = type(store.locate(sys.argv[1]))
place.write_bytes = told("write", place.write_bytes, 0)
store.locations.copy_file = told("copy", store.locations.copy_file, 1)
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
    """What a kill left.

    Attributes:
        faults: what must not be.
        unlisted: numbered folders without a card.
    """

    faults: Sequence[str]
    unlisted: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class _Undisturbed:
    """A process that nobody kills, until it has published both models.

    Attributes:
        num_steps: steps that it takes.
        push_seconds: from the first file of the second model to its label.
        unlisted_seconds: from the first file below its number to its card. 0 on a disk,
            where one rename shows all.
    """

    num_steps: int
    push_seconds: float
    unlisted_seconds: float


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
        # As in a real model, the weights are there twice. TensorFlow reads them by their
        # offset, so what follows them is no matter.
        (folder / word / "assets.extra" / "weights.bin").write_bytes(os.urandom(2 << 20))
        (weights,) = (folder / word / "variables").glob("variables.data-*")
        with weights.open("ab") as file:
            file.write(os.urandom(2 << 20))
    return models


def _drill(
    model_dir: str, models: list[str], kind: str, environment: Mapping[str, str]
) -> dict[str, object]:
    from beam_jobs.contracts import object_store, published
    from models.publishing import labels, store
    from models.publishing.publication import Approval, is_in_service, publish

    object_store.load_filesystem(model_dir)
    seed = random.randrange(1000)
    rng = random.Random(seed)
    whole = _undisturbed(model_dir, models, environment)
    num_kills = _NUM_KILLS[kind]
    faults: list[str] = []
    unlisted: list[str] = []
    fell: collections.Counter[str] = collections.Counter()
    for kill in range(num_kills):
        step = int((kill + rng.random()) * whole.num_steps / num_kills)
        pause = rng.uniform(0.0, _LONGEST_SECONDS[kind])
        fell[_kill(model_dir, models, step, pause, environment)] += 1
        left = _look(model_dir)
        faults += left.faults
        unlisted += left.unlisted
        model = next(one for one in models if not is_in_service(one, model_dir))
        version = publish(model, model_dir, Approval(reason="after a kill"))
        if published.in_service(model_dir) != version:
            faults.append(f"{version} is not in service")
        if _look(model_dir).unlisted or any(
            path.name.startswith(store.HIDDEN) for path in store.locate(model_dir).iterdir()
        ):
            faults.append(f"something is left beside {version}")
    return {
        "seed": seed,
        "num_kills": num_kills,
        "killed_at": dict(sorted(fell.items())),
        "last_version": int(version.name),
        "num_changes": len(labels.read_history(model_dir)),
        "numbers_without_card": unlisted,
        "push_seconds": whole.push_seconds,
        "unlisted_seconds": whole.unlisted_seconds,
        "faults": faults,
    }


def _undisturbed(model_dir: str, models: list[str], environment: Mapping[str, str]) -> _Undisturbed:
    """Return how many steps a process takes to publish both models, and how long."""
    with _publisher(model_dir, models, environment) as process:
        lines: list[list[str]] = []
        while sum(line[:2] == ["ended", "labels"] for line in lines) < len(models):
            lines.append((process.stdout.readline() if process.stdout else "").split())
        process.kill()
    labelled = [index for index, line in enumerate(lines) if line[:2] == ["ended", "labels"]]
    second = lines[labelled[0] + 1 :]
    below = [line for line in second if len(line) == 4 and not line[2].startswith(".")]
    return _Undisturbed(
        num_steps=sum(line[0] == "began" for line in lines),
        push_seconds=float(second[-1][-1]) - float(second[0][-1]),
        unlisted_seconds=float(below[-1][-1]) - float(below[0][-1]) if below else 0.0,
    )


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
        # The kill may have cut the last line short.
        seen += [line for line in process.stdout.readlines() if line.endswith("\n")]
    word, name, *target, _ = seen[-1].split()
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
    """Load what is in service, the newest versions and all numbers that are no version."""
    from beam_jobs.contracts import published
    from models.publishing import store

    complete = published.versions(model_dir)
    faults = []
    served = published.in_service(model_dir)
    if complete and served is None:
        faults.append("nothing is in service")
    known = {path.name for path in complete}
    unlisted = [str(number) for number in store.numbers(model_dir) if str(number) not in known]
    looked_at = {*complete[-2:], *([served] if served is not None else [])}
    for version in (*looked_at, *(f"{model_dir}/{name}" for name in unlisted)):
        if not _loads(str(version)):
            faults.append(f"{version} does not load")
    return _Left(faults=faults, unlisted=unlisted)


def _loads(version: str) -> bool:
    import tensorflow as tf

    try:
        tf.saved_model.load(version).signatures["serving_default"]
    except (OSError, KeyError, ValueError):
        return False
    return True
