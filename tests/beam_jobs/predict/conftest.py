"""A published segmenter per kind of input, and settings for small scenes."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from beam_jobs.contracts.bands import S1_DEFAULT_BANDS
from beam_jobs.predict import graph
from beam_jobs.predict.config import PredictConfig
from beam_jobs.predict.windows import Lattice
from tests.data.networks import make_segmenter


@pytest.fixture(scope="session")
def flood(tmp_path_factory) -> str:
    """Return the folder of a published radar segmenter with the versions 3 and 12."""
    folder = tmp_path_factory.mktemp("serving") / "flood"
    make_segmenter.publish(folder / "3", {"s1": ("VV",)})
    make_segmenter.publish(folder / "12", {"s1": S1_DEFAULT_BANDS})
    # A push that was killed: no card.
    (folder / "20").mkdir()
    return str(folder)


@pytest.fixture(scope="session")
def both(tmp_path_factory) -> str:
    """Return a segmenter of both sensors that was trained for patches without one."""
    folder = tmp_path_factory.mktemp("serving") / "both" / "1"
    bands = {"s1": S1_DEFAULT_BANDS, "s2": ("B4", "B8")}
    return make_segmenter.publish(folder, bands, config={"modality_dropout": 0.3})


@pytest.fixture(scope="session")
def radar(simulated) -> Callable[[int], Path]:
    """Return a function that makes a catalog of the first radar scenes."""
    lines = [
        line
        for line in simulated.read_text().splitlines()
        if graph.sensor_of(json.loads(line)) == "s1"
    ]

    def radar(number: int) -> Path:
        listed = simulated.with_name(f"radar-{number}.ndjson")
        listed.write_text("".join(f"{line}\n" for line in lines[:number]))
        return listed

    return radar


@pytest.fixture
def few(copied, edit_items) -> Path:
    """Return a copy of the catalog with two scenes of each sensor, all of one place."""
    edit_items(copied, lambda item: "place-0000" in item["id"])
    return copied


@pytest.fixture
def config() -> PredictConfig:
    """Return settings that cut a scene of 160 px into nine parts of several windows."""
    return PredictConfig(
        window=Lattice(size_px=48, margin_px=8, blend_px=4), part_height_px=56, part_width_px=56
    )
