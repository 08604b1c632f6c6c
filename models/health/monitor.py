"""The health monitor: checks the encoders during and after training.

Input: a run's config, the dual encoder in training, and eval pairs. Output: TensorBoard
scalars, the embedding map, alarms, and measures for the model card. A collapse stops
the training.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import tensorflow as tf

from beam_jobs.contracts.errors import ExitCode, TerrapairError
from beam_jobs.contracts.manifest import Manifest
from models.config import PretrainConfig
from models.contrastive_model import ContrastiveModel
from models.dual_encoder import DualEncoder
from models.health import alarms
from models.health.alarms import AlarmName
from models.health.checkup import Checkup, examine
from models.health.embedded_split import EmbeddedSplit
from models.health.embedding_map import draw_map
from models.health.embeddings import Embedder

AlarmCallback = Callable[[str], None]
"""Receives each alarm when it begins, as one line."""

log_alarm: AlarmCallback = logging.getLogger("terrapair.training").warning
"""Commands show this logger's messages to the user."""


class UnhealthyTrainingError(TerrapairError, RuntimeError):
    """An alarm occurred, and the config says that alarms end the run."""

    exit_code = ExitCode.REFUSED


class CollapseError(UnhealthyTrainingError):
    """All patches have nearly the same embedding; more training would not help."""


@dataclass(frozen=True, kw_only=True)
class EvalPairs:
    """The pairs that a monitor embeds at each check.

    Attributes:
        manifest: manifest of their version.
        files: gzip TFRecords of the eval split.
    """

    manifest: Manifest
    files: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class HealthLog:
    """Where a monitor reports.

    Attributes:
        folder: log directory of the run; events are written to `<folder>/eval`.
        on_alarm: receives each alarm when it begins.
        is_writer: False on all workers but the chief. They check too, so that all of
            them stop together, but they write no events and report no alarm.
    """

    folder: str
    on_alarm: AlarmCallback = log_alarm
    is_writer: bool = True


@dataclass(frozen=True, kw_only=True)
class Conclusion:
    """Health of the published encoders.

    Attributes:
        metrics: measures by name; see `Checkup.metrics`.
        alarms: what is wrong with the trained encoders, one line each.
        not_measured: name of a missing measure -> why it is missing.
        picture: embedding map as PNG.
    """

    metrics: dict[str, float]
    alarms: tuple[str, ...]
    not_measured: dict[str, str]
    picture: bytes


class HealthMonitor:
    """Watches one training.

    Make it before the first step: it measures progress from the encoders as they are
    then.

    Attributes:
        config: config of the run.
        sensors: sensors that the objective trains. The other one is measured but not
            judged.
    """

    def __init__(
        self,
        config: PretrainConfig,
        dual_encoder: DualEncoder,
        *,
        model: ContrastiveModel,
        pairs: EvalPairs,
        log: HealthLog,
        is_new: bool = True,
    ) -> None:
        """Measure the encoders before training.

        Args:
            config: config of the run.
            dual_encoder: encoders to be trained.
            model: what is trained: only its sensors are judged, and it knows what
                guessing costs in its batches.
            pairs: eval pairs to embed at each check.
            log: where to write events and report alarms.
            is_new: the encoders are untrained. Progress is measured only from such
                encoders, not from what an earlier training reached.

        Raises:
            ValueError: fewer than two eval patches have data in both sensors, or the
                shards have other bands than the encoder.
        """
        self.config, self.sensors = config, tuple(model.encoders)
        self._model = model
        self._pairs, self._log = pairs, log
        self._embedder = Embedder(dual_encoder)
        self._num_cells = (pairs.manifest.patch_size_px // config.encoder.stride) ** 2
        self._current: dict[AlarmName, str] = {}
        self._judged_from = alarms.judged_from_step(config)
        # A run that ends before anything is judged needs no comparison.
        is_compared = is_new and config.num_steps >= self._judged_from
        self._start = self._examine(self._embed(self._embedder)) if is_compared else None

    def check(self, step: int, mean_loss: float) -> None:
        """Check the encoders after `step`.

        Does nothing after the last step: `conclude` checks the published encoders.

        Args:
            step: steps done.
            mean_loss: mean train loss of the last steps.

        Raises:
            CollapseError: the embeddings of a trained sensor have collapsed.
            UnhealthyTrainingError: there is an alarm, and `stop_on_alarm` is set.
        """
        # `conclude` checks the encoders of the last step, in the form in which they are
        # published.
        if step == self.config.num_steps:
            return
        split = self._embed(self._embedder)
        checkup = self._examine(split)
        self._write(step, checkup.metrics(), self._draw(split, step))
        self._judge(step, mean_loss, split, checkup)

    def conclude(self, dual_encoder: DualEncoder, mean_loss: float) -> Conclusion:
        """Check `dual_encoder` as it will be published, and return its measures.

        Writes the embedding map to TensorBoard. The caller writes the measures,
        together with its own.

        Raises:
            CollapseError: the embeddings of a trained sensor have collapsed.
            UnhealthyTrainingError: there is an alarm, and `stop_on_alarm` is set.
        """
        step = self.config.num_steps
        split = self._embed(Embedder(dual_encoder))
        checkup = self._examine(split)
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
            self._pairs.manifest, self._pairs.files, max_patches=self.config.health.max_patches
        )

    def _examine(self, split: EmbeddedSplit) -> Checkup:
        return examine(split, alarms.ignored_km(self.config))

    def _draw(self, split: EmbeddedSplit, step: int) -> bytes:
        title = f"Embeddings of the eval split after {step} steps"
        manifest = self._pairs.manifest
        return draw_map(split, manifest.bands("s2"), manifest.schema, title)

    def _write(self, step: int, metrics: dict[str, float], picture: bytes) -> None:
        if not self._log.is_writer:
            return
        # Open and close the writer each time: the events must be on disk if the check
        # ends the run.
        writer = tf.summary.create_file_writer(f"{self._log.folder}/eval")
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
            self.config,
            mean_loss,
            checkup=checkup,
            start=self._start,
            sensors=self.sensors,
            chance=self._model.chance.mean() or alarms.full_chance(self.config, self._num_cells),
        )
        for name in sorted(found.keys() - self._current.keys()) if self._log.is_writer else ():
            self._log.on_alarm(f"step {step}: {found[name]}")
        self._current = found
        if found and self.config.health.stop_on_alarm:
            raise UnhealthyTrainingError(
                f"pretraining stopped at step {step}: {next(iter(found.values()))}"
            )
