"""Manifests of a training on several machines: what Kubernetes and TensorFlow make of them."""

import json
import os
import subprocess

import kubernetes_schema
import pytest
import tensorflow as tf
import yaml

from beam_jobs.terminal import program
from pipeline.kubeflow.training_job import TrainingJob, manifests

JOB = TrainingJob(
    root="s3://bucket/run",
    run_id="monday",
    node="Trainer-flood",
    image="registry.example/terrapair:1",
    num_workers=3,
    num_gpus=2,
    secret="terrapair-store",
)
SERVICE, INDEXED = manifests(JOB)
POD = INDEXED["spec"]["template"]
(CONTAINER,) = POD["spec"]["containers"]


def environment(index):
    """The variables of a pod as the kubelet expands them: in order, $(NAME) of those before."""
    found = {}
    for variable in CONTAINER["env"]:
        value = variable.get("value")
        if value is None:
            assert variable["valueFrom"]["fieldRef"]["fieldPath"].endswith("completion-index']")
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
    name = f"{INDEXED['metadata']['name']}-{index}.{POD['spec']['subdomain']}:{port}"
    assert hosts[index] == name
    assert POD["spec"]["subdomain"] == SERVICE["metadata"]["name"]


def test_the_service_names_pods_that_are_not_ready_yet():
    assert SERVICE["spec"]["clusterIP"] == "None"
    assert SERVICE["spec"]["publishNotReadyAddresses"] is True
    assert SERVICE["spec"]["selector"].items() <= POD["metadata"]["labels"].items()


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


def test_each_worker_gets_what_was_asked_for():
    assert CONTAINER["resources"] == {
        "requests": {"cpu": "4", "memory": "16Gi", "nvidia.com/gpu": "2"},
        "limits": {"memory": "16Gi", "nvidia.com/gpu": "2"},
    }
    assert CONTAINER["envFrom"] == [{"secretRef": {"name": "terrapair-store"}}]
    volumes = {volume["name"] for volume in POD["spec"]["volumes"]}
    assert {mount["name"] for mount in CONTAINER["volumeMounts"]} == volumes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--set", "root=runs/x"), "root: must be an object store"),
        (("--set", "container_image=''"), "set container_image or --image"),
        (("--node", "Pusher-flood"), "node: must be a Trainer"),
        (("--num-workers", "1"), "num_workers must be at least 2, got 1"),
        (("--name", "Flood"), "name: must be up to 52 small letters"),
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
