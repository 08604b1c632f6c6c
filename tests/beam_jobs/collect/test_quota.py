"""Rate, shares, back-off and retries on an injected clock."""

import random
import threading

import pytest

from beam_jobs.collect import quota
from beam_jobs.collect.config import QuotaConfig
from beam_jobs.earth_engine.errors import EarthEngineError


class FakeTime:
    """A clock that moves only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0
        self.sleeps: list[float] = []

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now += seconds


def begin_times(
    rate: float, num_requests: int, pauses: dict[int, float] | None = None
) -> list[float]:
    fake = FakeTime()
    limiter = quota.Limiter(rate, fake.clock, fake.sleep)
    times = []
    for number in range(num_requests):
        fake.now += (pauses or {}).get(number, 0.0)
        limiter.wait()
        times.append(fake.now - 100.0)
    return times


def test_requests_begin_evenly_at_the_rate():
    assert begin_times(4.0, 5) == pytest.approx([0.0, 0.25, 0.5, 0.75, 1.0])
    assert begin_times(0.5, 3) == pytest.approx([0.0, 2.0, 4.0])


@pytest.mark.parametrize("rate", [0.7, 3.0, 10.0])
def test_no_second_holds_more_than_one_second_of_burst_beyond_the_rate(rate):
    times = begin_times(rate, 60, pauses={20: 50.0, 40: 0.3})
    for begin in times:
        within = sum(begin <= other < begin + 10.0 - 1e-9 for other in times)
        assert within <= 10.0 * rate + max(rate, 1.0) + 1e-6


def test_what_was_not_used_is_kept_for_a_second_only():
    times = begin_times(10.0, 13, pauses={1: 1000.0})
    assert times[1:11] == pytest.approx([1000.0] * 10)
    assert times[11:] == pytest.approx([1000.1, 1000.2])


def test_threads_share_one_rate():
    limiter = quota.Limiter(200.0)
    import time

    begun = time.monotonic()
    threads = [
        threading.Thread(target=lambda: [limiter.wait() for _ in range(10)]) for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - begun >= 49 / 200.0


@pytest.mark.parametrize("num_workers", [1, 3, 7, 40, 100])
def test_shares_never_add_up_to_more_than_the_whole(num_workers):
    config = QuotaConfig(num_workers=num_workers, max_concurrency=40, max_requests_per_second=90.0)
    slices, share = quota.num_slices(config), quota.share(config)
    assert slices == min(num_workers, 40)
    assert slices * share.concurrency <= 40
    assert share.concurrency >= 1
    assert slices * share.rate == pytest.approx(90.0)


def test_backoff_is_uniform_below_a_limit_that_doubles_and_is_capped():
    config = QuotaConfig(first_backoff_s=1.0, max_backoff_s=10.0)
    rng = random.Random(0)
    for num_failures, limit in ((1, 1.0), (2, 2.0), (4, 8.0), (5, 10.0), (500, 10.0)):
        waits = [quota.backoff_seconds(config, num_failures, rng) for _ in range(2000)]
        assert 0 <= min(waits) < 0.05 * limit
        assert 0.95 * limit < max(waits) <= limit
        assert sum(waits) / len(waits) == pytest.approx(limit / 2, rel=0.05)


def asked(errors: list[EarthEngineError], config: QuotaConfig):
    """(what came, failures told, tries) of a request that fails with `errors`, then answers."""
    fake, told, left = FakeTime(), [], list(errors)

    def request() -> str:
        if left:
            raise left.pop(0)
        return "pixels"

    limiter = quota.Limiter(1000.0, fake.clock, fake.sleep)
    answer = quota.call(
        request,
        limiter,
        config=config,
        on_failure=told.append,
        rng=random.Random(1),
        sleep=fake.sleep,
    )
    return answer, told, fake.sleeps


def test_retriable_errors_are_asked_again_and_told():
    errors = [
        EarthEngineError("x", reason)
        for reason in ("quota_exceeded", "server_error", "timeout", "truncated")
    ]
    answer, told, sleeps = asked(errors, QuotaConfig())
    assert (answer, told) == ("pixels", errors)
    assert len([seconds for seconds in sleeps if seconds > 0.01]) >= 3


@pytest.mark.parametrize(
    "reason", ["refused", "too_large", "not_found", "quota_exhausted", "no_credentials"]
)
def test_other_errors_are_not_asked_again(reason):
    error = EarthEngineError("x", reason, 400)
    with pytest.raises(EarthEngineError) as found:
        asked([error, error], QuotaConfig())
    assert found.value is error


def test_tries_are_bounded():
    errors = [EarthEngineError(str(number), "server_error", 503) for number in range(9)]
    with pytest.raises(EarthEngineError, match="2"):
        asked(errors, QuotaConfig(max_attempts=3))
    assert asked(errors[:2], QuotaConfig(max_attempts=3))[0] == "pixels"


@pytest.mark.parametrize(
    "values", [{"max_concurrency": 0}, {"max_attempts": 0}, {"max_requests_per_second": 0.0}]
)
def test_limits_must_be_positive(values):
    with pytest.raises(ValueError, match=next(iter(values))):
        QuotaConfig(**values)
