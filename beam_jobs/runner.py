"""Options of a Beam job: those of the local runner, or those that the user gives."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from typing import Any, TypeVar

from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
from apache_beam.portability import python_urns
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from beam_jobs.contracts.settings import SettingsError

LOCAL_RUNNER = "beam_jobs.runner.LocalRunner"
"""The local runner by its full name: the alias DirectRunner first tries to download
another one (docs/adr/0004)."""
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


def pipeline_options(num_workers: int, beam_options: Sequence[str] = ()) -> PipelineOptions:
    """Return the options of a job.

    If `beam_options` name a runner, they are taken unchanged. Otherwise they follow
    those of the local runner.

    Args:
        num_workers: processes of the local runner; other runners have options of their
            own for it.
        beam_options: as on a Beam command line, such as `--runner=DataflowRunner`.

    Raises:
        SettingsError: the first of `beam_options` does not begin with "--": Beam would
            ignore it. Or they name Beam's Dask runner, whose results are wrong: tagged
            outputs reach every consumer, and side inputs are counted again in each task
            (docs/runners.md).
    """
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
    return given
