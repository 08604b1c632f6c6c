"""Runners: options reach Beam unchanged, and other runners get the documented jobs."""

import hashlib
import json
import sys
from collections.abc import Iterable
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.internal import pickler
from apache_beam.options.pipeline_options import DirectOptions, StandardOptions
from apache_beam.portability import common_urns, python_urns
from apache_beam.portability.api import beam_runner_api_pb2 as beam_api
from apache_beam.runners.portability.local_job_service import LocalJobServicer
from apache_beam.runners.worker.worker_pool_main import BeamFnExternalWorkerPoolServicer

from beam_jobs import runner
from beam_jobs.__main__ import run
from beam_jobs.build.driver import Execution, build_pairs

IMAGE = "europe-west1-docker.pkg.dev/project/terrapair/worker:0.1.0"


def test_views_of_the_options_are_made_once_and_share_their_values():
    options = runner.pipeline_options(2)
    one, two = options.view_as(DirectOptions), options.view_as(DirectOptions)
    assert one is two
    one.direct_num_workers = 3
    assert options.get_all_options()["direct_num_workers"] == 3
    assert options.view_as(StandardOptions).runner == runner.LOCAL_RUNNER


def test_without_a_runner_the_local_one_gets_the_options():
    options = runner.pipeline_options(2, ["--job_name=mine", "--direct_num_workers=3"])
    assert options.view_as(StandardOptions).runner == runner.LOCAL_RUNNER
    assert options.view_as(DirectOptions).direct_running_mode == "multi_processing"
    # The last of two equal options wins, so an option in Beam's spelling overrides ours.
    assert options.view_as(DirectOptions).direct_num_workers == 3
    assert options.get_all_options()["job_name"] == "mine"


def test_with_a_runner_only_what_was_given_is_set():
    given = ["--runner=FlinkRunner", "--flink_master=flink:8081", "--environment_type=DOCKER"]
    options = runner.pipeline_options(
        2, [*given, f"--environment_config={IMAGE}", "--parallelism=8"]
    )
    assert options.get_all_options(drop_default=True, retain_unknown_options=True) == {
        "runner": "FlinkRunner",
        "flink_master": "flink:8081",
        "environment_type": "DOCKER",
        "environment_config": IMAGE,
        "parallelism": 8,
    }


def test_a_word_that_beam_would_ignore_is_refused():
    with pytest.raises(
        ValueError, match="Beam options look like --name=value, got 'DataflowRunner'"
    ):
        runner.pipeline_options(1, ["DataflowRunner"])


@pytest.mark.parametrize(
    "option",
    ["--output_executable_path=job.jar", "--flink_submit_uber_jar", "--spark_submit_uber_jar"],
)
@pytest.mark.parametrize("name", ["FlinkRunner", "SparkRunner"])
def test_a_job_in_a_jar_is_refused_with_the_reason(name, option):
    with pytest.raises(ValueError, match=f"^{option.partition('=')[0]} is refused: .* publishes"):
        runner.pipeline_options(1, [f"--runner={name}", option])


def test_options_are_read_from_a_file_and_later_words_win(tmp_path):
    path = tmp_path / "options.txt"
    path.write_text(
        "# A comment.\n\n--runner=FlinkRunner\n  --parallelism=2\n"
        '--flink_master=[local]\n--environment_config={"command": "terrapair worker"}\n'
    )
    options = runner.pipeline_options(1, ["--parallelism=9", f"@{path}", "--parallelism=4"])
    assert options.get_all_options(drop_default=True) == {
        "runner": "FlinkRunner",
        "parallelism": 4,
        "flink_master": "[local]",
        "environment_config": '{"command": "terrapair worker"}',
    }


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "options.txt: must name a file of Beam options"),
        (b"\xff\xfe", "options.txt: must name a file .*is no text"),
        (b"--runner=FlinkRunner\nparallelism=2\n", "options.txt, line 2: must be --name=value"),
    ],
)
def test_a_file_that_holds_no_options_is_refused(content, told, tmp_path):
    path = tmp_path / "options.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=told):
        runner.pipeline_options(1, [f"@{path}"])


