"""RunConfig: the settings of one run, composed of the configs of the other packages.

One YAML file -> one RunConfig, with what the card of its published encoder says. The
checks here are those that concern several packages.
"""

from __future__ import annotations

import dataclasses
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from beam_jobs.collect.config import WatchConfig
from beam_jobs.config import BuildConfig, CatalogConfig, LabelConfig, QualityConfig
from beam_jobs.contracts import settings
from beam_jobs.contracts.bands import Sensor
from beam_jobs.contracts.locations import Location
from beam_jobs.contracts.windows import WindowConfig
from models.config import PretrainConfig
from models.distillation.config import DistillConfig
from models.drift.config import DriftConfig
from models.encoder_probe.config import ProbeConfig
from models.gate.config import GateConfig
from models.published.canary import CanaryConfig
from models.segment_config import SegmentConfig
from pipeline import published_encoder, task_files
from pipeline.claim_check.config import ClaimConfig
from pipeline.data_config import DataConfig
from pipeline.kubeflow.config import KubeflowConfig
from pipeline.metadata_store import MetadataConfig
from pipeline.runners.retrying import RetryConfig
from pipeline.service.notification import NotifyConfig

_NAME = re.compile(r"[a-z][a-z0-9-]*$")
_VARIABLE = re.compile(r"\$\{([A-Z][A-Z0-9_]*)\}")
_RESERVED = ("encoder", "pairs", "pretrain")
"""Names of components and folders that tasks must not have."""


