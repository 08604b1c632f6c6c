import math

import numpy as np
import pytest

from models.health import retrieval


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def loop_ranks(queries, keys):
    """One query and one key at a time."""
    better, equal = [], []
    for i in range(len(queries)):
        cosines = [float(np.dot(queries[i], key)) for key in keys]
        better.append(sum(c > cosines[i] + retrieval.TIE_TOLERANCE for c in cosines))
        equal.append(sum(abs(c - cosines[i]) <= retrieval.TIE_TOLERANCE for c in cosines) - 1)
    return better, equal


def pairs_with_noise(num, noise, seed=0):
    rng = np.random.default_rng(seed)
    first = unit(rng.normal(size=(num, 8))).astype(np.float32)
    return first, unit(first + noise * rng.normal(size=first.shape)).astype(np.float32)


@pytest.mark.parametrize("num_rows", [1, 7, 300])
def test_ranks_are_those_of_a_plain_loop(num_rows, monkeypatch):
    # Several chunks, the last one shorter.
    monkeypatch.setattr(retrieval, "_ROWS_AT_A_TIME", 64)
    queries, keys = pairs_with_noise(num_rows, 0.5)
    keys[num_rows // 2] = keys[0]
    ranks = retrieval.rank_partners(queries, keys)
    better, equal = loop_ranks(queries, keys)
    assert ranks.num_better.tolist() == better
    assert ranks.num_equal.tolist() == equal


def test_recall_of_known_ranks():
    ranks = retrieval.Ranks(num_better=np.array([0, 0, 3, 9]), num_equal=np.array([0, 1, 0, 0]))
    # Found, found in one draw of two, not found, not found.
    assert ranks.recall_at(1) == pytest.approx((1 + 0.5) / 4)
    assert ranks.recall_at(5) == pytest.approx(3 / 4)
    assert ranks.recall_at(10) == 1.0


def test_collapsed_embeddings_score_exactly_chance_whatever_the_order():
    same = np.repeat(
        unit(np.random.default_rng(0).normal(size=(1, 33))).astype(np.float32), 50, axis=0
    )
    # Rounding noise as a matrix product leaves it.
    noisy = same * (1 + 1e-7 * np.random.default_rng(1).normal(size=(50, 1))).astype(np.float32)
    ranks = retrieval.rank_partners(noisy, same)
    for k in retrieval.RECALL_KS:
        assert ranks.recall_at(k) == pytest.approx(k / 50)
    assert ranks.recall_among(7) == pytest.approx(1 / 7)


def test_both_directions_are_ranked_and_named():
    # Both s2 lie nearer to s1[1]; from there each s1 still finds its own.
    s1, s2 = np.eye(2), unit(np.array([[0.6, 0.8], [0.5, 0.866]]))
    metrics = retrieval.recall_metrics(retrieval.cross_modal_ranks({"s1": s1, "s2": s2}), ks=(1, 2))
    assert metrics == {
        "recall_at_1/s1_to_s2": 1.0,
        "recall_at_2/s1_to_s2": 1.0,
        "recall_at_1/s2_to_s1": 0.5,
        "recall_at_2/s2_to_s1": 1.0,
    }


def test_neighbours_do_not_compete():
    # The query of 3 finds its neighbour 2 first, and then its partner; that of 0 finds
    # 2, which is far away.
    keys = np.eye(4, dtype=np.float32)
    queries = keys.copy()
    queries[3], queries[0] = (0, 0, 0.8, 0.6), (0.6, 0, 0.8, 0)
    places = retrieval.Places(
        lon=np.array([0.0, np.nan, 179.99, -179.99]), lat=np.zeros(4), min_km=5.0
    )
    ranks, apart = (retrieval.rank_partners(queries, keys, where) for where in (None, places))
    assert ranks.num_better.tolist() == [1, 0, 0, 1]
    assert apart.num_better.tolist() == [1, 0, 0, 0]
    assert apart.num_keys.tolist() == [4, 4, 3, 3]
    assert ranks.recall_at(1) == 0.5
    assert apart.recall_among(4) == 0.75
    # Among two of four keys, 0 sees the better one in one draw of three.
    assert apart.recall_among(2) == pytest.approx((2 / 3 + 3) / 4)


def test_recall_among_fewer_candidates_is_the_mean_over_draws():
    queries, keys = pairs_with_noise(40, 0.9)
    keys[5] = keys[6]
    ranks = retrieval.rank_partners(queries, keys)
    rng = np.random.default_rng(3)
    found = []
    for _ in range(4000):
        chosen = rng.permutation(40)[:8]
        found.append(retrieval.rank_partners(queries[chosen], keys[chosen]).recall_at(1))
    assert ranks.recall_among(8) == pytest.approx(np.mean(found), abs=0.01)
    assert ranks.recall_among(40) == pytest.approx(ranks.recall_at(1))
    assert ranks.recall_among(1) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="between 1 and the 40 keys, got 41"):
        ranks.recall_among(41)


def test_what_is_not_finite_is_refused():
    good = unit(np.random.default_rng(0).normal(size=(4, 3)))
    bad = good.copy()
    bad[2, 1] = math.nan
    with pytest.raises(ValueError, match="finite"):
        retrieval.rank_partners(good, bad)
    with pytest.raises(ValueError, match="must both be"):
        retrieval.rank_partners(good, good[:3])
