import pytest

from beam_jobs.contracts import fingerprint


def test_a_folder_is_told_by_names_and_contents_and_not_by_its_path(tmp_path):
    one = tmp_path / "one"
    (one / "assets").mkdir(parents=True)
    (one / "model.bin").write_bytes(b"weights")
    (one / "assets" / "card.json").write_bytes(b"{}")
    first = fingerprint.tree_sha256(str(one))
    one.rename(tmp_path / "two [v1]*")
    two = tmp_path / "two [v1]*"
    assert fingerprint.tree_sha256(f"{two}/") == first
    (two / "assets" / "card.json").rename(two / "card.json")
    moved = fingerprint.tree_sha256(str(two))
    (two / "model.bin").write_bytes(b"WEIGHTS")
    assert len({first, moved, fingerprint.tree_sha256(str(two))}) == 3
    one_file = str(two / "model.bin")
    assert fingerprint.tree_sha256(one_file) == fingerprint.file_sha256(one_file)
    with pytest.raises(FileNotFoundError, match="none: no such folder, or it is empty"):
        fingerprint.tree_sha256(str(tmp_path / "none"))


def test_fingerprint_changes_with_code_and_with_file_names_only(tmp_path):
    package = tmp_path / "package"
    package.mkdir()
    (package / "a.py").write_text("x = 1\n")
    first = fingerprint.source_fingerprint(["package"], tmp_path)
    (package / "notes.txt").write_text("not code")
    assert fingerprint.source_fingerprint(["package"], tmp_path) == first
    (package / "a.py").rename(package / "b.py")
    moved = fingerprint.source_fingerprint(["package"], tmp_path)
    (package / "b.py").write_text("x = 2\n")
    assert len({first, moved, fingerprint.source_fingerprint(["package"], tmp_path)}) == 3
