"""The health monitor: looks at the encoders during training and after it, says what is wrong, and stops what has collapsed.

Input: a run's config, the dual encoder being trained, shards of the eval split. Output:
TensorBoard scalars and the embedding map, alarms, metrics for the model card. Made by
`pretrain.py`; `training.train` calls `check`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import tensorflow as tf

from beam_jobs.contracts.bands import Sensor
from beam_jobs.contracts.errors import ExitCode, TerrapairError
from beam_jobs.contracts.manifest import Manifest
from models.config import PretrainConfig
from models.dual_encoder import DualEncoder
from models.health import alarms
from models.health.checkup import Checkup, examine
from models.health.embedded_split import EmbeddedSplit
from models.health.embedding_map import draw_map
from models.health.embeddings import Embedder

AlarmCallback = Callable[[str], None]
"""Told of each alarm when it begins, in one line."""

log_alarm: AlarmCallback = logging.getLogger("terrapair.training").warning
"""Whoever watches a run shows what is said here."""


class UnhealthyTrainingError(TerrapairError, RuntimeError):
    """An alarm that the config wants to end the run."""

    exit_code = ExitCode.REFUSED


class CollapseError(UnhealthyTrainingError):
    """All patches have nearly one embedding; nothing that comes later is worth its time."""


@dataclass(frozen=True, kw_only=True)
class Conclusion:
    """What is published with the encoders.

    Attributes:
        metrics: see `Checkup.metrics`.
        alarms: what is wrong with the trained encoders, one line each.
        not_measured: name of a figure that is missing -> why.
        picture: the embedding map as PNG.
    """

    metrics: dict[str, float]
    alarms: tuple[str, ...]
    not_measured: dict[str, str]
    picture: bytes


class HealthMonitor:
    """Watches one training. To be made before the first step: the encoders as they begin are what progress is measured by.

    Attributes:
        config: of the run.
        sensors: those that the objective trains; the others are measured, not judged.
    """

    def __init__(
        self,
        config: PretrainConfig,
        dual_encoder: DualEncoder,
        sensors: Sequence[Sensor],
        manifest: Manifest,
        eval_files: Sequence[str],
        log_dir: str,
        on_alarm: AlarmCallback = log_alarm,
        is_new: bool = True,
        is_writer: bool = True,
    ) -> None:
        """Looks at the encoders for the first time.

        `is_new` says that they are untrained: progress is measured by that, and not by
        what an earlier training reached. Only an `is_writer` writes events and tells
        alarms; the other workers look, too, so that all end together.

        Raises:
            ValueError: the eval split has fewer than two patches with data in both
                sensors, or other bands.
        """
        self.config, self.sensors = config, tuple(sensors)
        self._manifest, self._eval_files = manifest, eval_files
        self._log_dir, self._on_alarm, self._is_writer = log_dir, on_alarm, is_writer
        self._embedder = Embedder(dual_encoder)
        self._num_cells = (manifest.patch_size_px // config.encoder.stride) ** 2
        self._current: dict[str, str] = {}
        self._judged_from = alarms.judged_from_step(config)
        # A run that ends before anything is judged needs no comparison.
        is_compared = is_new and config.num_steps >= self._judged_from
        self._start = examine(self._embed(self._embedder)) if is_compared else None

    def check(self, step: int, mean_loss: float) -> None:
        """Looks at the encoders after `step`, but for the last one; `mean_loss` is that of the last steps.

        Raises:
            CollapseError: the embeddings of a trained sensor have collapsed.
            UnhealthyTrainingError: an alarm, when `stop_on_alarm` is set.
        """
        # `conclude` looks at the encoders of the last step, as they are published.
        if step == self.config.num_steps:
            return
        split = self._embed(self._embedder)
        checkup = examine(split)
        self._write(step, checkup.metrics(), self._draw(split, step))
        self._judge(step, mean_loss, split, checkup)

    def conclude(self, dual_encoder: DualEncoder, mean_loss: float) -> Conclusion:
        """Looks at `dual_encoder` as it will be published; raises as `check` does.

        TensorBoard gets the map here; the metrics are the caller's to write, with its
        own.
        """
        step = self.config.num_steps
        split = self._embed(Embedder(dual_encoder))
        checkup = examine(split)
        picture = self._draw(split, step)
        self._write(step, {}, picture)
        self._judge(step, mean_loss, split, checkup)
        return Conclusion(
            metrics=checkup.metrics(),
            alarms=tuple(self._current.values()),
            not_measured=checkup.not_measured(),
            picture=picture,
        )

    def _embed(self, embedder: Embedder) -> EmbeddedSplit:
        return embedder.embed_split(
            self._manifest, self._eval_files, max_patches=self.config.health.max_patches
        )

    def _draw(self, split: EmbeddedSplit, step: int) -> bytes:
        title = f"Embeddings of the eval split after {step} steps"
        return draw_map(split, self._manifest.s2_bands, self._manifest.label_schema, title)

    def _write(self, step: int, metrics: dict[str, float], picture: bytes) -> None:
        if not self._is_writer:
            return
        # Opened anew each time: what is written must be on disk when the check ends the
        # run.
        writer = tf.summary.create_file_writer(f"{self._log_dir}/eval")
        with writer.as_default(step=step):
            for name, value in metrics.items():
                tf.summary.scalar(name, value)
            tf.summary.image("embedding_map", tf.io.decode_png(picture)[tf.newaxis])
        writer.close()

    def _judge(self, step: int, mean_loss: float, split: EmbeddedSplit, checkup: Checkup) -> None:
        if step < self._judged_from:
            return
        reason = alarms.find_collapse(self.config, split, self.sensors)
        if reason:
            raise CollapseError(
                f"pretraining collapsed at step {step}: {reason}; see docs/health.md"
            )
        found = alarms.find_alarms(
            self.config, mean_loss, checkup, self._start, self.sensors, self._num_cells
        )
        for name in sorted(found.keys() - self._current.keys()) if self._is_writer else ():
            self._on_alarm(f"step {step}: {found[name]}")
        self._current = found
        if found and self.config.health.stop_on_alarm:
            raise UnhealthyTrainingError(
                f"pretraining stopped at step {step}: {next(iter(found.values()))}"
            )
