"""Each objective against plain loops over pairs, in float64."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from models.config import EncoderConfig, PretrainConfig
from models.contrastive_model import ContrastiveModel
from models.dual_encoder import ProjectionHead
from models.objectives.chance import Chance, ChanceRecord
from models.objectives.decur import OFF_DIAGONAL_WEIGHT
from models.objectives.registry import make_objective

NUM_PAIRS, DIM, NUM_CELLS = 6, 4, 3
VIEWS = ("s1", "s2", "s1_a", "s1_b", "s2_a", "s2_b")
# Pairs 1 and 4 are 5.6 km apart over the antimeridian, all others are far from each
# other.
LON = np.array([0.0, 179.98, 60, 90, -179.97, 150])
LAT = np.array([10.0, 0.0, 30, -40, 0.0, 60])
# Pair 3 is not valid; pair 0 counts nothing as a positive, but in full as a negative.
VALID = np.array([1.0, 1, 1, 0, 1, 1])
RAW_WEIGHTS = np.array([0.0, 0.5, 2.0, 0.7, 1.5, 1.0])
WEIGHTS = RAW_WEIGHTS * VALID
NEAR_WEIGHT = 0.3


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def make_outputs(seed=0, valid=VALID):
    rng = np.random.default_rng(seed)
    outputs = {view: unit(rng.normal(size=(NUM_PAIRS, DIM))) for view in VIEWS}
    outputs |= {
        f"{sensor}_cells": unit(rng.normal(size=(NUM_PAIRS, NUM_CELLS, DIM)))
        for sensor in ("s1", "s2")
    }
    outputs |= {
        f"{sensor}_valid": rng.uniform(0.55, 1.0, (NUM_PAIRS, NUM_CELLS)) for sensor in ("s1", "s2")
    }
    # One cell that one sensor does not see, one patch whose cells are never seen by
    # both.
    outputs["s1_valid"][0, 1] = 0.4
    outputs["s1_valid"][5, :2], outputs["s2_valid"][5, 2] = 0.0, 0.1
    return outputs | {"lon": LON, "lat": LAT, "weight": RAW_WEIGHTS, "valid": valid}


def make(name, **changes):
    options = {"temperature": 0.3, "learn_temperature": None} | changes
    if name != "decur":
        options = {"min_negative_km": 10.0, "false_negative_weight": NEAR_WEIGHT} | options
    config = PretrainConfig(
        encoder=EncoderConfig(backbone="small", embedding_dim=DIM),
        num_steps=1,
        objective=name,
        **options,
    )
    return make_objective(config, features_dim=5)


def tensors(outputs):
    return {name: tf.constant(value, tf.float32) for name, value in outputs.items()}


def losses_of(objective, outputs):
    return objective.losses_and_figures(tensors(outputs))[0].numpy()


def distance_km(i, j):
    """Haversine."""
    lon1, lat1, lon2, lat2 = map(math.radians, (LON[i], LAT[i], LON[j], LAT[j]))
    h = (
        math.sin((lat2 - lat1) / 2) ** 2
        + math.cos(lat1) * math.cos(lat2) * math.sin((lon2 - lon1) / 2) ** 2
    )
    return 2 * 6371.0088 * math.asin(math.sqrt(h))


def counts(i, j):
    """What j counts as a negative of i."""
    if VALID[j] == 0.0 and i != j:
        return 0.0
    return NEAR_WEIGHT if i != j and distance_km(i, j) < 10.0 else 1.0


def info_nce(i, queries, keys, temperature=0.3, alike=None):
    """-log of what i's key makes of the sum over all keys, and over all other `alike` ones."""
    total = sum(
        counts(i, j) * math.exp(queries[i] @ keys[j] / temperature) for j in range(NUM_PAIRS)
    )
    if alike is not None:
        total += sum(
            counts(i, j) * math.exp(queries[i] @ alike[j] / temperature)
            for j in range(NUM_PAIRS)
            if j != i
        )
    return math.log(total) - queries[i] @ keys[i] / temperature


