"""Manifests of a training on several machines: what Kubernetes and TensorFlow make of them."""

import copy
import dataclasses
import json
import os
import subprocess

import pytest
import tensorflow as tf
import yaml

from beam_jobs.contracts import settings
from beam_jobs.terminal import program
from pipeline.config import load_text
from pipeline.kubeflow.compiling import compile_pipeline
from pipeline.kubeflow.config import PodConfig
from pipeline.kubeflow.training_job import TrainingJob, manifests
from pipeline.runners.node_record import BEGIN, REPORT
from tests.data.runs import compiled_tasks
from tests.data.servers import kubernetes_schema
from tests.drills import two_workers

POD_CONFIG = settings.from_dict(
    PodConfig,
    {
        "cpu": "4",
        "memory": "16Gi",
        "memory_limit": "24Gi",
        "gpu_type": "nvidia.com/gpu",
        "num_gpus": 2,
        "scratch": "20Gi",
        "scratch_class": "fast",
        "node_selector": {"gpu": "a100"},
        "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "volumes": [
            {"mount_path": "/scenes", "claim": "scenes"},
            {"mount_path": "/cache", "size": "5Gi", "in_memory": True},
        ],
        "secrets": [
            {"name": "store", "env": {"key": "AWS_ACCESS_KEY_ID"}},
            {"name": "database", "env": {"password": "TERRAPAIR_DB"}, "mount_path": "/certs"},
        ],
        "env": {"S3_ENDPOINT": "http://minio:9000"},
        "pull_policy": "IfNotPresent",
        "pull_secrets": ["registry"],
        "timeout_seconds": 7200,
        "num_retries": 2,
    },
)
JOB = TrainingJob(
    root="s3://bucket/run",
    run_id="monday",
    node="Trainer-flood",
    image="registry.example/terrapair:1",
    num_workers=3,
    pod=POD_CONFIG,
)
SERVICE, INDEXED = manifests(JOB)
ON_ONE_NETWORK = two_workers.on_one_network(INDEXED, (7001, 7002, 7003))
POD = INDEXED["spec"]["template"]["spec"]
LABELS = INDEXED["spec"]["template"]["metadata"]["labels"]
(CONTAINER,) = POD["containers"]


def environment(index, job=INDEXED):
    """The variables of a pod as the kubelet expands them: in order, $(NAME) of those before."""
    found = {}
    for variable in job["spec"]["template"]["spec"]["containers"][0]["env"]:
        source = variable.get("valueFrom", {})
        value = variable.get("value", "secret")
        if "fieldRef" in source:
            assert source["fieldRef"]["fieldPath"].endswith("job-completion-index']")
            value = str(index)
        for name, known in found.items():
            value = value.replace(f"$({name})", known)
        found[variable["name"]] = value
    return found


def test_the_api_server_would_accept_the_manifests():
    assert kubernetes_schema.complaints(SERVICE) == []
    # The client that the schema comes from is of Kubernetes 1.26; the field is of 1.31.
    assert kubernetes_schema.complaints(INDEXED) == ["Job.spec.successPolicy: unknown field"]


