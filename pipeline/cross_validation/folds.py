"""Data of the folds: labels of each fold, and pairs where encoders are pretrained.

RunConfig -> the config and the versions of each fold, checked before anything is
trained.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from beam_jobs.build.driver import Execution, build_labels, build_pairs
from beam_jobs.build.verify import verify
from beam_jobs.contracts.locations import Location
from beam_jobs.errors import DataError
from beam_jobs.terminal.progress import Progress
from pipeline.config import RunConfig, TaskConfig
from pipeline.data_build import execution_of, resolve_catalogs
from pipeline.training_jobs import Version, check_overlaps, read_version


@dataclass(frozen=True, kw_only=True)
class Fold:
    """One fold: a run of its own with its own folder.

    Attributes:
        config: the run, with the fold's folder as root and its blocks as test split.
        labels: task -> version of its labelled patches.
        pairs: version of the pairs; None if no encoder is pretrained.
    """

    config: RunConfig
    labels: dict[str, Version]
    pairs: Version | None = None

    @property
    def number(self) -> int:
        """Number of the fold, from 0."""
        return self.config.pairs.split.fold

    @property
    def name(self) -> str:
        """Name of its folder, and in messages."""
        return f"fold-{self.number}"

    @property
    def folder(self) -> str:
        """Folder of its data and trainings."""
        return self.config.root


def build_folds(
    config: RunConfig,
    tasks: Sequence[TaskConfig],
    progress: Progress,
    *,
    with_pairs: bool,
    verify_files: bool = False,
) -> list[Fold]:
    """Build the data of all folds, or find it, and check it.

    Labels come first: they are cheap, and they show whether the folds can work.

    Args:
        config: the run, with folds.
        tasks: whose labels to build.
        progress: shows the stages.
        with_pairs: build the pairs of each fold, too.
        verify_files: see `build_data`.

    Raises:
        DataError: bad input; a fold without patches of a split; too few train patches
            for a batch; a class that no fold tests; or pairs and labels that overlap.
    """
    catalogs = resolve_catalogs(
        config.catalogs, config.catalogs_dir, progress.stage, progress.update
    )
    execution = replace(
        execution_of(config, config.catalogs_dir, progress.update, verify_files=verify_files),
        # Test splits are pooled, so a class need not be in each of them.
        class_splits=("train",),
    )
    read_shards = config.verify_hashes or verify_files
    build = partial(_build, catalogs=catalogs, progress=progress, read_shards=read_shards)
    folds = []
    for fold_config in fold_configs(config):
        labels = {}
        for task in tasks:
            labels[task.name] = build(fold_config, task, execution=execution)
            # All input files have just been read.
            execution = replace(execution, verify_files=False)
        folds.append(Fold(config=fold_config, labels=labels))
    for task in tasks:
        check_labels(task, folds)
    if not with_pairs:
        return folds
    folds = [replace(fold, pairs=build(fold.config, None, execution=execution)) for fold in folds]
    for fold in folds:
        _check_pairs(fold, progress)
    return folds


def fold_configs(config: RunConfig) -> Iterator[RunConfig]:
    """Yield the run of each fold: a folder of its own, and its blocks as test split."""
    split = config.pairs.split
    for number in range(split.folds):
        yield replace(
            config,
            root=f"{config.folds_dir}/fold-{number}",
            # All folds share the catalogs and the record of their files.
            local_root=config.local_root or config.root,
            pairs=replace(config.pairs, split=replace(split, fold=number)),
        )


def _build(
    config: RunConfig,
    task: TaskConfig | None,
    *,
    catalogs: Sequence[Location],
    progress: Progress,
    read_shards: bool,
    execution: Execution,
) -> Version:
    """Return the version of a fold's labels, or of its pairs if there is no task."""
    name = f"fold-{config.pairs.split.fold} of {config.pairs.split.folds}"
    if task is None:
        with progress.stage(f"{name}: build-pairs"):
            path = build_pairs(config.pairs, catalogs, config.pairs_dir, execution=execution)
    else:
        with progress.stage(f"{name}: build-labels ({task.name})"):
            path = build_labels(
                task.build_config(config.pairs),
                catalogs,
                config.task_dir(task),
                execution=execution,
            )
    with progress.stage(f"verify {path}"):
        verify(path, read_shards, on_progress=progress.update)
    return read_version(path)


def check_labels(task: TaskConfig, folds: Sequence[Fold]) -> None:
    """Refuse folds that cannot be trained on or do not test every class together.

    Raises:
        DataError: a fold has less than a batch to train on, or no fold tests a class
            that the task needs.
    """
    batch = task.segment.global_batch_size
    for fold in folds:
        num_train = fold.labels[task.name].manifest.num_examples["train"]
        if num_train < batch:
            raise DataError(
                f"{fold.labels[task.name].path}: {fold.name} of task {task.name!r} has {num_train} "
                f"train patches, but segment.global_batch_size is {batch}: lower it, or label more",
                "empty_split",
            )
    for name in task.label.needed_classes:
        key = str(task.label.label_schema.class_id(name))
        counts = [
            fold.labels[task.name].manifest.num_pixels_per_class.get("test", {}).get(key, 0)
            for fold in folds
        ]
        if not any(counts):
            raise DataError(
                f"task {task.name!r}: class {name!r} has no pixel in the test split of any of the "
                f"{len(folds)} folds, so no score tells of it: label some within blocks, use a "
                "larger split.block_size_km, or leave it out of label.required_classes",
                "class_absent",
            )


def _check_pairs(fold: Fold, progress: Progress) -> None:
    """Refuse pairs that show test or eval ground of the fold to its encoder."""
    if fold.pairs is None:
        return
    for name, labels in fold.labels.items():
        with progress.stage(f"{fold.name}: audit ({name})"):
            check_overlaps(
                fold.pairs,
                labels,
                fold.config.pairs.split.buffer_m,
                f"{fold.folder}/overlaps-{name}.json",
            )
