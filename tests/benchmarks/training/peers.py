"""Compare our training steps with those of a peer, at float32 and at bfloat16.

Processes of both sides alternate, so a change in the machine's speed affects both. Each
process is a command whose last line of output is JSON with `seconds_per_step`.
"""

import itertools
import json
import os
import statistics
import subprocess
from collections.abc import Callable, Sequence

PYTHON_VARIABLE = "TERRAPAIR_PEER_PYTHON"
"""Variable that names an interpreter with torch. Without it, only ours is measured."""
PRECISIONS = {"float32": "fp32", "mixed_bfloat16": "bf16"}
NUM_STEPS = 6
NUM_WARMUP_STEPS = 2
NUM_ROUNDS = 5

Command = Callable[[str], Sequence[str]]


def compare(ours: Command, peer: Command | None) -> dict[str, object]:
    """Return the median seconds per step of both sides, and the speedups over the peer.

    There is a speedup for each precision, and one that compares the best precision of
    each side. A speedup is the median over the rounds, because both sides of a round
    meet the same state of the machine. The speedups of all rounds are listed too.

    Args:
        ours: precision -> command.
        peer: "fp32" or "bf16" -> command; None = there is no peer.
    """
    seconds: dict[str, list[float]] = {}
    for _, (precision, dtype) in itertools.product(range(NUM_ROUNDS), PRECISIONS.items()):
        seconds.setdefault(f"ours/{precision}", []).append(seconds_per_step(ours(precision)))
        if peer:
            seconds.setdefault(f"peer/{precision}", []).append(seconds_per_step(peer(dtype)))
    medians = {name: round(statistics.median(values), 4) for name, values in seconds.items()}
    if not peer:
        return {
            "seconds_per_step": medians,
            "peer": f"skipped: set {PYTHON_VARIABLE} and the other variables of this benchmark",
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
    """Return the interpreter with torch, if one was named."""
    return os.environ.get(PYTHON_VARIABLE)


def _ratios(peer: Sequence[float], ours: Sequence[float]) -> list[float]:
    return [round(theirs / mine, 2) for theirs, mine in zip(peer, ours, strict=True)]


def seconds_per_step(command: Sequence[str]) -> float:
    """Run the command and return the `seconds_per_step` that it prints."""
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(json.loads(output.splitlines()[-1])["seconds_per_step"])
