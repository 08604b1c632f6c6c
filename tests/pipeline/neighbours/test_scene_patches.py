"""Scenes cut for an encoder: with its bands and level, all in one split."""

from contextlib import contextmanager

import pytest

from beam_jobs.config import BuildConfig, PatchConfig, SimulateConfig
from beam_jobs.contracts import manifest
from beam_jobs.errors import DataError
from beam_jobs.simulation.simulate import simulate
from models.published.card import write_card
from pipeline.neighbours.scene_patches import cut_scenes

INPUTS = {"s1": {"bands": ["VH"]}, "s2": {"bands": ["B4", "B3", "B10"]}}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    simulate(
        SimulateConfig(num_places=1, num_dates=1, size_px=128, s2_processing_level="L1C"),
        folder / "exports",
    )
    return str(folder)


@pytest.fixture
def encoder(tmp_path):
    return make_card(tmp_path / "encoder", INPUTS)


def make_card(path, inputs):
    (path / "assets.extra").mkdir(parents=True)
    write_card(
        str(path / "assets.extra"),
        {"inputs": inputs, "pixel_size_m": 20.0, "s2_processing_level": "L1C"},
    )
    return str(path)


def cut(scenes, encoder, output):
    stages = []

    @contextmanager
    def stage(name):
        stages.append(name)
        yield

    # The encoder's bands and level differ from the defaults.
    config = BuildConfig(patch=PatchConfig(size_px=32))
    version = cut_scenes(scenes, encoder, config, str(output), stage, lambda done, total: None)
    return version, stages


def test_few_scenes_are_cut_as_the_encoder_wants_them_into_one_split(scenes, encoder, tmp_path):
    version, stages = cut(scenes, encoder, tmp_path / "patches")
    found = manifest.read(version)
    assert (found.s1_bands, found.s2_bands, found.s2_processing_level) == (
        ("VH",),
        ("B4", "B3", "B10"),
        "L1C",
    )
    assert (found.patch_size_px, found.pixel_size_m) == (32, 20.0)
    assert found.num_examples["train"] == sum(found.num_examples.values()) > 0
    assert stages == ["catalog 1/1 (stac)", "build-pairs"]
    again, _ = cut(scenes, encoder, tmp_path / "patches")
    assert again == version


def test_a_folder_that_is_not_there_is_refused(encoder, tmp_path):
    with pytest.raises(DataError, match="nowhere: no such folder"):
        cut(str(tmp_path / "nowhere"), encoder, tmp_path / "patches")


def test_an_encoder_of_one_sensor_is_refused_before_anything_is_cut(scenes, tmp_path):
    single = make_card(tmp_path / "encoder", {"s2": INPUTS["s2"]})
    with pytest.raises(
        ValueError, match="must be an encoder of both sensors to search across them, got none of s1"
    ):
        cut(scenes, single, tmp_path / "patches")
    assert not (tmp_path / "patches").exists()
