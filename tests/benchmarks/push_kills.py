"""Kill a process that publishes models, again and again, and look at what it left.

`python -m tests.benchmarks push_kills` kills 100 times on a disk and 20 times on a
loopback S3 server. After each kill, what `stable` means must load and answer, and so
must every complete version. The next process publishes again.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))

import make_segmenter
import s3_server

_DISK_KILLS, _STORE_KILLS = 100, 20
_LONGEST_SECONDS = {"disk": 0.4, "store": 6.0}
_PUBLISHER = """
import sys
from models.publishing.publication import Approval, publish
from beam_jobs.contracts import object_store
object_store.load_filesystem(sys.argv[1])
print("ready", flush=True)
while True:
    for model in sys.argv[2:]:
        publish(model, sys.argv[1], Approval(reason="drill"))
"""


def measure() -> dict[str, object]:
    """Return the kills, versions and faults on a disk and on a store."""
    with tempfile.TemporaryDirectory() as name:
        models = []
        for word in ("first", "second"):
            folder = Path(name) / word
            models.append(make_segmenter.publish(folder, {"s1": ("VV", "VH")}, name=word))
            # Large enough that a kill can hit the copy.
            (folder / "assets.extra" / "weights.bin").write_bytes(os.urandom(2 << 20))
        disk = _drill(f"{name}/serving/flood", models, "disk", _DISK_KILLS, dict(os.environ))
        with s3_server.running() as variables:
            os.environ.update(variables)
            store_dir = f"{s3_server.new_folder('push-kills')}/flood"
            store = _drill(store_dir, models, "store", _STORE_KILLS, dict(os.environ))
    return {"disk": disk, "store": store}


def _drill(
    model_dir: str, models: list[str], kind: str, num_kills: int, environment: Mapping[str, str]
) -> dict[str, object]:
    from beam_jobs.contracts import object_store

    object_store.load_filesystem(model_dir)
    rng = random.Random(0)
    faults: list[str] = []
    unfinished = 0
    for _ in range(num_kills):
        with subprocess.Popen(
            [sys.executable, "-c", _PUBLISHER, model_dir, *models],
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(rng.uniform(0.0, _LONGEST_SECONDS[kind]))
            process.kill()
        found, left = _look(model_dir)
        faults += found
        unfinished += left
    from models.publishing import labels
    from models.publishing.publication import Approval, publish

    last = publish(models[0], model_dir, Approval(reason="after the drill"))
    faults += _look(model_dir)[0]
    return {
        "num_kills": num_kills,
        "last_version": int(last.name),
        "num_changes": len(labels.read_history(model_dir)),
        "numbers_without_model": unfinished,
        "faults": faults,
    }


def _look(model_dir: str) -> tuple[list[str], int]:
    """Return what is wrong, and the numbered folders that are no complete version."""
    import tensorflow as tf

    from beam_jobs.contracts import published
    from models.publishing import store

    complete = published.versions(model_dir)
    numbers = store.numbers(model_dir)
    faults = []
    served = published.in_service(model_dir)
    if complete and served is None:
        faults.append("nothing is in service")
    for version in {*complete[-2:], *([served] if served is not None else [])}:
        try:
            tf.saved_model.load(str(version)).signatures["serving_default"]
        except (OSError, KeyError, ValueError) as error:
            faults.append(f"{version}: {error}")
    return faults, len(numbers) - len(complete)
