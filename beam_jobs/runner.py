"""The Beam runner: this machine's, for the builds here and for the Beam jobs that TFX starts, or what Beam options name."""

from __future__ import annotations

from collections.abc import Sequence

from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

LOCAL_RUNNER = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"
"""The direct runner by its own name: the alias DirectRunner first tries one that it downloads (docs/adr/0004)."""


def local_arguments(num_workers: int) -> list[str]:
    """Beam arguments for `num_workers` processes; one stays in the caller's process."""
    mode = "in_memory" if num_workers == 1 else "multi_processing"
    return [
        f"--runner={LOCAL_RUNNER}",
        f"--direct_running_mode={mode}",
        f"--direct_num_workers={num_workers}",
    ]


def pipeline_options(num_workers: int, beam_options: Sequence[str] = ()) -> PipelineOptions:
    """Options of a job: `beam_options` unchanged where they name a runner, else after those of the local runner.

    Args:
        num_workers: processes of the local runner; other runners have options of their
            own for it.
        beam_options: as on a Beam command line, such as `--runner=DataflowRunner`.

    Raises:
        ValueError: they do not begin with an option, which Beam would pass over in
            silence; or they name Beam's Dask runner, whose answers are wrong: tagged
            outputs reach every consumer and side inputs are counted again in each task
            (docs/runners.md).
    """
    if beam_options and not beam_options[0].startswith("--"):
        raise ValueError(f"Beam options look like --name=value, got {beam_options[0]!r}")
    given = PipelineOptions(list(beam_options))
    name = given.view_as(StandardOptions).runner
    if name is None:
        return PipelineOptions([*local_arguments(num_workers), *beam_options])
    if name.rpartition(".")[2] == "DaskRunner":
        raise ValueError(
            f"runner {name} is refused: Beam 2.74 loses and repeats elements on it; see docs/runners.md"
        )
    return given
