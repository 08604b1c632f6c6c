"""The ledger on a loopback S3 store: what is stored when, by whom, and what readers see of it."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from beam_jobs.collect import ledger, ledger_store
from beam_jobs.collect.ledger import LedgerTail, read_state
from beam_jobs.storage import files


@pytest.fixture(params=["local", "s3"])
def folder(request, tmp_path) -> str:
    return (
        f"{tmp_path}/ledger"
        if request.param == "local"
        else f"{request.getfixturevalue('s3_folder')}/ledger"
    )


def test_what_was_synced_outlives_the_writer(folder):
    writer = ledger_store.open_writer(folder)
    writer.add("a", "chosen", s1="x", num_requests=1)
    writer.sync(writer.add("b", "done"))
    # The writer is not closed, as if the process had been killed.
    with ledger_store.local_copy(folder) as copy:
        state = read_state(copy.path)
    assert (state.finished, state.pending["a"]["s1"], state.num_requests) == ({"b": "done"}, "x", 1)


def test_many_threads_share_one_writer_and_a_few_objects(s3_folder):
    writer = ledger_store.open_writer(s3_folder)

    def add(number: int) -> None:
        entry = writer.add(f"u{number}", "done", n=number)
        if number % 5 == 0:
            writer.sync(entry)
            with ledger_store.local_copy(s3_folder) as copy:
                assert f"u{number}" in read_state(copy.path).finished

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, range(20)))
    writer.close()
    with ledger_store.local_copy(s3_folder) as copy:
        assert read_state(copy.path).num_done == 20
        assert [entry["n"] for entry in ledger.done_entries(copy.path)] == [
            int(unit[1:]) for unit in sorted(f"u{n}" for n in range(20))
        ]
    assert len(files.list_files(s3_folder)) <= 5


def test_what_is_stored_already_makes_no_object_of_what_came_since(s3_folder):
    writer = ledger_store.open_writer(s3_folder)
    chosen = writer.add("a", "chosen")
    writer.sync(chosen)
    writer.add("a", "answered")
    writer.sync(chosen)
    assert len(files.list_files(s3_folder)) == 1
    writer.close()
    assert len(files.list_files(s3_folder)) == 2


def test_entries_wait_to_be_stored_and_each_object_is_counted_once(s3_folder):
    writer = ledger_store.open_writer(s3_folder)
    writer.add("a", "done")
    assert files.list_files(s3_folder) == []
    with ledger_store.local_copy(s3_folder) as copy:
        tail = LedgerTail(copy.path)
        writer.close()
        assert tail.num_finished() == 0
        copy.refresh()
        assert tail.num_finished() == 1
        copy.refresh()
        assert tail.num_finished() == 1


def test_a_later_run_s_objects_come_last_and_an_empty_run_leaves_none(folder):
    for number in range(3):
        writer = ledger_store.open_writer(folder)
        writer.sync(writer.add("a", "started", task_s1=f"t{number}"))
        writer.add("a", "started", task_s2=f"u{number}")
        writer.close()
    ledger_store.open_writer(folder).close()
    with ledger_store.local_copy(folder) as copy:
        assert {"task_s1": "t2", "task_s2": "u2"}.items() <= read_state(copy.path).pending[
            "a"
        ].items()
    assert len(files.list_files(folder)) == (6 if "://" in folder else 3)


def test_a_folder_that_is_not_there_is_an_empty_ledger(folder):
    with ledger_store.local_copy(folder) as copy:
        assert read_state(copy.refresh()).finished == {}
