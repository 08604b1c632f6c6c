"""Compare the dates of crons with those of Kubeflow's own library, robfig/cron."""

import datetime
import random
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from beam_jobs.contracts.settings import SettingsError
from pipeline.kubeflow.crons import NUM_DATES, Cron, parse_cron

LIBRARY = "github.com/robfig/cron"
VERSION = "v1.2.0"
"""As in the `go.mod` of Kubeflow Pipelines 2.17."""
NUM_EXPRESSIONS = 20_000
NOW = datetime.datetime(2026, 11, 30, 12, tzinfo=datetime.timezone.utc)
_RANGES = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
_PROGRAM = """package main

import (
	"bufio"
	"fmt"
	"os"
	"time"

	"github.com/robfig/cron"
)

// Expressions in, one a line; three dates of each out, or its error.
func main() {
	start, _ := time.Parse(time.RFC3339, os.Args[1])
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		schedule, err := cron.Parse(lines.Text())
		if err != nil {
			fmt.Println("error:", err)
			continue
		}
		date := start
		for i := 0; i < 3; i++ {
			date = schedule.Next(date)
			fmt.Print(date.Format(time.RFC3339), " ")
			if date.IsZero() {
				break
			}
		}
		fmt.Println()
	}
}
"""


def check() -> dict[str, Any]:
    """Compare random expressions. Needs Go, and its module proxy for the library.

    Raises:
        ValueError: dates differ.
    """
    draw = random.Random(1)
    accepted: list[Cron] = []
    num_refused = 0
    while len(accepted) < NUM_EXPRESSIONS:
        text = " ".join(_field(draw, *bounds) for bounds in _RANGES)
        try:
            accepted.append(parse_cron(text, NOW))
        except SettingsError:
            num_refused += 1
    for ours, theirs in zip(accepted, _counted(accepted), strict=True):
        dates = [f"{date:%Y-%m-%dT%H:%M:%SZ}" for date in ours.dates]
        if theirs.split() != dates:
            raise ValueError(f"{ours.text!r} ({ours.kubeflow!r}): {dates}, but {theirs!r}")
    return {"library": f"{LIBRARY} {VERSION}", "equal": len(accepted), "refused": num_refused}


def _counted(crons: list[Cron]) -> list[str]:
    """Return the dates that the library counts, a line for each expression."""
    assert NUM_DATES == 3
    with tempfile.TemporaryDirectory(prefix="terrapair-") as folder:
        (Path(folder) / "main.go").write_text(_PROGRAM)
        for command in (["mod", "init", "dates"], ["get", f"{LIBRARY}@{VERSION}"]):
            subprocess.run(["go", *command], cwd=folder, check=True, capture_output=True)
        ended = subprocess.run(
            ["go", "run", ".", f"{NOW:%Y-%m-%dT%H:%M:%SZ}"],
            cwd=folder,
            input="".join(f"{one.kubeflow}\n" for one in crons),
            capture_output=True,
            text=True,
            check=True,
        )
    return ended.stdout.splitlines()


def _field(draw: random.Random, least: int, most: int) -> str:
    """Return a random field: a star, a step, or a list of values and ranges."""
    kind = draw.random()
    if kind < 0.4:
        return "*"
    if kind < 0.55:
        return f"*/{draw.randint(1, 9)}"
    return ",".join(_part(draw, least, most) for _ in range(draw.choice([1, 1, 2, 3])))


def _part(draw: random.Random, least: int, most: int) -> str:
    low, high = sorted(draw.sample(range(least, most + 1), 2))
    kinds = (str(low), f"{low}-{high}", f"{low}-{high}/{draw.randint(1, 5)}", f"{low}/3")
    return draw.choice(kinds)
