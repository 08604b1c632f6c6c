"""Verify that the shards of a version are exactly those that its manifest names.

Input: a version directory, which may lie on an object store. Output: its manifest, or a
DataError when a shard is missing, cut short, changed or not named. `verify_window` does
the same for a window of several spans.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from beam_jobs.contracts import layout, locations, manifest, windows
from beam_jobs.contracts.fingerprint import file_sha256
from beam_jobs.contracts.manifest import Manifest, ShardEntry, WindowEntry
from beam_jobs.errors import DataError


def verify(
    version_path: str | Path,
    with_hashes: bool = True,
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> Manifest:
    """Compare the shards with the manifest, and return the manifest.

    Args:
        version_path: the version directory.
        with_hashes: True = read every byte and compare the SHA-256; False = compare
            sizes only, which is much faster.
        on_progress: called with (shards compared, all shards).

    Raises:
        DataError: the manifest is missing or incomplete, or a shard is missing, cut
            short, changed or not named. The message names the first problem.
    """
    root = str(version_path).rstrip("/")
    found = _manifest(root)
    problems = []
    for number, (name, entry) in enumerate(sorted(found.shards.items()), start=1):
        problem = _problem(f"{root}/{name}", entry, with_hashes)
        problems += [problem] if problem else []
        if on_progress is not None:
            on_progress(number, len(found.shards))
    problems += [
        f"{root}/{name}: the manifest does not name it"
        for name in _shards(root)
        if name not in found.shards
    ]
    if problems:
        more = f" ({len(problems)} shards are wrong)" if len(problems) > 1 else ""
        raise DataError(f"{problems[0]}{more}; build the version again", "bad_shard")
    return found


def verify_window(
    root: str,
    window: Sequence[WindowEntry],
    with_hashes: bool = True,
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> Manifest:
    """Verify all versions of a window, and return the manifest of the window.

    Args:
        root: folder that holds the spans.
        window: the versions.
        with_hashes: see `verify`.
        on_progress: called with (shards compared, all shards) of each version.

    Raises:
        DataError: see `verify`, or a split has no patch in any of the versions.
        WindowError: a scene is in two versions, or they have different settings.
    """
    folders = [windows.version_dir(root, entry) for entry in window]
    for folder in folders:
        verify(folder, with_hashes, on_progress=on_progress)
    windows.check_disjoint(root, window)
    found = windows.read(root, window)
    for split in layout.SPLITS:
        if not found.num_examples.get(split):
            raise DataError(
                f"{root}: no patch of split {split!r} in the spans {windows.describe(window)}: add "
                "scenes, or take more spans (spans.last)",
                "empty_split",
            )
    return found


def _manifest(root: str) -> Manifest:
    try:
        return manifest.read(root)
    except FileNotFoundError as error:
        raise DataError(str(error), "no_version") from error
    except manifest.ManifestError as error:
        raise DataError(str(error), "bad_manifest") from error


def _problem(path: str, entry: ShardEntry, with_hashes: bool) -> str:
    """Return what is wrong with a shard; "" = nothing."""
    num_bytes = locations.size(path)
    if num_bytes is None:
        return f"{path}: the shard is missing"
    if num_bytes != entry.num_bytes:
        short = "cut short" if num_bytes < entry.num_bytes else "too long"
        return (
            f"{path}: the shard is {short}: it has {num_bytes} bytes, "
            f"the manifest says {entry.num_bytes}"
        )
    if with_hashes and file_sha256(path) != entry.sha256:
        return f"{path}: the shard has another SHA-256 than the manifest says"
    return ""


def _shards(root: str) -> Iterator[str]:
    """Yield the name below `root` of each file that a reader would take for a shard."""
    for split in layout.SPLITS:
        names = (path.name for path in locations.glob(f"{root}/{split}", "*"))
        yield from (f"{split}/{name}" for name in sorted(names))
