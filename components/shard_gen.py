"""ShardExampleGen: ImportExampleGen that accepts only complete versions, and windows.

TFX's driver chooses span and version by path patterns and does not read manifests. On
an object store it may choose a version whose objects are still being moved. So the
executor checks the manifest before it reads the shards.

The driver knows one span only. For a window of several spans the executor reads the
shards of all its versions, and writes the window into the Examples artifact.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
from google.protobuf import json_format, struct_pb2
from tfx import types
from tfx.components.example_gen.component import FileBasedExampleGen
from tfx.components.example_gen.import_example_gen import executor
from tfx.components.example_gen.import_example_gen.component import ImportExampleGen
from tfx.dsl.components.base import executor_spec
from tfx.proto.example_gen_pb2 import CustomConfig, Input
from tfx.proto.range_config_pb2 import RangeConfig, StaticRange
from tfx.types import artifact_utils, standard_component_specs
from tfx.utils import proto_utils

from beam_jobs.contracts import layout, locations, manifest, set_aside, windows
from beam_jobs.contracts.manifest import WindowEntry
from beam_jobs.contracts.shards import named_damage
from beam_jobs.errors import DataError
from components.shard_readers import make_beam_pipeline
from models.publishing import labels

WINDOW_PROPERTY = "window"
"""Custom property of the Examples artifact: the versions that were read, as JSON."""
_NEWEST = f"span-{{SPAN}}/version-{{VERSION}}/{layout.MANIFEST_NAME}"
"""Pattern by which TFX's driver finds the newest version for a window that the executor
looks up.

It names the manifest, because a span of a window may have no shard of some split.
"""


@dataclass(frozen=True, kw_only=True)
class Spans:
    """The spans that an ExampleGen reads together.

    Attributes:
        config: how many spans.
        window: the versions, where they are known when the pipeline is built. They are
            a part of the cache key. None: the executor looks them up.
        accepted: spans that the executor puts back first, if they were set aside.
    """

    config: windows.WindowConfig
    window: tuple[WindowEntry, ...] | None = None
    accepted: tuple[int, ...] = ()


class Executor(executor.Executor):
    """ImportExampleGen's executor, for complete versions and for windows."""

    _make_beam_pipeline = make_beam_pipeline
    _shards: Mapping[str, Sequence[str]] | None = None
    """Split -> shards of a window; None: TFX's patterns tell the shards."""

    def Do(  # noqa: N802 - TFX names it
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Import a version, or all versions of a window, if they are complete.

        Raises:
            DataError: see `check_complete`.
            WindowError: the window has no version.
            DamagedShardError: a shard cannot be read whole.
        """
        input_config = Input()
        proto_utils.json_to_proto(
            exec_properties[standard_component_specs.INPUT_CONFIG_KEY], input_config
        )
        root = exec_properties[standard_component_specs.INPUT_BASE_KEY]
        window = read_window(root, exec_properties)
        if window is None:
            # The driver has filled in span and version: span-1/version-2/train/*.
            version_path = input_config.splits[0].pattern.rsplit("/", 2)[0]
            folders = [f"{root}/{version_path}"]
        else:
            folders = [str(windows.version_dir(root, entry)) for entry in window]
            self._shards = {
                split: [str(path) for path in windows.shard_paths(root, window, split)]
                for split in layout.SPLITS
            }
            # The transform below gets the pattern of a split, and nothing else of it.
            for split in input_config.splits:
                split.pattern = split.name
            exec_properties = {
                **exec_properties,
                standard_component_specs.INPUT_CONFIG_KEY: proto_utils.proto_to_json(input_config),
            }
        with ExitStack() as stack:
            for folder in folders:
                found = check_complete(folder)
                files = [f"{folder}/{name}" for name in found.shards]
                stack.enter_context(named_damage(files, found))
            super().Do(input_dict, output_dict, exec_properties)
        if window is not None:
            artifact_utils.get_single_instance(
                output_dict[standard_component_specs.EXAMPLES_KEY]
            ).set_string_custom_property(WINDOW_PROPERTY, windows.to_json(window))

    def GetInputSourceToExamplePTransform(self) -> Any:  # noqa: N802
        """Return the transform from a split's pattern to its serialized examples.

        TFX calls the result with the exec properties and the pattern.
        """
        shards = self._shards
        if shards is None:
            return super().GetInputSourceToExamplePTransform()
        return lambda exec_properties, pattern: _ReadShards(shards[pattern])


@dataclass
class _ReadShards(beam.PTransform):
    """Read the records of TFRecord files, which may have any path."""

    paths: Sequence[str]

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection[bytes]:
        """Read all files."""
        return pipeline | beam.Create(self.paths) | beam.io.ReadAllFromTFRecord()


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

    def __init__(
        self, input_base: str, spans: Spans | None = None, span: int | None = None
    ) -> None:
        """Read the newest span, a window of spans, or one span by its number.

        Args:
            input_base: folder that holds `span-N/version-M`.
            spans: the spans to read together; None = the newest.
            span: its number, without `spans`; its newest version is read.
        """
        splits = [
            Input.Split(name=split, pattern=_pattern(split, spans)) for split in layout.SPLITS
        ]
        # ImportExampleGen's own constructor takes no custom config.
        FileBasedExampleGen.__init__(
            self,
            input_base=input_base,
            input_config=Input(splits=splits),
            range_config=None if span is None else _only(span),
            custom_config=None if spans is None else _custom_config(spans),
        )


def _only(span: int) -> RangeConfig:
    """Return the setting by which TFX's driver takes one span."""
    return RangeConfig(static_range=StaticRange(start_span_number=span, end_span_number=span))


def _pattern(split: str, spans: Spans | None) -> str:
    """Return the pattern of the files whose content is a part of the cache key."""
    if spans is None:
        return layout.split_pattern(split)
    if spans.window is None:
        return _NEWEST
    # Not the newest version there is: a refused one must not change the key.
    newest = spans.window[-1]
    return f"{layout.version_dir('', newest.span, newest.version)}/{layout.MANIFEST_NAME}"


def _custom_config(spans: Spans) -> CustomConfig:
    """Return the spans as TFX carries settings of an executor; see `read_window`."""
    values = struct_pb2.Struct()
    values.update(
        {
            "last": spans.config.last,
            "window": None if spans.window is None else windows.to_json(spans.window),
            "accepted": list(spans.accepted),
        }
    )
    config = CustomConfig()
    config.custom_config.Pack(values)
    return config


def read_window(root: str, exec_properties: Mapping[str, Any]) -> tuple[WindowEntry, ...] | None:
    """Return the versions of the window that the executor reads; None: it reads one.

    Args:
        root: folder that holds the spans.
        exec_properties: of the component.

    Raises:
        WindowError: the window has no version.
    """
    text = exec_properties.get(standard_component_specs.CUSTOM_CONFIG_KEY)
    if not text:
        return None
    config, packed = CustomConfig(), struct_pb2.Struct()
    proto_utils.json_to_proto(text, config)
    config.custom_config.Unpack(packed)
    values = json.loads(json_format.MessageToJson(packed))
    if values["window"] is not None:
        return windows.from_json(values["window"])
    last = values["last"]
    # Numbers of a Struct are floating point.
    set_aside.put_back(root, [int(span) for span in values["accepted"]], labels.now())
    return windows.resolve(root, windows.WindowConfig(last=None if last is None else int(last)))
