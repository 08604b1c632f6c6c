"""serve-check: does every published SavedModel answer like the Keras model inside it?

Serving folder -> CheckResults and a table. The models are loaded in a new process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.markup import escape
from rich.table import Table

from beam_jobs.contracts.locations import Location, glob
from beam_jobs.errors import DataError
from components.canary_process import last_words
from pipeline.serving import probe

_TIMEOUT_SECONDS = 600
_TIMES = "\N{MULTIPLICATION SIGN}"


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """The check of one signature with one input size.

    Attributes:
        model: name of the model.
        version: its version.
        signature: name of the signature.
        inputs: names and shapes of the inputs.
        difference: largest absolute difference.
        tolerance: largest difference that passes.
        error: why the model could not be checked at all; then the fields from
            `signature` on are empty.
    """

    model: str
    version: str
    signature: str = ""
    inputs: str = ""
    difference: float = float("inf")
    tolerance: float = 0.0
    error: str = ""

    @property
    def is_ok(self) -> bool:
        """Whether the model was checked and the difference is within the tolerance."""
        return not self.error and self.difference <= self.tolerance


def check_published(
    serving_dir: str | os.PathLike[str], environment: Mapping[str, str]
) -> list[CheckResult]:
    """Check every version of every model below `serving_dir`.

    Args:
        serving_dir: folder that holds `<model>/<version>`.
        environment: environment variables of the child processes.

    Raises:
        DataError: the folder holds no model.
    """
    versions = [path.parent for path in glob(serving_dir, "*/*/saved_model.pb")]
    if not versions:
        raise DataError(
            f"{serving_dir}: no published model found (<model>/<version>/saved_model.pb): run the "
            "pipeline first",
            "missing_file",
        )
    return check_versions(versions, environment)


def check_versions(
    versions: Sequence[Location], environment: Mapping[str, str]
) -> list[CheckResult]:
    """Check versions in a process of their own.

    A version that ends the process is a failure; a new process checks the rest.
    """
    results: list[CheckResult] = []
    left = list(versions)
    while left:
        process = subprocess.run(
            [sys.executable, "-m", "pipeline.serving.probe", *map(str, left)],
            env=dict(environment),
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_SECONDS * len(left),
            check=False,
        )
        lines = process.stdout.splitlines()
        answers = [line for line in lines if line.startswith(probe.ANSWER)]
        if process.returncode:
            # It may have failed after its last answer.
            answers = answers[: len(left) - 1]
        for path, answer in zip(left, answers, strict=False):
            results += _results(path, json.loads(answer.removeprefix(probe.ANSWER)))
        left = left[len(answers) :]
        if left:
            bad = left.pop(0)
            why = last_words(process.stderr) or f"exit code {process.returncode}"
            results.append(CheckResult(model=bad.parent.name, version=bad.name, error=why))
    return results


def _results(path: Location, answer: Sequence[Mapping[str, Any]]) -> list[CheckResult]:
    return [
        CheckResult(
            model=path.parent.name,
            version=path.name,
            signature=item["signature"],
            inputs=", ".join(
                f"{name} {_TIMES.join(map(str, shape))}"
                for name, shape in item["input_shapes"].items()
            ),
            difference=float(item["max_abs_difference"]),
            tolerance=float(item["tolerance"]),
        )
        for item in answer
    ]


def render(results: Sequence[CheckResult]) -> Table:
    """Return the table of all checks."""
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