@pytest.mark.parametrize("name", ["DaskRunner", "apache_beam.runners.dask.dask_runner.DaskRunner"])
def test_the_dask_runner_is_refused(name):
    with pytest.raises(ValueError, match="is refused"):
        runner.pipeline_options(1, [f"--runner={name}"])


@pytest.mark.parametrize(
    ("options", "is_local"),
    [
        ([], True),
        (["--direct_num_workers=3"], True),
        ([f"--runner={runner.LOCAL_RUNNER}"], True),
        (["--runner=direct"], True),
        (["--runner=PrismRunner"], True),
        (["--runner=flink", "--flink_master=f:8081"], False),
        (["--runner", "DataflowRunner"], False),
    ],
)
def test_workers_are_on_this_machine_or_on_others(options, is_local):
    runner.pipeline_options(1, options)
    assert runner.is_local(options) == is_local


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--runner=Flink"], "needs the address of its cluster: add --flink_master=HOST:8081"),
        (["--runner=SparkRunner"], "needs the address .* add --spark_master_url=spark://HOST:7077"),
        (["--runner=FlnkRunner"], "runner 'FlnkRunner' is not known to Beam"),
        (["--runner=beam_jobs.runner.NoRunner"], "is not known to Beam"),
    ],
)
def test_a_runner_that_cannot_be_had_is_told_before_the_job(options, told):
    with pytest.raises(ValueError, match=told):
        runner.pipeline_options(1, options)
    if "address" in told:
        # A job server knows the address.
        runner.pipeline_options(1, [*options, "--job_endpoint=localhost:8099"])


@pytest.fixture(scope="module")
def dataflow_job(simulated, tmp_path_factory) -> tuple[dict, beam_api.Pipeline]:
    """Return the job request and the graph that the command would send to Dataflow.

    Beam writes them to a template, so no cloud is needed.
    """
    folder = tmp_path_factory.mktemp("dataflow")
    arguments = [
        "build-pairs",
        "--catalog",
        str(simulated),
        "--output",
        str(folder / "pairs"),
        "--",
    ]
    arguments += [
        "--runner=DataflowRunner",
        "--project=my-project",
        "--region=europe-west1",
        "--job_name=pairs",
    ]
    arguments += [
        f"--temp_location={folder}",
        f"--staging_location={folder}",
        f"--sdk_container_image={IMAGE}",
    ]
    arguments += ["--sdk_location=container", "--machine_type=n2-standard-4", "--max_num_workers=8"]
    # With a local endpoint and no sign-in, Beam asks Google nothing and accepts local
    # paths.
    arguments += [
        "--no_auth",
        "--dataflow_endpoint=http://localhost:1",
        f"--template_location={folder}/job.json",
    ]
    assert run(arguments) == 1
    assert not list(folder.glob("pairs/span-*/version-*")), (
        "a job that is only described must not make a version"
    )
    job = json.loads((folder / "job.json").read_text())
    return job, beam_api.Pipeline.FromString((folder / "pipeline.pb").read_bytes())


def test_dataflow_job_asks_for_our_container_and_the_portable_worker(dataflow_job):
    job, _ = dataflow_job
    assert (job["name"], job["type"]) == ("pairs", "JOB_TYPE_BATCH")
    (pool,) = job["environment"]["workerPools"]
    assert pool["workerHarnessContainerImage"] == IMAGE
    (image,) = pool["sdkHarnessContainerImages"]
    assert image["containerImage"] == IMAGE
    # There is one process per core. Otherwise NumPy and GDAL would wait for one
    # interpreter lock.
    assert image["useSingleCorePerContainer"] is True
    assert pool["machineType"] == "n2-standard-4"
    assert pool["autoscalingSettings"] == {"maxNumWorkers": 8}
    experiments = set(job["environment"]["experiments"])
    assert {
        "use_runner_v2",
        "use_portable_job_submission",
        "use_multiple_sdk_containers",
    } <= experiments


def test_dataflow_job_needs_no_package_but_the_container(dataflow_job):
    job, graph = dataflow_job
    (pool,) = job["environment"]["workerPools"]
    # Dataflow only checks this list of the sender's packages. No code is staged.
    assert [package["name"] for package in pool["packages"]] == [
        "submission_environment_dependencies.txt"
    ]
    (environment,) = graph.components.environments.values()
    assert environment.urn == common_urns.environments.DOCKER.urn


