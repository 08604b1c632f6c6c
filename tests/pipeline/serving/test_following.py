"""A server's files follow the labels of the serving folder."""

import json

import pytest
import yaml
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from beam_jobs.contracts.locations import DamagedFileError
from models.publishing import labels
from pipeline.serving import following, serve_config
from pipeline.serving.server_files import Deployment, ServedModel

MODELS = [
    ServedModel(name="encoder", versions={"stable": 7}),
    ServedModel(name="flood", versions={"stable": 4, "canary": 5}),
]


@pytest.fixture
def run(tmp_path):
    """A run whose server loads flood 4 and 5, while the label has moved to 3."""
    serve_config.write_files(MODELS, Deployment(), str(tmp_path), tmp_path / "run/server")
    for model, version in (("flood", 3), ("encoder", 7)):
        (tmp_path / "run/serving" / model).mkdir(parents=True)
        labels.put(tmp_path / "run/serving" / model, {"stable": version}, since="")
    return tmp_path / "run"


def parse(text):
    config = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
    return {
        one.name: (
            one.model_version_policy.WhichOneof("policy_choice"),
            dict(one.version_labels),
            one.base_path,
        )
        for one in config.model_config_list.config
    }


def test_both_files_get_the_new_labels_and_keep_the_rest(run):
    following.follow_all(str(run), str(run / "serving"))
    text = (run / "server/config/models.config").read_text()
    assert parse(text) == {
        "encoder": ("all", {"stable": 7}, "/models/encoder"),
        "flood": ("all", {"stable": 3}, "/models/flood"),
    }
    config_map = yaml.safe_load((run / "server/kubernetes/config.yaml").read_text())
    assert config_map["data"]["models.config"] == text
    assert "monitoring.config" in config_map["data"]


def test_models_without_labels_and_runs_without_server_stay_as_they_are(run, tmp_path):
    before = (run / "server/config/models.config").read_text()
    assert parse(following.relabel(before, "flood", {})) == parse(before)
    assert parse(following.relabel(before, "snow", {"stable": 1})) == parse(before)
    assert following.server_folders(str(tmp_path / "none"), ()) == []
    assert following.server_folders(str(run), ()) == [run / "server"]
    assert following.server_folders(str(run), (tmp_path / "other",)) == [tmp_path / "other"]


def test_a_damaged_file_is_named(run):
    (run / "server/config/models.config").write_text("{")
    with pytest.raises(DamagedFileError, match=r"models.config: .* serve-config"):
        following.follow_labels(run / "server", "flood", {"stable": 3})
    assert json.loads((run / "serving/flood/labels.json").read_text())["versions"] == {"stable": 3}
