"""Places: windows, grids at zone borders and the antimeridian, files of ours and of users."""

import json

import pyproj
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_jobs.contracts import settings
from beam_jobs.errors import DataError
from beam_jobs.places.config import SampleConfig, WindowsConfig
from beam_jobs.places.place import (
    Place,
    Window,
    make_windows,
    patch_grid,
    place_id,
    read_places,
    write_places,
)


def test_windows_around_dates_and_in_equal_parts():
    around = make_windows(WindowsConfig(dates=("2021-06-21", "2021-03-20"), window_days=30))
    assert around == (
        Window(start="2021-03-05", end="2021-04-04"),
        Window(start="2021-06-06", end="2021-07-06"),
    )
    parts = make_windows(
        WindowsConfig(start="2021-01-01", end="2021-03-02", num_windows=2, window_days=10)
    )
    assert parts == (
        Window(start="2021-01-11", end="2021-01-21"),
        Window(start="2021-02-10", end="2021-02-20"),
    )
    whole = make_windows(
        WindowsConfig(start="2021-01-01", end="2021-01-31", num_windows=3, window_days=10)
    )
    assert [(w.start[-2:], w.end[-2:]) for w in whole] == [("01", "11"), ("11", "21"), ("21", "31")]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"start": "2021-01-01"}, "both start and end or neither"),
        (
            {"start": "2021-01-01", "end": "2021-01-20"},
            "4 windows of 30 days do not fit into the 19 days",
        ),
        ({"dates": ("2021-13-01",)}, "dates must be an ISO day like 2021-03-20, got '2021-13-01'"),
        ({"dates": ()}, "dates must hold at least one day"),
    ],
)
def test_windows_that_cannot_be_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        WindowsConfig(**values)


def test_days_need_no_quotes_in_yaml(tmp_path):
    (tmp_path / "sample.yaml").write_text(
        "windows:\n  start: 2021-01-01\n  end: 2022-01-01\n  dates: [2021-03-20]\n"
    )
    config = settings.load_yaml(SampleConfig, tmp_path / "sample.yaml", ("windows.end=2021-12-31",))
    assert (config.windows.start, config.windows.end, config.windows.dates) == (
        "2021-01-01",
        "2021-12-31",
        ("2021-03-20",),
    )


@given(st.floats(-180, 180), st.floats(-80, 84), st.sampled_from([64, 255, 256]))
def test_patch_is_centred_on_its_place_in_its_own_zone(lon, lat, size_px):
    grid = patch_grid(Place(place_id="p", lon=lon, lat=lat), size_px, 10.0)
    zone = min(int((lon + 180) // 6) + 1, 60)
    assert grid.crs == f"EPSG:{(326 if lat >= 0 else 327)}{zone:02d}"
    assert all(bound % 10 == 0 for bound in grid.bounds)
    xmin, ymin, xmax, ymax = grid.bounds
    centre = pyproj.Transformer.from_crs(grid.crs, 4326, always_xy=True).transform(
        (xmin + xmax) / 2, (ymin + ymax) / 2
    )
    _, _, metres = pyproj.Geod(ellps="WGS84").inv(*centre, lon, lat)
    # Limit: half a pixel's diagonal, times the scale of UTM at the zone's edge.
    assert metres <= 10.0 * 2**0.5 / 2 * 1.01 + 1e-3


def test_zone_border_belongs_to_the_eastern_zone_and_180_to_the_last():
    crs = [
        patch_grid(Place(place_id="p", lon=lon, lat=10), 64, 10.0).crs
        for lon in (5.99999, 6.0, 180.0, -180.0)
    ]
    assert crs == ["EPSG:32631", "EPSG:32632", "EPSG:32660", "EPSG:32601"]


def test_names_tell_where_and_sort_apart():
    assert place_id(16.3725, 48.2084) == "n48.20840e016.37250"
    assert place_id(-58.4, -3.1) == "s03.10000w058.40000"


def test_written_places_come_back(tmp_path):
    windows = (
        Window(start="2021-01-01", end="2021-01-31"),
        Window(start="2021-06-01", end="2021-06-30"),
    )
    places = [
        Place(
            place_id="a",
            lon=-180.0,
            lat=84.0,
            source="cities",
            stratum='Saint-"Denis',
            windows=windows,
        ),
        Place(place_id="b.c-d_1", lon=12.34567, lat=-79.99999, windows=windows[:1]),
    ]
    path = tmp_path / "new" / "places.geojson"
    assert write_places(places, path, {"seed": 3}) == 2
    assert list(read_places(path)) == places
    found = json.loads(path.read_text())
    assert found["terrapair:sampling"] == {"seed": 3}
    assert found["features"][0]["geometry"] == {"type": "Point", "coordinates": [-180.0, 84.0]}
    # Files with another layout are read too.
    path.write_text(json.dumps(found, indent=1))
    assert list(read_places(path)) == places


def test_file_that_was_cut_short_is_refused(tmp_path):
    path = tmp_path / "places.geojson"
    write_places([Place(place_id=name, lon=0, lat=0) for name in "ab"], path, {})
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))
    with pytest.raises(DataError, match="cut short"):
        list(read_places(path))


