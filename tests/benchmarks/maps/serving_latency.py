"""Measure latency and throughput through a model server on this machine, by gRPC.

The server is `tensorflow_model_server` if it is on PATH, else the stand-in of
tests/data/servers/model_server.py, as a process of its own. Clients are threads with a
connection each. They send one window at a time by the code of `predict-remote`. The
models are untrained U-Nets. Beside it: the same windows through the SavedModel in this
process, one at a time. CPU seconds are those of both sides together.
"""

import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

NUM_CLIENTS = (1, 4, 16)
NUM_REQUESTS = 192
SIDE_PX = 256


def measure() -> dict[str, object]:
    """Return latency and throughput by backbone and number of clients."""
    from tests.data.servers import model_server

    found: dict[str, object] = {"server": model_server.BINARY or "stand-in"}
    for backbone in ("small", "resnet18"):
        with tempfile.TemporaryDirectory() as folder:
            for name, values in _of_backbone(backbone, Path(folder)):
                found[f"{backbone}, {name}"] = values
    return found


def _of_backbone(backbone: str, folder: Path) -> Iterator[tuple[str, dict[str, float]]]:
    from beam_jobs.predict import segmenters
    from beam_jobs.predict.remote_models import remote
    from beam_jobs.predict.remote_models.endpoints import Endpoint
    from tests.benchmarks.maps import map_seams
    from tests.data.servers import model_server

    pixels = {"s1": map_seams.scene(SIDE_PX)[np.newaxis]}
    pixels["s1"][:, :20, :30] = np.nan
    segmenter = segmenters.find(map_seams.publish(backbone, folder / "flood/1"))
    call = partial(segmenters.load(segmenter), pixels)
    yield "in this process", _timed([call], NUM_REQUESTS // 4, os.getpid())
    server = model_server.ModelServer(name="flood", paths={1: segmenter.path})
    config = folder / "models.config"
    config.write_text(model_server.config_of(server))
    port = model_server.free_port()
    flags = (f"--port={port}", f"--model_config_file={config}")
    with model_server.program(*flags) as process:
        for number in NUM_CLIENTS:
            # Endpoints that differ have connections of their own.
            several = [
                Endpoint(
                    host=f"127.0.0.1:{port}",
                    model="flood",
                    max_in_flight=1,
                    timeout_seconds=600.0 + client,
                )
                for client in range(number)
            ]
            calls = [partial(remote.connect(one, segmenter), pixels) for one in several]
            yield (
                f"{number} clients",
                _timed(calls, NUM_REQUESTS // number, os.getpid(), process.pid),
            )


def _timed(calls: list[Callable[[], object]], num_each: int, *pids: int) -> dict[str, float]:
    """Return latency, throughput and CPU time of calls, each in a thread of its own.

    Args:
        calls: one per client.
        num_each: how often each is called.
        pids: processes whose CPU time counts.
    """
    seconds: list[float] = []

    def work(call: Callable[[], object]) -> None:
        for _ in range(num_each):
            begin = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - begin)

    # The first calls make connections and graphs.
    for call in calls:
        call()
    cpu, begin = sum(map(_cpu_seconds, pids)), time.perf_counter()
    threads = [threading.Thread(target=work, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wall, cpu = time.perf_counter() - begin, sum(map(_cpu_seconds, pids)) - cpu
    return {
        "p50_ms": round(1e3 * statistics.median(seconds), 1),
        "p99_ms": round(1e3 * float(np.percentile(seconds, 99)), 1),
        "windows_per_second": round(len(seconds) / wall, 2),
        "cpu_ms_per_window": round(1e3 * cpu / len(seconds), 1),
    }


def _cpu_seconds(pid: int) -> float:
    """Return user and system seconds of a process of this machine (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
