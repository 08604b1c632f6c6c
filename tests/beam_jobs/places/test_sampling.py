"""Samples: uniform on the sphere, equal per class, around cities; spacing, seeds and prefixes.

Marked e2e is what loads the land mask of 930 MB.
"""

import dataclasses
import math

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st

from beam_jobs.contracts.labels import get_schema
from beam_jobs.contracts.sphere import distance_km, unit_vectors
from beam_jobs.errors import DataError
from beam_jobs.places.config import SampleConfig
from beam_jobs.places.land_cover import LandCoverMap
from beam_jobs.places.place import make_windows
from beam_jobs.places.sampling import draw_on_sphere, offset_places, sample


def no_overview() -> bytes:
    raise AssertionError("nothing must be asked of Earth Engine")


def drawn(**values):
    return list(sample(SampleConfig(**values), no_overview))


def min_gap_km(places) -> float:
    points = unit_vectors([p.lon for p in places], [p.lat for p in places])
    chords = np.linalg.norm(points[:, None] - points[None], axis=-1) + 2 * np.eye(len(points))
    return 2 * 6371.0088 * math.asin(chords.min() / 2)


def test_points_are_uniform_on_the_sphere_not_on_the_map():
    points = draw_on_sphere(np.random.default_rng(1), 200_000, -90.0, 90.0)
    lon, lat = points.lon, points.lat
    # A band's share of the sphere is half the difference of its sines (Archimedes).
    for south, north in ((-90, -60), (-30, 0), (0, 30), (60, 75), (75, 90)):
        share = (math.sin(math.radians(north)) - math.sin(math.radians(south))) / 2
        assert ((lat >= south) & (lat < north)).mean() == pytest.approx(share, abs=0.004)
    assert np.histogram(lon, 8, (-180, 180))[0] / len(lon) == pytest.approx(
        np.full(8, 1 / 8), abs=0.004
    )


@given(st.floats(-180, 180), st.floats(-90, 90), st.floats(-500, 500), st.floats(-500, 500))
def test_offset_goes_the_distance_it_says(lon, lat, east_km, north_km):
    found_lon, found_lat = offset_places(np.array([lon]), np.array([lat]), [east_km], [north_km])
    assert distance_km(lon, lat, found_lon[0], found_lat[0]) == pytest.approx(
        math.hypot(east_km, north_km), abs=1e-3
    )
    assert -180 <= found_lon[0] <= 180


def test_offset_towards_east_and_north():
    lon, lat = offset_places(
        np.array([179.9, 10.0]), np.array([0.0, 20.0]), [111.195, 0.0], [0.0, 111.195]
    )
    assert lon == pytest.approx([-179.1, 10.0], abs=1e-3)
    assert lat == pytest.approx([0.0, 21.0], abs=1e-3)


@pytest.mark.e2e
def test_land_sample_is_seeded_spaced_on_land_and_grows_from_its_beginning():
    from global_land_mask import globe

    places = drawn(num_places=300, min_distance_km=300.0, seed=4, min_lat=-40, max_lat=70)
    assert len({place.place_id for place in places}) == 300
    assert min_gap_km(places) >= 300.0
    assert globe.is_land([place.lat for place in places], [place.lon for place in places]).all()
    assert all(-40 <= place.lat <= 70 for place in places)
    assert {place.source for place in places} == {"land"}
    assert places[0].windows == make_windows(SampleConfig().windows)
    assert (
        drawn(num_places=100, min_distance_km=300.0, seed=4, min_lat=-40, max_lat=70)
        == places[:100]
    )
    assert drawn(num_places=5, min_distance_km=300.0, seed=5) != places[:5]


@pytest.mark.e2e
def test_full_earth_is_said():
    with pytest.raises(
        DataError, match=r"land: only \d+ of 5000 places fit with min_distance_km 1000"
    ):
        drawn(num_places=5000, min_distance_km=1000.0, max_lat=10.0)


@pytest.mark.e2e
def test_city_sample_has_the_spread_of_a_gaussian():
    places = drawn(
        strategy="cities", num_places=3000, num_cities=1, city_sd_km=30.0, min_distance_km=0.0
    )
    # The largest city of GeoNames lies at the sea. Points in the sea are dropped, so
    # only the land side is Gaussian.
    assert {place.stratum for place in places} == {"Shanghai"}
    lat = np.array([place.lat for place in places])
    km = np.array([distance_km(121.45806, 31.22222, p.lon, p.lat) for p in places])
    # Rayleigh: 39.3 % lie within one standard deviation, 86.5 % within two.
    assert (km < 30).mean() == pytest.approx(0.393, abs=0.12)
    assert km.max() < 30 * 5
    assert lat.min() < 31.22222 < lat.max()


