"""Text files of the export."""

from pathlib import Path

from beam_jobs.simulation.export import write_text_atomically


def test_text_is_replaced_at_once_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "items.ndjson"
    write_text_atomically(path, "old\n")
    write_text_atomically(path, "new\n")
    assert path.read_text() == "new\n"
    assert [p.name for p in tmp_path.iterdir()] == ["items.ndjson"]