def multimodal(o):
    return [
        0.5 * (info_nce(i, o["s1"], o["s2"]) + info_nce(i, o["s2"], o["s1"]))
        for i in range(NUM_PAIRS)
    ]


def two_n(first, second):
    return lambda o: [
        0.5
        * (
            info_nce(i, o[first], o[second], alike=o[first])
            + info_nce(i, o[second], o[first], alike=o[second])
        )
        for i in range(NUM_PAIRS)
    ]


def intra(o):
    parts = (multimodal(o), two_n("s1", "s1_b")(o), two_n("s2", "s2_b")(o))
    return [between + 0.5 * (s1 + s2) for between, s1, s2 in zip(*parts, strict=True)]


ROW_WISE = {
    "multimodal": (multimodal, {}),
    "shuffled": (multimodal, {}),
    "multimodal_2n": (two_n("s1", "s2"), {}),
    "multimodal_intra": (intra, {"intra_weight": 0.5}),
    "simclr_s1": (two_n("s1_a", "s1_b"), {}),
    "simclr_s2": (two_n("s2_a", "s2_b"), {}),
}


@pytest.mark.parametrize("name", ROW_WISE)
@pytest.mark.parametrize("chunk_size", [None, 2])
def test_softmax_objective_equals_loops(name, chunk_size):
    oracle, options = ROW_WISE[name]
    outputs = make_outputs()
    expected = np.array(oracle(outputs)) * WEIGHTS / WEIGHTS.mean()
    got = losses_of(make(name, logits_chunk_size=chunk_size, **options), outputs)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


@pytest.mark.parametrize("chunk_size", [None, 4])
def test_sigmoid_equals_loops_over_all_combinations(chunk_size):
    outputs = make_outputs()
    total = 0.0
    for i in range(NUM_PAIRS):
        for j in range(NUM_PAIRS):
            logit = outputs["s1"][i] @ outputs["s2"][j] / 0.3 - 10.0
            loss = math.log1p(math.exp(-logit if i == j else logit))
            weight = (
                WEIGHTS[i] / WEIGHTS.mean() if i == j else VALID[i] * counts(i, j) / VALID.mean()
            )
            total += weight * loss
    got = losses_of(make("sigmoid", logits_chunk_size=chunk_size), outputs)
    assert got.sum() == pytest.approx(total, rel=1e-5)
    assert got[3] == 0.0


def correlation(first, second):
    """Weighted correlation of each two dimensions."""
    share = WEIGHTS / WEIGHTS.sum()
    matrix = np.zeros((DIM, DIM))
    for a in range(DIM):
        for b in range(DIM):
            x, y = first[:, a], second[:, b]
            dx, dy = x - (share * x).sum(), y - (share * y).sum()
            spread = math.sqrt(((share * dx**2).sum() + 1e-5) * ((share * dy**2).sum() + 1e-5))
            matrix[a, b] = (share * dx * dy).sum() / spread
    return matrix


def test_decur_equals_loops_over_dimensions():
    o = make_outputs()

    def distance(matrix, dims, diagonal):
        return sum(
            (matrix[a, b] - diagonal) ** 2 if a == b else OFF_DIAGONAL_WEIGHT * matrix[a, b] ** 2
            for a in dims
            for b in dims
        )

    between, every = correlation(o["s1"], o["s2"]), range(DIM)
    expected = 0.25 * (
        distance(correlation(o["s1"], o["s1_b"]), every, 1.0)
        + distance(correlation(o["s2"], o["s2_b"]), every, 1.0)
        + distance(between, range(3), 1.0)
        + distance(between, range(3, DIM), 0.0)
    )
    np.testing.assert_allclose(
        losses_of(make("decur", decur_common_dim=3), o), [expected] * NUM_PAIRS, rtol=1e-4
    )


