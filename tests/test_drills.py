"""The drill with pods: manifests of a compiled pipeline's tasks, and how processes end."""

import os
import time

import pytest

from pipeline.runners import root
from tests.data.runs import compiled_tasks
from tests.data.runs.repository import REPOSITORY
from tests.data.servers import kubernetes_schema
from tests.drills.cronjob import DrillError
from tests.drills.pods import Drill
from tests.drills.task_pods import Containers, Pods, Processes, pod_of

GOLDEN = REPOSITORY / "tests" / "pipeline" / "kubeflow" / "golden.yaml"


@pytest.fixture(scope="module")
def tasks():
    return {one.node: one for one in compiled_tasks.tasks(GOLDEN, "one", Pods.outcomes)}


def test_a_pod_has_what_its_task_declares_and_no_more(tasks):
    pod = pod_of(tasks["Pusher-flood"])
    manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one"}, "spec": pod}
    assert kubernetes_schema.complaints(manifest) == []
    (container,) = pod["containers"]
    assert container["image"] == "registry.example/terrapair:1"
    outcome = "/tmp/outcomes/one/pusher-flood"
    assert container["command"] == [
        *("terrapair", "node", "--run", "s3://bucket/terrapair", "--run-id", "one"),
        *("--node", "Pusher-flood", "--outcome-file", outcome),
    ]
    assert container["terminationMessagePath"] == outcome
    assert container["resources"] == {"requests": {"memory": "2Gi"}}
    secret = {"secretKeyRef": {"name": "db", "key": "password"}}
    assert container["env"] == [
        {"name": "S3_ENDPOINT", "value": "http://minio:9000"},
        {"name": "TERRAPAIR_METADATA_PASSWORD", "valueFrom": secret},
    ]
    assert [one["mountPath"] for one in container["volumeMounts"]] == ["/tmp", "/data"]
    assert pod["volumes"][1]["persistentVolumeClaim"] == {"claimName": "data"}
    assert container["securityContext"]["readOnlyRootFilesystem"] is True


def test_the_order_is_that_of_the_edges(tasks):
    order = list(tasks)
    assert (order[0], order[-1]) == ("begin", "report")
    assert order.index("Trainer-pretrain") < order.index("Trainer-flood")
    assert tasks["begin"].upstream == frozenset()
    assert "OverlapGate-flood" in tasks["Trainer-pretrain"].upstream
    assert tasks["report"].upstream == {*order} - {"report"}


def test_a_setting_that_the_drill_cannot_give_is_named(tasks):
    assert tasks["Trainer-pretrain"].num_retries == 3
    with pytest.raises(DrillError, match="declares genericEphemeralVolume, imagePullSecret, which"):
        pod_of(tasks["Trainer-pretrain"])


def test_a_process_works_in_an_empty_folder_and_runs_terrapair_alone(tasks, tmp_path):
    place = Processes(tmp_path, {"db": {"password": "of the secret"}})
    pod = pod_of(tasks["Pusher-flood"])
    # A verb that only shows its help: importing TFX takes seconds.
    pod["containers"][0]["command"] = ["terrapair", "node", "--help"]
    place.start("one", pod)
    while (ended := place.ended("one")) is None:
        time.sleep(0.05)
    assert (ended.exit_code, ended.reason, ended.outcome) == (0, "Completed", "")
    assert "Run one node of the pipeline" in ended.log
    assert list((tmp_path / "working" / "one").iterdir()) == []
    pod["containers"][0]["command"] = ["rm"]
    with pytest.raises(DrillError, match="runs rm, and only terrapair is here"):
        place.start("two", pod)


PODMAN = """#!/bin/sh
case $1 in
  run) touch oom;;
  inspect) echo exited 137 false;;
esac
"""
"""Podman 4.3 as it is after the kernel killed a container for memory."""


def test_a_container_that_was_killed_for_memory_is_known_by_the_file_of_its_monitor(
    tasks, tmp_path, monkeypatch
):
    program = tmp_path / "bin" / "podman"
    program.parent.mkdir()
    program.write_text(PODMAN)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    place = Containers(tmp_path, {"db": {"password": "of the secret"}})
    pod = pod_of(tasks["Pusher-flood"])
    # A claim needs a cluster.
    pod["containers"][0]["volumeMounts"] = []
    place.start("one", pod)
    ended = place.ended("one")
    assert (ended.exit_code, ended.reason) == (137, "OOMKilled")


def test_the_drill_sees_when_a_node_has_begun(tmp_path):
    drill = Drill(None, tmp_path / "run.yaml", root=str(tmp_path), database=None, num_jobs=1)
    assert not drill._has_begun("first", "Trainer-flood")
    with root.hold_node(str(tmp_path), "first", "Trainer-flood"):
        assert drill._has_begun("first", "Trainer-flood")
        assert not drill._has_begun("second", "Trainer-flood")
