from beam_jobs.contracts import fingerprint


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
