"""Select Keras 3, and offer a loopback S3 server."""

import atexit
import gc
import importlib.util
import os
import sys
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from beam_jobs import startup
from beam_jobs.contracts.object_store import MissingFilesystemError

# On a busy machine, examples are drawn slowly. This says nothing about the code.
settings.register_profile("terrapair", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("terrapair")

startup.prepare()
# Set this before any import of TFX, which would select Keras 2 for this process and its
# children.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "0")

_exit_codes: list[int] = []


@atexit.register
def _leave() -> None:
    """Leave at once, because a process that used tensorflow-io's S3 would abort.

    See beam_jobs/contracts/object_store.py.
    """
    if "tensorflow_io" in sys.modules and _exit_codes:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(_exit_codes[-1])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the slow files first: tests/e2e, then the others with a test marked e2e.

    A slow file that starts last would leave the other workers idle.
    """
    slow = {item.path for item in items if item.get_closest_marker("e2e")}
    items.sort(key=lambda item: (item.path.parent.name != "e2e", item.path not in slow))


def pytest_collection_finish() -> None:
    """Never again look for garbage among what the imports made, which stays to the end.

    Tracing graphs is a tenth faster so.
    """
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Iterator[None]:
    """Skip a test that needs s3:// where tensorflow-io is not installed.

    The second lane has a TensorFlow that tensorflow-io was not built for.
    """
    try:
        return (yield)
    except MissingFilesystemError as error:
        if importlib.util.find_spec("tensorflow_io") is not None:
            raise
        pytest.skip(str(error))


def pytest_sessionfinish(exitstatus: int) -> None:
    _exit_codes.append(int(exitstatus))


@pytest.fixture(scope="module")
def plain_graphs() -> Iterator[None]:
    """Run graphs as they were traced, in the tests of a module.

    A graph that runs a few times does not earn back what it costs to optimize it, a
    quarter of a second for a training step. Other tests train and publish with optimized
    graphs: those of `components`, and the whole runs in tests/e2e that publish models.
    """
    import tensorflow as tf

    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    yield
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": False})


@pytest.fixture(scope="module")
def eager_steps(plain_graphs: None) -> Iterator[None]:
    """Run training steps and predictions op by op, in the tests of a module.

    To trace the graph of a step takes seconds; the few steps of these tests take a tenth
    of that without one. Other tests train by graphs: those of `models` and `components`,
    and the whole runs in tests/e2e that start a process of their own.
    """
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture(scope="session")
def s3_environment() -> Iterator[dict[str, str]]:
    """Set and return the environment variables of a loopback S3 server."""
    from apache_beam.io.filesystems import FileSystems
    from apache_beam.options.pipeline_options import PipelineOptions

    from tests.data.servers import s3_server

    with s3_server.running() as variables, pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        FileSystems.set_options(PipelineOptions([]))
        yield variables


@pytest.fixture
def s3_folder(s3_environment: dict[str, str], request: pytest.FixtureRequest) -> str:
    """Return the URI of an empty folder on the loopback S3 server."""
    from tests.data.servers import s3_server

    return s3_server.new_folder(request.function.__name__)
