"""Make maps with a model behind KServe's own Python server.

TERRAPAIR_KSERVE_PYTHON names an interpreter with `kserve` and this project's
`tensorflow`: pip install kserve tensorflow==2.16.2
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PYTHON_VARIABLE = "TERRAPAIR_KSERVE_PYTHON"
SIDE_PX = 256


def check() -> dict[str, object]:
    """Return what works and what the server refuses.

    Raises:
        RuntimeError: the maps are not those of `predict`, or the server does what this
            check says that it does not.
    """
    from tests.data.networks import make_unet
    from tests.data.shards import make_shards

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        version = make_shards.make_version(
            root / "shards", kind="labels", label_schema="water", num_patches=4
        )
        model = make_unet.publish(root / "serving/flood/1", version)
        scenes = _scenes(root / "scenes")
        with _server(model) as host:
            return _compare(root, host, model, scenes)


def _scenes(folder: Path) -> Path:
    """Return a catalog of one radar scene that has a corner without data."""
    import numpy as np
    import rasterio

    from beam_jobs import config
    from beam_jobs.simulation.simulate import simulate

    catalog = simulate(config.SimulateConfig(num_places=1, num_dates=1, size_px=SIDE_PX), folder)
    for path in folder.rglob("*.tif"):
        with rasterio.open(path, "r+") as dataset:
            if dataset.dtypes[0] == "float32":
                pixels = dataset.read()
                pixels[:, :60, :90] = np.nan
                dataset.write(pixels)
    return catalog


def _compare(root: Path, host: str, model: str, scenes: Path) -> dict[str, object]:
    from beam_jobs.errors import DataError
    from beam_jobs.predict import driver, segmenters
    from beam_jobs.predict.config import PredictConfig
    from beam_jobs.predict.remote_models import remote
    from beam_jobs.predict.remote_models.endpoints import Endpoint
    from beam_jobs.predict.windows import Lattice

    config = PredictConfig(window=Lattice(size_px=128, margin_px=32, blend_px=16))
    segmenter = segmenters.find(model)
    here = driver.predict(config, segmenter, [str(scenes)], str(root / "here"))
    endpoint = remote.pinned(Endpoint(host=host, model="flood", protocol="kserve"))
    execution = driver.Execution(endpoint=endpoint)
    begin = time.perf_counter()
    there = driver.predict(config, segmenter, [str(scenes)], str(root / "there"), execution)
    seconds = time.perf_counter() - begin
    files = [path for folder in here.maps for path in folder.glob("*.tif")]
    same = [
        path.read_bytes() == (there.collection.parent / path.parent.name / path.name).read_bytes()
        for path in files
    ]
    if not files or not all(same):
        raise RuntimeError(f"{same.count(False)} of {len(files)} rasters differ from the local map")
    as_tensorflow_serving = Endpoint(host=host, model="flood", protocol="rest")
    try:
        remote.check(as_tensorflow_serving, segmenter)
    except DataError as error:
        refused = str(error)
    else:
        raise RuntimeError("KServe describes models as TensorFlow Serving does: drop this check")
    return {
        "same_rasters": len(files),
        "seconds": round(seconds, 1),
        "rest_instead_of_kserve": refused,
        "nan": _status(f"http://{host}/v1/models/flood:predict", b'{"instances": [{"s1": NaN}]}'),
        "version_in_url": _status(f"http://{host}/v1/models/flood/versions/1", None),
        "metadata": _status(f"http://{host}/v1/models/flood/metadata", None),
    }


def _status(url: str, body: bytes | None) -> str:
    headers = {"Content-Type": "application/json"}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers)) as answer:
            return str(answer.status)
    except urllib.error.HTTPError as error:
        return f"{error.code} {error.read().decode()}"
    except OSError as error:
        return str(error)


@contextmanager
def _server(model: str) -> Iterator[str]:
    """Run KServe's server in a process of its own, and yield host and port."""
    from tests.data.servers import model_server

    if PYTHON_VARIABLE not in os.environ:
        raise RuntimeError(f"set {PYTHON_VARIABLE} to an interpreter with kserve")
    port = model_server.free_port()
    script = Path(__file__).with_name("kserve_server.py")
    command = [os.environ[PYTHON_VARIABLE], str(script), str(port), "flood", model]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log)
        try:
            while _status(f"http://127.0.0.1:{port}/v1/models/flood", None) != "200":
                if process.poll() is not None:
                    log.seek(0)
                    raise RuntimeError(f"KServe does not start: {log.read().decode()}")
                time.sleep(0.2)
            yield f"127.0.0.1:{port}"
        finally:
            process.kill()
            process.wait()
