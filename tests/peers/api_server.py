"""Ask a Kubernetes API server whether it would accept our manifests.

They are those of serve-config and of training-job. It needs `kubectl` on PATH and a
KUBECONFIG of a cluster: any that lets you create Deployments and Jobs, or etcd and
kube-apiserver alone. A JobSet is asked for where the server knows its definition.
Nothing is created: it is a dry run on the server, with strict validation.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import tempfile
from pathlib import Path

import yaml

from pipeline.kubeflow import training_job
from pipeline.kubeflow.config import PodConfig
from pipeline.kubeflow.training_job import Kind, TrainingJob
from pipeline.serving import serve_config
from pipeline.serving.server_files import Batching, Deployment, ServedModel

MODELS = [
    ServedModel(name="encoder", versions={"stable": 7}),
    ServedModel(name="flood", versions={"stable": 3, "canary": 12}),
]
PLACES = (
    Deployment(),
    Deployment(models_uri="/srv/models", batching=Batching()),
    Deployment(models_uri="s3://bucket/serving", secret="keys"),
    Deployment(models_uri="gs://bucket/serving"),
)
JOB_SETS = "jobsets.jobset.x-k8s.io"
"""Name of the definition of JobSets."""
PODS = (
    PodConfig(),
    PodConfig(
        cpu="4",
        memory="16Gi",
        gpu_type="nvidia.com/gpu",
        num_gpus=8,
        scratch="20Gi",
        num_retries=2,
        timeout_seconds=7200,
    ),
)


def check() -> dict[str, object]:
    """Return the server's version and the number of accepted files.

    Raises:
        RuntimeError: it refuses one, or accepts an unknown field.
    """
    if "KUBECONFIG" not in os.environ:
        raise RuntimeError("set KUBECONFIG to the file of a cluster")
    num_accepted = 0
    with tempfile.TemporaryDirectory() as folder:
        for number, deployment in enumerate(PLACES):
            # kubectl takes a comma in a path for the end of it.
            output = Path(folder) / str(number)
            for path in serve_config.write_files(MODELS, deployment, "/srv/models", output):
                if path.parent.name == "kubernetes":
                    _dry_run(path)
                    num_accepted += 1
        kinds = _kinds()
        for kind, (number, pod) in itertools.product(kinds, enumerate(PODS)):
            path = Path(folder) / f"{kind}-{number}.yaml"
            job = TrainingJob(
                root="s3://bucket/run",
                run_id="monday",
                node="Trainer-flood",
                image="registry.example/terrapair:1",
                num_workers=3,
                pod=pod,
                kind=kind,
            )
            path.write_text(yaml.safe_dump_all(training_job.manifests(job)))
            _dry_run(path)
            num_accepted += 1
        # The server must be one that sees mistakes.
        wrong = Path(folder) / "wrong.yaml"
        text = (Path(folder) / "0/kubernetes/deployment.yaml").read_text()
        wrong.write_text(text.replace("containerPort: 8500", "containerPort: 8500\n          x: 1"))
        try:
            _dry_run(wrong)
        except RuntimeError as error:
            refused = str(error)
        else:
            raise RuntimeError("the server accepts an unknown field: is its validation strict?")
    version = _kubectl("version", "--output", "yaml")
    (server,) = version.partition("serverVersion:")[2].partition("gitVersion:")[2].split()[:1]
    return {
        "server": server,
        "accepted_files": num_accepted,
        "kinds": kinds,
        "refused": refused.strip(),
    }


def _kinds() -> list[Kind]:
    """Return the kinds of training jobs that the server knows."""
    known = _kubectl("get", "crd", "--output", "name")
    return ["job", "jobset"] if JOB_SETS in known else ["job"]


def _dry_run(path: Path) -> None:
    _kubectl("apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", str(path))


def _kubectl(*arguments: str) -> str:
    done = subprocess.run(["kubectl", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"kubectl {' '.join(arguments)}: {done.stderr}")
    return done.stdout