@pytest.fixture
def land_cover(tmp_path):
    """4 x 8 pixels of 10 degrees from 40 W, 80 N: water, one pixel of trees, two of crops."""
    ids = np.zeros((4, 8), np.uint8)
    ids[:] = 80
    ids[0, 2], ids[1, 7], ids[3, 0] = 10, 40, 40
    path = tmp_path / "cover.tif"
    transform = rasterio.Affine(10, 0, -40, 0, -10, 80)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=1,
        height=4,
        width=8,
        dtype="uint8",
        crs="EPSG:4326",
        transform=transform,
    ) as dataset:
        dataset.write(ids, 1)
    return path


def test_stratified_sample_takes_equal_numbers_of_each_class(land_cover):
    places = drawn(strategy="land_cover", path=str(land_cover), num_places=31, min_distance_km=50.0)
    names = [place.stratum for place in places]
    assert {name: names.count(name) for name in names} == {
        "tree_cover": 11,
        "cropland": 10,
        "permanent_water": 10,
    }
    trees = [place for place in places if place.stratum == "tree_cover"]
    assert all(-20 <= p.lon <= -10 and 70 <= p.lat <= 80 for p in trees)
    assert min_gap_km(places) >= 50.0


def test_points_of_a_class_are_uniform_over_its_area(land_cover):
    cover = LandCoverMap(land_cover, get_schema("worldcover"), -56.0, 84.0)
    assert cover.classes == (10, 40, 80)
    lon, _ = cover.draw(40, 100_000, np.random.default_rng(0))
    north, south = (
        math.sin(math.radians(b)) - math.sin(math.radians(a)) for a, b in ((60, 70), (40, 50))
    )
    assert (lon > 0).mean() == pytest.approx(north / (north + south), abs=0.006)


def test_latitude_limits_hide_classes(land_cover):
    assert LandCoverMap(land_cover, get_schema("worldcover"), -56.0, 70.0).classes == (40, 80)
    with pytest.raises(
        DataError, match="holds no class of 'worldcover' between -56 and 0 degrees north"
    ):
        LandCoverMap(land_cover, get_schema("worldcover"), -56.0, 0.0)


def test_ids_of_another_schema_are_refused(land_cover):
    with pytest.raises(DataError, match=r"ids \[40, 80\] are not in label schema 'igbp17'"):
        drawn(strategy="land_cover", path=str(land_cover), label_schema="igbp17")


def test_class_that_is_too_small_is_named(land_cover):
    with pytest.raises(DataError, match=r"class tree_cover: only \d+ of 50 places fit"):
        drawn(strategy="land_cover", path=str(land_cover), num_places=150, min_distance_km=300.0)


def test_list_of_places_keeps_its_windows_and_gets_the_others(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("lon,lat,start,end\n1,2,2020-01-01,2020-02-01\n3,4,,\n")
    first, second = drawn(strategy="file", path=str(path))
    assert [(w.start, w.end) for w in first.windows] == [("2020-01-01", "2020-02-01")]
    assert second.windows == make_windows(SampleConfig().windows)


def test_two_near_places_of_a_list_are_named_across_the_antimeridian(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("lon,lat,id\n179.99,10,a\n5,10,b\n-179.99,10,c\n")
    with pytest.raises(DataError, match=r"a and c are 2\.190 km apart; min_distance_km is 4"):
        drawn(strategy="file", path=str(path))
    assert len(drawn(strategy="file", path=str(path), min_distance_km=2.0)) == 3


def test_place_outside_the_limits_is_refused(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("lon,lat\n0,-60\n")
    with pytest.raises(DataError, match=r"at lat -60 is not between min_lat -56 and max_lat 82\.8"):
        drawn(strategy="file", path=str(path))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"strategy": "file"}, "needs path"),
        ({"path": "x.tif"}, "path needs strategy"),
        ({"max_lat": 89.0}, "-80 <= min_lat < max_lat <= 84"),
        ({"label_schema": "none"}, "unknown label schema"),
    ],
)
def test_configs_that_contradict_themselves(values, message):
    with pytest.raises(ValueError, match=message):
        SampleConfig(**values)
    assert dataclasses.is_dataclass(SampleConfig())
