"""Measurements of one encoder: embeddings, and classes predicted by linear probes.

Input: a dual encoder and shards. Output: arrays. Their rows are the same patches for
every encoder, so encoders can be compared patch by patch.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from beam_jobs.contracts.bands import SENSORS, Sensor
from beam_jobs.contracts.labels import IGNORE
from beam_jobs.contracts.manifest import Manifest
from models.dual_encoder import DualEncoder
from models.encoder_probe.config import ProbeConfig
from models.health.embedded_split import EmbeddedSplit, select
from models.health.embeddings import Embedder
from models.health.linear_probe import predict_classes
from models.health.retrieval import Direction, Ranks, cross_modal_ranks

AnyArray = npt.NDArray[np.generic]


@dataclass(frozen=True, kw_only=True)
class LabeledFiles:
    """Shards of one labelled task.

    Attributes:
        task: name of the task.
        manifest: manifest of their version.
        train_files: gzip TFRecords to fit linear probes on.
        eval_files: gzip TFRecords to score them on.
    """

    task: str
    manifest: Manifest
    train_files: Sequence[str]
    eval_files: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class ProbeData:
    """The data on which encoders are probed.

    Attributes:
        manifest: manifest of the pairs.
        files: gzip TFRecords of the pairs' eval split.
        labels: labelled patches; None: no linear probe.
    """

    manifest: Manifest
    files: Sequence[str]
    labels: LabeledFiles | None = None


@dataclass(frozen=True, kw_only=True)
class LabeledSplits:
    """Labelled patches as one encoder embeds them.

    Attributes:
        train: patches to fit linear probes on.
        judged: patches to score them on.
    """

    train: EmbeddedSplit
    judged: EmbeddedSplit


@dataclass(frozen=True, kw_only=True)
class Classified:
    """Labelled eval patches, and the classes that linear probes predict for them.

    Attributes:
        truth: class of each patch, its most frequent label, int64 [M].
        predicted: predicted class of each patch, int64 [M] by sensor.
        block: spatial block of each patch, text [M].
    """

    truth: AnyArray
    predicted: dict[Sensor, AnyArray]
    block: AnyArray


@dataclass(frozen=True, kw_only=True)
class View:
    """All data as one encoder embeds them.

    Attributes:
        sensors: sensors that are judged.
        pairs: eval pairs.
        labels: labelled patches; None: no linear probe.
    """

    sensors: Sequence[Sensor]
    pairs: EmbeddedSplit
    labels: LabeledSplits | None

    @functools.cached_property
    def ranks(self) -> dict[Direction, Ranks]:
        """Ranks of the partners by direction; empty unless both sensors are judged."""
        return cross_modal_ranks(self.pairs.embeddings) if len(self.sensors) == len(SENSORS) else {}

    @functools.cached_property
    def classified(self) -> Classified | None:
        """Predictions of one linear probe per sensor; None without labels."""
        return None if self.labels is None else classify(self.labels, self.sensors)

    def rows(self, sensor: Sensor) -> npt.NDArray[np.float32]:
        """Return features and embeddings of all patches of a sensor, [N, D + E]."""
        splits = (
            [self.pairs]
            if self.labels is None
            else [self.pairs, self.labels.train, self.labels.judged]
        )
        return np.concatenate(
            [
                np.concatenate([split.features[sensor], split.embeddings[sensor]], axis=1)
                for split in splits
            ]
        )


def look(
    model: DualEncoder, data: ProbeData, sensors: Sequence[Sensor], config: ProbeConfig
) -> View:
    """Embed all data with `model`.

    Raises:
        ValueError: no patch has data in both sensors, or the encoder takes other bands.
    """
    embedder = Embedder(model)
    return View(
        sensors=sensors,
        pairs=embedder.embed_split(data.manifest, data.files, max_patches=config.num_pairs),
        labels=None if data.labels is None else embed_labels(embedder, data.labels, config),
    )


def embed_labels(embedder: Embedder, labels: LabeledFiles, config: ProbeConfig) -> LabeledSplits:
    """Return the embedded patches that have a label.

    Raises:
        ValueError: no patch has data in both sensors, or the encoder takes other bands.
    """
    train, judged = (
        embedder.embed_split(labels.manifest, files, max_patches=max_patches)
        for files, max_patches in (
            (labels.train_files, config.num_train_patches),
            (labels.eval_files, config.num_eval_patches),
        )
    )
    return LabeledSplits(
        train=select(train, _label(train) != IGNORE),
        judged=select(judged, _label(judged) != IGNORE),
    )


def classify(labels: LabeledSplits, sensors: Sequence[Sensor]) -> Classified:
    """Fit a linear probe per sensor on the train patches and classify the judged ones.

    Raises:
        ValueError: no probe can be fitted (see `why_unusable`), or features are not
            finite.
    """
    train, judged = labels.train, labels.judged
    return Classified(
        truth=_label(judged),
        predicted={
            sensor: predict_classes(train.features[sensor], _label(train), judged.features[sensor])
            for sensor in sensors
        },
        block=judged.block,
    )


def why_one_sided(manifest: Manifest) -> str | None:
    """Return why no labelled patch has data in both sensors, or None when some can."""
    for sensor, per_split in manifest.num_absent.items():
        for split in ("train", "eval"):
            if per_split.get(split) == manifest.num_examples.get(split):
                return f"no {split} patch has a scene of {sensor}"
    return None


def why_unusable(labels: LabeledSplits) -> str | None:
    """Return why no linear probe can use `labels`, or None when one can."""
    num_classes = len(np.unique(_label(labels.train)))
    if num_classes < 2:
        return (
            f"{num_classes} class among the {len(labels.train)} train patches that have a label, "
            "a probe needs 2"
        )
    return None if len(labels.judged) else "no eval patch has a label"


def _label(split: EmbeddedSplit) -> npt.NDArray[np.int64]:
    if split.label is None:
        raise ValueError("the linear probe needs labelled shards, but these have no label schema")
    return split.label
