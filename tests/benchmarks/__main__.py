"""`make bench`: measures speed and memory; prints one JSON line per benchmark. Nothing here fails on a slow machine."""

import json
import sys

from tests.benchmarks import build_memory, fetch_resume

BENCHMARKS = {"build_memory": build_memory.measure, "fetch_resume": fetch_resume.measure}

if __name__ == "__main__":
    for name in sys.argv[1:] or BENCHMARKS:
        print(json.dumps({"benchmark": name, **BENCHMARKS[name]()}), flush=True)
