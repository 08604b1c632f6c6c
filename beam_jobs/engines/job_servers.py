"""Beam's job server: a Java program that Beam starts here to speak to Flink or Spark.

Input: the options of a job. Output: nothing, or one line that says why the job server
cannot start. Without this check the user would see Java's or Beam's tracebacks, after
all input files were read.
"""

from __future__ import annotations

import os
import shutil
from urllib.parse import urlparse

from apache_beam.options.pipeline_options import (
    FlinkRunnerOptions,
    JobServerOptions,
    PipelineOptions,
    SparkRunnerOptions,
)
from apache_beam.runners.portability.flink_runner import FlinkJarJobServer
from apache_beam.runners.portability.job_server import JavaJarJobServer
from apache_beam.runners.portability.spark_runner import SparkJarJobServer

from beam_jobs.contracts.settings import SettingsError
from beam_jobs.errors import DataError

JAR_OPTIONS = {"FlinkRunner": "flink_job_server_jar", "SparkRunner": "spark_job_server_jar"}
"""Runner -> Beam's option that names the jar of its job server."""


def check(options: PipelineOptions, runner_name: str) -> None:
    """Check that Java and the jar are there; a jar that is missing is downloaded.

    Args:
        options: of the job.
        runner_name: key of JAR_OPTIONS.

    Raises:
        SettingsError: there is no Java, or no file of that name.
        DataError: reason no_answer; the jar cannot be downloaded.
    """
    _check_java(options, runner_name)
    is_flink = runner_name == "FlinkRunner"
    option = JAR_OPTIONS[runner_name]
    view = options.view_as(FlinkRunnerOptions if is_flink else SparkRunnerOptions)
    jar = getattr(view, option)
    if jar and not urlparse(jar).scheme and not os.path.exists(jar):
        raise SettingsError(
            f"--{option}={jar}: no such file; make one by {build_line(runner_name)}, or leave "
            "the option out and Beam downloads its own"
        )
    server = FlinkJarJobServer(options) if is_flink else SparkJarJobServer(options)
    try:
        JavaJarJobServer.local_jar(
            server.path_to_jar(), options.view_as(JobServerOptions).jar_cache_dir
        )
    # Beam makes a RuntimeError of what urllib raises.
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(
            f"the jar of Beam's job server for {runner_name} cannot be downloaded from "
            f"{server.path_to_jar()}: make one by {build_line(runner_name)} and name it by "
            f"--{option}=JAR",
            "no_answer",
        ) from error


def build_line(runner_name: str) -> str:
    """Return the command that makes the jar of a job server."""
    engine = runner_name.removesuffix("Runner").lower()
    return f"`mvn -B -P {engine} package` in deploy/job_server"


def _check_java(options: PipelineOptions, runner_name: str) -> None:
    launcher = options.view_as(JobServerOptions).job_server_java_launcher
    if shutil.which(launcher) is None:
        raise SettingsError(
            f"{runner_name} starts Beam's job server, a Java program, and there is no {launcher!r} "
            "on PATH: install Java 11 or 17 (apt-get install openjdk-17-jre-headless), or name "
            "a job server that runs elsewhere by --job_endpoint=HOST:PORT"
        )
