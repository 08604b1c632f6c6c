"""Ours against a peer: processes of both sides in turn, at float32 and bfloat16, so that a drift of the machine meets both.

A process is a command whose last line of output is JSON with `seconds_per_step`. Used
by the benchmarks of training.
"""

import itertools
import json
import os
import statistics
import subprocess
from collections.abc import Callable, Sequence

PYTHON_VARIABLE = "TERRAPAIR_PEER_PYTHON"
"""Environment variable: the interpreter that has torch; without it only ours is measured."""
PRECISIONS = {"float32": "fp32", "mixed_bfloat16": "bf16"}
NUM_STEPS = 6
NUM_WARMUP_STEPS = 2
NUM_ROUNDS = 5

Command = Callable[[str], Sequence[str]]


def compare(ours: Command, peer: Command | None) -> dict[str, object]:
    """Medians of rounds that take turns, and how many times as fast as the peer ours is: each at its best, and by precision.

    A speedup is the median of what the rounds say, each of which met one state of the
    machine; all rounds' are listed too.

    Args:
        ours: precision -> command.
        peer: "fp32" or "bf16" -> command; None = there is none.
    """
    seconds: dict[str, list[float]] = {}
    for _, (precision, dtype) in itertools.product(range(NUM_ROUNDS), PRECISIONS.items()):
        seconds.setdefault(f"ours/{precision}", []).append(_seconds(ours(precision)))
        if peer:
            seconds.setdefault(f"peer/{precision}", []).append(_seconds(peer(dtype)))
    medians = {name: round(statistics.median(values), 4) for name, values in seconds.items()}
    if not peer:
        return {
            "seconds_per_step": medians,
            "peer": f"skipped: {PYTHON_VARIABLE} or what else the benchmark asks for is not set",
        }
    best = {
        side: [
            min(times) for times in zip(*(seconds[f"{side}/{p}"] for p in PRECISIONS), strict=True)
        ]
        for side in ("ours", "peer")
    }
    ratios = {p: _ratios(seconds[f"peer/{p}"], seconds[f"ours/{p}"]) for p in PRECISIONS}
    ratios["best"] = _ratios(best["peer"], best["ours"])
    speedups = {f"speedup/{name}": statistics.median(values) for name, values in ratios.items()}
    return {"seconds_per_step": medians, **speedups, "rounds": ratios}


def peer_python() -> str | None:
    """The interpreter with torch, if one was named."""
    return os.environ.get(PYTHON_VARIABLE)


def _ratios(peer: Sequence[float], ours: Sequence[float]) -> list[float]:
    return [round(theirs / mine, 2) for theirs, mine in zip(peer, ours, strict=True)]


def _seconds(command: Sequence[str]) -> float:
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(json.loads(output.splitlines()[-1])["seconds_per_step"])
