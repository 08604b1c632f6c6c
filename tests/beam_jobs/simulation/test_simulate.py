"""The simulator: bytes, values, catalog, resumption, and presets that differ in nuisance only."""

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import pystac
import pytest
import rasterio
import rasterio.warp
from shapely.geometry import shape

from beam_jobs.config import SimulateConfig
from beam_jobs.contracts.bands import S2_L1C_BANDS, S2_L2A_BANDS
from beam_jobs.contracts.labels import DYNAMIC_WORLD
from beam_jobs.simulation.acquisitions import draw_pairs
from beam_jobs.simulation.landscape import BUILT, WATER, make_landscape
from beam_jobs.simulation.places import make_place
from beam_jobs.simulation.radar import Nuisance
from beam_jobs.simulation.simulate import render_s1, simulate

SMALL = SimulateConfig(num_places=4, num_dates=3, size_px=100, seed=5)


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def read_items(catalog: Path) -> list[pystac.Item]:
    items = [pystac.Item.from_dict(json.loads(line)) for line in catalog.read_text().splitlines()]
    for item in items:
        item.set_self_href(str(catalog))
    return items


def read(item: pystac.Item, asset: str) -> np.ndarray:
    with rasterio.open(item.assets[asset].get_absolute_href()) as dataset:
        return dataset.read()


def pairs_of(items: list[pystac.Item]) -> list[tuple[pystac.Item, pystac.Item]]:
    return list(zip(items[::2], items[1::2], strict=True))


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate(SMALL, tmp_path_factory.mktemp("private"))


@pytest.fixture(scope="module")
def items(catalog: Path) -> list[pystac.Item]:
    return read_items(catalog)


def test_same_seed_gives_same_bytes_and_another_seed_others(catalog: Path, tmp_path: Path) -> None:
    again = simulate(SMALL, tmp_path / "again").parent
    assert hashes(again) == hashes(catalog.parent)
    other = simulate(dataclasses.replace(SMALL, seed=6), tmp_path / "other").parent
    assert not set(hashes(other).values()) & set(hashes(catalog.parent).values())


def test_items_load_with_pystac_and_point_at_files_that_match_their_properties(
    items: list[pystac.Item],
) -> None:
    assert len(items) == 2 * 4 * 3
    assert len({item.id for item in items}) == len(items)
    for item in items:
        properties = item.properties
        with rasterio.open(item.assets["data"].get_absolute_href()) as data:
            assert f"EPSG:{data.crs.to_epsg()}" == properties["proj:code"]
            assert [data.height, data.width] == properties["proj:shape"] == [100, 100]
            assert list(data.transform)[:6] == properties["proj:transform"]
            assert data.transform.c % 10 == 0
            assert data.transform.f % 10 == 0
            names = [band["name"] for band in item.assets["data"].extra_fields["bands"]]
            assert list(data.descriptions) == names
            if properties["constellation"] == "sentinel-1":
                assert names == properties["sar:polarizations"] == ["VV", "VH"]
                assert data.dtypes == ("float32",) * 2
                assert np.isnan(data.nodata)
            else:
                assert names == list(S2_L2A_BANDS)
                assert data.dtypes == ("uint16",) * 12
                assert data.nodata == 0
        assert item.datetime is not None
        assert item.datetime.utcoffset() is not None
        assert item.assets["label"].extra_fields["terrapair:label_schema"] == DYNAMIC_WORLD.name
        assert shape(item.geometry).bounds == pytest.approx(item.bbox)
        assert set(np.unique(read(item, "label"))) <= {0, 1, 2, 4, 6, 7, 255}


def test_footprint_lies_where_the_raster_lies(items: list[pystac.Item]) -> None:
    with rasterio.open(items[0].assets["data"].get_absolute_href()) as data:
        west, south, east, north = rasterio.warp.transform_bounds(
            data.crs, "EPSG:4326", *data.bounds
        )
    assert items[0].bbox == pytest.approx([west, south, east, north], abs=1e-5)


