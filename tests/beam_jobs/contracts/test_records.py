"""The tf.Example codec: bytes read by hand, round trips, and all features of the contract."""

import dataclasses
import hashlib
import itertools
import math
import struct

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from beam_jobs.contracts import records

# The contract's table, written by hand.
FEATURES = {
    **dict.fromkeys(
        ("patch_id", "s1", "s2", "label", "block", "s1_scene_id", "s2_scene_id", "orbit_state"),
        "bytes",
    ),
    "event": "bytes",
    **dict.fromkeys(("height", "width", "s1_acquired_at", "s2_acquired_at"), "int64"),
    **dict.fromkeys(
        ("lon", "lat", "time_gap_hours", "offset_px", "quality", "cloud_fraction"), "float"
    ),
    **dict.fromkeys(("s1_valid_fraction", "s2_valid_fraction", "edge_noise_fraction"), "float"),
    **dict.fromkeys(("saturated_fraction", "weight"), "float"),
    **dict.fromkeys(("s1_mean", "s1_std", "s2_mean", "s2_std"), "float"),
}
DB = st.one_of(st.floats(-70.0, 40.0, width=32), st.just(math.nan))
REFLECTANCE = st.one_of(st.floats(0.0, 6.5, width=32), st.just(math.nan))


def make_values(s1=None, s2=None, **changes):
    rng = np.random.default_rng(3)
    s1 = rng.uniform(-30, 0, (3, 4, 2)).astype(np.float32) if s1 is None else s1
    s2 = rng.uniform(0, 1, (3, 4, 3)).astype(np.float32) if s2 is None else s2
    values = {
        "patch_id": "0123456789abcdef0123",
        "s1": s1,
        "s2": s2,
        "lon": 15.5,
        "lat": -45.25,
        "block": "2.56km_1_2",
        "s1_scene_id": "S1_a",
        "s2_scene_id": "S2_b",
        "s1_acquired_at": 1_600_000_000,
        "s2_acquired_at": 1_600_009_000,
        "orbit_state": "ascending",
        "cloud_fraction": 0.25,
        "offset_px": 0.5,
        "quality": 0.75,
        "edge_noise_fraction": 0.125,
        "saturated_fraction": 0.0625,
        "weight": 0.5,
        "event": "São Paulo",
    }
    return values | changes


def make_label():
    return np.array([[0, 1, 255, 3], [4, 5, 6, 7], [8, 0, 1, 254]], np.uint8)


def feature_of(serialized):
    return tf.train.Example.FromString(serialized).features.feature


@settings(max_examples=40, deadline=None)
@given(
    arrays(np.float32, (3, 4, 2), elements=DB), arrays(np.float32, (3, 4, 3), elements=REFLECTANCE)
)
def test_round_trip_keeps_values_within_half_a_step_and_no_data_as_no_data(s1, s2):
    decoded = records.decode(records.encode(records.PairedPatch(**make_values(s1, s2))))
    assert np.array_equal(np.isnan(decoded.s1), np.isnan(s1))
    assert np.array_equal(np.isnan(decoded.s2), np.isnan(s2))
    # Half a step, and what float32 itself cannot hold at 70 dB and at 6.5.
    assert np.nanmax(np.abs(decoded.s1.astype(np.float64) - s1), initial=0.0) <= 0.005 + 1e-5
    # Below half a step the darkest value stands in, since 0 is taken by no data.
    expected = np.where(s2 < 0.00005, np.float32(0.0001), s2)
    assert (
        np.nanmax(np.abs(decoded.s2.astype(np.float64) - expected), initial=0.0) <= 0.00005 + 1e-6
    )
    assert decoded.s1.dtype == decoded.s2.dtype == np.float32


def test_every_storable_value_survives_a_second_round_trip():
    s1 = np.concatenate([[-32768], np.arange(-7000, 4001)]).astype("<i2")
    s2 = np.arange(0, 65536).astype("<u2")
    assert np.array_equal(records.quantize(records.dequantize(s1, "s1"), "s1"), s1)
    assert np.array_equal(records.quantize(records.dequantize(s2, "s2"), "s2"), s2)


