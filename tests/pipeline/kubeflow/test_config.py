"""Settings of pods: which are stronger, and which are refused."""

import pytest

from beam_jobs.contracts import settings
from beam_jobs.contracts.settings import SettingsError
from pipeline.kubeflow.config import KubeflowConfig, kind_of


def test_an_id_is_stronger_than_a_kind_and_a_kind_than_the_default():
    config = settings.from_dict(
        KubeflowConfig,
        {
            "pods": {
                "default": {"cpu": "1", "memory": "1Gi", "env": {"A": "1"}},
                "Trainer": {"memory": "2Gi", "num_retries": 0},
                "Trainer-flood": {"cpu": "3", "env": {"B": "2"}},
            }
        },
    )
    flood, other = config.pod_of("Trainer-flood"), config.pod_of("Trainer-landcover")
    assert (flood.cpu, flood.memory, flood.env, flood.num_retries) == ("3", "2Gi", {"B": "2"}, 0)
    assert (other.cpu, other.memory, other.env) == ("1", "2Gi", {"A": "1"})
    assert config.pod_of("begin").memory == "1Gi"
    assert config.pod_of("EncoderGate").num_retries is None
    assert (kind_of("EncoderGate"), kind_of("Pusher-my-task")) == ("EncoderGate", "Pusher")


@pytest.mark.parametrize(
    ("pod", "told"),
    [
        (
            {"gpu_type": "nvidia-tesla-t4"},
            "gpu_type must be one of nvidia.com/gpu, .* got 'nvidia-",
        ),
        ({"gpu_type": "nvidia.com/mig-1g"}, "gpu_type must be one of"),
        ({"cpu": "two"}, "cpu must be a number of cores such as '2' or 500m, got 'two'"),
        ({"memory": "4 GB"}, "memory must be a size such as 4Gi, got '4 GB'"),
        ({"scratch": "big"}, "scratch must be a size"),
        ({"num_gpus": -1}, "num_gpus must be at least 0, got -1"),
        ({"timeout_seconds": 0}, "timeout_seconds must be at least 1, got 0"),
        ({"pull_policy": "Sometimes"}, "pull_policy"),
        ({"env": {"A-B": "1"}}, "env must name environment variables, got 'A-B'"),
        ({"secrets": [{"name": "db"}]}, "env or mount_path must be given for secret 'db'"),
        ({"secrets": [{"name": "Db", "mount_path": "/x"}]}, "name must be a name of Kubernetes"),
        ({"volumes": [{"mount_path": "x", "claim": "a"}]}, "mount_path must be an absolute path"),
        ({"volumes": [{"mount_path": "/x"}]}, "claim or size must be given"),
        ({"volumes": [{"mount_path": "/x", "claim": "a", "in_memory": True}]}, "got claim 'a'"),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_a_wrong_setting_is_named_with_its_path(pod, told):
    with pytest.raises(SettingsError, match=told) as refused:
        settings.from_dict(KubeflowConfig, {"pods": {"Trainer": pod}}, "kubeflow")
    assert str(refused.value).startswith("kubeflow.pods.Trainer")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("gpu", ["amd.com/gpu", "nvidia.com/mig-1g.10gb"])
def test_known_gpus_pass(gpu):
    found = settings.from_dict(KubeflowConfig, {"pods": {"Trainer": {"gpu_type": gpu}}})
    assert found.pod_of("Trainer-flood").gpu_type == gpu
