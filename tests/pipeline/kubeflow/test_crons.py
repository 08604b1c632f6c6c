"""Cron expressions for Kubeflow, against the dates that Kubeflow's own library counts."""

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_jobs.contracts.settings import SettingsError
from pipeline.kubeflow.crons import parse_cron

NOW = datetime.datetime(2026, 11, 30, 12, 0, tzinfo=datetime.timezone.utc)

# The last column was printed by github.com/robfig/cron 1.2.0 for the middle one.
COUNTED = [
    ("0 3 * * *", "0 0 3 * * *", "2026-12-01T03:00 2026-12-02T03:00 2026-12-03T03:00"),
    ("17 3 5 * *", "0 17 3 5 * *", "2026-12-05T03:17 2027-01-05T03:17 2027-02-05T03:17"),
    ("0 4 * * 7", "0 0 4 * * 0", "2026-12-06T04:00 2026-12-13T04:00 2026-12-20T04:00"),
    ("0 4 * * MON", "0 0 4 * * 1", "2026-12-07T04:00 2026-12-14T04:00 2026-12-21T04:00"),
    ("30 6 * * 5-7", "0 30 6 * * 0,5,6", "2026-12-04T06:30 2026-12-05T06:30 2026-12-06T06:30"),
    (
        "*/15 9-17 * * 1-5",
        "0 */15 9-17 * * 1,2,3,4,5",
        "2026-11-30T12:15 2026-11-30T12:30 2026-11-30T12:45",
    ),
    # A day or a weekday; a day and a weekday, because one begins with *.
    ("0 0 13 * 5", "0 0 0 13 * 5", "2026-12-04T00:00 2026-12-11T00:00 2026-12-13T00:00"),
    ("0 0 */2 * 1", "0 0 0 */2 * 1", "2026-12-07T00:00 2026-12-21T00:00 2027-01-11T00:00"),
    ("0 12 29 2 *", "0 0 12 29 2 *", "2028-02-29T12:00 2032-02-29T12:00 2036-02-29T12:00"),
    ("5/20 2 1,15 * *", "0 5/20 2 1,15 * *", "2026-12-01T02:05 2026-12-01T02:25 2026-12-01T02:45"),
    ("0 0 1 jan,jul *", "0 0 0 1 jan,jul *", "2027-01-01T00:00 2027-07-01T00:00 2028-01-01T00:00"),
    ("0 1 * * 1/2", "0 0 1 * * 0,1,3,5", "2026-12-02T01:00 2026-12-04T01:00 2026-12-06T01:00"),
]


def counted(parsed):
    return " ".join(date.strftime("%Y-%m-%dT%H:%M") for date in parsed.dates)


@pytest.mark.parametrize(("text", "kubeflow", "dates"), COUNTED)
def test_dates_are_those_of_kubeflow(text, kubeflow, dates):
    parsed = parse_cron(text, NOW)
    assert (parsed.text, parsed.kubeflow, counted(parsed)) == (text, kubeflow, dates)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 0 3 * * *", "must have the five fields .* got 6 .* seconds are added"),
        ("0 3 * *", "got 4"),
        ("@daily", "got 1"),
        ("", "got 0"),
        ("60 3 * * *", "bad minute in '60 3 \\* \\* \\*': use numbers or names within minute 0-59"),
        ("0 24 * * *", "bad hour"),
        ("0 3 0 * *", "bad day-of-month"),
        ("0 3 * 13 *", "bad month"),
        ("0 3 * * 8", "bad day-of-week"),
        ("0 3 5-1 * *", "bad day-of-month"),
        ("0 3 * * MONDAY", "bad day-of-week"),
        ("*/0 3 * * *", "bad minute"),
        ("0 3 L * *", "unknown to Kubeflow"),
        ("0 3 * * FRI#2", "unknown to Kubeflow"),
        ("0 3 1,*/2 * 1", "a list must not hold \\*, got '1,\\*/2'"),
        # Never: no such day, alone or in a month; and only in 2032 and 2060.
        ("0 0 30 2 *", "a day that one of the months has"),
        ("0 0 31 4,6,9,11 *", "a day that one of the months has"),
        ("0 0 29 2 */7", "no date within 5 years after 2026-11-30, so it never fires"),
    ],
)
def test_an_expression_that_is_wrong_or_never_fires_is_refused(text, message):
    with pytest.raises(SettingsError, match=message) as raised:
        parse_cron(text, NOW)
    assert "\n" not in str(raised.value)


@given(
    minute=st.integers(0, 59),
    hour=st.integers(0, 23),
    weekdays=st.sets(st.integers(0, 7), min_size=1),
)
def test_sunday_has_one_number_and_all_weekdays_stay(minute, hour, weekdays):
    parsed = parse_cron(f"{minute} {hour} * * {','.join(map(str, weekdays))}", NOW)
    *fields, last = parsed.kubeflow.split()
    assert fields == ["0", str(minute), str(hour), "*", "*"]
    assert {int(day) for day in last.split(",")} == {day % 7 for day in weekdays}
    for date in parsed.dates:
        assert (date.minute, date.hour, date.second) == (minute, hour, 0)
        assert (date.weekday() + 1) % 7 in {day % 7 for day in weekdays}