def mean_pixels(pixels, training):
    """An encoder whose features are the means of the bands."""
    pooled = tf.reduce_mean(pixels, axis=[1, 2])
    return {"pooled": pooled, "features": pixels, "valid_mask": tf.ones_like(pixels[..., :1])}


class BandMeans:
    """A dual encoder of heads alone, which give what the objective compares."""

    def __init__(self):
        keras.utils.set_random_seed(0)
        self.encoders = dict.fromkeys(("s1", "s2"), mean_pixels)
        self.heads = {
            sensor: ProjectionHead(features_dim=3, embedding_dim=DIM) for sensor in self.encoders
        }
        for head in self.heads.values():
            head.get_layer("hidden").bias.assign([3.0, 2.0, 1.0])


def source_of_decur(projections, num_common):
    """The four terms as the published code has them: batch norm, then products, in NumPy."""
    normed = {
        view: (rows - rows.mean(0)) / np.sqrt(rows.var(0) + 1e-5)
        for view, rows in projections.items()
    }

    def term(first, second, dims, diagonal):
        c = (normed[first].T @ normed[second] / len(normed[first]))[dims, dims]
        on = np.diag(c)
        return ((on - diagonal) ** 2).sum() + 0.0051 * ((c**2).sum() - (on**2).sum())

    every, common, unique = slice(None), slice(0, num_common), slice(num_common, None)
    return 0.25 * (
        term("s1", "s1_b", every, 1.0)
        + term("s2", "s2_b", every, 1.0)
        + term("s1", "s2", common, 1.0)
        + term("s1", "s2", unique, 0.0)
    )


def test_decur_normalizes_the_dimensions_of_projections_and_not_unit_vectors():
    objective, dual_encoder = make("decur", decur_common_dim=3), BandMeans()
    model = ContrastiveModel(dual_encoder, objective)
    rng = np.random.default_rng(3)
    # Patches of unequal strength: unit norm would take the difference away.
    strength = np.linspace(0.2, 4.0, 16)[:, None, None, None]
    batch = {
        view: tf.constant(strength * rng.normal(0.5, 1.0, (16, 2, 2, 3)), tf.float32)
        for view in objective.views
    }
    projections = {}
    for view, pixels in batch.items():
        head = dual_encoder.heads[view[:2]]
        (w1, b1), (w2, b2) = (
            head.get_layer(name).get_weights() for name in ("hidden", "projection")
        )
        rows = np.maximum(pixels.numpy().mean((1, 2)) @ w1 + b1, 0.0) @ w2 + b2
        projections[view] = rows.astype(np.float64)
    got = model.pair_losses(model.encode(batch, training=True))
    np.testing.assert_allclose(got, [source_of_decur(projections, 3)] * 16, rtol=1e-4)
    unit_vectors = {view: unit(rows) for view, rows in projections.items()}
    assert abs(source_of_decur(unit_vectors, 3) / float(got[0]) - 1.0) > 0.005


@pytest.mark.parametrize("chunk_size", [None, 2])
def test_dense_equals_loops_over_cells(chunk_size):
    o = make_outputs()
    valid = np.minimum(o["s1_valid"], o["s2_valid"]) >= 0.5
    local = np.zeros(NUM_PAIRS)
    for i in range(NUM_PAIRS):
        cells = [c for c in range(NUM_CELLS) if valid[i, c]]
        for c in cells:
            for queries, keys in (("s1_cells", "s2_cells"), ("s2_cells", "s1_cells")):
                scores = {
                    (j, d): counts(i, j) * math.exp(o[queries][i, c] @ o[keys][j, d] / 0.3)
                    for j in range(NUM_PAIRS)
                    for d in range(NUM_CELLS)
                    if valid[j, d]
                }
                local[i] += 0.5 * -math.log(scores[i, c] / sum(scores.values())) / len(cells)
    local_weights = WEIGHTS * valid.any(axis=1)
    expected = 0.75 * np.array(
        multimodal(o)
    ) * WEIGHTS / WEIGHTS.mean() + 0.25 * local * local_weights / (local_weights.mean())
    got = losses_of(make("dense", dense_weight=0.25, logits_chunk_size=chunk_size), o)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


