"""PTransforms alone: their good and their rejected output."""

import dataclasses
import hashlib
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to

from beam_jobs.build import spool, transforms
from beam_jobs.build.patches import PairTask
from beam_jobs.build.transforms import (
    REJECTED,
    CutPatches,
    InspectScenes,
    MakePairs,
    labelled_alone,
)
from beam_jobs.catalogs import catalog
from beam_jobs.config import BuildConfig, LabelConfig, PairingConfig, PatchConfig
from beam_jobs.runner import LOCAL_RUNNER
from beam_jobs.scenes import inspection
from beam_jobs.scenes.grids import Grid
from beam_jobs.scenes.scene import Scene, from_item
from tests.data.scenes import make_stac_items
from tests.data.scenes.make_stac_items import s2_bands

HOUR = 3600
IN_A_DAY = BuildConfig(pairing=PairingConfig(max_time_gap_hours=24.0))


def scene(scene_id: str, hours: float, lon: float = 10.0, lat: float = 50.0) -> Scene:
    corners = [(lon, lat), (lon + 0.1, lat), (lon + 0.1, lat + 0.1), (lon, lat + 0.1), (lon, lat)]
    return Scene(
        scene_id=scene_id,
        sensor="s1" if scene_id.startswith("S1") else "s2",
        acquired_at=int(hours * HOUR),
        footprint={"type": "Polygon", "coordinates": [corners]},
        bands={},
    )


def run_pairing(
    scenes: list[Scene],
    pairs: list[tuple[str, str]],
    rejected: list[tuple[str, str]],
    config: BuildConfig = IN_A_DAY,
) -> None:
    with TestPipeline(runner=LOCAL_RUNNER) as pipeline:
        outputs = pipeline | beam.Create(scenes) | MakePairs(config, alone=labelled_alone(config))
        found = outputs["pairs"] | "Ids" >> beam.Map(
            lambda pair: (pair[0].scene_id, pair[1].scene_id)
        )
        reasons = outputs[REJECTED] | "Reasons" >> beam.Map(
            lambda rejection: (rejection.id, rejection.reason)
        )
        assert_that(found, equal_to(pairs), "pairs")
        assert_that(reasons, equal_to(rejected), "rejected")


def test_nearest_in_time_wins_and_the_others_are_reported():
    scenes = [
        scene("S1_a", 100),
        scene("S2_before", 98),
        scene("S2_after", 101),
        scene("S2_late", 150),
    ]
    run_pairing(
        scenes,
        [("S1_a", "S2_after")],
        [("S2_before", "no_s1_partner"), ("S2_late", "no_s1_partner")],
    )


def test_scenes_too_far_in_time_or_space_do_not_pair():
    scenes = [
        scene("S1_a", 0),
        scene("S2_late", 25),
        scene("S1_b", 0, lon=30.0),
        scene("S2_there", 0, lon=-30.0),
    ]
    run_pairing(
        scenes,
        [],
        [
            ("S1_a", "no_s2_partner"),
            ("S1_b", "no_s2_partner"),
            ("S2_late", "no_s1_partner"),
            ("S2_there", "no_s1_partner"),
        ],
    )


@pytest.mark.parametrize("label_from", ["s1", "s2"])
def test_a_labelled_scene_without_a_partner_is_kept_alone_where_the_config_says_so(label_from):
    scenes = [
        scene("S1_a", 100),
        scene("S2_near", 101),
        scene("S2_late", 150),
        scene("S1_b", 0, lon=30.0),
    ]
    label = LabelConfig(schema="water", label_from=label_from, partner="optional")
    alone = {"s1": ("S1_b", ""), "s2": ("", "S2_late")}[label_from]
    left = {"s1": ("S2_late", "no_s1_partner"), "s2": ("S1_b", "no_s2_partner")}[label_from]
    run_pairing(
        scenes, [("S1_a", "S2_near"), alone], [left], dataclasses.replace(IN_A_DAY, label=label)
    )