def test_stored_bytes_are_little_endian_integers_in_row_column_band_order():
    s1 = np.array([[[-12.34, -20.0], [np.nan, 1.5]]], np.float32)
    s2 = np.array([[[0.1234, 1.5], [np.nan, 0.00001]]], np.float32)
    feature = feature_of(records.encode(records.PairedPatch(**make_values(s1, s2))))
    assert struct.unpack("<4h", feature["s1"].bytes_list.value[0]) == (-1234, -2000, -32768, 150)
    assert struct.unpack("<4H", feature["s2"].bytes_list.value[0]) == (1234, 15000, 0, 1)


def test_values_no_sensor_measures_become_no_data():
    s1 = np.array([[[-70.5, 40.5, np.inf, -np.inf, 39.9]]], np.float32)
    s2 = np.array([[[-0.01, 6.6, np.inf, 6.5535, 0.0]]], np.float32)
    assert records.quantize(s1, "s1").tolist() == [[[-32768, -32768, -32768, -32768, 3990]]]
    assert records.quantize(s2, "s2").tolist() == [[[0, 0, 0, 65535, 1]]]


def test_labels_travel_unchanged_and_make_a_labeled_patch():
    label = make_label()
    serialized = records.encode(records.LabeledPatch(**make_values(), label=label))
    assert feature_of(serialized)["label"].bytes_list.value[0] == label.tobytes()
    decoded = records.decode(serialized)
    assert isinstance(decoded, records.LabeledPatch)
    assert np.array_equal(decoded.label, label)


def test_a_patch_without_label_has_an_empty_label_feature():
    serialized = records.encode(records.PairedPatch(**make_values()))
    assert feature_of(serialized)["label"].bytes_list.value[0] == b""
    assert type(records.decode(serialized)) is records.PairedPatch


def test_everything_beside_pixels_survives():
    values = make_values()
    decoded = records.decode(records.encode(records.PairedPatch(**values)))
    for name in values.keys() - {"s1", "s2"}:
        assert getattr(decoded, name) == values[name], name
    assert (decoded.height, decoded.width) == (3, 4)


def test_what_is_not_known_stays_nan():
    patch = records.PairedPatch(**make_values(cloud_fraction=math.nan, offset_px=math.nan))
    decoded = records.decode(records.encode(patch))
    assert math.isnan(decoded.cloud_fraction)
    assert math.isnan(decoded.offset_px)


def test_the_time_gap_is_sentinel_2_minus_sentinel_1():
    later = records.PairedPatch(**make_values())
    earlier = records.PairedPatch(**make_values(s2_acquired_at=1_600_000_000 - 5400))
    assert feature_of(records.encode(later))["time_gap_hours"].float_list.value[0] == 2.5
    assert feature_of(records.encode(earlier))["time_gap_hours"].float_list.value[0] == -1.5


@pytest.mark.parametrize("labeled", [False, True])
def test_an_example_has_exactly_the_features_of_the_contract(labeled):
    patch = (
        records.LabeledPatch(**make_values(), label=make_label())
        if labeled
        else records.PairedPatch(**make_values())
    )
    feature = feature_of(records.encode(patch))
    kinds = {
        name: value.WhichOneof("kind").removesuffix("_list") for name, value in feature.items()
    }
    assert kinds == FEATURES


def test_parse_example_reads_labeled_and_unlabeled_records_together():
    spec = records.feature_spec(2, 3)
    assert set(spec) == set(FEATURES)
    batch = [
        records.encode(records.LabeledPatch(**make_values(), label=make_label())),
        records.encode(records.PairedPatch(**make_values(lon=-3.5, s2_acquired_at=1_599_992_800))),
    ]
    parsed = tf.io.parse_example(batch, spec)
    assert parsed["lon"].numpy().tolist() == [15.5, -3.5]
    assert parsed["time_gap_hours"].numpy().tolist() == [2.5, -2.0]
    assert parsed["label"].numpy().tolist() == [make_label().tobytes(), b""]
    assert parsed["s1_mean"].shape == (2, 2)
    assert parsed["s2_std"].shape == (2, 3)
    stored = tf.io.decode_raw(parsed["s2"], tf.uint16).numpy().reshape(2, 3, 4, 3)
    assert np.allclose(stored[0] * 1e-4, make_values()["s2"], atol=5.1e-5)


