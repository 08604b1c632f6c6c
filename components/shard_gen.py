"""ShardExampleGen: ImportExampleGen that accepts only complete versions.

TFX's driver chooses span and version by path patterns and does not read manifests. On
an object store it may choose a version whose objects are still being moved. So the
executor checks the manifest before it reads the shards.
"""

from __future__ import annotations

from typing import Any

from tfx import types
from tfx.components.example_gen.import_example_gen import executor
from tfx.components.example_gen.import_example_gen.component import ImportExampleGen
from tfx.dsl.components.base import executor_spec
from tfx.proto.example_gen_pb2 import Input
from tfx.types import standard_component_specs
from tfx.utils import proto_utils

from beam_jobs.contracts import layout, locations, manifest
from beam_jobs.contracts.shards import named_damage
from beam_jobs.errors import DataError


class Executor(executor.Executor):
    """ImportExampleGen's executor, with `check_complete` before it."""

    def Do(  # noqa: N802 - TFX names it
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Import a version if it is complete.

        Raises:
            DataError: see `check_complete`.
            DamagedShardError: a shard cannot be read whole.
        """
        input_config = Input()
        proto_utils.json_to_proto(
            exec_properties[standard_component_specs.INPUT_CONFIG_KEY], input_config
        )
        # The driver has filled in span and version: span-1/version-2/train/*.
        version_path = input_config.splits[0].pattern.rsplit("/", 2)[0]
        version_dir = f"{exec_properties[standard_component_specs.INPUT_BASE_KEY]}/{version_path}"
        found = check_complete(version_dir)
        with named_damage((f"{version_dir}/{name}" for name in found.shards), found):
            super().Do(input_dict, output_dict, exec_properties)


def check_complete(version_dir: str) -> manifest.Manifest:
    """Return the manifest of a version that has all its shards and no others.

    Raises:
        DataError: the message names shards that are missing or not in the manifest.
    """
    try:
        read = manifest.read(version_dir)
    except FileNotFoundError as error:
        raise DataError(
            f"{error}; the newest version must be complete: wait for the build that is writing it, "
            "or run that build again",
            "unfinished_version",
        ) from error
    named = set(read.shards)
    found = {
        f"{split}/{path.name}"
        for split in layout.SPLITS
        for path in (locations.locate(version_dir) / split).glob("*")
    }
    if found != named:
        raise DataError(
            f"{version_dir}: must hold exactly the shards of its manifest; missing are "
            f"{sorted(named - found)[:3]}, not named are {sorted(found - named)[:3]}",
            "unfinished_version",
        )
    return read


class ShardExampleGen(ImportExampleGen):
    """ImportExampleGen with the executor above."""

    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)
