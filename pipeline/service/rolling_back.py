"""Roll back: try an earlier version, put it in service, and tell model servers.

Serving folder, model, version, reason -> the version's folder. A server that follows
version labels reads `models.config`, which is rewritten in each folder of
`serve-config`. A server without labels serves the largest number, so newer versions are
moved aside for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from beam_jobs.contracts import published
from beam_jobs.contracts.errors import ExitCode, TerrapairError
from beam_jobs.contracts.locations import Location
from models.publishing.rollback import Steps, roll_back
from pipeline.serving import following
from pipeline.serving.check import check_versions


class UnfitVersionError(TerrapairError, ValueError):
    """A version that cannot be served; one line."""

    exit_code = ExitCode.REFUSED


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to roll back, and why.

    Attributes:
        serving_dir: base folder of all published models.
        model: the model's folder in it.
        to: version to serve again.
        reason: for the history.
        servers: folders that `serve-config` wrote; empty = no server follows labels.
    """

    serving_dir: str
    model: str
    to: int
    reason: str
    servers: Sequence[Path]


def serve_again(request: Request, environment: Mapping[str, str]) -> Location:
    """Put a version in service again; return its folder.

    Args:
        request: what and why.
        environment: variables of the process that tries the version.

    Raises:
        RollbackError: there is no such version, or no reason.
        UnfitVersionError: it does not load, or answers otherwise than its Keras model.
    """
    model_dir = f"{request.serving_dir.rstrip('/')}/{request.model}"

    def check(version: Location) -> None:
        for result in check_versions([version], environment):
            if not result.is_ok:
                why = result.error or (
                    f"{result.signature} differs from Keras by {result.difference:.1e}"
                )
                raise UnfitVersionError(
                    f"{version}: cannot be served, so nothing was changed; name another version "
                    f"(`terrapair history` lists them): {why}"
                )

    def follow() -> None:
        for folder in request.servers:
            following.follow_labels(
                folder, request.model, published.read_labels(model_dir).versions
            )

    steps = Steps(check=check, follow=follow, withdraw=not request.servers)
    return roll_back(model_dir, request.to, request.reason, steps)
