"""Jobs in processes of their own, several at a time.

Jobs and the function that does one -> all done, or the first error. Called by
`claim.py`. A job must leave its result in one step and find it again: whoever kills
this process starts it again, and what is done is not done twice.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any

_LOOK_EVERY_SECONDS = 2.0


@contextmanager
def workers(num_processes: int) -> Iterator[ProcessPoolExecutor]:
    """Processes for several `run_all` in turn, each of which would wait seconds for TensorFlow in new ones.

    They share the cores, and end when this does; a process is begun when a job needs
    it.
    """
    num_threads = max(1, (os.cpu_count() or 1) // num_processes)
    # Not forked: TensorFlow's threads do not survive that.
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
    pool: ProcessPoolExecutor,
    jobs: Sequence[Any],
    work: Callable[[Any], None],
    on_progress: Callable[[int, int], None],
) -> None:
    """Does all jobs; the first error is raised, and leaving `workers` by it no other job is begun.

    Args:
        pool: of `workers`.
        jobs: in the order in which they are begun.
        work: a function of a module, which a new process can import.
        on_progress: called with (jobs done, all jobs).
    """
    on_progress(0, len(jobs))
    futures = [pool.submit(work, job) for job in jobs]
    for done, future in enumerate(as_completed(futures), start=1):
        future.result()
        on_progress(done, len(jobs))


def _begin(num_threads: int, parent: int) -> None:
    """Prepares a new process: its share of the cores, and an end when nobody waits for it any more."""
    import tensorflow as tf

    # Many models in turn are many traced functions, which is meant here.
    tf.get_logger().setLevel("ERROR")
    tf.config.threading.set_intra_op_parallelism_threads(num_threads)
    tf.config.threading.set_inter_op_parallelism_threads(num_threads)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    # Of a killed parent the pool's processes learn nothing: they would train on beside
    # those of the next attempt.
    while os.getppid() == parent:
        time.sleep(_LOOK_EVERY_SECONDS)
    os._exit(1)