def test_csv_with_own_ids_and_dates(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text(
        "lat, lon, id, start, end\n10.5, 20.25, flood-1, 2020-01-01, 2020-02-01\n-3,4,,,\n"
    )
    first, second = read_places(path)
    window = Window(start="2020-01-01", end="2020-02-01")
    assert first == Place(place_id="flood-1", lon=20.25, lat=10.5, windows=(window,))
    assert (second.place_id, second.windows) == ("s03.00000e004.00000", ())


def feature(coordinates, kind="Point", **properties):
    return {
        "type": "Feature",
        "geometry": {"type": kind, "coordinates": coordinates},
        "properties": properties,
    }


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "a.csv",
            "lat,longitude\n1,2\n",
            r"lacks the columns \['lon'\]; it has \['lat', 'longitude'\]",
        ),
        ("a.csv", "", r"lacks the columns \['lon', 'lat'\]"),
        ("a.csv", "lon,lat\n181,0\n", "line 2: lon must be within -180 to 180, got 181"),
        ("a.csv", "lon,lat\n0,0\n0,85\n", "line 3: lat must be within -80 to 84, got 85"),
        ("a.csv", "lon,lat\nnan,0\n", "line 2: lon must be a number, got 'nan'"),
        ("a.csv", "lon,lat\n1\n", "line 2: lat must be a number, got None"),
        ("a.csv", "lon,lat\n1,2\n3,4\n1,2\n", "line 4: the place n02.00000e001.00000 comes twice"),
        ("a.csv", "lon,lat,id\n1,2,a/b\n", "line 2: a place's id must consist of letters"),
        (
            "a.csv",
            "lon,lat,start,end\n1,2,2020-02-01,2020-01-01\n",
            "line 2: a window must end after it starts",
        ),
        ("a.csv", "lon,lat\n", "holds no place"),
        ("a.geojson", "{}", "must be a GeoJSON FeatureCollection"),
        ("a.geojson", "{", "not GeoJSON"),
        (
            "a.geojson",
            json.dumps({"features": [feature([[0, 0]], "LineString")]}),
            "feature 1: must be a Point",
        ),
        (
            "a.geojson",
            json.dumps({"features": [feature([1])]}),
            r"feature 1: needs coordinates \[lon, lat\], got \[1\]",
        ),
        (
            "a.geojson",
            json.dumps({"features": [feature([1, "x"])]}),
            "feature 1: lat must be a number, got 'x'",
        ),
        (
            "a.geojson",
            json.dumps(
                {
                    "features": [
                        feature(
                            [1, 2],
                            windows=[["2020-01-01", "2020-02-01"], ["2020-01-31", "2020-03-01"]],
                        )
                    ]
                }
            ),
            "feature 1: windows must not overlap",
        ),
    ],
)
def test_bad_lists_are_one_line_that_names_the_place(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message) as error:
        list(read_places(tmp_path / name))
    assert str(error.value).startswith(str(tmp_path / name))
    assert "\n" not in str(error.value)


def test_missing_file_is_said(tmp_path):
    with pytest.raises(DataError, match="cannot read the places: No such file"):
        list(read_places(tmp_path / "none.csv"))