def test_dataflow_graph_holds_the_steps_of_the_build(dataflow_job):
    _, graph = dataflow_job
    names = {transform.unique_name for transform in graph.components.transforms.values()}
    steps = {name.split("/")[0] for name in names}
    assert {
        "Catalogs",
        "ReadItems",
        "InspectScenes",
        "MakePairs",
        "CutPatches",
        "WriteShards",
    } <= steps
    assert {"Rejections", "WriteRejected", "MergeSums", "MergeAll", "WriteSummary"} <= steps
    assert "CutPatches/GroupByTask" in names, (
        "without it, Dataflow fuses pairing and cutting, and one worker cuts all patches"
    )


def test_every_step_of_the_dataflow_graph_can_be_unpickled(dataflow_job):
    _, graph = dataflow_job
    functions = []
    for transform in graph.components.transforms.values():
        if transform.spec.urn == common_urns.primitives.PAR_DO.urn:
            do_fn = beam_api.ParDoPayload.FromString(transform.spec.payload).do_fn
            # Packed combiners have URNs of their own instead of pickles.
            if do_fn.urn == python_urns.PICKLED_DOFN_INFO:
                functions.append(pickler.loads(do_fn.payload)[0])
    assert len(functions) > 20
    assert all(isinstance(function, beam.DoFn) for function in functions)
    # A worker does not have the functions of __main__.
    assert not [function for function in functions if type(function).__module__ == "__main__"]


@pytest.fixture
def worker_pool(tmp_path):
    """Return the address of a pool that starts the workers that a job asks for.

    Each worker is a process `python -m beam_jobs.worker`.
    """
    boot = tmp_path / "boot.sh"
    boot.write_text(f'#!/bin/sh\nexec {sys.executable} -m beam_jobs.worker "$@"\n')
    boot.chmod(0o755)
    address, server = BeamFnExternalWorkerPoolServicer.start(
        use_process=True, container_executable=str(boot)
    )
    yield address
    server.stop(0)


@pytest.mark.e2e
def test_same_bytes_through_the_job_api_that_flink_and_spark_use(
    simulated, build_config, worker_pool, tmp_path
):
    jobs = LocalJobServicer()
    options = ["--runner=PortableRunner", f"--job_endpoint=localhost:{jobs.start_grpc_server(0)}"]
    try:
        beam_options = [*options, "--environment_type=EXTERNAL"]
        portable = build_pairs(
            build_config,
            [simulated],
            tmp_path / "portable",
            execution=Execution(
                beam_options=[*beam_options, f"--environment_config={worker_pool}"]
            ),
        )
    finally:
        jobs.stop()
    local = build_pairs(build_config, [simulated], tmp_path / "local")
    assert _digests(portable) == _digests(local)


def _tag(number: int):
    yield beam.pvalue.TaggedOutput("odd", number) if number % 2 else number


def _write(numbers: tuple[int, Iterable[int]], path: str) -> None:
    Path(path).write_text(json.dumps(sorted(numbers[1])))


@pytest.mark.e2e
def test_the_dask_runner_still_mixes_tagged_outputs(tmp_path):
    """If this fails, Beam has fixed its Dask runner: accept the runner again."""
    pytest.importorskip("dask")
    from dask.distributed import LocalCluster

    written = tmp_path / "even.json"
    with LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
    ) as cluster:
        options = ["--runner=apache_beam.runners.dask.dask_runner.DaskRunner"]
        options += [f"--dask_client_address={cluster.scheduler_address}"]
        with beam.Pipeline(argv=options) as pipeline:
            tagged = (
                pipeline
                | beam.Create([1, 2, 3, 4])
                | beam.FlatMap(_tag).with_outputs("odd", main="even")
            )
            keyed = tagged.even | beam.Map(lambda number: (0, number)) | beam.GroupByKey()
            keyed | beam.Map(_write, str(written))
    assert json.loads(written.read_text()) == [1, 2, 3, 4]


def _digests(version: Path) -> dict[str, str]:
    files = sorted(path for path in version.rglob("*") if path.is_file())
    return {
        str(path.relative_to(version)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }
