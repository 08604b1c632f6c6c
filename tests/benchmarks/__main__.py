"""Measure speed and memory, and print one JSON line per benchmark (`make bench`).

Arguments are names of benchmarks; without any, all of `BENCHMARKS` run. Those of
`BY_NAME` measure scores, take long or break something on purpose, and run by name only.
A slow machine changes the figures, but no benchmark fails because of it.
"""

import json
import sys

from tests.benchmarks.data import (
    build_memory,
    build_speed,
    fetch_resume,
    pairing_scale,
    reading_speed,
    shard_bytes,
)
from tests.benchmarks.judging import drift_embeddings, drift_errors, gate_errors, push_kills
from tests.benchmarks.maps import (
    export_speed,
    map_files,
    map_frames,
    map_kills,
    map_seams,
    map_speed,
    patch_borders,
    serving_latency,
)
from tests.benchmarks.training import (
    augment_speed,
    gradient_cache_memory,
    input_pipeline,
    loss_memory,
    segmentation_speed,
    shared_input,
    training_costs,
    training_speed,
)

BENCHMARKS = {
    "build_speed": build_speed.measure,
    "shard_bytes": shard_bytes.measure,
    "build_memory": build_memory.measure,
    "reading_speed": reading_speed.measure,
    "pairing_scale": pairing_scale.measure,
    "fetch_resume": fetch_resume.measure,
    "loss_memory": loss_memory.measure,
    "gradient_cache_memory": gradient_cache_memory.measure,
    "augment_speed": augment_speed.measure,
    "input_pipeline": input_pipeline.measure,
    "training_speed": training_speed.measure,
    "training_costs": training_costs.measure,
    "shared_input": shared_input.measure,
    "segmentation_speed": segmentation_speed.measure,
    "map_files": map_files.measure,
    "map_seams": map_seams.measure,
    "map_speed": map_speed.measure,
    "serving_latency": serving_latency.measure,
    "export_speed": export_speed.measure,
    "gate_errors": gate_errors.measure,
}

BY_NAME = {
    "patch_borders": patch_borders.measure,
    "map_workers": map_speed.measure_workers,
    "map_frames": map_frames.measure,
    "map_kills": map_kills.measure,
    "push_kills": push_kills.measure,
    "push_kills_on_store": push_kills.measure_on_store,
    "drift_errors": drift_errors.measure,
    "drift_embeddings": drift_embeddings.measure,
}

if __name__ == "__main__":
    for name in sys.argv[1:] or BENCHMARKS:
        print(json.dumps({"benchmark": name, **(BENCHMARKS | BY_NAME)[name]()}), flush=True)
