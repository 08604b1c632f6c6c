from typing import get_args

import pytest

from beam_jobs.contracts import reasons
from beam_jobs.errors import DataError


def names() -> list[str]:
    return [name for group in get_args(reasons.Reason) for name in get_args(group)]


def test_every_reason_has_a_meaning_and_stands_in_one_group_only() -> None:
    assert sorted(names()) == sorted(reasons.MEANINGS)


@pytest.mark.parametrize(("name", "meaning"), sorted(reasons.MEANINGS.items()))
def test_a_meaning_is_one_line_of_whole_sentences(name: str, meaning: str) -> None:
    assert name == name.lower().replace(" ", "_")
    assert "\n" not in meaning
    assert meaning[0].isupper()
    assert meaning.endswith(".")


def test_only_known_names_are_reasons() -> None:
    assert reasons.is_reason(DataError("no such file", "missing_file").reason)
    assert not reasons.is_reason("no_such_reason")
