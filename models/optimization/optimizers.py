"""Optimizers: AdamW or LARS with warm-up, cosine schedule and float16 loss scaling.

Input: `OptimizerConfig`, number of steps, precision. Output: a Keras optimizer that
gives the same update on any number of replicas.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import tensorflow as tf

from models.config import OptimizerConfig, Precision
from models.optimization.adamw import FusedAdamW
from models.optimization.pacing import Paces
from models.training import replicas

NOT_DECAYED = ("bias", "gamma", "beta", "log_temperature")
"""Names of variables without weight decay and, under LARS, without an adapted rate.

Source: Goyal et al. 2017, arXiv 1706.02677, section 5.3; for LARS Chen et al. 2020,
arXiv 2002.05709, appendix B.6.
"""


def make_optimizer(
    config: OptimizerConfig,
    num_steps: int,
    precision: Precision = "float32",
    paces: Iterable[Sequence[float]] = (),
) -> keras.optimizers.Optimizer:
    """Return the optimizer of a training of `num_steps`; its rate ends at 0.

    Args:
        config: optimizer, rate, decay and warm-up.
        num_steps: updates of the whole training.
        precision: "mixed_float16" adds loss scaling.
        paces: of the trainable variables, see `Paces`; empty = all alike.
    """
    schedule = WarmupCosine(
        config.learning_rate, int(config.warmup_fraction * num_steps), num_steps
    )
    optimizer: keras.optimizers.Optimizer = (
        Lars(schedule, decay=config.weight_decay, paces=paces)
        if config.optimizer == "lars"
        else FusedAdamW(schedule, decay=config.weight_decay, paces=paces)
    )
    optimizer.exclude_from_weight_decay(var_names=list(NOT_DECAYED))
    # bfloat16 needs no loss scaling: it has the range of float32, so gradients do not
    # vanish.
    return LossScaled(optimizer) if precision == "mixed_float16" else optimizer


@keras.saving.register_keras_serializable(package="terrapair")
class WarmupCosine(keras.optimizers.schedules.LearningRateSchedule):
    """A linear rise to `peak`, then half a cosine down to 0 at `num_steps`.

    Keras' CosineDecay branches on the step, so the host waits for the device at each
    step. This one is arithmetic only.
    Source: Loshchilov and Hutter 2016, arXiv 1608.03983, eq. 5, without restarts.
    """

    def __init__(self, peak: float, num_warmup_steps: int, num_steps: int) -> None:
        super().__init__()
        self.peak, self.num_warmup_steps, self.num_steps = peak, num_warmup_steps, num_steps

    def __call__(self, step: Any) -> Any:
        """Return the rate, float32, of the step after `step` updates."""
        done = tf.cast(step, tf.float32)
        # Not from exactly 0: the first step would change nothing.
        rising = (done + 1.0) / (self.num_warmup_steps + 1.0)
        share = (done - self.num_warmup_steps) / max(1.0, self.num_steps - self.num_warmup_steps)
        falling = 0.5 * (1.0 + tf.cos(math.pi * tf.clip_by_value(share, 0.0, 1.0)))
        return self.peak * tf.where(done < self.num_warmup_steps, rising, falling)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            "peak": self.peak,
            "num_warmup_steps": self.num_warmup_steps,
            "num_steps": self.num_steps,
        }


@keras.saving.register_keras_serializable(package="terrapair")
class Lars(keras.optimizers.Optimizer):
    """Layer-wise adaptive rates with momentum, for global batches of thousands.

    Keras 3 has no LARS. For a weight w with gradient g:

        rate = trust x |w| / (|g| + decay x |w|), or 1 where w or g is 0
        m <- momentum x m + learning_rate x rate x (g + decay x w)
        w <- w - m

    Variables without decay (`exclude_from_weight_decay`) have rate 1.
    Source: You, Gitman, Ginsburg 2017, arXiv 1708.03888, algorithm 1; defaults:
    SimCLR's (arXiv 2002.05709, its code).
    """

    def __init__(
        self,
        learning_rate: Any,
        *,
        decay: float = 0.0,
        momentum: float = 0.9,
        trust: float = 1e-3,
        paces: Iterable[Sequence[float]] = (),
        name: str = "lars",
    ) -> None:
        # Keras' own `weight_decay` is decoupled; LARS adds the decay to the gradient.
        super().__init__(learning_rate=learning_rate, name=name)
        self.decay, self.momentum, self.trust, self.paces = decay, momentum, trust, Paces(paces)

    def build(self, variables: Any) -> None:
        """Make one momentum per variable."""
        self.paces.check(variables)
        if not self.built:
            super().build(variables)
            (self._momentums,) = self.add_optimizer_variables(variables, ["momentum"])

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update one variable with the gradient of the global batch."""
        index = self._get_variable_index(variable)
        gradient, rate, _ = self.paces.at(
            index, gradient, tf.cast(learning_rate, variable.dtype), self.iterations
        )
        if self._use_weight_decay(variable):
            size, slope = tf.norm(variable), tf.norm(gradient)
            ratio = self.trust * tf.math.divide_no_nan(size, slope + self.decay * size)
            rate *= tf.where((size > 0.0) & (slope > 0.0), ratio, 1.0)
            gradient = gradient + self.decay * variable
        momentum = self._momentums[index]
        self.assign(momentum, self.momentum * momentum + rate * gradient)
        self.assign_sub(variable, momentum)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        own = {
            "decay": self.decay,
            "momentum": self.momentum,
            "trust": self.trust,
            "name": self.name,
        }
        return {
            "learning_rate": super().get_config()["learning_rate"],
            **own,
            "paces": self.paces.as_lists(),
        }


@keras.saving.register_keras_serializable(package="terrapair")
class LossScaled(keras.optimizers.LossScaleOptimizer):
    """Keras' dynamic loss scale, with one decision for all replicas.

    A step with an infinite or NaN gradient is skipped and the scale is halved. Keras
    checks only the first replica's part of the gradient and would miss an overflow on
    another replica.
    """

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        """Update the weights by the gradients of the scaled loss, or skip the step."""
        known = [index for index, gradient in enumerate(grads) if gradient is not None]
        is_bad = tf.cast(~self.check_finite(grads), tf.float32)
        is_bad_somewhere = replicas.sum_over_replicas(is_bad) > 0.0
        # One NaN gradient makes Keras skip the step, here on every replica.
        grads = list(grads)
        grads[known[0]] = tf.where(is_bad_somewhere, float("nan"), grads[known[0]])
        super().apply(grads, trainable_variables)
