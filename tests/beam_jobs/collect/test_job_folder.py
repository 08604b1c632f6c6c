"""Job folders: one job at a time, one config, workers notice a stop and a lost driver."""

import multiprocessing
import os
import pickle
import signal
from pathlib import Path

import pytest

from beam_jobs.collect import job_folder
from beam_jobs.collect.ledger import LedgerWriter, read_state
from beam_jobs.errors import DataError


def test_second_job_is_refused_until_the_first_ends(tmp_path):
    with job_folder.hold(tmp_path / "new", "{}"):
        with (
            pytest.raises(DataError, match="another job is writing") as error,
            job_folder.hold(tmp_path / "new", "{}"),
        ):
            pass
        assert error.value.reason == "folder_in_use"
    with job_folder.hold(tmp_path / "new", "{}"):
        pass


def test_other_settings_are_refused_and_leave_the_folder_free(tmp_path):
    with job_folder.hold(tmp_path, '{"size_px":64}'):
        pass
    with (
        pytest.raises(DataError, match="begun with other settings"),
        job_folder.hold(tmp_path, '{"size_px":128}'),
    ):
        pass
    with job_folder.hold(tmp_path, '{"size_px":64}'):
        assert (tmp_path / job_folder.CONFIG_NAME).read_text() == '{"size_px":64}'


def test_workers_learn_why_to_stop_and_the_next_job_forgets_it(tmp_path):
    with job_folder.hold(tmp_path, "{}") as folder:
        worker = pickle.loads(pickle.dumps(folder))
        assert worker.why_stopped() is None
        worker.stop("quota_exhausted", "the month's\ncompute is used up")
        stopped = folder.why_stopped()
        assert (str(stopped), stopped.reason) == (
            "the month's compute is used up",
            "quota_exhausted",
        )
    with job_folder.hold(tmp_path, "{}") as folder:
        assert folder.why_stopped() is None
        # A worker of the first job sees that another one holds the folder now.
        assert worker.why_stopped().reason in ("quota_exhausted", "orphaned")


def _hold_and_die(path: str, run_ids) -> None:
    with job_folder.hold(Path(path), "{}") as folder:
        run_ids.put(pickle.dumps(folder))
        run_ids.close()
        run_ids.join_thread()
        os.kill(os.getpid(), signal.SIGKILL)


def test_worker_of_a_killed_driver_stops_and_the_folder_is_free(tmp_path):
    context = multiprocessing.get_context("fork")
    run_ids = context.Queue()
    process = context.Process(target=_hold_and_die, args=(str(tmp_path), run_ids))
    process.start()
    orphan = pickle.loads(run_ids.get())
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert orphan.why_stopped().reason == "orphaned"
    with job_folder.hold(tmp_path, "{}") as folder:
        assert orphan.why_stopped().reason == "orphaned"
        assert folder.why_stopped() is None


def test_ledger_is_repaired_before_anyone_writes(tmp_path):
    with job_folder.hold(tmp_path, "{}") as folder:
        writer = LedgerWriter(Path(folder.ledger_dir))
        writer.add("a", "done")
        writer.close()
        (path,) = Path(folder.ledger_dir).glob("*.ndjson")
        path.write_bytes(path.read_bytes() + b'{"unit":"b","event":"do')
    with job_folder.hold(tmp_path, "{}") as folder:
        assert path.read_bytes().endswith(b"}\n")
        assert read_state(Path(folder.ledger_dir)).finished == {"a": "done"}
