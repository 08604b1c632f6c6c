"""The file of ML Metadata: what a run or a report cannot use is one line with the cure."""

import shutil
import sqlite3
from contextlib import closing

import pytest
from ml_metadata import metadata_store, proto

from beam_jobs.contracts.errors import ExitCode
from beam_jobs.errors import DataError
from pipeline import metadata_file
from tests.data.faults import damage


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A file with some hundred artifacts, so that a cut goes through its tables."""
    path = tmp_path_factory.mktemp("mlmd") / "metadata.sqlite"
    config = proto.ConnectionConfig()
    config.sqlite.filename_uri = str(path)
    config.sqlite.connection_mode = proto.SqliteMetadataSourceConfig.READWRITE_OPENCREATE
    store = metadata_store.MetadataStore(config)
    kind = store.put_artifact_type(proto.ArtifactType(name="kind"))
    store.put_artifacts(
        [proto.Artifact(type_id=kind, uri=f"/runs/{number}/" + "x" * 200) for number in range(300)]
    )
    return path


@pytest.fixture
def metadata(whole, tmp_path):
    return shutil.copy(whole, tmp_path / "metadata.sqlite")


@pytest.mark.parametrize("is_written", [True, False])
def test_a_whole_file_and_no_file_pass(metadata, tmp_path, is_written):
    metadata_file.check_metadata(metadata, is_written)
    metadata_file.check_metadata(tmp_path / "none.sqlite", is_written)


def other_version(path):
    with closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE MLMDEnv SET schema_version = 7")
        database.commit()


def other_database(path):
    path.unlink()
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE a (b)")
        database.commit()


@pytest.mark.parametrize("is_written", [True, False])
@pytest.mark.parametrize(
    ("harm", "why"),
    [
        (lambda path: path.write_text("no database at all, but text" * 9), "not a database"),
        (damage.cut, "malformed"),
        (lambda path: damage.cut(path, 50), "damaged or something else"),
        (damage.replace_by_folder, "got a folder"),
        (other_version, "needs tables of version 10, got tables of version 7"),
        (other_database, "got no tables of it"),
    ],
)
def test_what_ml_metadata_cannot_use_is_refused_with_its_cure(metadata, harm, why, is_written):
    harm(metadata)
    with pytest.raises(DataError, match=why) as caught:
        metadata_file.check_metadata(metadata, is_written)
    line = str(caught.value)
    assert line.startswith(f"{metadata}: ")
    assert f"`mv {metadata} {metadata}.damaged`" in line
    assert "\n" not in line
    assert caught.value.exit_code == ExitCode.BAD_DATA


def test_a_file_without_bytes_is_that_of_a_first_run_and_no_report(metadata):
    damage.cut(metadata, 0)
    metadata_file.check_metadata(metadata, is_written=True)
    with pytest.raises(DataError, match="got no tables of it"):
        metadata_file.check_metadata(metadata, is_written=False)


def test_a_file_that_another_process_holds_is_told_after_a_bounded_wait(metadata, monkeypatch):
    monkeypatch.setattr(metadata_file, "_WAIT_SECONDS", 0.2)
    with closing(sqlite3.connect(metadata)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(DataError, match="another process holds the metadata") as caught:
            metadata_file.check_metadata(metadata, is_written=True)
    assert caught.value.exit_code == ExitCode.CRASH
    metadata_file.check_metadata(metadata, is_written=True)
