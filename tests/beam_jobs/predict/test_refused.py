"""What gives no map: scenes, folders and disks; the user reads one line."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import rasterio

from beam_jobs.catalogs import catalog
from beam_jobs.errors import DataError
from beam_jobs.predict import driver, graph, parts, segmenters
from beam_jobs.predict.config import PolygonConfig, PredictConfig
from beam_jobs.predict.driver import Execution
from beam_jobs.predict.remote_models.remote import Endpoint
from beam_jobs.predict.windows import Lattice
from beam_jobs.terminal import failures, program
from tests.data.faults.file_limit import file_limit
from tests.data.networks import make_segmenter
from tests.data.servers.model_server import ModelServer, serving_grpc


def scene_files(path, sensor):
    """The raster of each scene of a sensor, by id."""
    return {
        item["id"]: Path(path).parent / item["assets"]["data"]["href"]
        for item in catalog.read_items(path)
        if graph.sensor_of(item) == sensor
    }


def rewrite(file, change):
    with rasterio.open(file) as dataset:
        pixels, profile, names = dataset.read(), dataset.profile, dataset.descriptions
    with rasterio.open(file, "w", **{**profile, "dtype": "float32"}) as dataset:
        dataset.write(change(pixels.astype(np.float32)))
        dataset.descriptions = names


def visible(root):
    """The content of all files of a folder but hidden ones, by path."""
    found = {str(path.relative_to(root)): path for path in Path(root).rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if not name.startswith(".")}


@pytest.mark.e2e
@pytest.mark.parametrize("is_remote", [False, True], ids=["local", "remote"])
@pytest.mark.parametrize(
    ("sensor", "change", "told"),
    [
        ("s1", lambda db: 10 ** (db / 10), r"s1_not_db 2.*must be in dB, but these are linear"),
        ("s2", lambda dn: dn / 10000, r"s2_not_dn 2.*must be digital numbers"),
    ],
    ids=["power", "reflectance"],
)
def test_other_units_are_refused_by_the_rules_of_the_readers(
    few, config, tmp_path, sensor, change, told, is_remote
):
    for file in scene_files(few, sensor).values():
        rewrite(file, change)
    bands = {"s1": ("VV", "VH")} if sensor == "s1" else {"s2": ("B4", "B8")}
    folder = make_segmenter.publish(tmp_path / "model/1", bands)
    segmenter = segmenters.find(folder)
    with serving_grpc(ModelServer(name="m", paths={1: folder}, labels={})) as host:
        endpoint = Endpoint(host=host, model="m") if is_remote else None
        with pytest.raises(DataError, match=told):
            driver.predict(
                config, segmenter, [few], str(tmp_path / "maps"), Execution(endpoint=endpoint)
            )
    assert set(visible(tmp_path / "maps")) == {"run.json", "rejected/scenes.ndjson"}


def test_a_scene_without_the_bands_of_a_model_tells_which(few, config, tmp_path):
    folder = make_segmenter.publish(tmp_path / "model/1", {"s1": ("VV", "HH", "HV")})
    told = r"missing_bands 2.*bands \['HH', 'HV'\] are missing; it has \['VV', 'VH'\]"
    with pytest.raises(DataError, match=told):
        driver.predict(config, segmenters.find(folder), [few], str(tmp_path / "maps"))


@pytest.fixture
def asked(monkeypatch):
    """The maps of which parts are predicted, in order; those in `bad` fail."""
    predict_part, calls = parts.predict, []

    def predict(task, *args, **options):
        calls.append(task.map_id)
        if task.map_id in predict.bad:
            raise DataError(f"{task.map_id}: cannot be read here", "unreadable_raster")
        predict_part(task, *args, **options)

    predict.bad, predict.calls = set(), calls
    monkeypatch.setattr(parts, "predict", predict)
    return predict


@pytest.mark.e2e
def test_a_map_that_failed_is_tried_again_when_asked_or_when_its_file_changed(
    few, flood, config, tmp_path, asked
):
    good, bad = sorted(scene_files(few, "s1"))
    root = tmp_path / "maps"

    def run(**execution):
        asked.calls.clear()
        made = driver.predict(
            config, segmenters.find(flood), [few], str(root), Execution(**execution)
        )
        return [path.name for path in made.maps], made.num_rejected, set(asked.calls)

    asked.bad.add(bad)
    assert run() == ([good], {"unreadable_raster": 1}, {good, bad})
    # The cause lay outside of the file and is gone, which nobody can see.
    asked.bad.clear()
    assert run() == ([good], {"unreadable_raster": 1}, set())
    (line,) = (root / "rejected/scenes.ndjson").read_text().splitlines()
    assert json.loads(line)["detail"] == f"{bad}: cannot be read here"
    assert run(retry_rejected=True) == ([good, bad], {}, {bad})
    assert not list(root.glob("rejected/*"))
    # A file that was written anew is tried without being asked, after a failure too.
    asked.bad.add(bad)
    os.utime(scene_files(few, "s1")[bad], (1, 1))
    assert run()[1:] == ({"unreadable_raster": 1}, {bad})
    os.utime(scene_files(few, "s1")[bad], (2, 2))
    asked.bad.clear()
    assert run() == ([good, bad], {}, {bad})


@pytest.mark.e2e
def test_a_map_is_the_same_however_often_a_runner_asks(few, flood, config, tmp_path):
    """A runner repeats a bundle when it loses the worker that had done it."""
    segmenter = segmenters.find(flood)
    made = driver.predict(config, segmenter, [few], str(tmp_path / "once"))
    repeated = str(tmp_path / "twice")
    write, publish = graph._write, graph._publish

    def write_twice(keyed, job):
        again = keyed[0], list(keyed[1])
        assert write(again, job) == write(again, job)
        return write(again, job)

    def publish_twice(keyed, job):
        outcomes = list(keyed[1])
        for _ in range(2):
            yield from publish((keyed[0], outcomes), job)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graph, "_write", write_twice)
        patch.setattr(graph, "_publish", publish_twice)
        assert driver.predict(config, segmenter, [few], repeated).num_rejected == {}
    assert len(made.maps) == 2
    assert visible(repeated) == visible(tmp_path / "once")


POLYGONS = PredictConfig(
    window=Lattice(size_px=48, margin_px=8, blend_px=4),
    part_height_px=56,
    part_width_px=56,
    polygons=PolygonConfig(classes=("water",)),
)


@pytest.fixture(scope="module")
def whole(radar, flood, tmp_path_factory):
    """The content of the map of one scene."""
    root = tmp_path_factory.mktemp("whole")
    driver.predict(POLYGONS, segmenters.find(flood), [radar(1)], str(root))
    return visible(root)


# A part has 9 kB, the probabilities 40 kB, the polygons 100 kB.
@pytest.mark.e2e
@pytest.mark.parametrize("num_bytes", [8_000, 30_000, 90_000])
def test_a_full_disk_leaves_nothing_half_and_the_next_run_goes_on(
    whole, radar, flood, tmp_path, num_bytes
):
    listed = radar(1)
    segmenter, root = segmenters.find(flood), tmp_path / "maps"
    with pytest.raises(Exception, match=r"\S") as caught, file_limit(num_bytes):
        driver.predict(POLYGONS, segmenter, [listed], str(root))
    failure = failures.failure_of(caught.value)
    assert failure.exit_code == 1
    assert str(root) in failure.message
    assert any(told in failure.message for told in ("no space left", "larger than this system"))
    assert not [name for name in visible(root) if whole.get(name) != visible(root)[name]]
    driver.predict(POLYGONS, segmenter, [listed], str(root))
    assert visible(root) == whole


def run_verb(capsys, *arguments):
    """The exit code, and the lines on stdout and stderr, of `predict`."""
    settings = [
        "window.size_px=48",
        "window.margin_px=8",
        "window.blend_px=4",
        "part_height_px=56",
        "part_width_px=56",
    ]
    options = [word for setting in settings for word in ("--set", setting)]
    code = program.run(["predict", *map(str, arguments), *options])
    printed = capsys.readouterr()
    return code, printed.out.splitlines(), printed.err.splitlines()


@pytest.mark.e2e
def test_one_bad_scene_among_good_ones_is_named_and_the_work_is_done(few, flood, tmp_path, capsys):
    good, bad = scene_files(few, "s1").items()
    bad[1].write_bytes(b"no raster")
    options = ("--model", flood, "--scenes", few, "--output", tmp_path / "maps")
    code, out, err = run_verb(capsys, *options)
    assert code == 0
    assert out == [str(tmp_path / "maps" / good[0]), str(tmp_path / "maps/index.html")]
    assert [line for line in err if line.startswith(f"no map of {bad[0]}: {bad[1]}: ")]
    code, out, _ = run_verb(capsys, *options, "--json", "--quiet")
    assert (code, json.loads("\n".join(out))["num_rejected"]) == (0, {"unreadable_raster": 1})


@pytest.mark.e2e
def test_a_label_of_the_server_chooses_the_version(few, tmp_path, capsys):
    for version, bands in ((3, ("VV",)), (12, ("VV", "VH"))):
        make_segmenter.publish(tmp_path / f"run/serving/flood/{version}", {"s1": bands})
    file = tmp_path / "run/server/config/models.config"
    file.parent.mkdir(parents=True)
    file.write_text(
        'model_config_list { config { name: "flood" version_labels { key: "stable" value: 3 } } }'
    )
    options = ["--model", tmp_path / "run/serving/flood", "--scenes", few]
    options += ["--output", tmp_path / "maps", "--server", tmp_path / "run/server"]
    code, _, err = run_verb(capsys, *options, "--label", "stable", "--version", "12")
    assert (code, err[-1]) == (
        2,
        "error: --label and --version exclude each other, got 'stable' and 12",
    )
    code, _, err = run_verb(capsys, *options, "--label", "canary")
    assert code == 3
    assert "no version with the label 'canary'; labels are: stable = 3" in err[-1]
    assert not (tmp_path / "maps").exists()
    assert run_verb(capsys, *options, "--label", "stable")[0] == 0
    assert json.loads((tmp_path / "maps/run.json").read_text())["model_version"] == "3"


@pytest.mark.parametrize(
    ("output", "code", "told"),
    [
        ("file", 2, "file: must be a folder of maps, but it cannot be made (file exists)"),
        ("file/maps", 2, "it cannot be made (not a directory): name another one"),
        ("/proc/maps", 2, "/proc/maps: must be a folder of maps, but it cannot be made"),
        ("scenes", 2, "is the folder of the scenes; maps need one of their own"),
        ("damaged", 3, "damaged/run.json: its content is damaged"),
        ("ftp://host/maps", 2, "must be a path, or a URI of one of s3, gs"),
    ],
)
def test_an_output_that_cannot_be_used_is_one_line(
    few, flood, tmp_path, capsys, output, code, told
):
    (tmp_path / "file").write_text("x")
    (tmp_path / "damaged/S1").mkdir(parents=True)
    item = {"properties": {"terrapair:made_from_sha256": ""}, "assets": {}}
    (tmp_path / "damaged/S1/item.json").write_text(json.dumps(item))
    (tmp_path / "damaged/run.json").write_text("{")
    found, _, err = run_verb(
        capsys,
        *("--model", flood, "--scenes", few.parent),
        *("--output", output if "://" in output else tmp_path / output),
    )
    assert found == code
    assert told in err[-1]
    assert err[-1].startswith("error: ")


def test_a_folder_of_the_user_at_the_place_of_a_map_stays(few, flood, tmp_path, capsys):
    name = next(iter(scene_files(few, "s1")))
    mine = tmp_path / "maps" / name / "VV.tif"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"pixels")
    code, _, err = run_verb(
        capsys, "--model", flood, "--scenes", few, "--output", tmp_path / "maps"
    )
    assert code == 3
    assert f"{name}: a map would replace what `predict` did not write (VV.tif)" in err[-1]
    assert mine.read_bytes() == b"pixels"


@pytest.mark.parametrize("content", [None, ""], ids=["folder", "catalog"])
def test_scenes_that_are_none_are_one_line(flood, tmp_path, capsys, content):
    (tmp_path / "empty").mkdir()
    if content is not None:
        (tmp_path / "empty/items.ndjson").write_text(content)
    code, _, err = run_verb(
        capsys, "--model", flood, "--scenes", tmp_path / "empty", "--output", tmp_path / "maps"
    )
    assert code == 3
    assert err[-1].startswith(f"error: {tmp_path}/empty")
    assert "lies there" in err[-1] or "the catalog is empty" in err[-1]