@dataclass(frozen=True, kw_only=True)
class TaskConfig:
    """One downstream task.

    Pairing, patches, split and shards are those of the pairs.

    Attributes:
        name: name of the published model, and part of the component ids.
        label: label of the patches.
        segment: how the segmenter is trained.
        quality: which labelled patches are kept; None = as for the pairs.
        distill: how the segmenter first learns from an earlier task, on the unlabeled
            pairs; None = it does not.
        min_mean_iou: the model is published only when its mean IoU on the test split is
            at least this, 0-1. 0 = no threshold: then only a model that is compared
            with one in service is published, unless `min_iou` has a threshold.
        min_iou: class name -> least IoU of that class, 0-1.
        gate: how much the model may lose against the one in service.
    """

    name: str
    label: LabelConfig
    segment: SegmentConfig
    quality: QualityConfig | None = None
    distill: DistillConfig | None = None
    min_mean_iou: float = 0.0
    min_iou: dict[str, float] = field(default_factory=dict)
    gate: GateConfig = field(default_factory=GateConfig)

    def __post_init__(self) -> None:
        if not _NAME.match(self.name) or self.name in _RESERVED:
            raise ValueError(
                f"name must be lower case letters, digits and -, none of {_RESERVED}, "
                f"got {self.name!r}"
            )
        if self.segment.label_schema != self.label.schema:
            raise ValueError(
                f"segment.label_schema must be label.schema {self.label.schema!r}, "
                f"got {self.segment.label_schema!r}"
            )
        if self.segment.schema != self.label.label_schema:
            raise ValueError(
                "segment.label_classes must be label.classes; leave them out of segment, "
                f"got {', '.join(self.segment.schema.class_names)}"
            )
        if self.label.partner == "optional" and set(self.segment.sensors) != {
            self.label.label_from
        }:
            raise ValueError(
                f"label.partner optional gives patches of {self.label.label_from} alone, "
                f"but segment.sensors are {', '.join(self.segment.sensors)}"
            )
        classes = self.label.label_schema.class_names
        for key, value in {
            "min_mean_iou": self.min_mean_iou,
            **{f"min_iou.{k}": v for k, v in self.min_iou.items()},
        }.items():
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"{key} must be within 0-1, got {value}")
        try:
            self.gate.check_classes(tuple(classes))
        except ValueError as error:
            raise ValueError(f"gate.{error}") from error
        for name in self.min_iou:
            if name not in classes:
                raise ValueError(
                    f"min_iou.{name}: no class of {self.label.schema!r}; known: "
                    f"{', '.join(classes)}"
                )
            if name in self.label.ignore:
                raise ValueError(
                    f"min_iou.{name}: the class is in label.ignore, so its IoU is not measured"
                )

    @property
    def has_thresholds(self) -> bool:
        """Whether the model must reach any score before it is published."""
        return self.min_mean_iou > 0 or any(value > 0 for value in self.min_iou.values())

    def build_config(self, pairs: BuildConfig) -> BuildConfig:
        """Return the config of this task's `build-labels`.

        It is the config of the pairs with the task's label and quality. The split must
        be that of the pairs: with another one, a task could be tested on a block that
        pretraining saw. Gaps of a sensor that the task does not use refuse no patch.
        """
        label = dataclasses.replace(self.label, sensors=self.label.sensors or self.segment.sensors)
        return dataclasses.replace(pairs, label=label, quality=self.quality or pairs.quality)


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One run.

    Attributes:
        name: name of the pipeline.
        root: folder of the run: data, metadata, published models, report; path, or URI
            of an object store.
        local_root: folder of this machine for what cannot be on an object store: the
            SQLite file of ML Metadata, simulated scenes and catalogs of folders. Empty
            = root, which must then be a path, except for `compile`.
        catalogs: sources of scenes.
        earth_engine: places at which `retrain` asks Earth Engine for newer scenes;
            what it fetched is one more source. None = it asks nobody.
        pretrain: contrastive pretraining; None = the tasks start from `encoder`.
        encoder: published encoder that all tasks start from, in place of `pretrain`:
            folder of a version that a run or `import-weights` published, or sensor ->
            folder. The architecture of the tasks is that of its card. There is no
            probe and no gate, and pairs are built only for tasks with `distill`. None =
            the run pretrains its own, or each task names its encoders or needs none.
        tasks: downstream tasks, in the order in which they run.
        warm_start: pretraining starts from the encoder published last, if there is one,
            and keeps its normalization. It is meant for runs that are repeated with
            more data. False = from scratch each time.
        pairs: pairing, patches, split and shards, of the pairs and of all labels.
        data: how the data jobs are done: on which runner, and for which span.
        spans: train on the train patches of several spans together, `{last: 6}` for the
            newest six or `all`, and judge on eval and test of every span. None = the
            newest span alone.
        span: read this span in place of the newest, when a run is done node by node;
            None = the newest. It excludes `spans`.
        probe: thresholds that the pretrained encoder must reach before it is published
            and segmenters start from it.
        container_image: image of the tasks of Kubeflow; needed only by `compile`.
        kubeflow: resources, secrets and volumes of these tasks.
        num_beam_workers: processes of the Beam jobs that TFX starts; 1 = no process
            besides the runner's own.
        claim: what `claim-check` compares; None = not used.
        canary: limits of the trial of each model before it is published.
        drift: how far a new span may be from the data of the models in service.
        notify: who is told how a `retrain` ended; None = nobody.
        metadata: database that holds ML Metadata, for runs on many machines; None = the
            SQLite file of the run.
        retries: of each component, after a transient fault of a store or database.
        verify_hashes: read all shards before a run and compare their SHA-256; otherwise
            only their sizes are compared.
    """

    name: str
    root: str
    catalogs: tuple[CatalogConfig, ...]
    tasks: tuple[TaskConfig, ...]
    pretrain: PretrainConfig | None = None
    encoder: str | dict[Sensor, str] | None = field(default=None, metadata=settings.INPUT_PATH)
    pairs: BuildConfig = field(default_factory=BuildConfig)
    data: DataConfig = field(default_factory=DataConfig)
    spans: WindowConfig | Literal["all"] | None = None
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    container_image: str = ""
    num_beam_workers: int = 1
    verify_hashes: bool = False
    warm_start: bool = False
    claim: ClaimConfig | None = None
    canary: CanaryConfig = field(default_factory=CanaryConfig)
    drift: DriftConfig = field(default_factory=DriftConfig)
    notify: NotifyConfig | None = None
    metadata: MetadataConfig | None = None
    retries: RetryConfig = field(default_factory=RetryConfig)
    kubeflow: KubeflowConfig = field(default_factory=KubeflowConfig)
    span: int | None = None
    local_root: str = ""
    earth_engine: WatchConfig | None = None

    def __post_init__(self) -> None:
        if not self.name or not self.root:
            raise ValueError(
                f"name and root must not be empty, got {self.name!r} and {self.root!r}"
            )
        if "://" in self.local_root:
            raise ValueError(
                f"local_root must be a folder of this machine, got {self.local_root!r}"
            )
        if self.span is not None and (self.span < 1 or self.spans is not None):
            raise ValueError(
                f"span must be at least 1, and without spans, got {self.span} and {self.spans}"
            )
        if self.num_beam_workers < 1:
            raise ValueError(f"num_beam_workers must be at least 1, got {self.num_beam_workers}")
        if self.pairs.label is not None:
            raise ValueError("pairs.label must be absent: labels belong to tasks")
        if len({task.name for task in self.tasks}) != len(self.tasks):
            raise ValueError(
                f"tasks must have distinct names, got {[task.name for task in self.tasks]}"
            )
        names = [task.name for task in self.tasks]
        # Without tasks the probe uses no labels, and without pretraining there is none:
        # `probe.task` does not matter.
        if self.pretrain is not None and names and self.probe.task not in ("", *names):
            raise ValueError(
                f"probe.task must be one of the tasks {names}, got {self.probe.task!r}"
            )
        if self.claim is not None and self.claim.primary.task not in names:
            raise ValueError(
                f"claim.primary.task must be one of the tasks {names}, "
                f"got {self.claim.primary.task!r}"
            )
        self._check_starts()
        self._check_teachers()
        pretrained = [] if self.pretrain is None else [self.pretrain.encoder]
        for encoder in (*pretrained, *(task.segment.encoder for task in self.tasks)):
            if self.pairs.patch.size_px % encoder.stride:
                raise ValueError(
                    f"pairs.patch.size_px must be a multiple of the stride {encoder.stride} of "
                    f"{encoder.backbone!r}, got {self.pairs.patch.size_px}"
                )

    def _check_starts(self) -> None:
        """Check that every task has an encoder to start from, of its architecture."""
        if self.pretrain is None:
            self._check_without_pretraining()
            return
        if self.encoder is not None:
            raise ValueError(
                "encoder and pretrain exclude each other, got both: remove pretrain "
                f"(--set pretrain=null) to start the tasks from {self.encoder!r}, or encoder to "
                "pretrain one"
            )
        for i, task in enumerate(self.tasks):
            if task.segment.needs_pretraining and task.segment.encoder != self.pretrain.encoder:
                raise ValueError(
                    f"tasks[{i}].segment.encoder must be pretrain.encoder {self.pretrain.encoder}, "
                    f"got {task.segment.encoder}"
                )

    def _check_without_pretraining(self) -> None:
        if not self.tasks:
            raise ValueError(
                "tasks must hold at least one task in a run without pretrain, got none: add a "
                "task, or pretrain an encoder"
            )
        for i, task in enumerate(self.tasks):
            if task.segment.needs_pretraining:
                raise ValueError(f"tasks[{i}]: {published_encoder.NO_ENCODER}")
        if self.warm_start:
            raise ValueError(
                "warm_start must be false in a run without pretrain, got true: `encoder` names "
                "what the tasks start from"
            )
        if self.claim is not None:
            raise ValueError(
                "claim compares pretrainings and needs pretrain, got none: give pretrain, and "
                "name published encoders as arms, weights:<folder>"
            )

    def _check_teachers(self) -> None:
        for i, task in enumerate(self.tasks):
            if task.distill is None:
                continue
            # A teacher must come before its students, so there can be no cycle.
            before = {other.name: other.segment for other in self.tasks[:i]}
            if task.distill.teacher not in before:
                raise ValueError(
                    f"tasks[{i}].distill.teacher must be one of the tasks before it, "
                    f"{list(before)}, got {task.distill.teacher!r}"
                )
            try:
                task.distill.check_teacher(task.segment, before[task.distill.teacher])
            except ValueError as error:
                raise ValueError(f"tasks[{i}].{error}") from error

    @property
    def own_pretrain(self) -> PretrainConfig:
        """The run's `pretrain`, for work that only runs with one do.

        Raises:
            SettingsError: the run starts from a published encoder.
        """
        if self.pretrain is None:
            raise settings.SettingsError("pretrain: needed, but not given")
        return self.pretrain

    @property
    def window(self) -> WindowConfig | None:
        """The spans that are read together; None = the newest alone."""
        return WindowConfig() if self.spans == "all" else self.spans

    @property
    def needs_pairs(self) -> bool:
        """Whether something is trained on unlabeled pairs."""
        return self.pretrain is not None or any(task.distill is not None for task in self.tasks)

    @property
    def probe_task(self) -> str:
        """Task whose labels the encoder is probed with; empty without tasks."""
        return (self.probe.task or self.tasks[0].name) if self.tasks else ""

    @property
    def pairs_dir(self) -> str:
        """Folder where `build-pairs` writes span-N/version-M and ExampleGen reads."""
        return f"{self._base}/data/pairs"

    def task_dir(self, task: TaskConfig) -> str:
        """Return the folder where `build-labels` writes the versions of a task."""
        return f"{self._base}/data/{task.name}"

    @property
    def catalogs_dir(self) -> str:
        """Folder of simulated scenes and of the catalogs of data set folders."""
        return f"{self._local_base}/catalogs"

    @property
    def fetched_dir(self) -> str:
        """Folder of what `retrain` fetched from Earth Engine."""
        return f"{self.catalogs_dir}/earth_engine"

    @property
    def artifacts_dir(self) -> str:
        """Folder where TFX puts the artifacts of every execution."""
        return f"{self._base}/tfx"

    @property
    def checkpoints_dir(self) -> str:
        """Folder of the checkpoints of unfinished trainings."""
        return f"{self._base}/checkpoints"

    @property
    def metadata_path(self) -> str:
        """SQLite file of ML Metadata, which a run without `metadata` has."""
        return f"{self._local_base}/metadata.sqlite"

    @property
    def inventory_dir(self) -> str:
        """Folder that lists the files of artifacts, beside ML Metadata."""
        base = self._local_base if self.metadata is None else self._base
        return f"{base}/artifact_files"

    @property
    def serving_dir(self) -> str:
        """Base folder of the published models."""
        return f"{self._base}/serving"

    @property
    def claim_dir(self) -> str:
        """Folder of the trainings and the result of `claim-check`."""
        return f"{self._base}/claim"

    @property
    def folds_dir(self) -> str:
        """Folder of the folds and the result of `cross-validate`."""
        return f"{self._base}/folds"

    @property
    def report_dir(self) -> str:
        """Folder of the pictures of the report."""
        return f"{self._base}/report"

    @property
    def _base(self) -> str:
        return self.root.rstrip("/")

    @property
    def _local_base(self) -> str:
        return (self.local_root or self.root).rstrip("/")


def load_run_config(
    path: str | Path, overrides: Sequence[str], environment: Mapping[str, str]
) -> RunConfig:
    """Read a run's YAML file and the files of the tasks that it uses.

    Args:
        path: the file; `${NAME}` in a text value stands for that environment variable.
        overrides: `a.b=c` each.
        environment: environment variables. Only `__main__` reads those of the process.

    Raises:
        SettingsError: the file is missing or not YAML, names an unset variable, or its
            keys or values are wrong, or its published encoder does not fit.
        DamagedFileError: the card of the published encoder is not what was written.
    """
    values = settings.read_yaml(path, "config")
    files: dict[int, Path] = {}
    try:
        # Overrides are applied to the run's file, before the files of tasks are read.
        # Their paths start at the current folder, as those of any command.
        values = _resolve_paths(task_files.name_groups(values or {}), Path(path).parent)
        values = settings.apply_overrides(values, overrides)
        expanded = task_files.expand(values, Path(path).parent)
        files = expanded.files
        values = published_encoder.start_tasks(_fill(expanded.values, environment, ""))
        config = settings.from_dict(RunConfig, values)
        _check_bands(config)
        return config
    except settings.SettingsError as error:
        # The wrong key may be in the task's file, so name that too.
        of = next(
            (
                f" (tasks[{i}] uses {file})"
                for i, file in files.items()
                if f"tasks[{i}]" in str(error)
            ),
            "",
        )
        raise settings.SettingsError(f"{path}: {error}{of}") from error


def load_stored_config(
    path: Location, overrides: Sequence[str], environment: Mapping[str, str]
) -> RunConfig:
    """Read settings that a run wrote; they may be on an object store.

    Raises:
        SettingsError: see `load_run_config`; the message names `path`.
    """
    return load_text(path.read_text(), str(path), overrides, environment)


def load_text(
    text: str, name: str, overrides: Sequence[str], environment: Mapping[str, str]
) -> RunConfig:
    """Read settings from YAML or JSON in a text.

    Args:
        text: the settings. Their paths are absolute.
        name: of the text, for messages.
        overrides: see `load_run_config`.
        environment: see `load_run_config`.

    Raises:
        SettingsError: see `load_run_config`; the message has `name` for the file.
    """
    with tempfile.TemporaryDirectory(prefix="terrapair-") as scratch:
        # A file may name others, so the settings are read from a file.
        file = Path(scratch) / "config.yaml"
        file.write_text(text)
        try:
            return load_run_config(file, overrides, environment)
        except settings.SettingsError as error:
            raise settings.SettingsError(str(error).replace(str(file), name)) from error


def _check_bands(config: RunConfig) -> None:
    """Refuse a published encoder of other bands than the patches of the run."""
    starts = published_encoder.read_starts(config.encoder)
    used = {
        sensor
        for task in config.tasks
        for sensor, path in task.segment.encoder_paths.items()
        if sensor in starts and path == starts[sensor].folder
    }
    published_encoder.check_bands(starts, sorted(used), config.pairs.patch)


def _resolve_paths(values: Any, folder: Path) -> Any:
    """Return the run's values with the paths of inputs resolved against its folder."""
    resolved = settings.resolve_paths(RunConfig, values, folder)
    # A task may have a `split`, which RunConfig does not know.
    if isinstance(values, Mapping) and isinstance(values.get("tasks"), list):
        resolved["tasks"] = [
            task_files.resolve_paths(task, folder) if isinstance(task, Mapping) else task
            for task in values["tasks"]
        ]
    return resolved


def _fill(value: Any, environment: Mapping[str, str], path: str) -> Any:
    if isinstance(value, dict):
        return {
            key: _fill(item, environment, f"{path}.{key}" if path else str(key))
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_fill(item, environment, f"{path}[{i}]") for i, item in enumerate(value)]
    if not isinstance(value, str):
        return value
    for name in _VARIABLE.findall(value):
        if name not in environment:
            raise settings.SettingsError(
                f"{path}: the environment variable {name} is not set: export it, or write the "
                "value into the config"
            )
    return _VARIABLE.sub(lambda match: environment[match.group(1)], value)
