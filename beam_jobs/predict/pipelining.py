"""Pipelining: stages of a piece of work run at the same time, each in its own thread.

A stage is an iterator. NumPy, GDAL and TensorFlow release Python's lock, so reading,
predicting and writing share the cores.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


@contextmanager
def ahead(items: Iterator[T]) -> Iterator[Iterator[T]]:
    """Run an iterator in a thread, one item ahead of the body, which gets the items.

    All of a generator runs in that one thread, also its end when the body stops early.
    Its errors reach the body in place of an item.
    """
    with ThreadPoolExecutor(1) as pool:
        try:
            yield _following(items, pool)
        finally:
            if isinstance(items, Generator):
                pool.submit(items.close).result()


def _following(items: Iterator[T], pool: ThreadPoolExecutor) -> Iterator[T]:
    coming = pool.submit(_next, items)
    while found := coming.result():
        coming = pool.submit(_next, items)
        yield found[0]


def _next(items: Iterator[T]) -> tuple[T] | None:
    """Return the next item in a tuple, None at the end."""
    for item in items:
        return (item,)
    return None
