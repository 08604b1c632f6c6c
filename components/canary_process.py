"""The process of the Canary: it loads one SavedModel as a server does, nothing else.

Folder of a SavedModel -> `Findings`, as JSON on the last line of stdout. It imports no
TFX, so it starts sooner.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping

from beam_jobs import startup
from beam_jobs.contracts import object_store, settings
from models.published import second_reader
from models.published.canary import CanaryConfig, Findings, judge, probe, read_again

_TIMEOUT_SECONDS = 900
_RAISED = re.compile(r"^[\w.]*(?:Error|Exception): .+", re.MULTILINE)
"""First line of the error at the end of a traceback; the message may have more."""


def try_model(
    saved_model_dir: str, config: CanaryConfig, environment: Mapping[str, str]
) -> Findings:
    """Try a SavedModel in a process of its own; return what was found.

    Args:
        saved_model_dir: folder of the SavedModel.
        config: limits.
        environment: environment variables of the process.
    """
    try:
        process = subprocess.run(
            [sys.executable, "-m", "components.canary_process", saved_model_dir],
            env=dict(environment),
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Findings(faults=(f"no answer within {_TIMEOUT_SECONDS} s",))
    lines = process.stdout.strip().splitlines()
    if process.returncode or not lines:
        why = last_words(process.stderr)
        return Findings(faults=(f"the process ended with code {process.returncode}: {why}",))
    # Libraries may print other lines; the answer is the last line.
    found = settings.from_dict(Findings, json.loads(lines[-1]), "canary")
    return judge(found, config)


def last_words(stderr: str) -> str:
    """Return one line that says why a process ended, at most 300 characters."""
    raised = _RAISED.findall(stderr)
    lines = raised or stderr.strip().splitlines() or [""]
    return str(lines[-1])[:300]


def main() -> int:
    """Print the findings about the folder that the command line names."""
    startup.prepare()
    object_store.complete_environment(os.environ)
    folder = sys.argv[1]
    object_store.load_filesystem(folder)
    # A server has no Keras. Google's client would only look for a TPU. Both are half of
    # an import of TensorFlow. For s3://, tensorflow-io has imported them by now.
    startup.leave_out("keras", "tf_keras", "googleapiclient")
    found = read_again(folder, probe(folder), second_reader.interpreter(os.environ))
    sys.stdout.write(json.dumps(dataclasses.asdict(found)) + "\n")
    return 0


if __name__ == "__main__":
    object_store.run_to_exit(main)
