"""The checks before a job on a cluster: Java, the jar, the cluster and its version."""

import socket

import pytest

from beam_jobs.engines import checks, flink
from beam_jobs.errors import DataError
from beam_jobs.runner import pipeline_options
from tests.data.servers.flink_server import FlinkServer


@pytest.fixture
def java(tmp_path):
    """Return options that name a program in place of Java, and a jar."""
    program, jar = tmp_path / "java", tmp_path / "server.jar"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    jar.write_bytes(b"")
    return [
        f"--job_server_java_launcher={program}",
        f"--flink_job_server_jar={jar}",
        f"--spark_job_server_jar={jar}",
    ]


def options(runner, *more):
    addresses = ["--flink_master=[local]", "--spark_master_url=local[4]"]
    return pipeline_options(1, [f"--runner={runner}", *addresses, *more])


@pytest.mark.parametrize("runner", ["FlinkRunner", "SparkRunner", "flink", "spark"])
def test_a_machine_without_java_is_told_so(runner, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        ValueError, match=r"\wRunner starts Beam's job server.*no 'java' on PATH: install Java"
    ):
        checks.check(options(runner))


@pytest.mark.parametrize("engine", ["flink", "spark"])
def test_a_jar_that_is_not_there_is_told_with_the_command_that_makes_it(engine, java, tmp_path):
    absent = f"--{engine}_job_server_jar={tmp_path}/absent.jar"
    with pytest.raises(
        ValueError, match=r"absent\.jar: no such file; make one by `mvn .* package`"
    ):
        checks.check(options(f"{engine.title()}Runner", *java, absent))


@pytest.mark.parametrize("engine", ["flink", "spark"])
def test_a_jar_that_cannot_be_downloaded_is_told_with_the_command_that_makes_it(
    engine, java, tmp_path
):
    # Nobody listens at port 1.
    jar = f"--{engine}_job_server_jar=http://127.0.0.1:1/server-of-tests.jar"
    asked = options(f"{engine.title()}Runner", *java, jar, f"--jar_cache_dir={tmp_path}/jars")
    with pytest.raises(
        DataError, match=r"cannot be downloaded from http://127\.0\.0\.1:1/"
    ) as caught:
        checks.check(asked)
    assert caught.value.exit_code == 1
    assert f"mvn -B -P {engine} package" in str(caught.value)


def test_no_java_is_needed_for_a_job_server_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    checks.check(options("SparkRunner", "--job_endpoint=localhost:1"))
    checks.check(options("PortableRunner", "--job_endpoint=localhost:1"))
    checks.check(pipeline_options(2))


def test_a_cluster_that_does_not_answer_is_told_before_anything_is_read(java):
    with pytest.raises(DataError, match="no Flink cluster answers at http://localhost:1") as caught:
        checks.check(options("FlinkRunner", *java, "--flink_master=localhost:1"))
    assert (caught.value.reason, caught.value.exit_code) == ("no_answer", 1)


def test_another_version_of_flink_is_refused_with_the_option_that_fits(java):
    told = r"is version 1\.19\.3, .* 1\.20: give --flink_version=1\.19"
    with FlinkServer(version="1.19.3") as cluster:
        master = f"--flink_master=localhost:{cluster.port}"
        with pytest.raises(ValueError, match=told):
            checks.check(options("FlinkRunner", *java, master, "--flink_version=1.20"))


@pytest.mark.parametrize(
    ("config", "is_told"),
    [
        ({"restart-strategy.type": "fixed-delay"}, False),
        ({"restart-strategy": "exponential-delay"}, False),
        ({}, True),
        ({"restart-strategy.type": "none"}, True),
        ({"restart-strategy": "disable"}, True),
    ],
)
def test_a_cluster_without_restart_strategy_is_told(config, is_told, java, caplog):
    with FlinkServer(config=config) as cluster:
        master = f"--flink_master=localhost:{cluster.port}"
        checks.check(options("FlinkRunner", *java, master, "--flink_version=1.19"))
    assert ("has no restart strategy: the job fails" in caplog.text) == is_told


@pytest.mark.parametrize(
    ("master", "url"),
    [
        ("[local]", ""),
        ("[auto]", ""),
        ("localhost:8081", "http://localhost:8081"),
        ("https://flink.example/", "https://flink.example"),
    ],
)
def test_the_address_of_a_cluster_is_that_of_beam(master, url):
    assert flink.address(master) == url
    assert checks.flink_master(options("FlinkRunner", f"--flink_master={master}")) == url
    assert checks.flink_master(options("SparkRunner", f"--flink_master={master}")) == ""


def test_a_spark_master_that_does_not_answer_is_told(java):
    with pytest.raises(DataError, match="no Spark master answers at spark://") as caught:
        checks.check(options("SparkRunner", *java, "--spark_master_url=spark://localhost:1"))
    assert (caught.value.reason, caught.value.exit_code) == ("no_answer", 1)
    with pytest.raises(ValueError, match="must be spark://HOST:PORT"):
        checks.check(options("SparkRunner", *java, "--spark_master_url=spark://localhost"))


def test_one_spark_master_of_two_is_enough_and_others_are_not_asked(java):
    with socket.create_server(("127.0.0.1", 0)) as server:
        masters = f"spark://127.0.0.1:1,127.0.0.1:{server.getsockname()[1]}"
        checks.check(options("SparkRunner", *java, f"--spark_master_url={masters}"))
    for master in ("local[2]", "yarn"):
        checks.check(options("SparkRunner", *java, f"--spark_master_url={master}"))
