"""Cron expressions: the ordinary one with five fields -> Kubeflow's, with six.

Kubeflow's fields begin with seconds. It accepts an expression with five fields too, and
reads it as seconds to months: `0 3 * * *` is then every hour at :03.

Source: github.com/robfig/cron 1.2.0 (parser.go, spec.go), which Kubeflow Pipelines 2.17
uses in its API server and in its controller of schedules.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import dataclass

from cronsim import CronSim, CronSimError

from beam_jobs.contracts.settings import SettingsError

NUM_DATES = 3
_NUM_FIELDS = 5
_EXAMPLE = "17 3 5 * *"
_MAX_YEARS = 5
"""Years that Kubeflow looks ahead (`yearLimit` in spec.go). Without a date in them, its
controller gets a date in the past, and without catch-up it never stops to count."""
_SUNDAY, _ALSO_SUNDAY = 0, 7
_WEEKDAY = 4
"""Index of the weekday among the five fields."""


@dataclass(frozen=True, kw_only=True)
class Cron:
    """When a recurring run starts.

    Attributes:
        text: the ordinary expression: minute, hour, day, month, weekday.
        kubeflow: the same for Kubeflow, with seconds before it.
        dates: the next starts, if Kubeflow counts in UTC, which is its default.
    """

    text: str
    kubeflow: str
    dates: tuple[datetime.datetime, ...]


def parse_cron(text: str, now: datetime.datetime) -> Cron:
    """Return an ordinary cron expression as Kubeflow understands it.

    Args:
        text: five fields, such as `17 3 5 * *`: at 3:17 on the fifth of each month.
        now: in UTC; the dates come after it.

    Raises:
        SettingsError: it has not five fields, a field is wrong, Kubeflow cannot say the
            same, or there is no date that Kubeflow would find.
    """
    fields = text.split()
    if len(fields) != _NUM_FIELDS:
        raise SettingsError(
            f"cron: must have the five fields minute, hour, day, month and weekday, such as "
            f"{_EXAMPLE!r}, got {len(fields)} in {text!r}; Kubeflow's seconds are added"
        )
    for field in fields:
        if "," in field and "*" in field:
            raise SettingsError(
                f"cron: a list must not hold *, got {field!r} in {text!r}: Kubeflow reads it "
                "otherwise than cron does"
            )
    try:
        parsed = CronSim(text, now)
    except CronSimError as error:
        raise SettingsError(
            f"cron: {str(error).lower()} in {text!r}: use numbers or names within minute 0-59, "
            "hour 0-23, day 1-31, month 1-12, weekday 0-7, as single values, ranges a-b, steps */n "
            "and lists a,b, and a day that one of the months has"
        ) from error
    if min(parsed.days) < 0 or any(isinstance(day, tuple) for day in parsed.weekdays):
        raise SettingsError(
            f"cron: L and # are no ordinary cron and unknown to Kubeflow, got {text!r}: use numbers"
        )
    if not fields[_WEEKDAY].startswith("*"):
        # Kubeflow's weekdays end with Saturday, 6, and 1/2 goes up to there.
        weekdays = {_SUNDAY if day == _ALSO_SUNDAY else day for day in parsed.weekdays}
        fields[_WEEKDAY] = ",".join(map(str, sorted(weekdays)))
    return Cron(
        text=text, kubeflow=" ".join(["0", *fields]), dates=tuple(_next_dates(parsed, text, now))
    )


def _next_dates(parsed: CronSim, text: str, now: datetime.datetime) -> Iterator[datetime.datetime]:
    before = now
    for _ in range(NUM_DATES):
        date = next(parsed, None)
        if date is None or date.year > before.year + _MAX_YEARS:
            raise SettingsError(
                f"cron: {text!r} has no date within {_MAX_YEARS} years after {before.date()}, so "
                "it never fires: Kubeflow looks no further. Name a day that comes more often"
            )
        yield date
        before = date
