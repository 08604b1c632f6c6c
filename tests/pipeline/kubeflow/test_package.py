"""Compiled pipelines: what is read of the file, and the values of parameters."""

import json

import pytest
import yaml

from beam_jobs.contracts.settings import SettingsError
from beam_jobs.errors import DataError
from pipeline.kubeflow.package import package_of, read_package, values


def test_a_file_of_kfps_compiler_is_read(package_file):
    package = read_package(package_file)
    assert package.name == "terrapair-small"
    assert set(package.parameters) == {"span", "note", "rate", "is_new", "names", "limits"}
    # The tasks of the exit handler's group count, too.
    assert {"cut", "report", "exit-handler-1"} == package.tasks
    assert package.root == "runs/no-such-run"
    assert package.path == package_file
    specification = yaml.safe_load(package_file.read_text())
    on_server = package_of(specification)
    assert (on_server.name, on_server.tasks) == (package.name, package.tasks)
    # With settings for Kubernetes, the server puts both into one mapping.
    assert package_of({"pipeline_spec": specification, "platform_spec": {}}) == on_server


def test_the_version_follows_the_content(package_file, tmp_path):
    copy = tmp_path / "copy.yaml"
    copy.write_bytes(package_file.read_bytes())
    assert read_package(copy).version == read_package(package_file).version
    copy.write_text(package_file.read_text() + "# other\n")
    assert read_package(copy).version != read_package(package_file).version


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "must hold the mapping of a pipeline"),
        ("- 1\n", "must hold the mapping of a pipeline"),
        ("a: [1", "must be YAML"),
        ("\x00", "must be YAML"),
        ("root: {}\n", "pipelineInfo.name or root is missing"),
        ("pipelineInfo: {name: x}\n", "pipelineInfo.name or root is missing"),
        ("pipelineInfo: x\nroot: {}\n", "pipelineInfo.name or root is missing"),
        (json.dumps({"pipelineSpec": {}, "runtimeConfig": {}}), "Vertex AI"),
    ],
)
def test_a_file_that_is_no_pipeline_is_refused_by_its_name(content, message, tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(content)
    with pytest.raises(DataError, match=message) as raised:
        read_package(path)
    assert str(raised.value).startswith(f"{path}: ")


def test_a_file_that_is_missing_or_no_yaml_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"none.yaml: cannot read the pipeline: No such file"):
        read_package(tmp_path / "none.yaml")
    with pytest.raises(DataError, match=r"run.json: must be a pipeline as .yaml"):
        read_package(tmp_path / "run.json")


def test_values_have_the_types_of_the_parameters(package_file):
    package = read_package(package_file)
    options = ["span=3", "note=3", "rate=2", "is_new=true", "names=[a, b]", "limits={iou: 0.5}"]
    assert values(package, options) == {
        "span": 3,
        "note": "3",
        "rate": 2,
        "is_new": True,
        "names": ["a", "b"],
        "limits": {"iou": 0.5},
    }
    assert values(package, []) == {}
    assert values(package, ["note=a=b"]) == {"note": "a=b"}
    whole = values(package, ["span=4.0"])["span"]
    assert (whole, type(whole)) == (4, int)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("span=3.7", "--param span: must be a whole number, got '3.7'"),
        ("span=three", "must be a whole number"),
        ("span=true", "must be a whole number"),
        ("span=", "must be a whole number"),
        ("rate=.nan", "must be a number, got '.nan'"),
        ("rate=.inf", "must be a number"),
        ("is_new=1", "must be true or false"),
        ("names=a", "must be a list"),
        ("limits=[1]", "must be a mapping"),
        ("limits={a", "must be a mapping"),
        ("spam=3", "no such parameter; known: is_new, limits, names, note, rate, span"),
        ("span", "must be NAME=VALUE, got 'span'"),
        ("=3", "must be NAME=VALUE"),
    ],
)
def test_a_wrong_value_is_refused_by_the_name_of_its_parameter(option, message, package_file):
    with pytest.raises(SettingsError) as raised:
        values(read_package(package_file), [option])
    assert message in str(raised.value)


def test_a_parameter_is_given_once_and_never_left_out_without_a_default(package_file):
    package = read_package(package_file)
    with pytest.raises(SettingsError, match="--param span: is given twice"):
        values(package, ["span=1", "span=2"])
    needy = package_of(
        {
            "pipelineInfo": {"name": "needy"},
            "root": {"inputDefinitions": {"parameters": {"span": {"parameterType": "STRING"}}}},
        }
    )
    with pytest.raises(SettingsError, match=r"--param span=VALUE: .* needs this parameter"):
        values(needy, [])
