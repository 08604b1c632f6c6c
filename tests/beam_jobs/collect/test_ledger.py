"""The ledger: torn lines, several writers at once, retries, order of runs."""

import json
import multiprocessing
from collections import Counter
from pathlib import Path

import pytest

from beam_jobs.collect import ledger
from beam_jobs.collect.ledger import LedgerTail, LedgerWriter, read_state


def write(folder: Path, *entries: tuple) -> None:
    writer = LedgerWriter(folder)
    for unit, event, details in entries:
        writer.add(unit, event, **details)
    writer.close()


def test_state_is_what_the_entries_come_to(tmp_path):
    write(
        tmp_path,
        ("a", "chosen", {"s1": "x", "num_requests": 1, "request_seconds": 0.5}),
        ("a", "failed", {"reason": "server_error", "num_requests": 1, "request_seconds": 0.25}),
        (
            "a",
            "answered",
            {
                "step": "s2",
                "num_requests": 2,
                "num_bytes": 70,
                "eecu_seconds": 3.0,
                "request_seconds": 1.0,
            },
        ),
        ("a", "done", {}),
        ("b", "chosen", {"s1": "y", "num_requests": 1}),
        ("c", "rejected", {"reason": "no_s1", "detail": "…"}),
    )
    state = read_state(tmp_path)
    assert state.finished == {"a": "done", "c": "rejected"}
    assert list(state.pending) == ["b"]
    assert state.pending["b"]["s1"] == "y"
    assert (state.num_done, state.num_requests, state.num_bytes) == (1, 5, 70)
    assert (state.eecu_seconds, state.num_with_eecu, state.request_seconds) == (3.0, 1, 1.75)
    assert state.num_failures == {"server_error": 1}
    assert state.num_answers == {"list": 2, "s2": 1}
    assert state.num_rejected == {"no_s1": 1}


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_torn_last_line_is_no_entry_and_is_cut_off(tmp_path, cut):
    write(tmp_path, ("a", "done", {}), ("b", "done", {"s1": "Überflutung"}))
    (path,) = tmp_path.glob("*.ndjson")
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    assert read_state(tmp_path).finished == {"a": "done"}
    assert ledger.repair(tmp_path) == 1
    assert path.read_bytes() == whole[: whole.index(b"\n") + 1]
    assert ledger.repair(tmp_path) == 0


def test_file_of_one_torn_line_or_rubbish_costs_nothing_else(tmp_path):
    write(tmp_path, ("a", "done", {}))
    (tmp_path / "0-torn.ndjson").write_bytes(b'{"unit":"b","ev')
    (tmp_path / "1-rubbish.ndjson").write_bytes(
        b"\x00\x00\xff\n[]\n" + b'{"unit":"c","event":"done"}\n'
    )
    assert read_state(tmp_path).finished == {"c": "done", "a": "done"}
    ledger.repair(tmp_path)
    assert (tmp_path / "0-torn.ndjson").read_bytes() == b""


def _add_many(folder: str, name: str) -> None:
    writer = LedgerWriter(Path(folder))
    for number in range(300):
        writer.add(f"{name}-{number}", "done", detail="x" * (number % 50))
    writer.close()


def test_processes_write_at_once_without_locks(tmp_path):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_add_many, args=(str(tmp_path), name)) for name in "abc"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert read_state(tmp_path).num_done == 900
    assert len(list(tmp_path.glob("*.ndjson"))) == 3


def test_done_wins_over_rejected_in_any_order(tmp_path):
    write(tmp_path, ("a", "rejected", {"reason": "x", "detail": ""}), ("b", "done", {}))
    write(tmp_path, ("a", "done", {}), ("b", "rejected", {"reason": "y", "detail": ""}))
    state = read_state(tmp_path)
    assert state.finished == {"a": "done", "b": "done"}
    assert (state.num_done, state.num_rejected) == (2, Counter())
    assert ledger.write_rejected(tmp_path, str(tmp_path / "rejected.json")) == 0


def test_forgotten_rejections_are_open_again(tmp_path):
    write(tmp_path, ("a", "rejected", {"reason": "x", "detail": ""}), ("b", "done", {}))
    state = read_state(tmp_path)
    state.forget_rejected()
    assert state.finished == {"b": "done"}
    assert state.num_rejected == {}


def test_a_task_started_again_in_a_later_run_replaces_the_earlier_one(tmp_path):
    for number in range(5):
        write(
            tmp_path,
            ("a", "started", {"task_s1": f"t{number}"}),
            ("a", "started", {"task_s2": f"u{number}"}),
        )
    assert {"task_s1": "t4", "task_s2": "u4"}.items() <= read_state(tmp_path).pending["a"].items()


def test_rejected_file_says_why_once_a_unit(tmp_path):
    write(
        tmp_path,
        ("b", "rejected", {"reason": "x", "detail": "old"}),
        ("a", "rejected", {"reason": "y", "detail": "d"}),
    )
    write(tmp_path, ("b", "rejected", {"reason": "z", "detail": "new"}))
    assert ledger.write_rejected(tmp_path, str(tmp_path / "rejected.json")) == 2
    lines = [json.loads(line) for line in (tmp_path / "rejected.json").read_text().splitlines()]
    assert [line["unit"] for line in lines] == ["a", "b"]
    assert (lines[0]["reason"], lines[0]["detail"]) == ("y", "d")


def test_done_entries_come_sorted_and_once(tmp_path):
    write(tmp_path, ("c", "done", {"n": 1}), ("a", "done", {"n": 2}))
    write(tmp_path, ("b", "done", {"n": 3}), ("c", "done", {"n": 4}))
    assert [(entry["unit"], entry["n"]) for entry in ledger.done_entries(tmp_path)] == [
        ("a", 2),
        ("b", 3),
        ("c", 1),
    ]


def test_writer_without_entries_leaves_no_file(tmp_path):
    write(tmp_path)
    assert not list(tmp_path.iterdir())


def test_tail_counts_each_line_once(tmp_path):
    tail = LedgerTail(tmp_path)
    assert tail.num_finished() == 0
    write(tmp_path, ("a", "done", {}), ("b", "chosen", {}))
    assert tail.num_finished() == 1
    write(tmp_path, ("c", "rejected", {"reason": "x"}))
    (first, *_) = sorted(tmp_path.glob("*.ndjson"))
    with first.open("a") as file:
        file.write('{"unit":"d","event":"do')
    assert tail.num_finished() == 2
    with first.open("a") as file:
        file.write('ne","x":1}\n')
    assert tail.num_finished() == 3