@settings(max_examples=25, deadline=None)
@given(arrays(np.float32, (3, 4, 2), elements=DB))
def test_moments_are_those_of_the_valid_pixels(s1):
    feature = feature_of(records.encode(records.PairedPatch(**make_values(s1))))
    for channel in range(2):
        valid = s1[..., channel][np.isfinite(s1[..., channel])].astype(np.float64)
        # A band without any valid pixel gives 0: a NaN would make TFDV's statistics
        # useless.
        mean, std = (valid.mean(), valid.std()) if valid.size else (0.0, 0.0)
        assert feature["s1_mean"].float_list.value[channel] == pytest.approx(mean, abs=1e-4)
        assert feature["s1_std"].float_list.value[channel] == pytest.approx(std, abs=1e-4)


def test_a_pixel_counts_as_valid_when_all_its_bands_are():
    s1 = make_values()["s1"]
    s1[0, 0, 0] = s1[0, 1, 1] = s1[0, 2] = np.nan
    feature = feature_of(records.encode(records.PairedPatch(**make_values(s1))))
    assert feature["s1_valid_fraction"].float_list.value[0] == pytest.approx(9 / 12)
    assert feature["s2_valid_fraction"].float_list.value[0] == 1.0


def test_the_same_patch_gives_the_same_bytes():
    first = records.encode(records.LabeledPatch(**make_values(), label=make_label()))
    # Column-major copies hold the same values in another order of memory.
    values = {
        k: np.asfortranarray(v) if isinstance(v, np.ndarray) else v
        for k, v in reversed(make_values().items())
    }
    assert (
        records.encode(records.LabeledPatch(**values, label=np.asfortranarray(make_label())))
        == first
    )


@pytest.mark.parametrize("name", sorted(FEATURES))
def test_a_missing_feature_is_named(name):
    example = tf.train.Example.FromString(records.encode(records.PairedPatch(**make_values())))
    del example.features.feature[name]
    with pytest.raises(ValueError, match=f"lacks the features .*'{name}'"):
        records.decode(example.SerializeToString())


def test_pixels_that_do_not_fit_height_and_width_are_refused():
    example = tf.train.Example.FromString(records.encode(records.PairedPatch(**make_values())))
    example.features.feature["height"].int64_list.value[0] = 5
    with pytest.raises(ValueError, match="s1 holds 24 values, which is not a multiple of 5x4"):
        records.decode(example.SerializeToString())


@pytest.mark.parametrize(
    ("s1_shape", "s2_shape"),
    [((3, 4, 2), (4, 3, 3)), ((3, 4), (3, 4, 3)), ((3, 4, 2), (1, 3, 4, 3))],
)
def test_sensors_must_share_one_grid(s1_shape, s2_shape):
    with pytest.raises(ValueError, match="on one grid"):
        records.PairedPatch(
            **make_values(np.zeros(s1_shape, np.float32), np.zeros(s2_shape, np.float32))
        )


def test_a_label_must_lie_on_the_grid_of_the_pixels():
    with pytest.raises(ValueError, match=r"on the grid of s1 \(3, 4\), got uint8 \(4, 3\)"):
        records.LabeledPatch(**make_values(), label=make_label().T)
    with pytest.raises(ValueError, match=r"must be uint8 .* got int64 \(3, 4\)"):
        records.LabeledPatch(**make_values(), label=make_label().astype(np.int64))


def test_patch_ids_depend_on_scenes_and_window_only():
    window = {"crs": "EPSG:32633", "xmin": 500000.0, "ymax": 5000000.0, "size_px": 64}
    first = records.make_patch_id("S1_a", "S2_b", **window)
    assert len(first) == 20
    assert records.make_patch_id("S1_a", "S2_b", **window | {"xmin": 500000.001}) == first
    others = {"crs": "EPSG:32634", "xmin": 500640.0, "ymax": 5000640.0, "size_px": 128}
    changed = {
        records.make_patch_id("S1_x", "S2_b", **window),
        records.make_patch_id("S1_a", "S2_x", **window),
        *(records.make_patch_id("S1_a", "S2_b", **window | {k: v}) for k, v in others.items()),
    }
    assert len(changed | {first}) == 7


