import json

import pytest
import tensorflow as tf
from tfx.orchestration import metadata
from tfx.orchestration.local.local_dag_runner import LocalDagRunner
from tfx.orchestration.pipeline import Pipeline

from beam_jobs.contracts import layout, records, windows
from beam_jobs.contracts.locations import locate
from beam_jobs.errors import DataError
from components.data_manifest import MANIFEST_FILE
from components.examples import create_examples
from components.shard_gen import Spans
from pipeline.report.run_record import read_last_run
from tests.data.runs.make_artifacts import BEAM_ARGUMENTS, NO_DRIFT
from tests.data.shards import make_shards, make_spans


def run_data_part(root, spans=None):
    """ExampleGen and DataManifest alone, through the real local runner."""
    data = create_examples(str(root / "data"), "pairs", NO_DRIFT, spans)
    pipeline = Pipeline(
        pipeline_name="data-part",
        pipeline_root=str(root / "tfx"),
        components=[data.examples, data.manifest],
        enable_cache=True,
        metadata_connection_config=metadata.sqlite_metadata_connection_config(
            str(root / "metadata.sqlite")
        ),
        beam_pipeline_args=BEAM_ARGUMENTS,
    )
    LocalDagRunner().run(pipeline)
    return read_last_run(root / "metadata.sqlite", "data-part")


def manifest_of(record):
    with open(f"{record.output('DataManifest-pairs', 'manifest').uri}/{MANIFEST_FILE}") as file:
        return json.load(file)


@pytest.mark.e2e
def test_record_tells_cached_runs_and_a_new_span_reaches_the_manifest(tmp_path):
    make_shards.make_version(tmp_path / "data", num_patches=4, size_px=16)
    first = run_data_part(tmp_path)
    assert [item.component_id for item in first.components] == [
        "ImportExampleGen-pairs",
        "DataManifest-pairs",
    ]
    assert (first.num_cached, manifest_of(first)["span"]) == (0, 1)
    second = run_data_part(tmp_path)
    assert (second.num_cached, manifest_of(second)["span"]) == (2, 1)
    make_shards.make_version(tmp_path / "data", num_patches=4, size_px=16, span=2, seed=1)
    third = run_data_part(tmp_path)
    assert (third.num_cached, manifest_of(third)["span"]) == (0, 2)
    with pytest.raises(
        DataError, match="Trainer-pretrain: no finished output 'model' in the last run"
    ):
        third.output("Trainer-pretrain", "model")
    with pytest.raises(DataError, match="no run of pipeline 'other'"):
        read_last_run(tmp_path / "metadata.sqlite", "other")


def patches_of(folder, pattern):
    paths = [str(path) for path in sorted(locate(folder).glob(pattern))]
    read = tf.data.TFRecordDataset(paths, "GZIP").as_numpy_iterator()
    return sorted(records.decode(one).patch_id for one in read)


def window_of(root, last):
    config = windows.WindowConfig(last=last)
    return Spans(config=config, window=windows.resolve(root / "data", config))


@pytest.mark.e2e
def test_a_window_of_spans_is_read_whole_and_cached_until_one_of_its_versions_changes(tmp_path):
    data = tmp_path / "data"
    for span in (1, 2):
        make_spans.make_span(data, span)
    # A month without a patch of eval or test: TFX's driver alone would read another span.
    make_spans.make_span(data, 3, without=("eval", "test"))
    first = run_data_part(tmp_path, window_of(tmp_path, 2))
    examples = first.output("ImportExampleGen-pairs", "examples")
    taken = {"train": ("2", "3"), "eval": ("1", "2"), "test": ("1", "2")}
    for split in layout.SPLITS:
        expected = sorted(
            one
            for span in taken[split]
            for one in patches_of(data, f"span-{span}/version-1/{split}/*.gz")
        )
        assert patches_of(examples.uri, f"Split-{split}/*.gz") == expected, split
    merged = manifest_of(first)
    assert merged["num_examples"] == {"train": 10, "eval": 4, "test": 4}
    assert (merged["span"], len(merged["window"])) == (3, 3)
    assert run_data_part(tmp_path, window_of(tmp_path, 2)).num_cached == 2
    # The newest span is as before, so only the window tells TFX of the change.
    make_spans.make_span(data, 1, version=2)
    third = run_data_part(tmp_path, window_of(tmp_path, 2))
    assert third.num_cached == 0
    assert [entry["version"] for entry in manifest_of(third)["window"]] == [2, 1, 1]
    # Compiled where the data is out of reach, the pipeline looks the window up itself.
    unresolved = Spans(config=windows.WindowConfig(last=1))
    last = manifest_of(run_data_part(tmp_path, unresolved))
    assert last["num_examples"] == {"train": 4, "eval": 4, "test": 4}


def test_folder_without_metadata_is_named(tmp_path):
    with pytest.raises(
        DataError, match=r"metadata\.sqlite: no metadata, so nothing has run here yet"
    ):
        read_last_run(tmp_path / "metadata.sqlite", "data-part")
