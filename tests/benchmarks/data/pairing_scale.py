"""Measure time and peak memory of pairing 100,000 scenes that have no pixels.

The scenes are Sentinel-1 frames and Sentinel-2 tiles of ten regions and eight years.
"""

import json
import resource
import subprocess
import sys
import time

NUM_SCENES = 100_000


def measure() -> dict[str, object]:
    """Return the time, the number of pairs, and the peak before and after pairing.

    Pairing runs in its own process, because the kernel reports the peak of a whole
    process. The peak before pairing comes from the imports and the scenes.
    """
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "tests.benchmarks.data.pairing_scale",
        str(NUM_SCENES),
    ]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _scenes(num_scenes: int) -> list:
    """Return scenes at random places of the regions and at random times.

    Half of them are frames of 2.5 x 1.8 degrees, half are tiles of 1 x 1 degree.
    """
    import numpy as np
    from shapely.geometry import box, mapping

    from beam_jobs.scenes.assets import BandSource
    from beam_jobs.scenes.scene import Scene

    rng = np.random.default_rng(0)
    scenes = []
    for number in range(num_scenes):
        sensor, width, height = ("s1", 2.5, 1.8) if number % 2 else ("s2", 1.0, 1.0)
        west, south = 30.0 * (number // 2 % 10) - 150.0 + rng.uniform(0, 5), rng.uniform(40, 45)
        scenes.append(
            Scene(
                scene_id=f"{sensor}_{number:07d}",
                sensor=sensor,
                acquired_at=1_500_000_000 + int(rng.integers(8 * 365 * 86_400)),
                footprint=mapping(box(west, south, west + width, south + height)),
                bands={
                    name: BandSource(path=f"/data/{number:07d}.tif", index=1)
                    for name in ("VV", "VH")
                },
            )
        )
    return scenes


def _pair(num_scenes: int) -> dict[str, float]:
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    from beam_jobs import runner
    from beam_jobs.build.transforms import MakePairs
    from beam_jobs.config import BuildConfig

    scenes = _scenes(num_scenes)
    before_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    start = time.perf_counter()
    pipeline = beam.Pipeline(options=PipelineOptions(runner.local_arguments(1)))
    pairs = (pipeline | beam.Create(scenes) | MakePairs(BuildConfig()))["pairs"]
    _ = pairs | beam.combiners.Count.Globally() | beam.Map(lambda count: counted.inc(count))
    counted = beam.metrics.Metrics.counter("benchmark", "pairs")
    result = pipeline.run()
    result.wait_until_finish()
    (counter,) = result.metrics().query()["counters"]
    return {
        "num_scenes": num_scenes,
        "num_pairs": counter.committed,
        "seconds": round(time.perf_counter() - start, 1),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "peak_before_mib": round(before_mib, 1),
    }


if __name__ == "__main__":
    print(json.dumps(_pair(int(sys.argv[1]))))
