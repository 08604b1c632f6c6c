"""Components that read shards by Beam name the damaged one."""

import json
import shutil
from collections import Counter

import pytest
import tensorflow_data_validation as tfdv
from tfx.dsl.components.base.base_beam_executor import BaseBeamExecutor
from tfx.proto.example_gen_pb2 import Input
from tfx.types import standard_artifacts, standard_component_specs
from tfx.utils import proto_utils

from beam_jobs.contracts import layout
from beam_jobs.contracts.shards import DamagedShardError
from components import shard_gen, shard_readers
from components.examples import create_examples
from tests.data.faults import damage
from tests.data.runs.make_artifacts import BEAM_ARGUMENTS, NO_DRIFT
from tests.data.scenes.make_datasets import read_split


def copied(version, folder):
    """The splits of a version as ExampleGen copies them."""
    for split in layout.SPLITS:
        (folder / f"Split-{split}").mkdir(parents=True)
        for number, path in enumerate(layout.shard_paths(version, split)):
            name = f"data_tfrecord-{number:05d}-of-00002.gz"
            shutil.copy(path, folder / f"Split-{split}" / name)
    return folder


def context(tmp_path):
    return BaseBeamExecutor.Context(
        beam_pipeline_args=BEAM_ARGUMENTS, tmp_dir=str(tmp_path / "tmp")
    )


def artifact(kind, folder, splits=()):
    made = kind()
    made.uri = str(folder)
    if splits:
        made.split_names = json.dumps(list(splits))
    return made


@pytest.mark.e2e
def test_statistics_name_the_copy_that_cannot_be_read(pairs_version, tmp_path):
    folder = copied(pairs_version, tmp_path / "examples" / "7")
    path = damage.flip(folder / "Split-eval" / "data_tfrecord-00000-of-00002.gz")
    inputs = {"examples": [artifact(standard_artifacts.Examples, folder, layout.SPLITS)]}
    outputs = {
        "statistics": [artifact(standard_artifacts.ExampleStatistics, tmp_path / "statistics")]
    }
    executor = shard_readers.StatisticsExecutor(context(tmp_path))
    with pytest.raises(DamagedShardError) as caught:
        executor.Do(inputs, outputs, {"stats_options_json": None, "exclude_splits": "null"})
    assert str(caught.value).startswith(f"{path}: the shard is damaged: its gzip stream is broken")
    assert f"remove the folder {folder} and run again" in str(caught.value)


def test_values_of_a_text_feature_are_counted_exactly(pairs_version, tmp_path):
    examples = artifact(
        standard_artifacts.Examples, copied(pairs_version, tmp_path / "examples"), layout.SPLITS
    )
    found = artifact(standard_artifacts.ExampleStatistics, tmp_path / "statistics")
    options = shard_readers.statistics_options()
    shard_readers.StatisticsExecutor(context(tmp_path)).Do(
        {"examples": [examples]},
        {"statistics": [found]},
        {"stats_options_json": options.to_json(), "exclude_splits": '["eval", "test"]'},
    )
    assert options.use_sketch_based_topk_uniques
    (path,) = (tmp_path / "statistics").glob("Split-train/*")
    (dataset,) = tfdv.load_stats_binary(str(path)).datasets
    (told,) = (one for one in dataset.features if one.path.step == ["orbit_state"])
    patches = read_split(pairs_version, "train")
    expected = Counter(patch.orbit_state for patch in patches)
    assert len(expected) > 1
    assert told.string_stats.unique == len(expected)
    assert {one.value: one.frequency for one in told.string_stats.top_values} == expected


def test_example_gen_names_the_shard_that_it_cannot_import(pairs_version, tmp_path):
    version = shutil.copytree(pairs_version, tmp_path / "span-1" / "version-1")
    path = damage.flip(layout.shard_paths(version, "train")[1])
    splits = [Input.Split(name=s, pattern=f"span-1/version-1/{s}/*") for s in layout.SPLITS]
    properties = {
        standard_component_specs.INPUT_CONFIG_KEY: proto_utils.proto_to_json(Input(splits=splits)),
        standard_component_specs.INPUT_BASE_KEY: str(tmp_path),
        standard_component_specs.OUTPUT_CONFIG_KEY: "{}",
        standard_component_specs.OUTPUT_DATA_FORMAT_KEY: 6,
        standard_component_specs.OUTPUT_FILE_FORMAT_KEY: 5,
    }
    outputs = {"examples": [artifact(standard_artifacts.Examples, tmp_path / "out")]}
    with pytest.raises(DamagedShardError) as caught:
        shard_gen.Executor(context(tmp_path)).Do({}, outputs, properties)
    assert str(caught.value).startswith(f"{path}: the shard is damaged: its gzip stream is broken")


def test_the_pipeline_computes_statistics_by_this_executor(tmp_path):
    statistics = create_examples(str(tmp_path), "pairs", NO_DRIFT).statistics
    assert statistics.executor_spec.executor_class is shard_readers.StatisticsExecutor
    assert statistics.id == "StatisticsGen-pairs"
