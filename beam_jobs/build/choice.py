"""Choice: which version a build makes, or which one is there already.

Input: config, hash of the input, and the numbers that the user asks for. Output: a
`Chosen`. A version that was made from the same config, input and code is not built
again.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from beam_jobs.build import directory, spans
from beam_jobs.config import BuildConfig
from beam_jobs.contracts import layout, manifest, settings
from beam_jobs.contracts.fingerprint import source_fingerprint
from beam_jobs.contracts.locations import Location
from beam_jobs.errors import DataError, NothingNewError
from beam_jobs.storage import files

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class MadeFrom:
    """Hashes of what a version is made from. Equal hashes give an equal version.

    Attributes:
        config_sha256: hash of the config.
        source_sha256: hash of the catalogs, the content of their files, and earlier
            spans.
        code_sha256: hash of the code.
    """

    config_sha256: str
    source_sha256: str
    code_sha256: str

    @property
    def marker(self) -> str:
        """The three hashes in one line."""
        return f"{self.config_sha256} {self.source_sha256} {self.code_sha256}"


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The version that a build makes, or finds.

    Attributes:
        output_root: folder that holds the spans.
        span: number of its span.
        version: its number.
        made_from: what it is made from.
        content_sha256: hash of the catalogs and of the content of their files.
        earlier: `scenes.txt` files of earlier spans, whose scenes are left out.
        is_new_span: whether it begins a span after others.
        is_there: whether it exists and was made from the same things.
    """

    output_root: Location
    span: int
    version: int
    made_from: MadeFrom
    content_sha256: str
    earlier: tuple[Location, ...] = ()
    is_new_span: bool = False
    is_there: bool = False

    @property
    def target(self) -> Location:
        """Directory of the version."""
        return layout.version_dir(self.output_root, self.span, self.version)


def choose(
    config: BuildConfig,
    output_root: Location,
    content_sha256: str,
    *,
    span: int | spans.SpanWord,
    version: int | None,
) -> Chosen:
    """Return the version to build, or the one that is there; arguments as for `build`.

    Raises:
        NothingNewError: a new span is asked for, but the newest was built from the same
            config, input and code.
        DataError: the version exists and is asked for by its number.
    """
    earlier: list[Location] = []
    is_new_span = False
    if not isinstance(span, int):
        number = spans.number_of(output_root, span)
        is_new_span = span == "new" and number > 1
        earlier = spans.earlier_scene_files(output_root, number)
        if is_new_span:
            newest = choose(config, output_root, content_sha256, span="newest", version=None)
            if newest.is_there:
                raise NothingNewError(
                    f"{newest.target}: was built from the same scenes, so there is no new one",
                    "nothing_new",
                )
        span = number
    made_from = _made_from(config, content_sha256, earlier)
    is_there = False
    if version is None:
        version, is_there = _next_version(output_root, span, made_from)
    chosen = Chosen(
        output_root=output_root,
        span=span,
        version=version,
        made_from=made_from,
        content_sha256=content_sha256,
        earlier=tuple(earlier),
        is_new_span=is_new_span,
        is_there=is_there,
    )
    if not is_there and directory.is_taken(chosen.target):
        raise DataError(
            f"{chosen.target}: the version exists and is never overwritten; choose another number",
            "version_exists",
        )
    return chosen


def _next_version(output_root: Location, span: int, made_from: MadeFrom) -> tuple[int, bool]:
    """Return the number of a version, and whether that version exists already.

    It exists when the newest version of the span was made from the same things.
    """
    existing = [version for other, version in layout.list_versions(output_root) if other == span]
    if not existing:
        return 1, False
    # On an object store, a job that was killed after it had moved the manifest leaves
    # its building directory behind.
    files.delete_tree(str(layout.building_dir(output_root, span, existing[-1])))
    newest = layout.version_dir(output_root, span, existing[-1])
    if _read_made_from(newest) == made_from:
        _LOGGER.info("%s was built from the same config, input and code; nothing to do", newest)
        return existing[-1], True
    return existing[-1] + 1, False


def _read_made_from(version_path: Location) -> MadeFrom | None:
    """Return the hashes of a version; None if its manifest has another format."""
    try:
        found = manifest.read(version_path)
    except manifest.FormatError:
        return None
    return MadeFrom(
        config_sha256=found.config_sha256,
        source_sha256=found.source_sha256,
        code_sha256=found.code_sha256,
    )


def _made_from(config: BuildConfig, content_sha256: str, earlier: Sequence[Location]) -> MadeFrom:
    """Return the hashes of what a version will be made from."""
    source_sha256 = content_sha256
    if earlier:
        source_sha256 = settings.sha256([content_sha256, spans.scene_files_sha256(earlier)])
    return MadeFrom(
        config_sha256=settings.sha256(content_config(config)),
        source_sha256=source_sha256,
        code_sha256=source_fingerprint(("beam_jobs",)),
    )


def find_newest(config: BuildConfig, output_root: Location) -> Location | None:
    """Return the newest version of the newest span, if it has this config.

    Its input and code may be others.
    """
    versions = layout.list_versions(output_root)
    newest = layout.version_dir(output_root, *versions[-1]) if versions else None
    made_from = None if newest is None else _read_made_from(newest)
    if made_from is None or made_from.config_sha256 != settings.sha256(content_config(config)):
        return None
    return newest


def content_config(config: BuildConfig) -> dict[str, Any]:
    """Return the config without settings that do not change the output."""
    # The number of workers changes no byte of a version.
    values: dict[str, Any] = settings.to_dict(config)
    del values["shards"]["num_workers"]
    return values
