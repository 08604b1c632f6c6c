"""Checks of the data that refuse a claim check before anything is trained.

Versions and the claim -> nothing, or an error of one line. Trainings take most of the
time, and what these checks find would otherwise show only after them.
"""

from __future__ import annotations

from pathlib import Path

from beam_jobs.contracts import layout
from beam_jobs.errors import DataError
from models.intervals import MIN_UNITS
from models.scores.units import units_of
from pipeline.claim_check import label_subsets, published_arms
from pipeline.claim_check.config import ClaimConfig, is_published
from pipeline.claim_check.jobs import SCORED
from pipeline.training_jobs import Version


def check_classes(task: str, version: Version) -> None:
    """Refuse classes that no arm can learn, and splits whose scores say nothing.

    Raises:
        DataError: test has a class that train lacks, or eval or test has fewer than two
            classes.
    """
    counts = version.manifest.num_pixels_per_class
    names = _class_names(version)
    absent = {split: absent_classes(version, split) for split in ("train", *SCORED)}
    for number, name in enumerate(names):
        if name in absent["train"] and name not in absent["test"]:
            raise DataError(
                f"{version.path}: task {task!r}: class {name!r} has "
                f"{counts['test'][str(number)]} pixels in test and none in train, so it cannot be "
                "learned: add labels or another split",
                "class_absent",
            )
    for split in SCORED:
        if len(names) - len(absent[split]) < 2:
            raise DataError(
                f"{version.path}: task {task!r}: no {split} patch holds "
                f"{' or '.join(map(repr, absent[split]))}, and a score needs two classes: label "
                "more, or choose another split.seed",
                "class_absent",
            )


def absent_classes(version: Version, split: layout.Split) -> list[str]:
    """Return the names of the classes of which a split has no pixel."""
    counts = version.manifest.num_pixels_per_class.get(split, {})
    return [name for n, name in enumerate(_class_names(version)) if not counts.get(str(n))]


def check_fractions(claim: ClaimConfig, task: str, version: Version) -> None:
    """Refuse shares of the labels that are less than one patch, in every cell.

    Raises:
        DataError: see `num_labelled`.
    """
    for cell in claim.cells(task):
        label_subsets.num_labelled(cell.fraction, version.manifest.num_examples["train"], task)


def check_published(claim: ClaimConfig, task: str, version: Version) -> None:
    """Refuse arms of published weights that do not fit the task.

    Raises:
        SettingsError: see `published_arms.check`.
    """
    needed = {sensor for cell in claim.cells(task) for sensor in cell.sensors}
    for arm in filter(is_published, claim.arms):
        published_arms.check(arm, tuple(sorted(needed)), version.manifest)


def check_units(claim: ClaimConfig, task: str, version: Version) -> None:
    """Refuse labels whose units are too few to be drawn or counted.

    Raises:
        DataError: the test patches are of fewer than `MIN_UNITS` units, patches have no
            event and the claim draws or counts events, or a shard is damaged.
    """
    path = Path(version.path)
    label_subsets.check_draw(path, claim.draw)
    origins = label_subsets.read_origins(path, "test")
    try:
        units = units_of(origins, claim.unit)
    except ValueError as error:
        raise DataError(f"{path}: claim.unit is {claim.unit}, but {error}", "bad_item") from error
    if units.count < MIN_UNITS:
        finer = "" if units.name == "block" else ", or count by claim.unit: block"
        raise DataError(
            f"{path}: the test patches of {task!r} are of {units.count} {units.name}s, and an "
            f"interval needs at least {MIN_UNITS}: label more scenes or give test a larger share "
            f"(split){finer}",
            "bad_item",
        )


def _class_names(version: Version) -> tuple[str, ...]:
    schema = version.manifest.schema
    return schema.class_names if schema else ()
