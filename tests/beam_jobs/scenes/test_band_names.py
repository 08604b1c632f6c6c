"""Spellings of bands: each means one band, and what means none is none."""

import pytest

from beam_jobs.contracts.bands import S2_L1C_BANDS
from beam_jobs.scenes import band_names


def test_every_common_name_and_every_number_of_sentinel_2():
    assert {band_names.band_of("s2", name) for name in band_names.COMMON_NAMES} == set(S2_L1C_BANDS)
    padded = ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09"]
    names = [*padded, "B10", "B11", "B12"]
    assert tuple(band_names.band_of("s2", name) for name in names) == S2_L1C_BANDS
    assert tuple(band_names.band_of("s2", name.lower()) for name in names) == S2_L1C_BANDS


@pytest.mark.parametrize(
    ("sensor", "names", "expected"),
    [
        ("s2", ("visual", "B04"), "B4"),
        ("s2", ("rededge", "rededge2"), "B6"),
        ("s2", ("NIR08",), "B8A"),
        ("s2", ("rededge", None, "SCL", "B13", "B00", "B8B", "AOT", "vv"), None),
        ("s1", ("vv",), "VV"),
        ("s1", ("VH",), "VH"),
        ("s1", ("red", "angle", "B4"), None),
    ],
)
def test_the_first_understood_name_counts(sensor, names, expected):
    assert band_names.band_of(sensor, *names) == expected


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("B04", ("B04", None, False)),
        ("B04_20m", ("B04", 20, False)),
        ("red-jp2", ("red", None, True)),
        ("SCL_60m", ("SCL", 60, False)),
        ("B8A_30m", ("B8A_30m", None, False)),
        ("", ("", None, False)),
    ],
)
def test_variants_of_one_band(key, expected):
    assert band_names.variant_of(key) == expected
