import json

import pytest
from tfx.types import standard_artifacts

from beam_jobs.contracts import layout, manifest, windows
from beam_jobs.errors import DataError, RefusedError
from components import data_manifest
from components.artifacts import list_files
from tests.data.shards import make_shards, make_spans


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


def run_on_window(tmp_path, root):
    examples = examples_of(2, 1)
    window = windows.resolve(root, windows.WindowConfig())
    examples.set_string_custom_property("window", windows.to_json(window))
    output = standard_artifacts.HyperParameters()
    output.uri = str(tmp_path / "out")
    data_manifest.DataManifest.test_call(examples=examples, manifest=output, data_root=str(root))
    return data_manifest.read_manifest(output.uri)


def test_the_manifest_of_a_window_is_that_of_all_its_spans(tmp_path):
    for span in (1, 2):
        make_spans.make_span(tmp_path / "data", span)
    found = run_on_window(tmp_path, tmp_path / "data")
    assert found.num_examples == {"train": 10, "eval": 4, "test": 4}
    parts = [manifest.read(tmp_path / f"data/span-{span}/version-1") for span in (1, 2)]
    first = [part.s1_statistics[0] for part in parts]
    assert found.s1_statistics[0] == windows.merged_statistics(first)
    assert found.s1_statistics[0] not in first


def test_a_scene_in_two_spans_is_refused_because_it_would_count_twice(tmp_path):
    for span in (1, 2):
        path = make_spans.make_span(tmp_path / "data", span)
    (path / layout.SCENES_NAME).write_text("S1_2\nS2_1\n")
    with pytest.raises(
        windows.WindowError, match=r"span-2/.*: the scene S2_1 is in .*span-1/.* with --new-span"
    ):
        run_on_window(tmp_path, tmp_path / "data")


def test_a_window_without_a_patch_of_a_split_is_refused(tmp_path):
    for span in (1, 2):
        make_spans.make_span(tmp_path / "data", span, without=("test",))
    with pytest.raises(DataError, match=r"no patch of split 'test' in the spans 1/1, 2/1"):
        run_on_window(tmp_path, tmp_path / "data")


@pytest.mark.parametrize("kind", ["pairs", "labels"])
def test_labels_that_train_on_ground_which_an_earlier_span_judges_are_refused(tmp_path, kind):
    """As when the later scenes lack the hold-out of the earlier: `make_shards` puts the patch
    of one index at the same place in every split."""
    for span in (1, 2):
        make_spans.make_span(
            tmp_path / "data",
            span,
            north=0.0,
            kind=kind,
            label_schema="water" if kind == "labels" else None,
        )
    if kind == "pairs":
        # OverlapAudit compares pairs with the labels.
        run_on_window(tmp_path, tmp_path / "data")
        return
    with pytest.raises(RefusedError, match=r"of train shows ground of patch .* \(8 overlaps\)"):
        run_on_window(tmp_path, tmp_path / "data")


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
