"""Real seasons pass: the months of a field in Togo, moved onto five real places."""

import dataclasses

import numpy as np
import pytest
import rasterio

from beam_jobs.contracts.bands import S2_L1C_BANDS, S2_L2A_BANDS
from models.drift.comparison import compare
from models.drift.config import DriftConfig
from tests.data.scenes.real_samples import SAMPLES, needs_samples
from tests.data.shards import make_summaries

S1 = ("VV", "VH")
NUM_MONTHS = 12


@pytest.fixture(scope="module")
def departures():
    """Band -> difference of each month's mean and the year's, dB or reflectance [12]."""
    (path,) = (SAMPLES / "ee_geotiff").glob("98-togo*.tif")
    with rasterio.open(path) as source:
        planes = dict(zip(source.descriptions, source.read().astype(np.float64), strict=True))
    found = {}
    for band in (*S1, *S2_L1C_BANDS):
        names = [band, *(f"{band}_{month}" for month in range(1, NUM_MONTHS))]
        means = np.array([np.nanmean(planes[name]) for name in names])
        found[band] = (means - means.mean()) / (1.0 if band in S1 else 1e4)
    return found


@pytest.fixture(scope="module")
def reference():
    """The figures of five places of TerraMesh, in a summary of 24 scenes."""
    drawn = make_summaries.make_span(0)
    bands = {}
    for sensor, folder, names in (("s1", "S1RTC", S1), ("s2", "S2L2A", S2_L2A_BANDS)):
        pixels = []
        for path in sorted((SAMPLES / "terramind" / folder).glob("*.tif")):
            with rasterio.open(path) as source:
                pixels.append(source.read().astype(np.float64).reshape(len(names), -1))
        values = np.concatenate(pixels, axis=1) / (1.0 if sensor == "s1" else 1e4)
        bands[sensor] = tuple(
            dataclasses.replace(
                old,
                mean=float(row.mean()),
                std=float(row.std()),
                p02=float(np.quantile(row, 0.02)),
                p50=float(np.median(row)),
                p98=float(np.quantile(row, 0.98)),
                mean_error=0.0,
                std_error=0.0,
            )
            for old, row in zip(drawn.bands[sensor], values, strict=True)
        )
    return dataclasses.replace(drawn, bands=bands)


def moved(reference, shifts):
    """The reference with each band moved, as a season moves all of it.

    Only the darkest pixels of Sentinel-2 stay where they are when the rest gets darker.
    """
    return dataclasses.replace(
        reference,
        bands={
            sensor: tuple(
                dataclasses.replace(
                    one,
                    mean=one.mean + shifts[one.band],
                    p02=max(one.p02 + shifts[one.band], one.p02 if sensor == "s2" else -99.0),
                    p50=one.p50 + shifts[one.band],
                    p98=one.p98 + shifts[one.band],
                )
                for one in bands
            )
            for sensor, bands in reference.bands.items()
        },
    )


def refusals(reference, new):
    found = compare(reference, new, DriftConfig())
    return {(one.rule, one.about) for one in found if one.is_exceeded and one.severity == "refuse"}


@needs_samples
def test_every_month_passes(reference, departures):
    largest = {band: np.abs(values).max() for band, values in departures.items()}
    # The seasons are real: several decibels, and a tenth of reflectance.
    assert largest["VV"] > 3.0
    assert largest["VH"] > 5.0
    assert largest["B1"] > 0.05
    for month in range(NUM_MONTHS):
        shifts = {band: values[month] for band, values in departures.items()}
        darkest = {band: shift for band, shift in shifts.items() if band not in S1}
        # Haze also lifts the darkest pixels; no month lifts all bands as an offset does.
        assert min(darkest.values()) < 0.05
        assert refusals(reference, moved(reference, shifts)) == set()


@needs_samples
def test_the_faults_of_the_same_places_are_refused(reference):
    doubled = {one.band: one.mean for one in reference.bands["s1"]}
    zero = dict.fromkeys((*S1, *S2_L1C_BANDS), 0.0)
    assert ("s1_mean", "VH") in refusals(reference, moved(reference, zero | doubled))
    offset = moved(reference, zero | dict.fromkeys(S2_L1C_BANDS, 0.1))
    assert {rule for rule, _ in refusals(reference, offset)} >= {"s2_offset"}