def test_a_labelled_pass_whose_partner_goes_with_nearer_ones_is_kept_alone_too():
    scenes = [scene("S1_near", 100), scene("S1_far", 97), scene("S2_a", 101)]
    pairing = PairingConfig(max_time_gap_hours=24.0, max_s1_per_s2=1)
    config = BuildConfig(
        pairing=pairing, label=LabelConfig(schema="water", label_from="s1", partner="optional")
    )
    run_pairing(scenes, [("S1_near", "S2_a"), ("S1_far", "")], [], config)


def test_footprints_that_cross_a_cell_border_pair_once():
    # Both cross lon 11 and lat 51, so the two meet in four cells.
    scenes = [scene("S1_a", 0, lon=10.95, lat=50.95), scene("S2_a", 1, lon=10.96, lat=50.96)]
    run_pairing(scenes, [("S1_a", "S2_a")], [])


def test_partner_in_another_cell_is_found_and_the_reason_names_it():
    # The Sentinel-1 scene touches two cells; in one of them there is no Sentinel-2
    # scene at all.
    scenes = [scene("S1_a", 0, lon=10.95), scene("S2_a", 30, lon=10.88)]
    config = BuildConfig(pairing=PairingConfig(max_time_gap_hours=24.0))
    with TestPipeline(runner=LOCAL_RUNNER) as pipeline:
        outputs = pipeline | beam.Create(scenes) | MakePairs(config, alone=labelled_alone(config))
        s1_details = (
            outputs[REJECTED]
            | beam.Filter(lambda rejection: rejection.id == "S1_a")
            | beam.Map(lambda rejection: rejection.detail)
        )
        assert_that(
            s1_details,
            equal_to(["the Sentinel-2 scene S2_a is +30.0 h away; max_time_gap_hours is 24"]),
        )


def test_inspection_keeps_wanted_scenes_and_gives_reasons_for_the_rest(simulated):
    items = list(catalog.read_items(simulated))
    s1 = next(item for item in items if item["properties"]["constellation"] == "sentinel-1")
    s2 = next(item for item in items if item["properties"]["constellation"] == "sentinel-2")
    other_level = {
        **s2,
        "id": "other",
        "properties": {**s2["properties"], "processing:level": "L1C"},
    }
    broken = {
        **s1,
        "id": "broken",
        "assets": {"data": {**s1["assets"]["data"], "href": "nowhere.tif"}},
    }
    config = dataclasses.replace(BuildConfig())
    with TestPipeline(runner=LOCAL_RUNNER) as pipeline:
        rows = [(str(simulated), item) for item in (s1, s2, other_level, broken)]
        outputs = pipeline | beam.Create(rows) | InspectScenes(config)
        found = outputs.scenes | beam.Map(lambda one: (one.scene_id, one.grid.height))
        reasons = outputs.rejected | "Reasons" >> beam.Map(
            lambda one: (one.id, one.reason, one.is_error)
        )
        assert_that(found, equal_to([(s1["id"], 160), (s2["id"], 160)]), "scenes")
        wanted = [("other", "other_processing_level", False), ("broken", "missing_file", True)]
        assert_that(reasons, equal_to(wanted), "rejected")


def test_of_the_products_of_a_datatake_the_newest_that_can_be_read_is_kept(tmp_path):
    found = {}
    for name, baseline in (("old", "02.14"), ("new", "05.00"), ("broken", "05.11")):
        item = make_stac_items.earth_search(
            tmp_path / name, s2_bands(), **{"s2:processing_baseline": baseline}
        )
        found[name] = item | {"id": name}
    del found["old"]["properties"]["earthsearch:boa_offset_applied"]
    (tmp_path / "broken" / "B02.tif").write_bytes(b"II*")
    config = BuildConfig(patch=PatchConfig(s2_bands=("B2", "B4")))
    with TestPipeline(runner=LOCAL_RUNNER) as pipeline:
        rows = [(str(tmp_path / name / "x"), item) for name, item in found.items()]
        outputs = pipeline | beam.Create(rows) | InspectScenes(config)
        kept = outputs.scenes | beam.Map(lambda one: one.scene_id)
        reasons = outputs.rejected | "Reasons" >> beam.Map(
            lambda one: f"{one.id} {one.reason} {one.is_error}"
        )
        details = (
            outputs.rejected
            | beam.Filter(lambda one: one.id == "old")
            | beam.Map(lambda one: one.detail)
        )
        assert_that(kept, equal_to(["new"]), "kept")
        wanted = ["old older_baseline False", "broken unreadable_raster True"]
        assert_that(reasons, equal_to(wanted), "rejected")
        detail = "baseline 02.14; new of baseline 05.00 shows the same datatake and tile"
        assert_that(details, equal_to([detail]), "details")


