"""Shards, a trained encoder and a trained segmenter, made once for all model tests."""

import functools
from pathlib import Path
from types import SimpleNamespace

import pytest

from beam_jobs.contracts import layout, manifest
from models import pretrain, segment
from models.config import EncoderConfig, OptimizerConfig, PretrainConfig
from models.segment_config import SegmentConfig
from models.training.scaffold import Folders, Shards
from tests.data.runs.made_once import made_once
from tests.data.shards import make_shards

_TRAINED = {"pretrained", "segmented"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests that need a trained model as e2e, because they wait for its training."""
    for item in items:
        if _TRAINED & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="module", autouse=True)
def _plain_graphs(plain_graphs: None) -> None:
    """All tests of models run graphs as they were traced."""


def _version(path: Path) -> SimpleNamespace:
    files = {
        split: [str(shard) for shard in layout.shard_paths(path, split)] for split in layout.SPLITS
    }
    found = manifest.read(path)
    shards = Shards(manifest=found, train=tuple(files["train"]), eval=tuple(files["eval"]))
    return SimpleNamespace(path=path, manifest=found, files=files, shards=shards)


@pytest.fixture(scope="session")
def pairs(tmp_path_factory) -> SimpleNamespace:
    return _version(made_once(tmp_path_factory, "pairs", _make_pairs))


def _make_pairs(root: Path) -> Path:
    return make_shards.make_version(root, num_patches=24, seed=1)


@pytest.fixture(scope="session")
def labels(tmp_path_factory) -> SimpleNamespace:
    return _version(made_once(tmp_path_factory, "labels", _make_labels))


def _make_labels(root: Path) -> Path:
    return make_shards.make_version(
        root, kind="labels", label_schema="water", num_patches=24, seed=2
    )


@pytest.fixture(scope="session")
def pretrained(pairs, tmp_path_factory) -> SimpleNamespace:
    """Train an encoder for 20 steps on the pairs, and keep the losses it reports."""
    return made_once(tmp_path_factory, "pretrained", functools.partial(_pretrain, pairs))


def _pretrain(pairs: SimpleNamespace, root: Path) -> SimpleNamespace:
    config = PretrainConfig(
        encoder=EncoderConfig(backbone="small", embedding_dim=32),
        num_steps=20,
        global_batch_size=8,
        optimizer=OptimizerConfig(learning_rate=1e-3),
        precision="mixed_bfloat16",
    )
    steps: list[tuple[int, int, float]] = []
    metrics = pretrain.run_pretraining(
        config,
        pairs.shards,
        Folders(output=str(root / "model"), logs=str(root / "logs")),
        on_step=lambda step, num_steps, values: steps.append((step, num_steps, values["loss"])),
    )
    return SimpleNamespace(
        config=config, dir=str(root / "model"), logs=root / "logs", metrics=metrics, steps=steps
    )


@pytest.fixture(scope="session")
def segmented(labels, pretrained, tmp_path_factory) -> SimpleNamespace:
    """Train a water segmenter of both sensors for 20 steps, starting from `pretrained`."""
    make = functools.partial(_segment, labels, pretrained)
    return made_once(tmp_path_factory, "segmented", make)


def _segment(labels: SimpleNamespace, pretrained: SimpleNamespace, root: Path) -> SimpleNamespace:
    config = SegmentConfig(
        sensors=("s1", "s2"),
        label_schema="water",
        encoder=EncoderConfig(backbone="small", embedding_dim=32),
        num_steps=20,
        decoder_channels=(32, 16, 16, 8),
        global_batch_size=8,
        optimizer=OptimizerConfig(learning_rate=3e-3),
    )
    steps: list[tuple[int, int, float]] = []
    metrics = segment.run_segmentation(
        config,
        labels.shards,
        Folders(output=str(root / "model"), logs=str(root / "logs")),
        sources=segment.SegmenterSources(encoder=pretrained.dir),
        on_step=lambda step, num_steps, values: steps.append((step, num_steps, values["loss"])),
    )
    return SimpleNamespace(
        config=config, dir=str(root / "model"), logs=root / "logs", metrics=metrics, steps=steps
    )
