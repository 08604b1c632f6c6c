"""The checks of a job's runner, before any input is read.

Input: the options of a job. What needs no network is checked by
`runner.pipeline_options`.
"""

from __future__ import annotations

from apache_beam.options.pipeline_options import (
    FlinkRunnerOptions,
    PipelineOptions,
    PortableOptions,
    SparkRunnerOptions,
    StandardOptions,
)

from beam_jobs.engines import flink, job_servers, spark
from beam_jobs.runner import short_name


def flink_master(options: PipelineOptions) -> str:
    """Return the URL of the Flink cluster of a job; "" = another runner, or none."""
    if _runner_name(options) != "FlinkRunner":
        return ""
    return flink.address(options.view_as(FlinkRunnerOptions).flink_master)


def check(options: PipelineOptions) -> None:
    """Check that the runner can be reached, and that it fits.

    Raises:
        SettingsError: Java, a jar or another version of Flink is needed.
        DataError: reason no_answer; the cluster or the download does not answer.
    """
    name = _runner_name(options)
    if name in job_servers.JAR_OPTIONS and not options.view_as(PortableOptions).job_endpoint:
        job_servers.check(options, name)
        if name == "SparkRunner":
            spark.check(options.view_as(SparkRunnerOptions).spark_master_url)
    if master := flink_master(options):
        flink.check(master, options.view_as(FlinkRunnerOptions).flink_version)


def _runner_name(options: PipelineOptions) -> str:
    """Return the name of the runner as Beam's class has it; "" = of no cluster."""
    name = short_name(options.view_as(StandardOptions).runner or "")
    return f"{name.title()}Runner" if name in ("flink", "spark") else ""
