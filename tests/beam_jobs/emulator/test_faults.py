"""Faults: shares that hold, seeds that repeat, and configs that make no sense refused."""

import pytest

from beam_jobs.emulator.faults import FaultsConfig, Traffic

KEYS = [f"request-{n}" for n in range(4000)]


def test_shares_are_those_asked_for():
    faults = FaultsConfig(too_many_requests=0.1, server_error=0.1, slow=0.05, truncated=0.2)
    drawn = [faults.passing_fault(key, 0) for key in KEYS]
    for fault, share in (
        ("too_many_requests", 0.1),
        ("server_error", 0.1),
        ("slow", 0.05),
        ("truncated", 0.2),
    ):
        # Four standard deviations of 4,000 draws are at most 0.032.
        assert drawn.count(fault) / len(KEYS) == pytest.approx(share, abs=0.03)
    assert "dropped" not in drawn


def test_a_request_meets_no_more_faults_than_allowed():
    faults = FaultsConfig(server_error=1.0, max_faults_per_request=3)
    assert [faults.passing_fault("a", attempt) for attempt in range(5)] == ["server_error"] * 3 + [
        None
    ] * 2


def test_the_seed_decides_and_attempts_differ():
    first, again, other = (
        FaultsConfig(server_error=0.5, masked=0.5, seed=seed) for seed in (1, 1, 2)
    )
    draws = [[faults.passing_fault(key, 0) for key in KEYS] for faults in (first, again, other)]
    assert draws[0] == draws[1] != draws[2]
    assert [first.passing_fault(key, 1) for key in KEYS] != draws[0]
    # Lasting faults have random draws of their own.
    assert [first.is_masked(key) for key in KEYS] != [fault is not None for fault in draws[0]]


@pytest.mark.parametrize(
    ("faults", "message"),
    [
        ({"slow": 1.2}, "slow must be within 0-1, got 1.2"),
        ({"slow": 0.6, "dropped": 0.6}, "must sum to at most 1"),
        ({"failing_exports": -0.1}, "failing_exports must be within 0-1"),
    ],
)
def test_shares_that_make_no_sense_are_refused(faults, message):
    with pytest.raises(ValueError, match=message):
        FaultsConfig(**faults)


def test_traffic_counts_requests_and_attempts():
    traffic = Traffic()
    found = [traffic.count(key) for key in ("a", "b", "a")]
    assert [(one.number, one.index, one.num_in_last_second) for one in found] == [
        (0, 0, 1),
        (1, 0, 2),
        (2, 1, 3),
    ]
