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

Those of one number have a rate of their own under LARS; see `Lars`.

Source: Goyal et al. 2017, arXiv 1706.02677, section 5.3; for LARS Chen et al. 2020,
arXiv 2002.05709, appendix B.6.
"""

ADAM_BETAS, ADAM_EPSILON = (0.9, 0.999), 1e-7
"""Decay of both moments of a scalar under LARS, and what is added to their root.

Source: Kingma and Ba 2014, arXiv 1412.6980, algorithm 1; the epsilon is Keras'.
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
        Lars(
            schedule,
            decay=config.weight_decay,
            scalar_factor=config.lars_scalar_rate / config.learning_rate,
            paces=paces,
        )
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

    Vectors without decay (`exclude_from_weight_decay`: biases, and scales and offsets
    of normalizations) have rate 1. Source: You, Gitman, Ginsburg 2017, arXiv
    1708.03888, algorithm 1; defaults: SimCLR's (arXiv 2002.05709, its code).

    A variable of one number (the temperature, the bias of "sigmoid" or of a head with
    one output) has no direction, so neither rule fits it. Its gradient can grow with
    the batch size, and at the rates of LARS a single step would throw the loss out of
    its range. Adam moves it at `scalar_factor` times the learning rate, without decay:
    a step is then about as long as its rate. Source: Kingma and Ba 2014, arXiv
    1412.6980, algorithm 1 and its defaults; Zhai et al. 2023 (SigLIP), arXiv
    2303.15343, learn temperature and bias by an optimizer of that kind, too.

    Attributes:
        decay: weight decay, a part of the gradient.
        momentum: share of the last step that is kept.
        trust: length of a step, as a share of the weight's length, at rate 1.
        scalar_factor: rate of variables of one number, divided by the learning rate.
        paces: of the variables, see `Paces`.
    """

    def __init__(
        self,
        learning_rate: Any,
        *,
        decay: float = 0.0,
        momentum: float = 0.9,
        trust: float = 1e-3,
        scalar_factor: float = 1.0,
        paces: Iterable[Sequence[float]] = (),
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("name", "lars")
        # Keras' own `weight_decay` is decoupled; LARS adds the decay to the gradient.
        super().__init__(learning_rate=learning_rate, **kwargs)
        self.decay, self.momentum, self.trust, self.paces = decay, momentum, trust, Paces(paces)
        self.scalar_factor = scalar_factor

    def build(self, variables: Any) -> None:
        """Make one momentum per variable, and a second moment per scalar."""
        self.paces.check(variables)
        if not self.built:
            super().build(variables)
            (self._momentums,) = self.add_optimizer_variables(variables, ["momentum"])
            scalars = [variable for variable in variables if _is_scalar(variable)]
            (velocities,) = self.add_optimizer_variables(scalars, ["velocity"])
            self._velocities = {
                self._get_variable_index(variable): velocity
                for variable, velocity in zip(scalars, velocities, strict=True)
            }

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update one variable with the gradient of the global batch."""
        index = self._get_variable_index(variable)
        pace = self.paces.of(index)
        rate, number = pace.at(tf.cast(learning_rate, variable.dtype), self.iterations)
        gradient = pace.begun(gradient, self.iterations)
        if _is_scalar(variable):
            self._update_scalar(variable, index, gradient, rate=rate, number=number)
            return
        if self._use_weight_decay(variable):
            size, slope = tf.norm(variable), tf.norm(gradient)
            ratio = self.trust * tf.math.divide_no_nan(size, slope + self.decay * size)
            rate *= tf.where((size > 0.0) & (slope > 0.0), ratio, 1.0)
            gradient = gradient + self.decay * variable
        momentum = self._momentums[index]
        self.assign(momentum, self.momentum * momentum + rate * gradient)
        self.assign_sub(variable, momentum)

    def _update_scalar(
        self, variable: Any, index: int, gradient: Any, *, rate: Any, number: Any
    ) -> None:
        """Take the step `number`, from 1, of Adam."""
        step = tf.cast(number, variable.dtype)
        first, second = self._momentums[index], self._velocities[index]
        self.assign(first, ADAM_BETAS[0] * first + (1.0 - ADAM_BETAS[0]) * gradient)
        self.assign(second, ADAM_BETAS[1] * second + (1.0 - ADAM_BETAS[1]) * gradient**2)
        mean, square = first / (1.0 - ADAM_BETAS[0] ** step), second / (1.0 - ADAM_BETAS[1] ** step)
        self.assign_sub(
            variable, self.scalar_factor * rate * mean / (tf.sqrt(square) + ADAM_EPSILON)
        )

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        own = {
            "decay": self.decay,
            "momentum": self.momentum,
            "trust": self.trust,
            "scalar_factor": self.scalar_factor,
            "name": self.name,
        }
        return {
            "learning_rate": super().get_config()["learning_rate"],
            **own,
            "paces": self.paces.as_lists(),
        }


def _is_scalar(variable: Any) -> bool:
    return math.prod(variable.shape) == 1


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
