"""Plausibility: natural scenes pass; other units, fills and swapped bands are refused."""

import numpy as np
import pytest

from beam_jobs.scenes import plausibility
from beam_jobs.scenes.radiometry import declared_values

SHAPE = (80, 90)
NATURAL = {
    "forest": (-7.5, -13.5),
    "rain forest": (-6.5, -12.5),
    "crops": (-11.0, -16.0),
    "grass": (-12.0, -19.5),
    "desert": (-23.0, -31.0),
    "calm water": (-25.0, -31.5),
    "sea in wind": (-13.0, -29.0),
    "city": (3.5, -4.0),
    "snow": (-2.5, -9.0),
}


def radar(vv_db: float, vh_db: float, *, looks: float = 4.4, seed: int = 0):
    """Backscatter with gamma speckle around slowly changing ground."""
    rng = np.random.default_rng(seed)
    ground = np.cumsum(rng.normal(0, 0.1, SHAPE), axis=1)
    return {
        name: (mean + ground + 10 * np.log10(rng.gamma(looks, 1 / looks, SHAPE))).astype(np.float32)
        for name, mean in (("VV", vv_db), ("VH", vh_db))
    }


def unit_refusal(bands, is_declared=False):
    windows = {name: [band[:, :40], band[:, 40:]] for name, band in bands.items()}
    return plausibility.unit_refusal(windows, is_declared=is_declared)


def power(bands):
    return {name: np.power(10.0, band / 10).astype(np.float32) for name, band in bands.items()}


@pytest.mark.parametrize("scene", NATURAL)
@pytest.mark.parametrize("looks", [4.4, 40.0])
def test_decibels_of_natural_scenes_pass(scene, looks):
    bands = radar(*NATURAL[scene], looks=looks)
    assert unit_refusal(bands) is None
    # Above 0 dB everywhere, one band alone may be power as well.
    if bands["VV"].min() < -1:
        assert unit_refusal({"VV": bands["VV"]}) is None
    assert plausibility.swap_refusal({name: [band] for name, band in bands.items()}) is None


def test_gaps_do_not_change_what_passes():
    bands = radar(-11.0, -17.0)
    for band in bands.values():
        band[:, :70] = np.nan
    assert unit_refusal(bands) is None


@pytest.mark.parametrize("scene", NATURAL)
@pytest.mark.parametrize("spoil", ["nothing", "noise subtracted", "fill"])
def test_linear_power_is_recognized(scene, spoil):
    bands = power(radar(*NATURAL[scene]))
    rng = np.random.default_rng(2)
    for band in bands.values():
        if spoil == "noise subtracted":
            band[rng.uniform(size=SHAPE) < 0.002] = -0.004
        if spoil == "fill":
            band[:40] = -1.0
    reason, detail = unit_refusal(bands)
    assert reason == "s1_not_db"
    assert "terrapair:unit power" in detail
    seen = bands["VV"][bands["VV"] > -1]
    assert f"median of VV {np.median(seen):.3g}" in detail


@pytest.mark.parametrize("fill", [-1.0, -9.0, -50.0])
def test_a_fill_value_that_covers_half_of_the_scene_does_not_hide_power(fill):
    bands = power(radar(-11.0, -17.0))
    for band in bands.values():
        band[:, :45] = fill
    assert unit_refusal(bands)[0] == "s1_not_db"


def test_rounded_decibels_are_no_fill():
    bands = {name: np.rint(band) for name, band in radar(-11.0, -17.0).items()}
    assert unit_refusal(bands) is None


def test_amplitude_and_digital_numbers_are_refused_with_what_was_seen():
    bands = power(radar(-11.0, -17.0))
    amplitude = {name: np.sqrt(band) for name, band in bands.items()}
    assert "an amplitude must be squared" in unit_refusal(amplitude)[1]
    numbers = {name: np.rint(1000 * band).astype(np.float32) for name, band in amplitude.items()}
    reason, detail = unit_refusal(numbers)
    assert reason == "s1_not_db"
    assert f"median of VV {np.median(numbers['VV']):.3g}" in detail
    assert "calibrate" in detail
    hundredths = {name: 100 * band for name, band in radar(-11.0, -17.0).items()}
    assert "median of VV -1" in unit_refusal(hundredths)[1]


@pytest.mark.parametrize("scene", ["forest", "rain forest", "grass", "crops"])
@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_decibels_of_land_that_were_halved_or_doubled_are_refused(scene, factor):
    bands = {name: factor * band for name, band in radar(*NATURAL[scene]).items()}
    reason, detail = unit_refusal(bands)
    assert reason == "s1_not_db"
    assert f"median of V{'H' if 'median of VH' in detail else 'V'}" in detail
    assert "10 log10 of power" in detail


def test_one_polarization_far_from_any_surface_is_refused():
    bands = {"VV": radar(-36.0, -17.0)["VV"]}
    assert f"must lie within -32 to 5, got {np.median(bands['VV']):.1f}" in unit_refusal(bands)[1]


