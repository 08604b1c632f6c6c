"""The parameters of a compiled pipeline: overrides, thresholds and a span.

JSON texts, as Kubeflow gives them to the first task -> overrides of settings.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from beam_jobs.contracts.settings import SettingsError
from pipeline.config import RunConfig

_PROBE = "probe"
_OF_TASK = ("min_mean_iou", "min_iou")


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What a run may be given at its start.

    Attributes:
        overrides: `a.b=c` each, as `--set` has them.
        thresholds: task -> `min_mean_iou` and `min_iou`; "probe" -> thresholds of the
            encoder.
        span: number of the span to read; 0 = the newest.
    """

    overrides: tuple[str, ...] = ()
    thresholds: dict[str, dict[str, Any]] = field(default_factory=dict)
    span: int = 0

    def applied(self, load: Callable[[tuple[str, ...]], RunConfig]) -> RunConfig:
        """Return a run's settings with these parameters.

        Args:
            load: reads the settings with overrides.

        Raises:
            SettingsError: a task or threshold is unknown, or see `load`.
        """
        config = load(self.overrides)
        more = self._thresholds_of(config)
        if self.span:
            more += (f"span={self.span}",)
        return load((*self.overrides, *more)) if more else config

    def _thresholds_of(self, config: RunConfig) -> tuple[str, ...]:
        """Return the thresholds as overrides."""
        positions = {task.name: i for i, task in enumerate(config.tasks)}
        found = []
        for name, values in self.thresholds.items():
            if name == _PROBE:
                found += [f"probe.{key}={json.dumps(value)}" for key, value in values.items()]
                continue
            if name not in positions:
                known = ", ".join((_PROBE, *positions))
                raise SettingsError(f"--thresholds: no task {name!r}; known: {known}")
            for key, value in values.items():
                if key not in _OF_TASK:
                    raise SettingsError(
                        f"--thresholds: {name} has {', '.join(_OF_TASK)}, got {key!r}"
                    )
                found.append(f"tasks.{positions[name]}.{key}={json.dumps(value)}")
        return tuple(found)


def parse_parameters(overrides: str, thresholds: str, span: int) -> Parameters:
    """Return the parameters of JSON texts.

    Args:
        overrides: list of texts.
        thresholds: object of objects.
        span: see `Parameters`.

    Raises:
        SettingsError: a text is no JSON, or of another form.
    """
    listed = _parse("--overrides", overrides)
    if not isinstance(listed, list) or not all(isinstance(one, str) for one in listed):
        raise SettingsError(
            f'--overrides: must be a JSON list of texts such as ["a.b=c"], got {overrides}'
        )
    named = _parse("--thresholds", thresholds)
    if not isinstance(named, Mapping) or not all(
        isinstance(one, Mapping) for one in named.values()
    ):
        raise SettingsError(
            '--thresholds: must be a JSON object such as {"flood": {"min_mean_iou": 0.7}}, got '
            f"{thresholds}"
        )
    return Parameters(
        overrides=tuple(listed),
        thresholds={name: dict(values) for name, values in named.items()},
        span=span,
    )


def _parse(option: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise SettingsError(f"{option}: must be JSON, got {text}: {error}") from error
