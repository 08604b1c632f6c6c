"""DataManifest: brings the manifest of the data that ExampleGen took to the Trainer.

Examples artifact -> HyperParameters artifact whose one file holds the manifest as JSON.
ExampleGen resolves the newest span and version only at run time, so a scheduled run
must look the manifest up then, not when the pipeline is compiled. `HyperParameters` is
the one input of TFX's Trainer that hands a JSON document to `run_fn`
(`fn_args.hyperparameters`).
"""

# No `from __future__ import annotations` here: TFX's @component reads the annotations
# as objects, not as text.
import json
import os

from tfx.dsl.io import fileio
from tfx.types import standard_artifacts

from beam_jobs.build.verify import verify
from beam_jobs.contracts import manifest
from beam_jobs.contracts.locations import locate
from components.tfx_types import InputArtifact, OutputArtifact, Parameter, component

MANIFEST_FILE = "manifest.json"


def resolve_version(examples: standard_artifacts.Examples) -> tuple[int, int]:
    """(span, version) that ExampleGen stamped on its output as custom properties; Kubeflow may pass them as text.

    Raises:
        ValueError: the artifact carries none, so it does not come from a span/version
            pattern.
    """
    # Not `examples.span`: the declared property reads 0 when it was never set, which
    # would pass as a span.
    for name in ("span", "version"):
        if not examples.has_custom_property(name):
            raise ValueError(f"{examples.uri}: the Examples artifact carries no {name}")
    span, version = (int(float(examples.get_custom_property(name))) for name in ("span", "version"))
    return span, version


def write_manifest(value: manifest.Manifest, folder: str) -> None:
    """Writes `value` as the only file of `folder`, as the Trainer's executor expects of hyperparameters."""
    fileio.makedirs(folder)
    with fileio.open(os.path.join(folder, MANIFEST_FILE), "w") as file:
        file.write(value.to_json())


def read_manifest(folder: str) -> manifest.Manifest:
    """The manifest of a DataManifest's artifact."""
    return manifest.from_json((locate(folder) / MANIFEST_FILE).read_text())


def manifest_from_hyperparameters(hyperparameters: dict[str, object] | None) -> manifest.Manifest:
    """The manifest that `run_fn` receives as `fn_args.hyperparameters`.

    Raises:
        ValueError: the Trainer was wired without a DataManifest.
    """
    if not hyperparameters:
        raise ValueError(
            "fn_args.hyperparameters is empty: wire the Trainer's hyperparameters to DataManifest"
        )
    return manifest.from_json(json.dumps(hyperparameters))


@component
def DataManifest(  # noqa: N802, D417 - TFX names a component after its function
    examples: InputArtifact[standard_artifacts.Examples],
    manifest: OutputArtifact[standard_artifacts.HyperParameters],
    data_root: Parameter[str],
) -> None:
    """Copies the manifest of the resolved version into `manifest`.

    Args:
        examples: output of ImportExampleGen over `span-{SPAN}/version-{VERSION}`.
        data_root: the folder that ExampleGen reads from.
    """
    span, version = resolve_version(examples)
    # On Kubeflow nothing of ours runs before ExampleGen; what it read must not reach a
    # Trainer when it was not whole.
    found = verify(f"{data_root}/span-{span}/version-{version}", with_hashes=False)
    write_manifest(found, manifest.uri)
