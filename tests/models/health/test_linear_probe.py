import numpy as np
import pytest

from models.health import linear_probe


def blobs(num, num_classes=3, dim=6, noise=0.3, seed=0):
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(num_classes, dim))
    labels = rng.integers(num_classes, size=num)
    return centres[labels] + noise * rng.normal(size=(num, dim)), labels


def probe_classes(train_x, train_y, eval_x, eval_y):
    """Fit on one part, score on the other."""
    predicted = linear_probe.predict_classes(train_x, train_y, eval_x)
    return linear_probe.score_classes(eval_y, predicted)


def probe_values(train_x, train_y, eval_x, eval_y):
    """The same for values."""
    predicted = linear_probe.predict_values(train_x, train_y, eval_x)
    return linear_probe.score_values(eval_y, predicted)


def test_separable_classes_are_found_and_shuffled_ones_are_not():
    train_x, train_y = blobs(200)
    eval_x, eval_y = blobs(300, seed=1)
    found = probe_classes(train_x, train_y, eval_x, eval_y)
    assert found.score > 0.95
    assert found.low > found.chance
    assert found.chance == pytest.approx(1 / 3)
    rng = np.random.default_rng(2)
    chance = probe_classes(train_x, rng.permutation(train_y), eval_x, rng.permutation(eval_y))
    assert chance.score == pytest.approx(1 / 3, abs=0.08)
    assert chance.low <= chance.chance


def test_few_labels_in_many_dimensions_do_not_overfit():
    rng = np.random.default_rng(0)
    labels = np.tile([0, 1], 130)
    features = rng.normal(size=(260, 500))
    features[:, :20] += 2.0 * labels[:, np.newaxis]
    score = probe_classes(features[:60], labels[:60], features[60:], labels[60:])
    assert score.score > 0.9


def test_rare_class_counts_as_much_as_the_frequent_one():
    rng = np.random.default_rng(0)
    labels = (np.arange(400) % 20 == 0).astype(int)
    features = labels[:, None] * 1.5 + rng.normal(size=(400, 4))
    score = probe_classes(features[:200], labels[:200], features[200:], labels[200:])
    assert score.score > 0.8
    always_frequent = linear_probe.score_classes(labels, np.zeros(400, int))
    assert always_frequent.score == 0.5


def test_standardization_makes_units_irrelevant():
    train_x, train_y = blobs(100, noise=1.0)
    eval_x, _ = blobs(100, noise=1.0, seed=1)
    units = np.array([1e-4, 1.0, 1e5, 1.0, 1.0, 1.0])
    np.testing.assert_array_equal(
        linear_probe.predict_classes(train_x, train_y, eval_x),
        linear_probe.predict_classes(train_x * units + 7.0, train_y, eval_x * units + 7.0),
    )


def test_ridge_has_the_penalty_of_least_left_out_error_by_a_plain_loop():
    rng = np.random.default_rng(0)
    x, weights = rng.normal(size=(25, 4)), rng.uniform(0.5, 2.0, 25)
    weights /= weights.mean()
    y = x[:, :1] + rng.normal(size=(25, 1))
    z = (x - x.mean(axis=0)) / x.std(axis=0)

    def fit(rows, targets, w, penalty):
        centre, offset = np.average(rows, axis=0, weights=w), np.average(targets, axis=0, weights=w)
        gram = (rows - centre).T @ (w[:, None] * (rows - centre)) + penalty * 25 * np.eye(4)
        slopes = np.linalg.solve(gram, (rows - centre).T @ (w[:, None] * (targets - offset)))
        return lambda others: (others - centre) @ slopes + offset

    errors = {}
    for penalty in linear_probe.PENALTIES:
        errors[penalty] = 0.0
        for i in range(25):
            kept = np.arange(25) != i
            predict = fit(z[kept], y[kept], weights[kept], penalty)
            errors[penalty] += weights[i] * float((y[i] - predict(z[i : i + 1]))[0, 0] ** 2)
    best = min(errors, key=errors.get)
    np.testing.assert_allclose(
        linear_probe._ridge(x, y, weights, x), fit(z, y, weights, best)(z), rtol=1e-9
    )


def test_unit_that_hardly_ever_fires_does_not_spoil_the_score():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 3))
    y = x[:, 0] + 0.1 * rng.normal(size=200)
    quiet = np.zeros((200, 1))
    # Once faintly among the train patches, once strongly among the others.
    quiet[7], quiet[150] = 1e-4, 1.0
    features = np.concatenate([x, quiet], axis=1)
    score = probe_values(features[:100], y[:100], features[100:], y[100:])
    assert score.score > 0.9


def test_r2_of_values_by_hand_and_of_what_cannot_be_told():
    truth = np.array([[0.0, 5.0], [1.0, 5.0], [2.0, 5.0]])
    predicted = np.array([[0.5, 4.0], [1.0, 5.0], [1.5, 6.0]])
    # First target 1 - 0.5 / 2, second does not vary.
    assert linear_probe.score_values(truth, predicted).score == pytest.approx(0.75 / 2)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 5))
    y = 1e4 + 50.0 * (x @ rng.normal(size=(5, 2)))
    known = probe_values(x[:150], y[:150], x[150:], y[150:])
    assert known.score > 0.999
    unknown = probe_values(x[:150], rng.permutation(y[:150]), x[150:], y[150:])
    assert unknown.low <= unknown.chance


def test_interval_is_wider_when_whole_groups_are_drawn():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(10), 20)
    truth = rng.integers(2, size=200)
    # Right in six groups, wrong in four: few independent facts.
    predicted = np.where(groups < 6, truth, 1 - truth)
    each = linear_probe.score_classes(truth, predicted)
    grouped = linear_probe.score_classes(truth, predicted, groups=groups)
    assert each.score == grouped.score == pytest.approx(0.6, abs=0.02)
    assert grouped.high - grouped.low > 2.5 * (each.high - each.low)
    assert each.low < each.score < each.high


def test_targets_that_cannot_be_probed_are_refused():
    x = np.zeros((4, 2))
    with pytest.raises(ValueError, match="at least 2 classes, got 1"):
        linear_probe.predict_classes(x, np.ones(4), x)
    with pytest.raises(ValueError, match="finite"):
        linear_probe.predict_values(x, np.full(4, np.nan), x)
    with pytest.raises(ValueError, match="at least one eval patch"):
        linear_probe.score_classes(np.array([]), np.array([]))