def test_water_is_dark_in_vv_and_built_is_bright(items: list[pystac.Item]) -> None:
    water, built = [], []
    for s1, _ in pairs_of(items):
        vv, label = read(s1, "data")[0], read(s1, "label")[0]
        water.append(vv[label == WATER])
        built.append(vv[label == BUILT])
    assert np.concatenate(water).mean() < np.concatenate(built).mean() - 5.0
    assert min(len(pixels) for pixels in water) > 0


def test_no_data_is_nan_or_zero_and_the_label_255_in_the_same_pixels(
    items: list[pystac.Item],
) -> None:
    num_cut = 0
    for s1, s2 in pairs_of(items):
        missing = np.isnan(read(s1, "data"))
        assert (missing[0] == missing[1]).all()
        assert (missing[0] == (read(s1, "label")[0] == 255)).all()
        empty = read(s2, "data") == 0
        assert (empty == empty[0]).all()
        assert (empty[0] == (read(s2, "label")[0] == 255)).all()
        assert (empty[0] == (read(s2, "cloud_mask")[0] == 255)).all()
        for mask in (missing[0], empty[0]):
            num_cut += bool(mask.any())
            # An edge of a swath is one run of each row that touches its left or its
            # right end.
            changes = np.abs(np.diff(mask.astype(int), axis=1)).sum(axis=1)
            assert changes.max() <= 1
            assert mask.mean() < 0.4
    assert 0 < num_cut < len(items)


def test_clouds_are_bright_in_blue_and_the_cover_is_the_mask(items: list[pystac.Item]) -> None:
    cloudy = 0
    for _, s2 in pairs_of(items):
        blue, mask = read(s2, "data")[1] / 1e4, read(s2, "cloud_mask")[0]
        valid = mask != 255
        assert s2.properties["eo:cloud_cover"] == pytest.approx(
            100 * (mask[valid] == 1).mean(), abs=0.01
        )
        assert np.quantile(blue[mask == 0], 0.95) < 0.2
        if (mask == 1).any():
            cloudy += 1
            assert blue[mask == 1].mean() > 2 * blue[mask == 0].mean()
            assert blue[mask == 1].mean() > 0.3
    assert cloudy >= 2


def test_floods_come_and_go_between_the_dates_of_a_place(items: list[pystac.Item]) -> None:
    for index in range(SMALL.num_places):
        shares = []
        for item in items:
            if (
                item.properties["terrapair:place"] == f"place-{index:04d}"
                and "cloud_mask" not in item.assets
            ):
                label = read(item, "label")[0]
                shares.append((label[label != 255] == WATER).mean())
        assert max(shares) - min(shares) > 0.03


def test_presets_share_optics_labels_and_edges_and_differ_in_radar(
    catalog: Path, tmp_path: Path
) -> None:
    other = simulate(dataclasses.replace(SMALL, nuisance="augmentable"), tmp_path / "other").parent
    ours, theirs = hashes(catalog.parent), hashes(other)
    assert ours.keys() == theirs.keys()
    differing = {name for name in ours if ours[name] != theirs[name]}
    radar = {name for name in ours if "S1A_IW" in name and "_label" not in name}
    assert differing == radar | {"config.json"}
    for name in radar:
        with rasterio.open(catalog.parent / name) as a, rasterio.open(other / name) as b:
            assert (np.isnan(a.read()) == np.isnan(b.read())).all()


def test_presets_are_equal_in_radar_once_the_nuisance_is_taken_out() -> None:
    augmentable = dataclasses.replace(SMALL, nuisance="augmentable")
    place = make_place(0, SMALL.seed, SMALL.size_px)
    landscape = make_landscape(SMALL.seed, 0, SMALL.size_px)
    for s1, _ in draw_pairs(SMALL.seed, place, SMALL.num_dates, "L2A"):
        a = render_s1(SMALL, s1, landscape, Nuisance())
        b = render_s1(augmentable, s1, landscape, Nuisance())
        np.testing.assert_array_equal(a.data, b.data)
        np.testing.assert_array_equal(a.label, b.label)


