"""Faults on demand: which requests are answered wrongly, and how.

Input: `FaultsConfig` and a request. Output: the fault of this try. The same seed and
requests give the same faults.
"""

from __future__ import annotations

import hashlib
import time
from collections import deque
from dataclasses import dataclass, field
from threading import Lock
from typing import Literal

Fault = Literal["too_many_requests", "server_error", "slow", "truncated", "dropped"]
FAULTS: tuple[Fault, ...] = ("too_many_requests", "server_error", "slow", "truncated", "dropped")


@dataclass(frozen=True, kw_only=True)
class FaultsConfig:
    """What goes wrong.

    Shares are 0-1. For faults that pass they are shares of the tries, for lasting ones
    shares of the distinct requests.

    Attributes:
        seed: the same seed gives the same faults.
        too_many_requests: share answered 429.
        server_error: share answered 503.
        slow: share answered only after `slow_s`.
        slow_s: seconds.
        truncated: share whose body is cut in half and sent as if complete.
        dropped: share whose connection ends in the middle of the body.
        max_faults_per_request: most passing faults that one request meets, so that
            retries end.
        burst_every: a burst of 429 follows after so many requests; 0 = none.
        burst_length: requests of a burst.
        max_requests_per_second: requests beyond this rate are answered 429, as Earth
            Engine does; 0 = no limit.
        masked: share of requests that see only the right half of their images.
        too_large: share of requests that are always answered 400 with the size message.
        quota_exhausted_after: after so many requests all are refused, because the
            month's compute is used up; -1 = never.
        expired_token: every request is answered 401.
        failing_exports: share of exports that end as FAILED.
    """

    seed: int = 0
    too_many_requests: float = 0.0
    server_error: float = 0.0
    slow: float = 0.0
    slow_s: float = 2.0
    truncated: float = 0.0
    dropped: float = 0.0
    max_faults_per_request: int = 2
    burst_every: int = 0
    burst_length: int = 0
    max_requests_per_second: int = 0
    masked: float = 0.0
    too_large: float = 0.0
    quota_exhausted_after: int = -1
    expired_token: bool = False
    failing_exports: float = 0.0

    def __post_init__(self) -> None:
        shares = {
            name: getattr(self, name)
            for name in (*FAULTS, "masked", "too_large", "failing_exports")
        }
        for name, share in shares.items():
            if not 0.0 <= share <= 1.0:
                raise ValueError(f"{name} must be within 0-1, got {share}")
        if sum(shares[name] for name in FAULTS) > 1.0:
            raise ValueError(f"the shares of {', '.join(FAULTS)} must sum to at most 1")

    def passing_fault(self, key: str, attempt: int) -> Fault | None:
        """Return what happens to one try at a request, None if nothing does.

        Args:
            key: name of the request.
            attempt: number of the try, from 0.
        """
        if attempt >= self.max_faults_per_request:
            return None
        draw = self._draw("passing", f"{key}/{attempt}")
        for fault in FAULTS:
            share = getattr(self, fault)
            if draw < share:
                return fault
            draw -= share
        return None

    def is_masked(self, key: str) -> bool:
        """Return whether the request sees only half of its pixels."""
        return self._draw("masked", key) < self.masked

    def is_too_large(self, key: str) -> bool:
        """Return whether the request is refused as too large."""
        return self._draw("too_large", key) < self.too_large

    def export_fails(self, key: str) -> bool:
        """Return whether the export ends as FAILED."""
        return self._draw("export", key) < self.failing_exports

    def _draw(self, purpose: str, key: str) -> float:
        """Return a number in 0-1, evenly spread over keys."""
        digest = hashlib.sha256(f"{self.seed}/{purpose}/{key}".encode()).digest()
        return int.from_bytes(digest[:8], "big") / 2**64


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One try at a request.

    Attributes:
        key: name of the request; all its tries have the same.
        number: requests of any kind before it.
        index: tries of the same request before it.
        num_in_last_second: requests of the last second, this one included.
    """

    key: str
    number: int
    index: int
    num_in_last_second: int


@dataclass
class Traffic:
    """Counts of the requests so far, for bursts, rates and tries.

    It is safe for many threads.
    """

    num_requests: int = 0
    _attempts: dict[str, int] = field(default_factory=dict)
    _recent: deque[float] = field(default_factory=deque)
    _lock: Lock = field(default_factory=Lock)

    def count(self, key: str) -> Attempt:
        """Count one try at the request of that key and return its place among all."""
        with self._lock:
            number, index, now = self.num_requests, self._attempts.get(key, 0), time.monotonic()
            self.num_requests += 1
            self._attempts[key] = index + 1
            self._recent.append(now)
            while now - self._recent[0] > 1.0:
                self._recent.popleft()
            return Attempt(
                key=key, number=number, index=index, num_in_last_second=len(self._recent)
            )
