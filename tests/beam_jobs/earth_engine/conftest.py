"""One emulator for all tests of a session, without faults at the start of each test."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from beam_jobs.earth_engine.connection import connect, from_environment
from beam_jobs.earth_engine.requests import PixelRequest
from beam_jobs.emulator.config import EmulatorConfig
from beam_jobs.emulator.faults import FaultsConfig
from beam_jobs.emulator.server import Running, running


@dataclass(frozen=True)
class World:
    """The simulated scenes, read without the emulator."""

    folder: Path
    items: list[dict[str, Any]]

    def of_sensor(self, sensor: str) -> list[dict[str, Any]]:
        constellation = {"s1": "sentinel-1", "s2": "sentinel-2"}[sensor]
        return [item for item in self.items if item["properties"]["constellation"] == constellation]

    def pixels(self, item: dict[str, Any], asset: str = "data") -> np.ndarray:
        with rasterio.open(self.folder / item["assets"][asset]["href"]) as dataset:
            return dataset.read()


@pytest.fixture(scope="session")
def world(simulated) -> World:
    return World(
        simulated.parent, [json.loads(line) for line in simulated.read_text().splitlines()]
    )


@pytest.fixture(scope="session")
def server(world, tmp_path_factory) -> Iterator[Running]:
    config = EmulatorConfig(pending_s=0.05, running_s=0.05, max_file_side_px=64)
    with running(world.folder, tmp_path_factory.mktemp("emulator"), config) as server:
        yield server


@pytest.fixture
def emulator(server) -> Iterator[Running]:
    """The server without faults, with this process connected to it."""
    server.service.set_faults(FaultsConfig())
    connect(from_environment(server.environment, "fetch"))
    yield server
    server.service.set_faults(FaultsConfig())


@pytest.fixture
def new_requests(emulator) -> Callable[[], list[dict[str, Any]]]:
    """A function that returns the lines that the request log got since the test began."""
    before = len(emulator.requests())
    return lambda: emulator.requests()[before:]


@pytest.fixture
def request_of(world, image_ids) -> Callable[..., PixelRequest]:
    """A function that makes a request for a window of a scene."""

    def request_of(
        item: dict[str, Any], row=0, col=0, height=64, width=48, **options
    ) -> PixelRequest:
        a, b, c, d, e, f = item["properties"]["proj:transform"][:6]
        sensor = "s1" if item in world.of_sensor("s1") else "s2"
        return PixelRequest(
            sensor=sensor,
            image_id=image_ids[item["id"]],
            bands=options.pop("bands", ("VV", "VH") if sensor == "s1" else ("B8", "B2", "B12")),
            crs=item["properties"]["proj:code"],
            transform=(a, b, c + a * col, d, e, f + e * row),
            height=height,
            width=width,
            **options,
        )

    return request_of


@pytest.fixture(scope="session")
def image_ids(world, server) -> dict[str, str]:
    """Id of a simulated scene -> id of its image in the emulator, matched by time and sensor."""
    found = {}
    for image_id, image in server.service.images.items():
        for sensor, collection in (
            ("s1", "COPERNICUS/S1_GRD/"),
            ("s2", "COPERNICUS/S2_SR_HARMONIZED/"),
        ):
            if image_id.startswith(collection):
                (item,) = (
                    item
                    for item in world.of_sensor(sensor)
                    if milliseconds(item) == image.properties["system:time_start"]
                )
                found[item["id"]] = image_id
    return found


def milliseconds(item: dict[str, Any]) -> int:
    """Time of an item since 1970; whole seconds, and different in every scene of the world."""
    return (
        int(
            np.datetime64(item["properties"]["datetime"].rstrip("Z"))
            .astype("datetime64[s]")
            .astype(int)
        )
        * 1000
    )