def test_shared_edges_cut_both_sensors_alike_and_leave_the_rest_as_it_was(
    items: list[pystac.Item], tmp_path: Path
) -> None:
    shared = read_items(simulate(dataclasses.replace(SMALL, shared_edges=True), tmp_path))
    margins = []
    for s1, s2 in pairs_of(shared):
        missing = np.isnan(read(s1, "data")[0])
        np.testing.assert_array_equal(missing, read(s2, "data")[0] == 0)
        margins.append(missing.mean())
    assert len(set(margins)) > 1
    assert 0 < np.mean(margins) < 0.36
    # Where both have data, the switch changed nothing.
    before, after = read(items[0], "data"), read(shared[0], "data")
    both = ~np.isnan(before) & ~np.isnan(after)
    np.testing.assert_array_equal(before[both], after[both])
    own = [
        (np.isnan(read(a, "data")[0]) == (read(b, "data")[0] == 0)).all()
        for a, b in pairs_of(items)
    ]
    assert not all(own)


def test_l1c_has_13_bands_a_dark_cirrus_band_and_a_bluer_sky(catalog: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(SMALL, s2_processing_level="L1C", num_places=1)
    top = read_items(simulate(config, tmp_path))[1]
    bottom = read_items(catalog)[1]
    assert top.properties["processing:level"] == "L1C"
    assert [band["name"] for band in top.assets["data"].extra_fields["bands"]] == list(S2_L1C_BANDS)
    toa, surface, mask = (
        read(top, "data") / 1e4,
        read(bottom, "data") / 1e4,
        read(top, "cloud_mask")[0],
    )
    cirrus = toa[S2_L1C_BANDS.index("B10")][mask == 0]
    assert np.quantile(cirrus, 0.9) <= 0.0065
    assert cirrus.min() >= 0.0009
    added = (toa[[0, 1, 2, 3]] - surface[[0, 1, 2, 3]])[:, mask == 0].mean(axis=1)
    assert (np.diff(added) < 0).all()
    assert added[0] > 0.05


def test_progress_counts_scenes_and_a_finished_folder_is_left_alone(
    catalog: Path, tmp_path: Path
) -> None:
    calls: list[tuple[int, int]] = []
    config = SimulateConfig(num_places=2, num_dates=2, size_px=64)
    simulate(config, tmp_path, lambda done, total: calls.append((done, total)))
    assert calls == [(n, 8) for n in range(1, 9)]
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    simulate(config, tmp_path, lambda done, total: calls.append((done, total)))
    assert len(calls) == 8
    assert stamps == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}


def test_killed_run_leaves_no_catalog_and_the_next_one_ends_with_the_same_bytes(
    tmp_path: Path,
) -> None:
    config = SimulateConfig(num_places=3, num_dates=1, size_px=64)

    class KilledError(RuntimeError):
        pass

    def stop(done: int, total: int) -> None:
        if done == 3:
            raise KilledError

    with pytest.raises(KilledError):
        simulate(config, tmp_path / "killed", stop)
    assert not (tmp_path / "killed" / "items.ndjson").exists()
    kept = next((tmp_path / "killed" / "place-0000").glob("*_label.tif"))
    stamp = kept.stat().st_mtime_ns
    simulate(config, tmp_path / "killed")
    assert kept.stat().st_mtime_ns == stamp
    simulate(config, tmp_path / "whole")
    assert hashes(tmp_path / "killed") == hashes(tmp_path / "whole")


def test_folder_of_another_config_or_origin_is_refused(tmp_path: Path) -> None:
    config = SimulateConfig(num_places=1, num_dates=1, size_px=64)
    simulate(config, tmp_path / "a")
    with pytest.raises(ValueError, match=r"/a: holds scenes of another config"):
        simulate(dataclasses.replace(config, seed=1), tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "items.ndjson").write_text("{}\n")
    with pytest.raises(ValueError, match=r"/b: holds items.ndjson but no config.json"):
        simulate(config, tmp_path / "b")
    assert (tmp_path / "b" / "items.ndjson").read_text() == "{}\n"
