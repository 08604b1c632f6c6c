"""Small simulated scenes that the build tests share.

A test that changes them works on its own copy.
"""

import json
import shutil
from pathlib import Path

import pytest

from beam_jobs import config as c
from beam_jobs.emulator.server import TOKEN
from beam_jobs.simulation.simulate import simulate


@pytest.fixture(scope="session", autouse=True)
def emulator_token():
    """Set the emulator's token in the environment, where each process reads it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TERRAPAIR_EE_TOKEN", TOKEN)
        yield


@pytest.fixture(scope="session")
def simulated(tmp_path_factory) -> Path:
    """Return a catalog of 3 places x 2 dates of 160 px: 6 pairs, 24 patches of 64 px."""
    folder = tmp_path_factory.mktemp("simulated")
    return simulate(c.SimulateConfig(num_places=3, num_dates=2, size_px=160, seed=5), folder)


@pytest.fixture
def copied(simulated, tmp_path) -> Path:
    """Return a copy of the same catalog that a test may change."""
    shutil.copytree(simulated.parent, tmp_path / "scenes")
    return tmp_path / "scenes" / simulated.name


@pytest.fixture
def build_config() -> c.BuildConfig:
    """Return a config that keeps every patch that has data.

    Blocks are small, so every split gets patches.
    """
    return c.BuildConfig(
        patch=c.PatchConfig(size_px=32),
        quality=c.QualityConfig(min_valid_fraction=0.05, max_cloud_fraction=1.0),
        split=c.SplitConfig(block_size_km=0.8, eval_fraction=0.3, test_fraction=0.3),
        shards=c.ShardConfig(num_examples_per_shard=20),
    )


@pytest.fixture
def edit_items():
    """Return a function that rewrites a catalog.

    Its argument `edit(item)` changes an item in place, or returns False to drop it.
    """

    def edit_items(catalog: Path, edit) -> None:
        items = [json.loads(line) for line in catalog.read_text().splitlines()]
        kept = [item for item in items if edit(item) is not False]
        catalog.write_text("".join(json.dumps(item) + "\n" for item in kept))

    return edit_items