@pytest.mark.parametrize("name", [*ROW_WISE, "sigmoid", "decur", "dense"])
def test_pair_that_is_not_valid_is_as_good_as_absent(name):
    outputs = make_outputs()
    spoilt = {
        key: np.where(
            np.arange(NUM_PAIRS).reshape(-1, *[1] * (value.ndim - 1)) == 3,
            np.roll(value, 1, 0),
            value,
        )
        for key, value in outputs.items()
        if key != "valid"
    }
    objective = make(name)
    np.testing.assert_array_equal(
        losses_of(objective, spoilt | {"valid": VALID}), losses_of(objective, outputs)
    )


@pytest.mark.parametrize("name", ["multimodal_2n", "sigmoid", "decur", "dense"])
def test_batch_without_any_valid_pair_has_no_loss_and_no_gradient(name):
    outputs = tensors(make_outputs(valid=np.zeros(NUM_PAIRS)))
    with tf.GradientTape() as tape:
        tape.watch(outputs["s1"])
        losses = make(name).losses_and_figures(outputs)[0]
    np.testing.assert_array_equal(losses, np.zeros(NUM_PAIRS))
    np.testing.assert_array_equal(tape.gradient(losses, outputs["s1"]), np.zeros((NUM_PAIRS, DIM)))


@pytest.mark.parametrize("name", ["multimodal", "multimodal_2n", "sigmoid", "dense"])
def test_chunks_change_no_gradient(name):
    gradients = []
    for chunk_size in (None, 4):
        objective = make(
            name, logits_chunk_size=chunk_size, learn_temperature=True, global_batch_size=8
        )
        outputs = tensors(make_outputs())
        with tf.GradientTape() as tape:
            tape.watch(outputs)
            # Unequal upstream gradients.
            total = tf.reduce_sum(
                objective.losses_and_figures(outputs)[0] * tf.range(1.0, NUM_PAIRS + 1.0)
            )
        names = ["s1", "s2", *(["s1_cells", "s2_cells"] if name == "dense" else [])]
        weights = [
            *objective.temperature.trainable_weights,
            *([objective.bias] if name == "sigmoid" else []),
        ]
        gradients.append(
            tape.gradient(
                total, [*(outputs[key] for key in names), *(weight.value for weight in weights)]
            )
        )
    assert len(gradients[0]) >= 3
    for whole, chunked in zip(*gradients, strict=True):
        assert np.abs(whole).max() > 1e-3
        np.testing.assert_allclose(chunked, whole, rtol=1e-5, atol=1e-6)


def test_loss_is_float32_and_finite_on_half_precision_embeddings():
    for dtype in (tf.bfloat16, tf.float16):
        outputs = {
            name: tf.cast(value, dtype) if name in VIEWS else value
            for name, value in tensors(make_outputs()).items()
        }
        for name in ("multimodal_2n", "sigmoid", "decur"):
            losses, _ = make(name, temperature=0.01).losses_and_figures(outputs)
            assert losses.dtype == tf.float32
            assert np.isfinite(losses).all()


def test_negatives_counted_as_near_are_logged():
    _, figures = make("multimodal").losses_and_figures(tensors(make_outputs()))
    assert float(figures["near_negative_fraction"]) == pytest.approx(2 / 30)
    assert float(figures["temperature"]) == pytest.approx(0.3)
    assert set(
        make("multimodal", min_negative_km=0.0).losses_and_figures(tensors(make_outputs()))[1]
    ) == {"temperature", "chance_loss", "num_candidates"}


def equal_embeddings(outputs):
    return {
        name: np.full_like(value, 0.5) if name in VIEWS or name.endswith("_cells") else value
        for name, value in outputs.items()
    }


