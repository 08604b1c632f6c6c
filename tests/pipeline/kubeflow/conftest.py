"""A compiled pipeline, and a server: the stand-in, or a real one."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from kfp import compiler, dsl

from tests.data.servers import kubeflow_server

ROOT = "runs/no-such-run"


@dsl.container_component
def cut(span: int):
    return dsl.ContainerSpec(image="registry.example/terrapair:1", command=["echo"], args=[span])


@dsl.container_component
def report(run_id: str, outcome: dsl.OutputPath(str)):
    return dsl.ContainerSpec(
        image="registry.example/terrapair:1",
        command=["terrapair", "node"],
        args=["--run", ROOT, "--run-id", run_id, "--outcome-file", outcome],
    )


@dsl.pipeline(name="terrapair-small")
def small(
    span: int = 1,
    note: str = "",
    rate: float = 0.5,
    is_new: bool = False,
    names: list = ["flood"],  # noqa: B006 - so kfp declares a default
    limits: dict = {"iou": 0.5},  # noqa: B006
):
    last = report(run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER)
    with dsl.ExitHandler(last):
        cut(span=span)


@pytest.fixture(scope="session")
def package_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the YAML that kfp's own compiler makes of a small pipeline."""
    path = tmp_path_factory.mktemp("kubeflow") / "small.yaml"
    compiler.Compiler().compile(small, str(path))
    return path


@pytest.fixture
def server() -> Iterator[kubeflow_server.KubeflowServer]:
    """Return the stand-in, running on loopback."""
    with kubeflow_server.running() as state:
        yield state


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the address and the credentials of the machine away; a real server may need them."""
    monkeypatch.delenv("TERRAPAIR_KFP_ENDPOINT", raising=False)
    for name in () if kubeflow_server.REAL else ("TOKEN", "TOKEN_FILE", "COOKIE"):
        monkeypatch.delenv(f"TERRAPAIR_KFP_{name}", raising=False)
