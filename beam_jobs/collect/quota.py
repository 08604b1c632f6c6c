"""Quota: how fast and how many at once, and how often again. One limit for the whole job, whatever runs it.

Input: the job's limits and the number of slices it is cut into. Output: a `Limiter` per
slice, and `call` that retries. Used by `fetch.py` and `export.py`.

A job is cut into a fixed number of slices, and each slice gets an equal share of the
rate and of the concurrency. Shares never add up to more than the whole, however many
slices a runner runs at once, starts again or moves; so no worker has to talk to
another, and it holds on every runner. The price: a slice that ends early does not hand
its share on, which is why places are dealt out by hash, evenly.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from beam_jobs.collect.config import QuotaConfig
from beam_jobs.contracts.reasons import RequestReason
from beam_jobs.earth_engine.errors import EarthEngineError

T = TypeVar("T")
Clock = Callable[[], float]
Sleep = Callable[[float], None]

STOPPING: frozenset[RequestReason] = frozenset({"quota_exhausted", "no_credentials"})
"""Reasons that hold for every further request: the job stops, and nothing is rejected for them."""


class Limiter:
    """Lets at most `rate` requests a second begin, evenly, with no burst beyond one second's worth.

    A token bucket written as the time at which the next request may begin. Source:
    generic cell rate algorithm, ITU-T I.371.
    """

    def __init__(
        self, rate: float, clock: Clock = time.monotonic, sleep: Sleep = time.sleep
    ) -> None:
        self._interval = 1.0 / rate
        # A slice of less than one request a second may still begin one.
        self._burst = max(1.0 - self._interval, 0.0)
        self._clock, self._sleep = clock, sleep
        self._next = clock()
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Returns when the caller may begin a request."""
        with self._lock:
            now = self._clock()
            self._next = max(self._next, now - self._burst)
            begin = self._next
            self._next += self._interval
        if begin > now:
            self._sleep(begin - now)


@dataclass(frozen=True, kw_only=True)
class Share:
    """The part of the limits that one slice of `num_slices` gets."""

    rate: float
    concurrency: int


def num_slices(config: QuotaConfig) -> int:
    """Slices of the job: one per worker, and no more than may ask at once."""
    return min(config.num_workers, config.max_concurrency)


def share(config: QuotaConfig) -> Share:
    """What each slice may do; rounded down, so that the sum keeps the limit."""
    slices = num_slices(config)
    return Share(
        rate=config.max_requests_per_second / slices, concurrency=config.max_concurrency // slices
    )


def backoff_seconds(config: QuotaConfig, num_failures: int, rng: random.Random) -> float:
    """Wait before the next try: uniform from 0 to a limit that doubles with every failure (full jitter).

    Source: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/.
    """
    limit = min(config.max_backoff_s, config.first_backoff_s * 2.0 ** (num_failures - 1))
    return rng.uniform(0.0, limit)


def call(
    request: Callable[[], T],
    limiter: Limiter,
    *,
    config: QuotaConfig,
    on_failure: Callable[[EarthEngineError], None],
    rng: random.Random | None = None,
    sleep: Sleep = time.sleep,
) -> T:
    """Asks until an answer comes: again after 429, 5xx, timeouts and answers cut short, never after any other error.

    Args:
        request: asks once.
        limiter: of the slice; every try counts.
        config: how often and how long to wait.
        on_failure: told every failed try, the last one too.
        rng: of the jitter.
        sleep: waits.

    Raises:
        EarthEngineError: the last one, when it was no use to ask again or the tries are
            used up.
    """
    rng = rng or random.Random()
    for num_failures in range(1, config.max_attempts + 1):
        limiter.wait()
        try:
            return request()
        except EarthEngineError as error:
            on_failure(error)
            if not error.retriable or num_failures == config.max_attempts:
                raise
        sleep(backoff_seconds(config, num_failures, rng))
    raise ValueError(f"max_attempts must be at least 1, got {config.max_attempts}")
