import json

import make_shards
import pytest
from tfx.types import standard_artifacts

from beam_jobs.contracts import manifest
from beam_jobs.errors import DataError
from components import data_manifest
from components.artifacts import list_files


def examples_of(span, version):
    artifact = standard_artifacts.Examples()
    artifact.uri = "examples-uri"
    artifact.set_string_custom_property("span", str(span))
    artifact.set_int_custom_property("version", version)
    return artifact


def test_executor_hands_the_manifest_of_the_resolved_version_to_run_fn(tmp_path):
    for version in (1, 2):
        make_shards.make_version(
            tmp_path / "data", num_patches=4, size_px=16, span=3, version=version, seed=version
        )
    output = standard_artifacts.HyperParameters()
    output.uri = str(tmp_path / "out")
    data_manifest.DataManifest.test_call(
        examples=examples_of(3, 2), manifest=output, data_root=str(tmp_path / "data")
    )
    (file,) = (tmp_path / "out").iterdir()
    received = data_manifest.manifest_from_hyperparameters(json.loads(file.read_text()))
    assert received == manifest.read(tmp_path / "data/span-3/version-2")
    assert received != manifest.read(tmp_path / "data/span-3/version-1")


def test_version_without_manifest_is_refused(tmp_path):
    output = standard_artifacts.HyperParameters()
    with pytest.raises(DataError, match=r"span-1/version-7/manifest\.json: no manifest"):
        data_manifest.DataManifest.test_call(
            examples=examples_of(1, 7), manifest=output, data_root=str(tmp_path)
        )


def test_examples_without_a_span_are_refused():
    with pytest.raises(ValueError, match="has no property 'span'"):
        data_manifest.resolve_version(standard_artifacts.Examples())


def test_run_fn_without_manifest_is_refused():
    with pytest.raises(ValueError, match="wire the Trainer's hyperparameters to DataManifest"):
        data_manifest.manifest_from_hyperparameters(None)


def test_empty_split_is_refused(tmp_path):
    with pytest.raises(ValueError, match="the split is empty"):
        list_files([str(tmp_path / "*")])