def test_a_declared_unit_is_believed_unless_the_values_are_linear():
    doubled = {name: 2 * band for name, band in radar(-11.0, -17.0).items()}
    assert unit_refusal(doubled) is not None
    assert unit_refusal(doubled, is_declared=True) is None
    assert unit_refusal(power(radar(-11.0, -17.0)), is_declared=True)[0] == "s1_not_db"


def as_power(values):
    """What the reader makes of stored values whose item declares power."""
    return [declared_values(values, "power", 1.0, 0.0)]


@pytest.mark.parametrize("scene", NATURAL)
def test_decibels_that_are_declared_as_power_are_refused(scene):
    planes = {name: as_power(band) for name, band in radar(*NATURAL[scene]).items()}
    reason, detail = plausibility.negative_power_refusal(planes)
    assert reason == "s1_not_db"
    assert "negative, as decibels are: declare terrapair:unit dB" in detail


@pytest.mark.parametrize("scene", NATURAL)
@pytest.mark.parametrize("spoil", ["nothing", "noise subtracted", "fill"])
def test_power_that_is_declared_passes(scene, spoil):
    bands = power(radar(*NATURAL[scene]))
    if spoil == "noise subtracted":
        # As where nothing returns at all.
        bands = {name: band - np.median(band) for name, band in bands.items()}
    # A fill of a city's scene may be mistaken, and its message says so.
    if spoil == "fill" and scene != "city":
        for band in bands.values():
            band[:, :75] = -9999.0
    planes = {name: as_power(band) for name, band in bands.items()}
    assert plausibility.negative_power_refusal(planes) is None


def test_swapped_polarizations_are_noticed():
    bands = radar(-11.0, -17.0)
    swapped = {"VV": [bands["VH"]], "VH": [bands["VV"]]}
    reason, detail = plausibility.swap_refusal(swapped)
    assert reason == "polarizations_swapped"
    excess = np.median(bands["VV"] - bands["VH"])
    assert f"VH exceeds VV by {excess:.1f} dB" in detail
    assert plausibility.CHECKED in detail
    assert plausibility.swap_refusal({"HH": [bands["VV"]], "HV": [bands["VH"]]}) is None
    assert plausibility.swap_refusal({"HH": [bands["VH"]], "HV": [bands["VV"]]}) is not None
    # On two grids, the medians are compared.
    assert plausibility.swap_refusal({**swapped, "VV": [bands["VH"][::2, ::2]]}) is not None
    # Near the noise, both are alike.
    noise = radar(-29.0, -28.5)
    assert plausibility.swap_refusal({name: [band] for name, band in noise.items()}) is None


def test_speckle_is_the_closed_form_of_the_logarithm_of_a_gamma_variable():
    windows = [radar(-11.0, -17.0, seed=seed)["VV"] for seed in range(6)]
    # Standard deviation of 10 log10 of a gamma variable: 10 / ln 10 sqrt(trigamma(4.4)).
    assert plausibility.speckle_db(windows) == pytest.approx(2.2, abs=0.15)
    assert np.isnan(plausibility.speckle_db([np.zeros((5, 2), np.float32)]))


def digital_numbers(seed: int = 0):
    rng = np.random.default_rng(seed)
    return {name: rng.integers(20, 5000, SHAPE).astype(np.float32) for name in ("B2", "B8", "B12")}


def dn_refusal(bands, dtype=np.uint16):
    flat = {name: band.ravel() for name, band in bands.items()}
    return plausibility.digital_number_refusal(flat, dict.fromkeys(bands, np.dtype(dtype)))


def test_digital_numbers_pass_over_land_and_sea():
    assert dn_refusal(digital_numbers()) is None
    rng = np.random.default_rng(1)
    sea = {
        "B2": rng.normal(320, 30, SHAPE).astype(np.float32),
        "B8": rng.normal(40, 10, SHAPE).astype(np.float32),
        "B12": np.maximum(rng.normal(8, 6, SHAPE), 1).astype(np.float32),
    }
    assert dn_refusal(sea) is None
    # Without a blue band, all of a sea may lie within 0-255.
    assert dn_refusal({"B8": sea["B8"], "B12": sea["B12"]}) is None


def test_8_bits_are_refused_whatever_holds_them():
    rng = np.random.default_rng(1)
    bands = {name: rng.integers(0, 256, SHAPE).astype(np.float32) for name in ("B4", "B3", "B2")}
    reason, detail = dn_refusal(bands, np.uint8)
    assert reason == "s2_not_dn"
    assert "8 bits (largest 255)" in detail
    assert "terrapair:unit reflectance" in detail
    assert "within 0-255" in dn_refusal(bands)[1]


@pytest.mark.parametrize("fill", [0.0, 9999.0, 65_535.0])
def test_reflectance_is_refused_though_a_fill_value_stands_in_it(fill):
    bands = {name: band / np.float32(10_000) for name, band in digital_numbers().items()}
    for band in bands.values():
        band[:10] = fill or band[:10]
    reason, detail = dn_refusal(bands, np.float32)
    assert reason == "s2_not_dn"
    values = np.concatenate([band.ravel() for band in bands.values()])
    assert f"their median is {np.median(values):.3g}" in detail