SCORES = ("cloud_fraction", "quality", "edge_noise_fraction", "saturated_fraction", "weight")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *itertools.product(SCORES, (-0.1, 1.1)),
        # A source need not tell the cloud fraction; the others are always known.
        *itertools.product(SCORES[1:], (math.nan,)),
    ],
)
def test_a_score_outside_0_to_1_is_refused(name, value):
    with pytest.raises(ValueError, match=f"0123456789abcdef0123: {name} must be within 0-1, got"):
        records.PairedPatch(**make_values(**{name: value}))


def test_the_table_has_a_row_for_every_field():
    fields = {field.name for field in dataclasses.fields(records.PairedPatch)} - {"s1", "s2"}
    assert {row.name for row in records.FEATURES.values() if row.is_field} == fields
    assert {name: row.kind for name, row in records.FEATURES.items()} == FEATURES


def test_watched_features_are_the_numbers_and_the_orbit():
    # An id, an event name or pixels are new in every split, which is no anomaly.
    unwatched = {"patch_id", "s1", "s2", "label", "block", "s1_scene_id", "s2_scene_id", "event"}
    assert set(records.WATCHED_FEATURES) == set(FEATURES) - unwatched


def test_scores_of_the_card_are_the_fractions():
    assert set(records.SCORES) == {*SCORES, "s1_valid_fraction", "s2_valid_fraction"}


def golden_patch():
    """Every sum over these pixels is exact, so no version of NumPy rounds them otherwise."""
    s1 = np.array([[[-12.25, -20.0], [np.nan, -18.5]], [[-8.0, -24.0], [-10.5, -21.5]]], np.float32)
    s2 = np.arange(12, dtype=np.float32).reshape(2, 2, 3) / 16
    s2[1, 1] = np.nan
    label = np.array([[0, 1], [255, 3]], np.uint8)
    changes = {"s1_acquired_at": -86_400, "cloud_fraction": math.nan, "offset_px": math.nan}
    return records.LabeledPatch(**make_values(s1, s2, **changes), label=label)


def test_a_fixed_record_has_fixed_bytes():
    serialized = records.encode(golden_patch())
    assert hashlib.sha256(serialized).hexdigest() == (
        "09d25fcfe40d099f89e31339aa25784d27a8164eeb78e849a30f05c887bb1871"
    )


def test_protobuf_reads_back_what_it_did_not_write():
    patch = golden_patch()
    feature = feature_of(records.encode(patch))
    assert feature["s1_acquired_at"].int64_list.value == [-86_400]
    assert feature["height"].int64_list.value == [2]
    assert feature["event"].bytes_list.value == ["São Paulo".encode()]
    assert feature["s1_mean"].float_list.value == [-10.25, -21.0]
    assert feature["label"].bytes_list.value == [bytes([0, 1, 255, 3])]
    # What protobuf itself writes for each value is what the record holds.
    serialized = records.encode(patch)
    for name, value in feature.items():
        message = value.SerializeToString()
        entry = bytes([10, len(name)]) + name.encode() + bytes([18, len(message)]) + message
        assert serialized.count(entry) == 1, name


def test_an_example_that_protobuf_changed_is_written_in_the_same_order():
    serialized = records.encode(golden_patch())
    example = tf.train.Example.FromString(serialized)
    assert records.serialize(example) == serialized
    example.features.feature["event"].bytes_list.value[0] = b"Ghana"
    changed = records.PairedPatch(**make_values(event="Ghana"))
    assert records.decode(records.serialize(example)).event == changed.event


def test_features_are_written_in_the_order_of_their_names():
    serialized = records.encode(golden_patch())
    marks = [bytes([10, len(name)]) + name.encode() + b"\x12" for name in sorted(FEATURES)]
    places = [serialized.index(mark) for mark in marks]
    assert places == sorted(places)


@pytest.mark.parametrize("num_pixels", [63, 64, 8191, 8192, 1_048_576])
def test_values_around_each_length_of_a_varint_are_read_back(num_pixels):
    s1 = np.full((1, num_pixels, 1), -10.0, np.float32)
    serialized = records.encode(records.PairedPatch(**make_values(s1, np.abs(s1) / 100)))
    stored = feature_of(serialized)["s1"].bytes_list.value[0]
    assert stored == np.full(num_pixels, -1000, "<i2").tobytes()
