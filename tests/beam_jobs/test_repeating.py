"""Looks now and then while something runs."""

import threading

import pytest

from beam_jobs.repeating import repeating


def test_it_looks_again_and_again_even_after_a_store_was_down_and_stops_with_the_body():
    looks = []
    third = threading.Event()

    def look() -> None:
        looks.append(len(looks))
        if len(looks) == 1:
            raise OSError("down for a moment")
        if len(looks) == 3:
            third.set()

    with repeating(look, 0.01):
        assert third.wait(10)
    num_looks = len(looks)
    assert threading.Event().wait(0.1) is False
    assert len(looks) == num_looks


def test_the_thread_ends_when_the_body_fails():
    num_threads = threading.active_count()
    with pytest.raises(KeyError), repeating(lambda: None, 60.0):
        raise KeyError("x")
    assert threading.active_count() == num_threads
