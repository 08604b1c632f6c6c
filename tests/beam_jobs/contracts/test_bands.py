"""Bands: names, order and units as Earth Engine has them."""

import pytest

from beam_jobs.contracts import bands


def test_level_1c_has_the_13_bands_in_product_order():
    expected = ("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B10", "B11", "B12")
    assert expected == bands.S2_L1C_BANDS


def test_level_2a_lacks_only_the_cirrus_band():
    assert set(bands.S2_L1C_BANDS) - set(bands.S2_L2A_BANDS) == {"B10"}
    assert bands.S2_L2A_BANDS.index("B11") == bands.S2_L2A_BANDS.index("B9") + 1


def test_native_pixel_sizes_are_those_of_the_instrument():
    sizes = {name: band.native_pixel_size_m for name, band in bands.S2_BANDS.items()}
    assert {name for name, size in sizes.items() if size == 10} == {"B2", "B3", "B4", "B8"}
    assert {name for name, size in sizes.items() if size == 20} == {
        "B5",
        "B6",
        "B7",
        "B8A",
        "B11",
        "B12",
    }
    assert {name for name, size in sizes.items() if size == 60} == {"B1", "B9", "B10"}


def test_wavelengths_grow_from_band_to_band():
    wavelengths = [bands.S2_BANDS[name].wavelength_nm for name in bands.S2_L1C_BANDS]
    assert wavelengths == sorted(wavelengths)
    assert bands.S1_BANDS["VV"].wavelength_nm is None


def test_every_band_says_unit_scale_nodata_and_source():
    for band in bands.S1_BANDS.values():
        assert (band.unit, band.scale, band.nodata) == ("dB", 0.01, -32768)
    for band in bands.S2_BANDS.values():
        assert (band.unit, band.scale, band.nodata) == ("reflectance", 1e-4, 0)
    assert all(
        band.source.startswith("https://")
        for known in bands.BANDS.values()
        for band in known.values()
    )


def test_the_valid_ranges_fit_the_stored_integers():
    low, high = bands.S1_VALID_RANGE_DB
    assert -32768 < low / 0.01 < high / 0.01 <= 32767
    assert round(bands.S2_VALID_RANGE[1] / 1e-4) == 65535


def test_known_distinct_bands_pass_the_check_in_their_order():
    assert bands.check_band_names("s2", ("B8A", "B2")) == ("B8A", "B2")


@pytest.mark.parametrize(
    ("sensor", "names", "message"),
    [
        ("s1", ("VV", "B2"), "s1 has no band 'B2'; known bands: VV, VH, HH, HV"),
        ("s2", ("B08",), "s2 has no band 'B08'"),
        ("s2", ("B2", "B2"), "no band twice"),
        ("s1", (), "at least one"),
    ],
)
def test_other_band_names_are_refused_with_the_name(sensor, names, message):
    with pytest.raises(ValueError, match=message):
        bands.check_band_names(sensor, names)
