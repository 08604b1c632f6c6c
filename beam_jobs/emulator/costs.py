"""Costs of requests, and the text that Profile.getProfiles returns about them.

A profile's id holds the cost of its request. The price is made up but close to real
requests, so that plans made with the emulator have realistic figures.
"""

from __future__ import annotations

from collections.abc import Sequence

_EECU_SECONDS_PER_REQUEST = 0.03
_EECU_SECONDS_PER_VALUE = 1e-7


def eecu_seconds(num_values: int) -> float:
    """Return the price of a request that computes so many pixels x bands."""
    return _EECU_SECONDS_PER_REQUEST + _EECU_SECONDS_PER_VALUE * num_values


def profile_id(num_values: int, number: int) -> str:
    """Return the id of the profile of the request of that number."""
    return f"{number}-{num_values}"


def profile_text(profile_ids: Sequence[str]) -> str:
    """Return Earth Engine's table of profiles: cost, memory, count, description."""
    lines = [" EECU·s PeakMem  Count  Description"]
    for text in profile_ids:
        _, _, num_values = text.partition("-")
        lines.append(f"{eecu_seconds(int(num_values)):7.3f}    124k      1  Algorithm Image.load")
        lines.append("      -     47k      3  Loading assets")
    return "\n".join(lines) + "\n"
