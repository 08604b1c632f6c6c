"""Outputs that lost files: TFX does not take them from its cache, and a line says so."""

import shutil
import uuid
from pathlib import Path
from types import SimpleNamespace

import pytest
from ml_metadata import proto
from tfx.orchestration import metadata
from tfx.orchestration.pipeline import Pipeline

from beam_jobs.errors import DataError
from components.examples import create_examples
from pipeline.report.run_record import read_last_run
from pipeline.runners.artifact_files import Inventory
from pipeline.runners.nodes import Launching, Nodes
from pipeline.runners.retrying import RetryConfig
from tests.data.runs.make_artifacts import BEAM_ARGUMENTS, NO_DRIFT
from tests.data.shards import make_shards


@pytest.fixture
def run(tmp_path):
    """An output of one component, known to ML Metadata and to the inventory."""
    folder = tmp_path / "tfx" / "Trainer" / "model" / "3"
    (folder / "Format-Serving").mkdir(parents=True)
    (folder / "Format-Serving" / "saved_model.pb").write_bytes(b"graph")
    (folder / "log").write_bytes(b"text")
    connection = metadata.sqlite_metadata_connection_config(str(tmp_path / "metadata.sqlite"))
    with metadata.Metadata(connection) as handle:
        kind = handle.store.put_artifact_type(proto.ArtifactType(name="Model"))
        handle.store.put_artifacts(
            [
                proto.Artifact(type_id=kind, uri=str(uri), state=proto.Artifact.LIVE)
                for uri in (folder, tmp_path / "another")
            ]
        )
    outputs = {"model": [SimpleNamespace(uri=str(folder))]}
    Inventory(str(tmp_path / "files")).record("Trainer-pretrain", outputs)
    return SimpleNamespace(folder=folder, connection=connection, root=tmp_path)


def forget(run):
    """(URIs that are forgotten, lines, those that ML Metadata counts as deleted)."""
    lines = []
    inventory = Inventory(str(run.root / "files"))
    with metadata.Metadata(run.connection) as handle:
        lost = inventory.forget_incomplete(
            handle, "Trainer-pretrain", lambda line, _: lines.append(line)
        )
        deleted = [
            item.uri
            for item in handle.store.get_artifacts()
            if item.state == proto.Artifact.DELETED
        ]
    return lost, lines, deleted


def test_an_output_with_all_its_files_stays_in_the_cache(run):
    (run.folder / "added").write_bytes(b"a file more")
    assert forget(run) == ([], [], [])


@pytest.mark.parametrize(
    ("harm", "why"),
    [
        (shutil.rmtree, "is gone or empty"),
        (lambda folder: [shutil.rmtree(folder), folder.mkdir()], "is gone or empty"),
        (
            lambda folder: shutil.rmtree(folder / "Format-Serving"),
            "lost 1 of 2 files (Format-Serving/saved_model.pb)",
        ),
        (lambda folder: (folder / "log").write_bytes(b""), "has files of another size (log)"),
    ],
)
def test_an_output_that_lost_files_is_made_again(run, harm, why):
    harm(run.folder)
    lost, lines, deleted = forget(run)
    assert lost == deleted == [str(run.folder)]
    assert lines == [f"Trainer-pretrain: its output {run.folder} {why}: the component runs again"]


@pytest.mark.parametrize("content", [b"", b"[1]", b'{"a": 1}', b"\xff"])
def test_a_damaged_inventory_counts_as_none(run, content):
    (run.root / "files" / "Trainer-pretrain.json").write_bytes(content)
    shutil.rmtree(run.folder)
    assert forget(run) == ([], [], [])


def run_data_part(root):
    """ExampleGen and DataManifest through our local runner."""
    data = create_examples(str(root / "data"), "pairs", NO_DRIFT)
    pipeline = Pipeline(
        pipeline_name="data-part",
        pipeline_root=str(root / "tfx"),
        components=[data.examples, data.manifest],
        enable_cache=True,
        beam_pipeline_args=BEAM_ARGUMENTS,
    )
    lines = []
    launching = Launching(
        place=root / "metadata.sqlite",
        inventory=Inventory(str(root / "files")),
        retries=RetryConfig(num_retries=0),
        on_notice=lambda line, _: lines.append(line),
    )
    nodes = Nodes(pipeline, uuid.uuid4().hex, launching)
    for node in nodes.ids:
        nodes.launch(node)
    return read_last_run(root / "metadata.sqlite", "data-part"), lines


@pytest.mark.e2e
def test_a_component_whose_copies_were_emptied_runs_again(tmp_path):
    make_shards.make_version(tmp_path / "data", num_patches=4, size_px=16)
    first, _ = run_data_part(tmp_path)
    examples = Path(first.output("ImportExampleGen-pairs", "examples").uri)
    (shard, *_) = (examples / "Split-train").iterdir()
    shard.unlink()
    second, lines = run_data_part(tmp_path)
    (line,) = lines
    assert line.startswith(f"ImportExampleGen-pairs: its output {examples} lost 1 of ")
    assert second.num_cached == 0
    again = Path(second.output("ImportExampleGen-pairs", "examples").uri)
    assert (again / "Split-train" / shard.name).is_file()
    third, lines = run_data_part(tmp_path)
    assert (third.num_cached, lines) == (2, [])
    shutil.rmtree(again)
    with pytest.raises(DataError, match=r"was in .*, which is gone: use `terrapair run`"):
        third.output("ImportExampleGen-pairs", "examples")
