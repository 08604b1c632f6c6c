"""Options of a Beam job: those of the local runner, or those that the user gives."""

from __future__ import annotations

import importlib
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
from apache_beam.portability import python_urns
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

# All jobs of this project import this module, those of TFX's components, too.
from beam_jobs import quick_beam  # noqa: F401 - makes Beam quicker
from beam_jobs.contracts.settings import SettingsError

LOCAL_RUNNER = "beam_jobs.runner.LocalRunner"
"""The local runner by its full name: the alias DirectRunner first tries to download
another one (docs/adr/0004)."""
_LOCAL = ("local", "direct", "bundlebaseddirect", "switchingdirect", "testdirect", "fnapi", "prism")
"""Runners that work on this machine; see `short_name`."""
_ADDRESSES = {
    "flink": ("--flink_master", "HOST:8081 ([local] starts one on this machine)"),
    "spark": ("--spark_master_url", "spark://HOST:7077 (local[4] starts one on this machine)"),
    "portable": ("--job_endpoint", "HOST:8099"),
}
"""Runner of a cluster -> option with its address, and an example of that."""
JAR_OPTIONS = ("output_executable_path", "flink_submit_uber_jar", "spark_submit_uber_jar")
"""Options of Beam that put the whole job into a jar."""
_WORKER = "beam_jobs.local_worker"
_View = TypeVar("_View", bound=PipelineOptions)


class JobOptions(PipelineOptions):
    """Beam's options, which make each of their views once.

    Beam asks for the same views at each transform of a job, and makes each by a parser
    of command lines: a tenth of the CPU of a small job.
    """

    def view_as(self, cls: type[_View]) -> _View:
        """Return these options as those of `cls`; all views share their values."""
        # Beam's own attributes are options.
        views = self.__dict__.setdefault("_views", {})
        if cls not in views:
            views[cls] = super().view_as(cls)
        view: _View = views[cls]
        return view


class LocalRunner(FnApiRunner):
    """Beam's runner for this machine, whose worker processes stay off the terminal."""

    def run_via_runner_api(self, pipeline_proto: Any, options: PipelineOptions) -> Any:
        """Run a pipeline; its worker processes start with our module, not Beam's."""
        for environment in pipeline_proto.components.environments.values():
            if environment.urn == python_urns.SUBPROCESS_SDK:
                # Beam starts a shell. By `exec` the worker becomes the driver's own
                # child, so it notices when the driver is gone.
                python = shlex.quote(sys.executable)
                environment.payload = f"exec {python} -m {_WORKER}".encode()
        return super().run_via_runner_api(pipeline_proto, options)


def local_arguments(num_workers: int) -> list[str]:
    """Return Beam arguments for `num_workers` local processes; 1 stays in this one."""
    mode = "in_memory" if num_workers == 1 else "multi_processing"
    return [
        f"--runner={LOCAL_RUNNER}",
        f"--direct_running_mode={mode}",
        f"--direct_num_workers={num_workers}",
    ]


def read_words(beam_options: Sequence[str]) -> Iterator[str]:
    """Yield options of Beam; the lines of a file stand in place of a word `@FILE`.

    Each line is one option as Beam gets it, without quotes of a shell. Empty lines and
    those that begin with "#" are left out.

    Raises:
        SettingsError: there is no such file, or it is no text.
    """
    for word in beam_options:
        if not word.startswith("@"):
            yield word
            continue
        try:
            lines = [line.strip() for line in Path(word[1:]).read_text().splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "is no text"
            raise SettingsError(
                f"{word}: must name a file of Beam options, one a line ({why.lower()}); "
                "deploy/flink/options.txt is one"
            ) from error
        for number, line in enumerate(lines, 1):
            if line and not line.startswith(("--", "#")):
                raise SettingsError(
                    f"{word[1:]}, line {number}: must be --name=value or a comment, got {line!r}"
                )
            if line.startswith("--"):
                yield line


def pipeline_options(num_workers: int, beam_options: Sequence[str] = ()) -> PipelineOptions:
    """Return the options of a job.

    If `beam_options` name a runner, they are taken unchanged. Otherwise they follow
    those of the local runner.

    Args:
        num_workers: processes of the local runner; other runners have options of their
            own for it.
        beam_options: as on a Beam command line, such as `--runner=DataflowRunner`, or
            `@FILE` for a file of them; see `read_words`.

    Raises:
        SettingsError: the first of `beam_options` does not begin with "--": Beam would
            ignore it. Or they name a runner that Beam does not know, or one of a
            cluster without its address. Or they name Beam's Dask runner, whose results
            are wrong: tagged outputs reach every consumer, and side inputs are counted
            again in each task (docs/runners.md). Or they ask for a jar that runs
            elsewhere.
    """
    beam_options = list(read_words(beam_options))
    if beam_options and not beam_options[0].startswith("--"):
        raise SettingsError(f"Beam options look like --name=value, got {beam_options[0]!r}")
    given = JobOptions(list(beam_options))
    name = given.view_as(StandardOptions).runner
    if name is None:
        return JobOptions([*local_arguments(num_workers), *beam_options])
    if name.rpartition(".")[2] == "DaskRunner":
        raise SettingsError(
            f"runner {name} is refused: Beam loses and repeats elements on it; use another runner, "
            "see docs/runners.md"
        )
    _check_known(name)
    _refuse_jars(given)
    _check_address(name, beam_options)
    return given


def is_local(beam_options: Sequence[str]) -> bool:
    """Return whether a job with these options runs on this machine alone."""
    name = PipelineOptions(list(read_words(beam_options))).view_as(StandardOptions).runner
    return name is None or short_name(name) in _LOCAL


def short_name(name: str) -> str:
    """Return the name of a runner without its module and `Runner`, in small letters.

    Beam takes `flink` for FlinkRunner.
    """
    return name.rpartition(".")[2].lower().removesuffix("runner")


def _check_known(name: str) -> None:
    """Refuse a runner that Beam cannot make; names are those of its `create_runner`.

    Raises:
        SettingsError: Beam knows no such name, or cannot import the class.
    """
    if "." in name:
        module, _, attribute = name.rpartition(".")
        try:
            is_known = hasattr(importlib.import_module(module), attribute)
        except ImportError:
            is_known = False
    else:
        is_known = short_name(name) in map(short_name, StandardOptions.KNOWN_RUNNER_NAMES)
    if not is_known:
        raise SettingsError(
            f"runner {name!r} is not known to Beam: use FlinkRunner, SparkRunner or "
            "DataflowRunner, or leave --runner out for the local runner; see docs/runners.md"
        )


def _check_address(name: str, beam_options: Sequence[str]) -> None:
    """Refuse the runner of a cluster without its address: Beam would start one here.

    Raises:
        SettingsError: the option with the address is missing.
    """
    option, example = _ADDRESSES.get(short_name(name), ("", ""))
    given = {one.partition("=")[0] for one in beam_options}
    if option and not given & {option, "--job_endpoint"}:
        raise SettingsError(
            f"runner {name} needs the address of its cluster: add {option}={example}"
        )


def _refuse_jars(given: PipelineOptions) -> None:
    """Refuse options that put the job into a jar: it may run without this process.

    Raises:
        SettingsError: there is one.
    """
    values = given.get_all_options(drop_default=True, retain_unknown_options=True)
    for name in JAR_OPTIONS:
        if values.get(name):
            raise SettingsError(
                f"--{name} is refused: this process must wait for its job, because it checks what "
                "the workers wrote, writes the manifest and publishes the result; no job in a jar "
                "was tried; leave the option out, see docs/runners.md"
            )
