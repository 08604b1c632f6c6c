"""Checks of one value of a config; each message holds the rule and the value.

Input: the key's name and its value. Output: a ValueError, or nothing.
"""

from __future__ import annotations

from typing import Any, get_args


def check_positive(name: str, value: float) -> None:
    """Refuse a value that is not above 0.

    Raises:
        ValueError: with name and value.
    """
    if not value > 0:
        raise ValueError(f"{name} must be above 0, got {value}")


def check_share(name: str, value: float) -> None:
    """Refuse a value that is not within 0 and 1.

    Raises:
        ValueError: with name and value.
    """
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"{name} must be within 0 and 1, got {value}")


def check_choice(name: str, value: str, choices: Any) -> None:
    """Refuse a value that the Literal `choices` does not have.

    Raises:
        ValueError: with name, known values and value.
    """
    known = get_args(choices)
    if value not in known:
        raise ValueError(f"{name} must be {', '.join(known[:-1])} or {known[-1]}, got {value!r}")
