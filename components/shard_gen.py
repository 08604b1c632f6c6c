"""ShardExampleGen: ImportExampleGen that takes whole versions only.

Span and version are chosen by TFX's driver, which knows patterns of paths and nothing
of manifests; on an object store it may see a version whose objects are still being
moved. The executor looks before it reads. Called by `examples.py`.
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
from beam_jobs.errors import DataError


class Executor(executor.Executor):
    """ImportExampleGen's, after `check_whole`."""

    def Do(  # noqa: N802 - TFX names it
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Refuses a version that is not whole, else imports it.

        Raises:
            DataError: see `check_whole`.
        """
        input_config = Input()
        proto_utils.json_to_proto(
            exec_properties[standard_component_specs.INPUT_CONFIG_KEY], input_config
        )
        # By now the driver has filled span and version in: span-1/version-2/train/*.
        version_path = input_config.splits[0].pattern.rsplit("/", 2)[0]
        check_whole(f"{exec_properties[standard_component_specs.INPUT_BASE_KEY]}/{version_path}")
        super().Do(input_dict, output_dict, exec_properties)


def check_whole(version_dir: str) -> None:
    """Refuses a version directory without a manifest, or with other shards than its manifest names.

    Raises:
        DataError: with what is missing or too much.
    """
    try:
        named = set(manifest.read(version_dir).shards)
    except FileNotFoundError as error:
        raise DataError(
            f"{error}; the newest version must be whole: wait for the build that is moving it, or run that build again",
            "unfinished_version",
        ) from error
    found = {
        f"{split}/{path.name}"
        for split in layout.SPLITS
        for path in (locations.locate(version_dir) / split).glob("*")
    }
    if found != named:
        raise DataError(
            f"{version_dir}: must hold the shards its manifest names; missing are {sorted(named - found)[:3]}, not named are "
            f"{sorted(found - named)[:3]}",
            "unfinished_version",
        )


class ShardExampleGen(ImportExampleGen):
    """ImportExampleGen with the executor above."""

    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)
