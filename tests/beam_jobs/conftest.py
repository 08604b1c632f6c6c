"""Small simulated scenes that the build tests share; each test that breaks them works on its own copy."""

import json
import shutil
from pathlib import Path

import pytest

from beam_jobs import config as c
from beam_jobs.simulation.simulate import simulate


@pytest.fixture(scope="session")
def simulated(tmp_path_factory) -> Path:
    """Catalog of 3 places x 2 dates of 160 px scenes: 6 pairs, 24 patches of 64 px."""
    folder = tmp_path_factory.mktemp("simulated")
    return simulate(c.SimulateConfig(num_places=3, num_dates=2, size_px=160, seed=5), folder)


@pytest.fixture
def copied(simulated, tmp_path) -> Path:
    """The same catalog in a folder of its own."""
    shutil.copytree(simulated.parent, tmp_path / "scenes")
    return tmp_path / "scenes" / simulated.name


@pytest.fixture
def build_config() -> c.BuildConfig:
    """Keeps every patch but those without data; small blocks, so that all splits get some."""
    return c.BuildConfig(
        patch=c.PatchConfig(size_px=32),
        quality=c.QualityConfig(min_valid_fraction=0.05, max_cloud_fraction=1.0),
        split=c.SplitConfig(block_size_km=0.8, eval_fraction=0.3, test_fraction=0.3),
        shards=c.ShardConfig(num_examples_per_shard=20),
    )


@pytest.fixture
def edit_items():
    """A function that rewrites a catalog: `edit(item)` changes an item in place, or returns False to drop it."""

    def edit_items(catalog: Path, edit) -> None:
        items = [json.loads(line) for line in catalog.read_text().splitlines()]
        kept = [item for item in items if edit(item) is not False]
        catalog.write_text("".join(json.dumps(item) + "\n" for item in kept))

    return edit_items
