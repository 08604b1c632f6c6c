"""What the jobs read and write, on this machine and on a loopback S3 server."""

import os
import resource
from pathlib import Path

import pytest

from beam_jobs.build import directory
from beam_jobs.contracts import layout
from beam_jobs.errors import DataError
from beam_jobs.storage import files


@pytest.fixture(params=["local", "s3"])
def folder(request, tmp_path) -> str:
    return f"{tmp_path}/data" if request.param == "local" else request.getfixturevalue("s3_folder")


def test_a_staged_file_is_seen_only_once_it_is_committed(folder):
    path = f"{folder}/deep/one.bin"
    file = files.StagedFile(path)
    file.write(b"0123456789" * 1000)
    file.write(b"abc")
    assert file.tell() == 10_003
    assert not files.exists(path)
    file.commit()
    assert files.exists(path)
    assert files.read_bytes(path) == b"0123456789" * 1000 + b"abc"
    assert files.read_range(path, 9_998, 5) == b"89abc"
    assert files.read_range(path, 3, 2) == b"34"
    with pytest.raises(OSError, match="must hold 9 bytes at 10000, got 3"):
        files.read_range(path, 10_000, 9)
    with pytest.raises(OSError, match="absent"):
        files.read_bytes(f"{folder}/absent")


def test_nothing_is_left_of_an_abandoned_file_and_of_a_failed_upload(folder):
    file = files.StagedFile(f"{folder}/one.bin")
    file.write(b"half")
    file.abandon()
    files.StagedFile(f"{folder}/empty.bin").abandon()
    if "://" in folder:
        with pytest.raises(IsADirectoryError), files.local_target(f"{folder}/two.bin") as path:
            Path(path).parent.read_bytes()
    assert files.list_files(folder) == []


def test_an_object_larger_than_one_upload_part_is_whole(s3_folder):
    data = os.urandom(1 << 20) * 12
    with files.local_target(f"{s3_folder}/large.bin") as path, open(path, "wb") as file:
        file.write(data)
    assert files.read_bytes(f"{s3_folder}/large.bin") == data


def test_files_are_listed_counted_moved_and_deleted(folder):
    for name in ("a/1.index", "a/2.index", "a/2.data", "a/b/3.index", "c/4.index"):
        files.write_bytes(f"{folder}/{name}", name.encode())
    assert files.list_files(f"{folder}/a") == [
        f"{folder}/a/{n}" for n in ("1.index", "2.data", "2.index", "b/3.index")
    ]
    assert files.list_files(f"{folder}/none") == []
    assert files.list_names(f"{folder}/c", ".index") == ["4.index"]
    assert files.list_names(f"{folder}/c", ".data") == []
    assert files.list_names(f"{folder}/none", ".index") == []
    files.delete_tree(f"{folder}/a")
    files.delete_tree(f"{folder}/none")
    assert files.list_files(folder) == [f"{folder}/c/4.index"]


def test_text_is_read_line_by_line(folder):
    files.write_bytes(f"{folder}/lines.txt", "één\n\nzwei\n".encode())
    with files.open_text(f"{folder}/lines.txt") as lines:
        assert next(lines) == "één\n"
        assert lines.read() == "\nzwei\n"


def test_a_version_is_published_over_what_a_killed_move_left_and_never_over_a_version(s3_folder):
    building_dir = str(layout.building_dir(s3_folder, 1, 1))
    target = layout.version_dir(s3_folder, 1, 1)
    names = [
        "train/part-0",
        "test/part-0",
        "rejected/patches.ndjson",
        "manifest.json",
        "spool/x.data",
        "summary.npz",
    ]
    for name in names:
        files.write_bytes(f"{building_dir}/{name}", name.encode())
    # Moved by the job that was killed, under a number of shards that is no longer
    # right.
    files.write_bytes(str(target / "train" / "part-0-of-9"), b"stale")
    assert layout.list_versions(s3_folder) == []
    assert not directory.is_taken(target)
    directory.publish(building_dir, target)
    assert layout.list_versions(s3_folder) == [(1, 1)]
    assert files.list_files(s3_folder) == sorted(f"{target}/{name}" for name in names[:4])
    files.write_bytes(f"{building_dir}/manifest.json", b"another job")
    with pytest.raises(DataError, match="another job wrote this version in the meantime"):
        directory.publish(building_dir, target)
    assert files.read_bytes(f"{target}/manifest.json") == b"manifest.json"


@pytest.fixture
def full_disk():
    """No file may grow beyond 50 kB, as on a disk that is nearly full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, before)
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_no_part_of_a_file_and_the_error_names_it(tmp_path, full_disk):
    path = f"{tmp_path}/folder/shard"
    staged = files.StagedFile(path)
    staged.write(bytes(20_000))
    with pytest.raises(OSError, match="File too large") as caught:
        staged.write(bytes(60_000))
    assert caught.value.filename == path
    with pytest.raises(OSError, match="File too large"):
        files.write_bytes(path, bytes(90_000))
    assert os.listdir(f"{tmp_path}/folder") == []
    full_disk()
    files.write_bytes(path, bytes(90_000))
    assert files.read_bytes(path) == bytes(90_000)


def test_two_attempts_at_once_write_two_files_and_each_is_seen_whole(tmp_path):
    path = tmp_path / "train" / "part-0"
    with files.local_target(str(path)) as first, files.local_target(str(path)) as second:
        assert first != second
        Path(first).write_bytes(b"first, whole")
        assert not path.exists()
        Path(second).write_bytes(b"second")
    # The inner one ended first; the outer one replaced it as a whole.
    assert path.read_bytes() == b"first, whole"
    with pytest.raises(IsADirectoryError), files.local_target(str(path)) as third:
        Path(third).write_bytes(b"half") and path.parent.read_bytes()
    assert path.read_bytes() == b"first, whole"
    assert [one.name for one in path.parent.iterdir()] == ["part-0"]


def test_unfinished_files_tell_host_process_and_thread(monkeypatch):
    def names(host: str, process: int, thread: int) -> list[str]:
        monkeypatch.setattr(files.socket, "gethostname", lambda: host)
        monkeypatch.setattr(files.os, "getpid", lambda: process)
        monkeypatch.setattr(files.threading, "get_ident", lambda: thread)
        return [files.partial_path("a/b.data") for _ in range(2)]

    found = names("one", 7, 1) + names("two", 7, 1) + names("one", 8, 1) + names("one", 7, 2)
    assert len(set(found)) == 8
    assert found[0].startswith("a/.b.data.partial-one-7-1-")
    assert found[2].startswith("a/.b.data.partial-two-7-1-")
    monkeypatch.setattr(files.socket, "gethostname", lambda: "h" * 64)
    longest = files.partial_path(f"a/{'n' * 250}.tif")
    assert len(longest.removeprefix("a/")) < 200


def test_what_lost_workers_left_is_no_part_of_a_version(folder):
    kept = ["train/part-0", "rejected/patches.ndjson", "spool/x.data", "summary.npz"]
    left = [
        "train/part-0-of-9",
        f"test/.part-1{files.PARTIAL_MARK}host-1-2-3",
        f"rejected/.patches.ndjson{files.PARTIAL_MARK}host-1-2-3",
    ]
    for name in kept + left:
        files.write_bytes(f"{folder}/{name}", b"1")
    directory.delete_leftovers(folder, ["train/part-0"])
    assert files.list_files(folder) == sorted(f"{folder}/{name}" for name in kept)