def cut(pairs, config: BuildConfig, spool_dir: Path, min_files: int) -> None:
    with TestPipeline(runner=LOCAL_RUNNER) as pipeline:
        results = pipeline | beam.Create(pairs) | CutPatches(config, str(spool_dir), min_files)
        rows = (
            results
            | beam.FlatMap(lambda result: [*result.refs, *result.rejections])
            | beam.Map(row_of)
        )
        _ = (
            rows
            | beam.combiners.ToList()
            | beam.Map(lambda found: (spool_dir / "rows").write_text("\n".join(sorted(found))))
        )


def row_of(outcome: spool.PatchRef | spool.Rejection) -> str:
    if isinstance(outcome, spool.Rejection):
        return f"{outcome.id} {outcome.reason}"
    (serialized,) = spool.read([outcome])
    return f"{outcome.patch_id} {outcome.split} {hashlib.sha256(serialized).hexdigest()}"


@pytest.mark.e2e
def test_bundled_pairs_give_the_same_patches_in_fewer_files_and_a_bad_one_spoils_no_other(
    copied, build_config, tmp_path
):
    found = [from_item(item, copied) for item in catalog.read_items(copied)]
    s1, s2 = (
        sorted(
            (one for one in found if one.sensor == sensor),
            key=lambda one: (one.scene_id[-10:], one.acquired_at),
        )
        for sensor in ("s1", "s2")
    )
    bands = {"s1": build_config.patch.s1_bands, "s2": build_config.patch.s2_bands}
    pairs = [
        tuple(inspection.inspect(one, bands[one.sensor]) for one in pair)
        for pair in zip(s1, s2, strict=True)
    ]
    # Found sound, then broken, as by a disk that fails.
    broken = Path(pairs[2][1].cloud_mask)
    broken.write_bytes(b"no raster")
    cut(pairs, build_config, tmp_path / "alone", min_files=64)
    cut(pairs, build_config, tmp_path / "bundled", min_files=2)
    rows = (tmp_path / "alone" / "rows").read_text().splitlines()
    assert (tmp_path / "bundled" / "rows").read_text().splitlines() == rows
    assert f"{pairs[2][1].scene_id} unreadable_raster" in rows
    assert len(rows) == 1 + 5 * 25
    assert len(list((tmp_path / "alone").glob("*.index"))) == 5
    assert len(list((tmp_path / "bundled").glob("*.index"))) == 2
    assert spool.count_finished(tmp_path / "bundled") == 6


def test_strips_of_a_large_pair_are_cut_by_one_worker_until_they_have_enough_rows(monkeypatch):
    def strip(row: int) -> PairTask:
        transform = (10.0, 0.0, 0.0, 0.0, -10.0, -10.0 * row)
        grid = Grid(crs="EPSG:32633", transform=transform, height=64, width=10_980)
        scenes = [
            Scene(scene_id=sensor, sensor=sensor, acquired_at=0, footprint={}, bands={})
            for sensor in ("s1", "s2")
        ]
        return PairTask(s1=scenes[0], s2=scenes[1], strip=grid)

    strips = [strip(row) for row in range(0, 10_240, 64)]
    keyed = list(transforms._keyed_by_task(strips, BuildConfig(), 0, 0, 64))
    assert [len(run) for _, run in keyed] == [64, 64, 32]
    assert [one for _, run in keyed for one in run] == strips
    assert len({task.name for task, _ in keyed}) == 3
    assert not any(task.is_bundle for task, _ in keyed)
    # A run of other strips must not be taken for this one by a job that starts again.
    monkeypatch.setattr(transforms, "ROWS_PER_TASK", 640)
    names = {task.name for task, _ in transforms._keyed_by_task(strips, BuildConfig(), 0, 0, 64)}
    assert not names & {task.name for task, _ in keyed}