@pytest.mark.parametrize("name", [*ROW_WISE, "dense"])
@pytest.mark.parametrize("chunk_size", [None, 2])
def test_chance_loss_is_that_of_equal_embeddings_under_the_same_mask(name, chunk_size):
    outputs = make_outputs()
    for near_weight in (0.0, NEAR_WEIGHT, 1.0):
        options = {"false_negative_weight": near_weight, "logits_chunk_size": chunk_size}
        objective = make(name, **options)
        _, figures = objective.losses_and_figures(tensors(outputs))
        expected = losses_of(objective, equal_embeddings(outputs)).mean()
        assert float(figures["chance_loss"]) == pytest.approx(float(expected), rel=1e-5)
        # Pairs 1 and 4 of the five valid ones are near each other.
        near = WEIGHTS[1] + WEIGHTS[4]
        full = 5.0 if near_weight == 1.0 else 5.0 - near / WEIGHTS.sum()
        assert float(figures["num_candidates"]) == pytest.approx(full, rel=1e-5)


@pytest.mark.parametrize(("name", "expected"), [("multimodal", 4.0), ("multimodal_2n", 7.0)])
def test_chance_loss_of_masked_pairs_in_closed_form(name, expected):
    # Three places of two pairs each, one pair without data. Of six candidates, a pair
    # of a whole place keeps four (no neighbour, no invalid one); the one whose
    # neighbour is invalid keeps five.
    outputs = make_outputs(valid=np.array([1.0, 1, 1, 1, 1, 0]))
    outputs |= {
        "lon": np.array([10.0, 10.01, 20, 20.01, 30, 30.01]),
        "lat": np.zeros(6),
        "weight": np.ones(6),
    }
    _, figures = make(name, false_negative_weight=0.0).losses_and_figures(tensors(outputs))
    lone = 5.0 if name == "multimodal" else 9.0
    loss = (4 * math.log(expected) + math.log(lone)) / 5
    assert float(figures["chance_loss"]) == pytest.approx(loss, rel=1e-6)
    assert float(figures["num_candidates"]) == pytest.approx((4 * 4 + 5) / 5)


def test_objectives_without_candidates_or_cross_entropy_have_no_loss_of_guessing():
    for name, expected in (
        ("sigmoid", {"temperature", "near_negative_fraction", "num_candidates"}),
        ("decur", {"temperature"}),
    ):
        assert set(make(name).losses_and_figures(tensors(make_outputs()))[1]) == expected


def test_chance_record_keeps_the_mean_of_the_last_ten_steps():
    record = ChanceRecord(has_loss=True)
    assert record.mean() is None
    for step in range(13):
        record.add(tf.constant(0.1 * step), tf.constant(1.0 + step))
    found = record.mean()
    assert found.loss == pytest.approx(0.1 * np.mean(range(3, 13)))
    assert found.num_candidates == pytest.approx(1.0 + np.mean(range(3, 13)))
    other = ChanceRecord(has_loss=False)
    other.add(tf.constant(0.0), tf.constant(7.0))
    assert other.mean() == Chance(loss=None, num_candidates=7.0)


def test_distance_needs_locations():
    outputs = tensors(make_outputs())
    del outputs["lon"], outputs["lat"]
    with pytest.raises(
        ValueError, match=r"min_negative_km 10.0 needs lon and lat in the batch, got none"
    ):
        make("multimodal").losses_and_figures(outputs)


def test_learned_temperature_stays_within_its_bounds():
    objective = make("multimodal", learn_temperature=True, temperature=0.02)
    (log_temperature,) = objective.trainable_weights
    optimizer = keras.optimizers.SGD(1.0)
    optimizer.apply([tf.constant(5.0)], [log_temperature])
    assert float(objective.temperature.value()) == pytest.approx(0.01)
    # It is not stuck there.
    optimizer.apply([tf.constant(-1.0)], [log_temperature])
    assert float(objective.temperature.value()) == pytest.approx(0.01 * math.e)
