"""Three small TFX components: they take no time, and fail as files tell them.

Run as a program, it launches one node: `tiny_pipeline.py ROOT RUN_ID NODE`.
"""

# No `from __future__ import annotations`: TFX reads the annotations as objects.
import os
import signal
import sys
from pathlib import Path

from tfx.orchestration.pipeline import Pipeline
from tfx.types.experimental import simple_artifacts

from beam_jobs.errors import RefusedError
from components.tfx_types import InputArtifact, OutputArtifact, Parameter, component
from pipeline.runners.artifact_files import Inventory
from pipeline.runners.nodes import Launching, Nodes
from pipeline.runners.retrying import RetryConfig

QUICK = RetryConfig(num_retries=3, first_wait_seconds=0.01, longest_wait_seconds=0.01)


def told(root: str, word: str) -> bool:
    """Whether a file of this name lies in the root; it is removed, so that it counts once."""
    file = Path(root) / word
    if not file.exists():
        return False
    left = file.read_text()[1:]
    file.write_text(left) if left else file.unlink()
    return True


@component
def Make(made: OutputArtifact[simple_artifacts.File], root: Parameter[str]) -> None:
    folder = Path(made.uri)
    with (Path(root) / "makes").open("a") as counted:
        counted.write("x")
    if told(root, "kill"):
        (folder / "half").write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)
    if told(root, "break"):
        raise ConnectionResetError("the store broke the connection")
    if (server := Path(root) / "server").exists():
        os.kill(int(server.read_text()), signal.SIGKILL)
        server.unlink()
    (folder / "made").write_text("made")


@component
def Judge(made: InputArtifact[simple_artifacts.File], root: Parameter[str]) -> None:
    if told(root, "refuse"):
        raise RefusedError("the data are too cloudy", "data_drift")
    if told(root, "crash"):
        raise KeyError("nobody foresaw this")


@component
def Use(
    made: InputArtifact[simple_artifacts.File], used: OutputArtifact[simple_artifacts.File]
) -> None:
    (Path(used.uri) / "used").write_text(" ".join(sorted(os.listdir(made.uri))))


def nodes(root, run_id, place=None, retries=QUICK, on_line=lambda _: None) -> Nodes:
    """The compiled nodes Make, Judge and Use; `on_line` is called with each notice."""
    make = Make(root=str(root))
    judge = Judge(made=make.outputs["made"], root=str(root))
    use = Use(made=make.outputs["made"])
    use.add_upstream_node(judge)
    pipeline = Pipeline(
        pipeline_name="tiny",
        pipeline_root=f"{root}/tfx",
        components=[make, judge, use],
        enable_cache=True,
    )
    launching = Launching(
        place=place or f"{root}/metadata.sqlite",
        inventory=Inventory(f"{root}/artifact_files"),
        retries=retries,
        on_notice=lambda line, _: on_line(line),
    )
    return Nodes(pipeline, run_id, launching)


if __name__ == "__main__":
    nodes(sys.argv[1], sys.argv[2]).launch(sys.argv[3])