@pytest.mark.parametrize("index", range(3))
def test_tensorflow_finds_all_workers_and_its_own_place(index, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", environment(index)["TF_CONFIG"])
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    assert (resolver.task_type, resolver.task_id) == ("worker", index)
    hosts = resolver.cluster_spec().as_dict()["worker"]
    assert len(hosts) == INDEXED["spec"]["completions"] == INDEXED["spec"]["parallelism"] == 3
    # The names of an Indexed Job's pods, below the subdomain that the Service has.
    port = SERVICE["spec"]["ports"][0]["port"]
    name = f"{INDEXED['metadata']['name']}-{index}.{POD['subdomain']}:{port}"
    assert hosts[index] == name
    assert POD["subdomain"] == SERVICE["metadata"]["name"]


@pytest.mark.parametrize("index", range(3))
def test_in_the_drill_workers_of_one_network_have_ports_of_their_own(index):
    complaints = ["Job.spec.successPolicy: unknown field"]
    assert kubernetes_schema.complaints(ON_ONE_NETWORK) == complaints
    config = json.loads(environment(index, ON_ONE_NETWORK)["TF_CONFIG"])
    hosts = ["127.0.0.1:7001", "127.0.0.1:7002", "127.0.0.1:7003"]
    assert config == {"cluster": {"worker": hosts}, "task": {"type": "worker", "index": index}}
    pod = ON_ONE_NETWORK["spec"]["template"]["spec"]
    assert pod["hostNetwork"] is True
    # A port of the container would be one of the node, which only one pod can have.
    assert "ports" not in pod["containers"][0]


def test_in_the_drill_other_pods_know_nothing_of_workers():
    names = {one["name"] for one in two_workers.plain_pod(INDEXED)["containers"][0]["env"]}
    own = {one["name"] for one in CONTAINER["env"]}
    assert own - names == {"WORKER", "TF_CONFIG", "TERRAPAIR_WORKERS_DIR"}


def test_the_drill_runs_every_node_of_its_pipeline(tmp_path):
    database = {"host": "127.0.0.1", "port": 3306, "user": "root"}
    text = two_workers.run_config("terrapair:1", "s3://bucket/run", database, {})
    package = tmp_path / "run.yaml"
    compile_pipeline(load_text(text, "drill", (), {}), package)
    upstream = {
        task.node: set(task.upstream)
        for task in compiled_tasks.tasks(package, "drill", tmp_path / "outcomes")
    }
    seen = set()
    own = [*two_workers._BEFORE, "Trainer", *two_workers._AFTER]
    for node in (BEGIN, *(f"{kind}-{two_workers._TASK}" for kind in own), REPORT):
        assert upstream[node] <= seen
        seen.add(node)
    assert seen == upstream.keys()


def test_the_service_names_pods_that_are_not_ready_yet():
    assert SERVICE["spec"]["clusterIP"] == "None"
    assert SERVICE["spec"]["publishNotReadyAddresses"] is True
    assert SERVICE["spec"]["selector"].items() <= LABELS.items()


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        (0, "node --run s3://bucket/run --run-id monday --node Trainer-flood"),
        (1, "follow"),
        (2, "follow"),
    ],
)
def test_the_first_worker_runs_the_trainer_and_the_others_follow(index, expected, tmp_path):
    fake = tmp_path / "terrapair"
    fake.write_text('#!/bin/sh\necho "$@"; echo "$TERRAPAIR_WORKERS_DIR"\n')
    fake.chmod(0o755)
    ended = subprocess.run(
        [*CONTAINER["command"], *CONTAINER["args"]],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", **environment(index)},
        capture_output=True,
        text=True,
        check=True,
    )
    told, folder = ended.stdout.splitlines()
    assert told == expected
    assert folder == "s3://bucket/run/runs/monday/workers/Trainer-flood"


