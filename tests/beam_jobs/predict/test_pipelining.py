"""Stages run at the same time, each in one thread, and end with their consumer."""

import threading

import pytest

from beam_jobs.predict.pipelining import ahead

WAIT_SECONDS = 60


def test_the_next_item_is_made_while_the_body_works_on_one():
    asked = [threading.Event() for _ in range(4)]

    def items():
        for number in range(3):
            asked[number].set()
            yield number
        asked[3].set()

    found = []
    with ahead(items()) as made:
        for number in made:
            assert asked[number + 1].wait(WAIT_SECONDS)
            found.append(number)
    assert found == [0, 1, 2]


def test_an_iterator_ends_in_its_own_thread_when_the_body_stops_early():
    threads = []

    def items():
        try:
            while True:
                threads.append(threading.get_ident())
                yield threads
        finally:
            threads.append(threading.get_ident())
            threads.append("closed")

    with ahead(items()) as made:
        next(made)
    *ran_in, last = threads
    assert last == "closed"
    assert len(set(ran_in)) == 1
    assert threading.get_ident() not in ran_in


def test_an_error_reaches_the_body_after_the_items_before_it():
    def items():
        yield 1
        raise OSError("the file is damaged")

    found = []
    with pytest.raises(OSError, match="damaged"), ahead(items()) as made:
        found.extend(iter(made.__next__, None))
    assert found == [1]
