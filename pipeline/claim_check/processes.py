"""Jobs one after the other, or in processes of their own, several at a time.

Jobs and a function that does one job -> all jobs done, or the first error. A job must
write its result in one step and skip itself when the result exists: then a check that
was killed and started again does no job twice.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any

from beam_jobs import local_worker, startup


@contextmanager
def workers(num_processes: int) -> Iterator[ProcessPoolExecutor | None]:
    """Yield a pool of processes for several calls of `run_all`.

    Reusing the processes saves the seconds that each needs to import TensorFlow. A
    process starts when a job needs it. The processes share the cores, and end with the
    context. One process is this one: then there is no pool.
    """
    if num_processes == 1:
        yield None
        return
    num_threads = max(1, (os.cpu_count() or 1) // num_processes)
    # Spawn, because TensorFlow's threads do not survive a fork.
    pool = ProcessPoolExecutor(
        num_processes,
        mp_context=get_context("spawn"),
        initializer=_begin,
        initargs=(num_threads, os.getpid()),
    )
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def run_all(
    pool: ProcessPoolExecutor | None,
    jobs: Sequence[Any],
    work: Callable[[Any], None],
    on_progress: Callable[[int, int], None],
) -> None:
    """Do all jobs, or raise the first error.

    When the error leaves the context of `workers`, no further job starts.

    Args:
        pool: pool of `workers`; None does the jobs in this process.
        jobs: jobs, in the order in which they start.
        work: function at the top level of a module, so that a new process can import
            it.
        on_progress: called with (jobs done, all jobs).
    """
    on_progress(0, len(jobs))
    if pool is None:
        for done, job in enumerate(jobs, start=1):
            work(job)
            on_progress(done, len(jobs))
        return
    futures = [pool.submit(work, job) for job in jobs]
    for done, future in enumerate(as_completed(futures), start=1):
        future.result()
        on_progress(done, len(jobs))


def _begin(num_threads: int, parent: int) -> None:
    """Prepare a new process: its share of the cores, and an end with its parent."""
    startup.prepare()
    import tensorflow as tf

    # Keras looks for garbage between two jobs. It need not look at TensorFlow's own
    # objects, which stay.
    gc.freeze()

    # TensorFlow warns of many traced functions; many models in turn need them.
    tf.get_logger().setLevel("ERROR")
    tf.config.threading.set_intra_op_parallelism_threads(num_threads)
    tf.config.threading.set_inter_op_parallelism_threads(num_threads)
    # The pool's processes do not notice that their parent was killed. They would go on
    # training beside those of the next attempt.
    local_worker.end_with_parent(parent)
