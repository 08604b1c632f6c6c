"""ExampleGen accepts only complete versions, also while objects are being moved."""

import shutil

import pytest
from tfx.components.example_gen import utils
from tfx.proto.example_gen_pb2 import Input
from tfx.types import standard_component_specs
from tfx.utils import proto_utils

from beam_jobs.contracts import layout, set_aside, windows
from beam_jobs.contracts.set_aside import SetAside
from beam_jobs.errors import DataError
from components import shard_gen
from components.examples import create_examples
from tests.data.runs.make_artifacts import NO_DRIFT
from tests.data.shards import make_spans
from tests.data.shards.make_shards import make_version


@pytest.fixture
def version(tmp_path):
    return make_version(tmp_path)


def test_the_pipeline_imports_through_the_check(tmp_path):
    examples = create_examples(str(tmp_path), "pairs", NO_DRIFT).examples
    assert examples.executor_spec.executor_class is shard_gen.Executor
    assert examples.id == "ImportExampleGen-pairs"


def test_a_redrawn_label_of_the_same_size_is_another_input_of_the_cache(version, tmp_path):
    """The build gives redrawn labels a new version; its name is part of TFX's cache key."""

    def found() -> tuple[str, int, int]:
        config = create_examples(str(tmp_path), "pairs", NO_DRIFT).examples.exec_properties[
            "input_config"
        ]
        splits = proto_utils.json_to_proto(config, Input()).splits
        _, span, number = utils.calculate_splits_fingerprint_span_and_version(str(tmp_path), splits)
        return splits[0].pattern, span, number

    assert found() == ("span-1/version-1/train/*", 1, 1)
    assert found() == ("span-1/version-1/train/*", 1, 1)
    # The second version is a copy with the same times, so nothing but its number differs.
    shutil.copytree(version, version.with_name("version-2"))
    assert found() == ("span-1/version-2/train/*", 1, 2)


def test_a_window_is_read_by_its_manifests_and_is_a_part_of_the_cache_key(tmp_path):
    make_spans.make_span(tmp_path, 1)
    # TFX asks for the newest span of each split, and refuses different ones.
    make_spans.make_span(tmp_path, 2, without=("eval", "test"))

    def properties(last):
        config = windows.WindowConfig(last=last)
        spans = shard_gen.Spans(config=config, window=windows.resolve(tmp_path, config))
        return create_examples(str(tmp_path), "pairs", NO_DRIFT, spans).examples.exec_properties

    def key(last):
        """What TFX's driver makes a part of the cache key."""
        found = properties(last)
        splits = proto_utils.json_to_proto(found["input_config"], Input()).splits
        seen = utils.calculate_splits_fingerprint_span_and_version(str(tmp_path), splits)
        return seen, found["custom_config"]

    compiled = shard_gen.Spans(config=windows.WindowConfig())
    where_it_runs = create_examples(str(tmp_path), "pairs", NO_DRIFT, compiled).examples
    splits = proto_utils.json_to_proto(
        where_it_runs.exec_properties["input_config"], Input()
    ).splits
    found = utils.calculate_splits_fingerprint_span_and_version(str(tmp_path), splits)
    assert found[1:] == (2, 1)
    # A refused span leaves the key as it was, so nothing is trained again for it.
    good = key(2)
    make_spans.make_span(tmp_path, 3)
    assert key(2) != good
    set_aside.add(tmp_path, SetAside(span=3, version=1, at="2026-02-01", reasons=("x",)))
    assert key(2) == good
    before = properties(2)
    assert properties(2) == before
    assert properties(1) != before
    make_spans.make_span(tmp_path, 1, version=2)
    assert properties(2) != before
    # Without a window, the key is that of older runs.
    assert (
        create_examples(str(tmp_path), "pairs", NO_DRIFT).examples.exec_properties["custom_config"]
        is None
    )


def test_a_compiled_window_is_looked_up_without_refused_spans_but_with_accepted_ones(tmp_path):
    def found(*accepted):
        spans = shard_gen.Spans(config=windows.WindowConfig(), accepted=accepted)
        examples = create_examples(str(tmp_path), "pairs", NO_DRIFT, spans).examples
        window = shard_gen.read_window(str(tmp_path), examples.exec_properties)
        return [one.span for one in window]

    for span in (1, 2, 3):
        make_spans.make_span(tmp_path, span)
    for span in (2, 3):
        set_aside.add(tmp_path, SetAside(span=span, version=1, at="2026-02-01", reasons=("x",)))
    assert found() == [1]
    assert found(2) == [1, 2]
    # It stays, also when the setting is gone.
    assert found() == [1, 2]


def test_a_version_of_a_window_that_is_not_whole_is_refused(tmp_path):
    for span in (1, 2):
        make_spans.make_span(tmp_path, span)
    config = windows.WindowConfig()
    spans = shard_gen.Spans(config=config, window=windows.resolve(tmp_path, config))
    properties = create_examples(str(tmp_path), "pairs", NO_DRIFT, spans).examples.exec_properties
    shard = layout.shard_paths(tmp_path / "span-1" / "version-1", "eval")[0]
    shard.unlink()
    with pytest.raises(DataError, match=rf"span-1/version-1: .* missing are \['eval/{shard.name}"):
        shard_gen.Executor().Do({}, {}, properties)


def test_a_whole_version_passes(version):
    shard_gen.check_complete(str(version))


def test_a_version_whose_manifest_has_not_arrived_is_refused_before_anything_is_read(
    version, tmp_path
):
    (version / layout.MANIFEST_NAME).unlink()
    splits = [Input.Split(name=s, pattern=f"span-1/{version.name}/{s}/*") for s in layout.SPLITS]
    properties = {
        standard_component_specs.INPUT_CONFIG_KEY: proto_utils.proto_to_json(Input(splits=splits)),
        standard_component_specs.INPUT_BASE_KEY: str(tmp_path),
    }
    with pytest.raises(
        DataError, match=rf"{version.name}/manifest.json: no manifest.*run that build again"
    ):
        shard_gen.Executor().Do({}, {}, properties)


def test_a_version_with_a_shard_too_few_or_too_many_is_refused(version):
    shard = layout.shard_paths(version, "train")[0]
    shard.rename(shard.with_name("part-00000-of-00077.tfrecord.gz"))
    with pytest.raises(
        DataError,
        match=rf"missing are \['train/{shard.name}'\], not named are \['train/part-00000-of-00077",
    ):
        shard_gen.check_complete(str(version))
