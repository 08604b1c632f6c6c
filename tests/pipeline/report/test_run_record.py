import json

import make_shards
import pytest
from make_artifacts import NO_DRIFT
from tfx.orchestration import metadata
from tfx.orchestration.local.local_dag_runner import LocalDagRunner
from tfx.orchestration.pipeline import Pipeline

from beam_jobs.errors import DataError
from beam_jobs.runner import local_arguments
from components.data_manifest import MANIFEST_FILE
from components.examples import create_examples
from pipeline.report.run_record import read_last_run


def run_data_part(root):
    """ExampleGen and DataManifest alone, through the real local runner."""
    data = create_examples(str(root / "data"), "pairs", NO_DRIFT)
    pipeline = Pipeline(
        pipeline_name="data-part",
        pipeline_root=str(root / "tfx"),
        components=[data.examples, data.manifest],
        enable_cache=True,
        metadata_connection_config=metadata.sqlite_metadata_connection_config(
            str(root / "metadata.sqlite")
        ),
        beam_pipeline_args=local_arguments(1),
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


def test_folder_without_metadata_is_named(tmp_path):
    with pytest.raises(
        DataError, match=r"metadata\.sqlite: no metadata, so nothing has run here yet"
    ):
        read_last_run(tmp_path / "metadata.sqlite", "data-part")
