"""Quota: how fast, how many at once, and how often again.

Input: the job's limits and the number of its slices. Output: a `Limiter` per slice, and
`call`, which retries.

A job is cut into a fixed number of slices. Each slice gets an equal share of the rate
and of the concurrency. The shares never add up to more than the whole, even if a runner
starts a slice again or moves it. So workers need not talk to each other, and the limit
holds on every runner. The price is that a slice which ends early does not pass its
share on. Places are therefore dealt out evenly, by hash.
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
"""Reasons that hold for every further request: the job stops and rejects nothing for
them."""


class Limiter:
    """Lets at most `rate` requests a second begin, evenly spaced.

    A burst holds at most the requests of one second. This is a token bucket that stores
    the time at which the next request may begin. Source: generic cell rate algorithm,
    ITU-T I.371.
    """

    def __init__(
        self, rate: float, clock: Clock = time.monotonic, sleep: Sleep = time.sleep
    ) -> None:
        self._interval = 1.0 / rate
        # Even a slice with less than one request a second may begin one at once.
        self._burst = max(1.0 - self._interval, 0.0)
        self._clock, self._sleep = clock, sleep
        self._next = clock()
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Return when the caller may begin a request."""
        with self._lock:
            now = self._clock()
            self._next = max(self._next, now - self._burst)
            begin = self._next
            self._next += self._interval
        if begin > now:
            self._sleep(begin - now)


@dataclass(frozen=True, kw_only=True)
class Share:
    """The part of the limits that one slice gets.

    Attributes:
        rate: requests that may begin in a second.
        concurrency: requests at once.
    """

    rate: float
    concurrency: int


def num_slices(config: QuotaConfig) -> int:
    """Return the slices of the job: one per worker, at most one per request at once."""
    return min(config.num_workers, config.max_concurrency)


def share(config: QuotaConfig) -> Share:
    """Return the share of each slice, rounded down so that the sum keeps the limit."""
    slices = num_slices(config)
    return Share(
        rate=config.max_requests_per_second / slices, concurrency=config.max_concurrency // slices
    )


def backoff_seconds(config: QuotaConfig, num_failures: int, rng: random.Random) -> float:
    """Return the wait before the next try (full jitter).

    It is uniform from 0 to a limit that doubles with every failure. Source:
    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/.
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
    """Ask until an answer comes.

    It asks again after 429, 5xx, timeouts and answers that were cut short, and never
    after any other error.

    Args:
        request: asks once.
        limiter: limiter of the slice; every try counts.
        config: how often to ask, and how long to wait.
        on_failure: receives the error of every failed try, also of the last one.
        rng: source of the jitter.
        sleep: waits.

    Raises:
        EarthEngineError: error of the last try, if a retry cannot help or the tries are
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
