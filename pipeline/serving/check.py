"""serve-check: every published SavedModel, loaded in a fresh process, answers as the Keras model inside it does.

Serving folder -> CheckResults and a table. Called by `python -m pipeline serve-check`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.markup import escape
from rich.table import Table

from beam_jobs.contracts.locations import Location, locate
from beam_jobs.errors import DataError

TOLERANCE = 1e-4
"""Largest allowed difference between SavedModel and Keras; models are published in float32 whatever they trained in.

Both run the same weights, but the graph fuses and reorders operations. Sums of some
thousand float32 products then differ by about 1e-6 relative, on features of size 1-10;
1e-4 leaves a margin and is far below what a wrong weight or a missing normalization
makes.
"""
_TIMEOUT_SECONDS = 600


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """One signature with one input size; or, with `error`, a model that could not be checked at all."""

    model: str
    version: str
    signature: str = ""
    inputs: str = ""
    difference: float = float("inf")
    tolerance: float = 0.0
    error: str = ""

    @property
    def is_ok(self) -> bool:
        """Whether the difference is within the tolerance."""
        return not self.error and self.difference <= self.tolerance


def check_published(
    serving_dir: str | os.PathLike[str], environment: Mapping[str, str]
) -> list[CheckResult]:
    """Checks every version of every model below `serving_dir`.

    Args:
        serving_dir: holds `<model>/<version>`.
        environment: of the child processes.

    Raises:
        DataError: no model lies there.
    """
    versions = sorted(path.parent for path in locate(serving_dir).glob("*/*/saved_model.pb"))
    if not versions:
        raise DataError(
            f"{serving_dir}: no published model (<model>/<version>/saved_model.pb) lies there",
            "missing_file",
        )
    return [result for path in versions for result in _check_one(path, environment)]


def _check_one(path: Location, environment: Mapping[str, str]) -> Sequence[CheckResult]:
    model, version = path.parent.name, path.name
    process = subprocess.run(
        [sys.executable, "-m", "pipeline.serving.probe", str(path)],
        env=dict(environment),
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_SECONDS,
        check=False,
    )
    if process.returncode:
        lines = process.stderr.strip().splitlines() or [f"exit code {process.returncode}"]
        return [CheckResult(model=model, version=version, error=lines[-1])]
    # Libraries may print before it; the answer is the last line.
    answer = json.loads(process.stdout.strip().splitlines()[-1])
    return [
        CheckResult(
            model=model,
            version=version,
            signature=item["signature"],
            inputs=", ".join(
                f"{name} {'×'.join(map(str, shape))}"
                for name, shape in item["input_shapes"].items()
            ),
            difference=float(item["max_abs_difference"]),
            tolerance=TOLERANCE,
        )
        for item in answer
    ]


def render(results: Sequence[CheckResult]) -> Table:
    """The table of all checks."""
    table = Table(
        title="serve-check: SavedModel against Keras, no-data pixels included", title_justify="left"
    )
    for column in ("model", "version", "signature", "inputs", "difference", "tolerance", ""):
        table.add_column(
            column,
            justify="right" if column in ("difference", "tolerance") else "left",
            overflow="fold",
        )
    for result in results:
        mark = "[green]ok[/green]" if result.is_ok else "[red]failed[/red]"
        if result.error:
            table.add_row(result.model, result.version, escape(result.error), "", "", "", mark)
            continue
        numbers = (f"{result.difference:.1e}", f"{result.tolerance:.0e}")
        table.add_row(result.model, result.version, result.signature, result.inputs, *numbers, mark)
    return table
