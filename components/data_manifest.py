"""DataManifest: give the Trainer the manifest of the data that ExampleGen read.

Examples artifact -> HyperParameters artifact with the manifest as its only file.
ExampleGen chooses the newest span and version at run time, so the manifest must be
looked up then too. For a window of several spans it is their merged manifest.
`HyperParameters` is the one input of TFX's Trainer that passes a JSON document to
`run_fn` (`fn_args.hyperparameters`).
"""

# No `from __future__ import annotations` here: TFX's @component reads the annotations
# as objects, not as text.
import json
from collections.abc import Sequence

from tfx.types import standard_artifacts

from beam_jobs.build.verify import verify, verify_window
from beam_jobs.contracts import layout, manifest, windows
from beam_jobs.contracts.locations import locate, staged
from beam_jobs.errors import RefusedError
from beam_jobs.judging import audit
from components.artifacts import read_document
from components.shard_gen import WINDOW_PROPERTY
from components.tfx_types import InputArtifact, OutputArtifact, Parameter, component

MANIFEST_FILE = "manifest.json"


def resolve_version(examples: standard_artifacts.Examples) -> tuple[int, int]:
    """Return (span, version) that ExampleGen wrote into its output's properties.

    Raises:
        ValueError: a property is missing, so no span/version pattern was read.
    """
    # Not `examples.span`: the declared property reads 0 when it was never set, which
    # would pass as a span.
    for name in ("span", "version"):
        if not examples.has_custom_property(name):
            raise ValueError(
                f"{examples.uri}: the Examples artifact has no property {name!r}: "
                "read the data through a span/version pattern"
            )
    # Kubeflow may pass numbers as text.
    span, version = (int(float(examples.get_custom_property(name))) for name in ("span", "version"))
    return span, version


def resolve_window(
    examples: standard_artifacts.Examples, data_root: str
) -> tuple[manifest.WindowEntry, ...]:
    """Return the versions that ExampleGen read; one, if it read no window.

    Args:
        examples: output of ShardExampleGen.
        data_root: folder that it reads from.

    Raises:
        FileNotFoundError: the version has no manifest.
        ValueError: see `resolve_version`.
    """
    if examples.has_custom_property(WINDOW_PROPERTY):
        return windows.from_json(examples.get_string_custom_property(WINDOW_PROPERTY))
    folder = layout.version_dir(data_root, *resolve_version(examples))
    return windows.entries_of(manifest.read(folder))


def write_manifest(value: manifest.Manifest, folder: str) -> None:
    """Write `value` as the only file of `folder`, as the Trainer's executor expects."""
    with staged(locate(folder) / MANIFEST_FILE) as file:
        file.write_text(value.to_json())


def read_manifest(folder: str) -> manifest.Manifest:
    """Return the manifest of a DataManifest's artifact."""
    return read_document(folder, MANIFEST_FILE, manifest.from_json)


def manifest_from_hyperparameters(hyperparameters: dict[str, object] | None) -> manifest.Manifest:
    """Return the manifest that `run_fn` receives as `fn_args.hyperparameters`.

    Raises:
        ValueError: the Trainer was not wired to a DataManifest.
    """
    if not hyperparameters:
        raise ValueError(
            "fn_args.hyperparameters is empty: wire the Trainer's hyperparameters to DataManifest"
        )
    return manifest.from_json(json.dumps(hyperparameters))


def check_ground(data_root: str, window: Sequence[manifest.WindowEntry], kind: str) -> None:
    """Check that no labelled span trains on ground that another is judged on.

    Raises:
        RefusedError: one does.
    """
    # Pairs judge no published model. OverlapAudit compares them with all labels.
    if kind != "labels" or len(window) < 2:
        return
    folders = {str(windows.version_dir(data_root, entry)): entry for entry in window}
    found = audit.across_spans(
        {folder: manifest.read(folder) for folder in folders},
        [folder for folder, entry in folders.items() if "train" in entry.splits],
    )
    if found:
        first = found[0]
        raise RefusedError(
            f"{data_root}: patch {first.pair_patch_id} of train shows ground of patch "
            f"{first.label_patch_id}, {first.label_split} of another span ({len(found)} overlaps): "
            "give the scenes of both spans the same hold-out or terrapair:split",
            "overlap",
        )


@component
def DataManifest(  # noqa: N802, D417 - TFX names a component after its function
    examples: InputArtifact[standard_artifacts.Examples],
    manifest: OutputArtifact[standard_artifacts.HyperParameters],
    data_root: Parameter[str],
) -> None:
    """Check the versions that ExampleGen read, and write their manifest.

    Args:
        examples: output of ShardExampleGen.
        data_root: the folder that ExampleGen reads from.

    Raises:
        DataError: a version has no manifest, or its shards are not whole.
        WindowError: see `verify_window`.
        RefusedError: a span trains on ground that another is judged on.
    """
    # On Kubeflow no check of ours runs before ExampleGen. This one keeps an incomplete
    # version away from the Trainers.
    if examples.has_custom_property(WINDOW_PROPERTY):
        window = resolve_window(examples, data_root)
        found = verify_window(data_root, window, with_hashes=False)
        check_ground(data_root, window, found.kind)
    else:
        span, version = resolve_version(examples)
        found = verify(f"{data_root}/span-{span}/version-{version}", with_hashes=False)
    write_manifest(found, manifest.uri)