def test_each_worker_gets_what_the_settings_of_its_pod_say():
    assert CONTAINER["resources"] == {
        "requests": {"cpu": "4", "memory": "16Gi", "nvidia.com/gpu": "2"},
        "limits": {"memory": "24Gi", "nvidia.com/gpu": "2"},
    }
    by_name = {variable["name"]: variable for variable in CONTAINER["env"]}
    assert by_name["S3_ENDPOINT"]["value"] == "http://minio:9000"
    assert by_name["TMPDIR"]["value"] == "/scratch"
    for name, secret, key in (
        ("AWS_ACCESS_KEY_ID", "store", "key"),
        ("TERRAPAIR_DB", "database", "password"),
    ):
        assert by_name[name]["valueFrom"] == {"secretKeyRef": {"name": secret, "key": key}}
    sources = {volume.pop("name"): volume for volume in copy.deepcopy(POD["volumes"])}
    mounted = {mount["mountPath"]: sources[mount["name"]] for mount in CONTAINER["volumeMounts"]}
    assert len(mounted) == len(sources) == 6
    assert mounted["/tmp"] == {"emptyDir": {}}
    claim = mounted["/scratch"]["ephemeral"]["volumeClaimTemplate"]["spec"]
    assert claim["resources"]["requests"] == {"storage": "20Gi"}
    assert claim["storageClassName"] == "fast"
    assert mounted["/scenes"] == {"persistentVolumeClaim": {"claimName": "scenes"}}
    assert mounted["/cache"] == {"emptyDir": {"medium": "Memory", "sizeLimit": "5Gi"}}
    assert mounted["/certs"] == {"secret": {"secretName": "database"}}
    assert mounted["/dev/shm"] == {"emptyDir": {"medium": "Memory"}}
    assert POD["nodeSelector"] == {"gpu": "a100"}
    assert POD["tolerations"] == [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert (POD["activeDeadlineSeconds"], POD["imagePullSecrets"]) == (7200, [{"name": "registry"}])
    assert CONTAINER["terminationMessagePolicy"] == "FallbackToLogsOnError"
    # Three workers may be lost three times, and fail twice each time.
    assert INDEXED["spec"]["backoffLimit"] == 18


def test_without_settings_a_pod_has_a_place_for_temporary_files_only():
    bare = manifests(dataclasses.replace(JOB, pod=PodConfig()))[1]
    pod = bare["spec"]["template"]["spec"]
    assert pod["volumes"] == [{"name": "volume-0", "emptyDir": {}}]
    assert "resources" not in pod["containers"][0]
    assert bare["spec"]["backoffLimit"] == 6
    assert kubernetes_schema.complaints(bare) == ["Job.spec.successPolicy: unknown field"]


def test_a_job_set_restarts_all_workers_when_one_has_failed():
    (job_set,) = manifests(dataclasses.replace(JOB, kind="jobset"))
    spec = job_set["spec"]
    (replicated,) = spec["replicatedJobs"]
    job = replicated["template"]["spec"]
    # A failed pod fails the Job, and that restarts all, unless a new try would end alike.
    assert job["backoffLimit"] == 0
    assert job["podFailurePolicy"]["rules"] == INDEXED["spec"]["podFailurePolicy"]["rules"][1:]
    assert spec["failurePolicy"] == {
        "maxRestarts": 3,
        "restartStrategy": "BlockingRecreate",
        "rules": [
            {
                "name": "permanent",
                "action": "FailJobSet",
                "onJobFailureReasons": ["PodFailurePolicy"],
            }
        ],
    }
    # The controller names pods SET-JOB-0-INDEX below the subdomain, which it sets itself.
    pod = job["template"]["spec"]
    (config,) = [one for one in pod["containers"][0]["env"] if one["name"] == "TF_CONFIG"]
    assert json.loads(config["value"].replace("$(WORKER)", "0"))["cluster"]["worker"] == [
        f"trainer-flood-{replicated['name']}-0-{index}.{spec['network']['subdomain']}:2222"
        for index in range(3)
    ]
    # The rest is that of the Job.
    assert pod["containers"][0].keys() == CONTAINER.keys()
    assert {**pod, "containers": POD["containers"], "subdomain": POD["subdomain"]} == POD
    plain = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"}, "spec": job}
    assert kubernetes_schema.complaints(plain) == ["Job.spec.successPolicy: unknown field"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--set", "root=runs/x"), "root: must be an object store"),
        (("--set", "container_image=''"), "container_image: needed for the pods"),
        (("--set", "kubeflow.pods.Trainer={num_gpus: 1}"), "has num_gpus 1 and no gpu_type"),
        (("--node", "Pusher-flood"), "node: must be a Trainer"),
        (("--num-workers", "1"), "num_workers must be at least 2, got 1"),
        (("--name", "Flood"), "name: must be up to 52 small letters"),
        (("--kind", "jobset", "--name", "f" * 43), "digits and dashes (42 for a jobset)"),
    ],
)
def test_a_wrong_setting_is_one_line(options, message, values, tmp_path, capsys):
    file, output = tmp_path / "run.yaml", tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump({**values, "root": "s3://bucket/run", "local_root": "x"}))
    given = {"--config": file, "--run-id": "monday", "--node": "Trainer-flood", "--output": output}
    arguments = [str(part) for pair in given.items() for part in pair]
    assert program.run(["training-job", *arguments, *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not output.exists()
    assert program.run(["training-job", *arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "trainer-flood"
    assert [one["kind"] for one in yaml.safe_load_all(output.read_text())] == ["Service", "Job"]
