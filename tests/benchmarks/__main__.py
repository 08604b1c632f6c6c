"""`make bench`: measures speed and memory; prints one JSON line per benchmark. Nothing here fails on a slow machine."""

import json
import sys

from tests.benchmarks import build_memory, pairing_scale

BENCHMARKS = {"build_memory": build_memory.measure, "pairing_scale": pairing_scale.measure}

if __name__ == "__main__":
    for name in sys.argv[1:] or BENCHMARKS:
        print(json.dumps({"benchmark": name, **BENCHMARKS[name]()}), flush=True)
