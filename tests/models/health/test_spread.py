import math

import numpy as np
import pytest

from models.health import spread


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_alignment_of_known_partners():
    first = np.eye(3)
    assert spread.alignment(first, first) == 0.0
    assert spread.alignment(first, -first) == pytest.approx(4.0)
    assert spread.alignment(first, np.roll(first, 1, axis=0)) == pytest.approx(2.0)


def test_uniformity_of_orthonormal_opposite_and_equal_rows():
    assert spread.uniformity(np.eye(5)) == pytest.approx(-4.0)
    assert spread.uniformity(np.array([[1.0, 0.0], [-1.0, 0.0]])) == pytest.approx(-8.0)
    assert spread.uniformity(np.ones((4, 4)) / 2.0) == pytest.approx(0.0)
    with pytest.raises(ValueError, match="at least 2 embeddings, got 1"):
        spread.uniformity(np.eye(3)[:1])


def test_uniformity_is_that_of_a_plain_loop_over_pairs(monkeypatch):
    monkeypatch.setattr(spread, "_ROWS_AT_A_TIME", 16)
    rows = unit(np.random.default_rng(0).normal(size=(37, 6))).astype(np.float32)
    potentials = [
        math.exp(-2.0 * float(np.sum((rows[i].astype(float) - rows[j]) ** 2)))
        for i in range(len(rows))
        for j in range(i + 1, len(rows))
    ]
    assert spread.uniformity(rows) == pytest.approx(math.log(np.mean(potentials)), rel=1e-9)


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_effective_rank_of_equally_strong_directions_is_their_number(rank):
    rng = np.random.default_rng(rank)
    # Orthonormal columns that are centred, too: the constant column is one of those
    # they are orthogonal to.
    left = np.linalg.qr(np.concatenate([np.ones((40, 1)), rng.normal(size=(40, rank))], axis=1))[0][
        :, 1:
    ]
    right = np.linalg.qr(rng.normal(size=(16, rank)))[0].T
    rows = 3.0 * left @ right
    assert spread.effective_rank(rows) == pytest.approx(rank)
    # What all rows share is no direction they differ in.
    assert spread.effective_rank(rows + rng.normal(size=16)) == pytest.approx(rank)


def test_effective_rank_of_known_shares():
    rows = np.zeros((4, 2))
    rows[:, 0], rows[:, 1] = [3, -3, 3, -3], [1, 1, -1, -1]
    shares = np.array([0.75, 0.25])
    assert spread.effective_rank(rows) == pytest.approx(math.exp(-(shares * np.log(shares)).sum()))


def test_equal_rows_have_no_rank_and_no_spread_despite_rounding():
    rng = np.random.default_rng(0)
    rows = (
        np.repeat(unit(rng.normal(size=(1, 64))), 100, axis=0)
        * (1 + 1e-8 * rng.normal(size=(100, 64)))
    ).astype("f4")
    assert spread.effective_rank(rows) == 0.0
    assert spread.spread(rows) < 1e-6


def test_spread_is_one_on_the_whole_sphere_and_falls_with_the_mean():
    sphere = unit(np.random.default_rng(0).normal(size=(4000, 16)))
    assert spread.spread(sphere) == pytest.approx(1.0, abs=0.01)
    np.testing.assert_allclose(spread.dimension_std(sphere), 0.25, rtol=0.1)
    cone = unit(sphere + 3.0 * sphere[0])
    expected = math.sqrt(1.0 - float(np.sum(cone.mean(axis=0) ** 2)))
    assert spread.spread(cone) == pytest.approx(expected)
    assert spread.spread_metrics(sphere)["min_dimension_std"] == pytest.approx(
        4.0 * min(sphere.std(axis=0))
    )


THRESHOLDS = {"min_spread": 0.05, "min_effective_rank": 2.0}


def test_constant_and_line_are_collapses_and_a_filled_sphere_is_none():
    rng = np.random.default_rng(0)
    healthy = unit(rng.normal(size=(60, 16)))
    assert spread.find_collapse(healthy, **THRESHOLDS) is None
    constant = unit(np.ones((60, 16)) + 1e-3 * rng.normal(size=(60, 16)))
    assert "spread is" in spread.find_collapse(constant, **THRESHOLDS)
    # Two opposite bundles: widest spread, one direction.
    line = unit(
        np.outer(rng.choice([-1.0, 1.0], 60), healthy[0]) + 1e-3 * rng.normal(size=(60, 16))
    )
    assert spread.spread(line) > 0.9
    assert "effective_rank is" in spread.find_collapse(line, **THRESHOLDS)
    assert "not finite" in spread.find_collapse(np.full((3, 2), np.nan), **THRESHOLDS)


def test_few_rows_are_not_asked_for_more_directions_than_they_can_have():
    rows = unit(np.random.default_rng(0).normal(size=(3, 16)))
    assert spread.find_collapse(rows, min_spread=0.05, min_effective_rank=8.0) is None
