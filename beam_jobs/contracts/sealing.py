"""Seals: a JSON document that carries the hash of its own content.

Trainings take numbers from manifests and checkpoints without another check. A document
that was edited by hand, or that lost a part, must not pass for what was written.
A seal protects against mistakes, not against an attacker, who can compute it anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from beam_jobs.contracts import settings

SEAL = "content_sha256"
"""Field that holds the hash of all other fields."""


def seal(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of a JSON object with its seal; a seal in it is made anew."""
    return {**values, SEAL: digest(values)}


def digest(values: Mapping[str, Any]) -> str:
    """Return the hex SHA-256 of all fields but the seal.

    The fields are hashed in canonical form: sorted keys, no spaces. A document may be
    written with other line breaks.
    """
    return settings.sha256({name: value for name, value in values.items() if name != SEAL})


def why_broken(values: Mapping[str, Any]) -> str:
    """Return why a document is not as it was written, or "" when it is."""
    if SEAL not in values:
        return f"{SEAL}: required, but not given"
    expected = digest(values)
    if values[SEAL] != expected:
        return (
            f"{SEAL}: must be the hash of the other fields, {expected}, got {values[SEAL]}: "
            "a field was changed after the file was written"
        )
    return ""
