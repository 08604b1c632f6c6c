"""Checks of the labels of a build that need more than one scene.

Input: the label config, the catalogs and the counts of pixels per class. Output:
nothing, a warning or a DataError. Before the build: vector files and their place. After
it: every class that the task needs has pixels in train and in test, and enough labels
reach train.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import shapely

from beam_jobs.catalogs import catalog
from beam_jobs.config import LabelConfig, VectorConfig
from beam_jobs.contracts import labels, locations
from beam_jobs.contracts.label_target import VectorColumns
from beam_jobs.contracts.labels import LabelSchema
from beam_jobs.contracts.manifest import Manifest
from beam_jobs.contracts.reasons import Refusal
from beam_jobs.data_card import few_labels
from beam_jobs.data_card.contents import Contents
from beam_jobs.errors import DataError
from beam_jobs.scenes import footprints, label_rasters, label_vectors
from beam_jobs.scenes.label_assets import LabelSource
from beam_jobs.scenes.scene import SENSOR_OF_CONSTELLATION, Scene, constellation_of, from_item

StrPath = str | os.PathLike[str]
_LOGGER = logging.getLogger(__name__)
_JUDGED = ("train", "test")
"""Splits in which every needed class must occur."""
_MAX_COUNTED_PIXELS = 200_000_000
"""Pixels of label files that are counted for a message; takes some seconds."""
_MAX_LISTED = 10


def with_hash(config: LabelConfig) -> LabelConfig:
    """Return the config with the hash of its vector file.

    Raises:
        DataError: the file is missing.
    """
    if config.vector is None:
        return config
    digest = hashlib.sha256()
    for path in label_vectors.files_of(config.vector.path):
        try:
            with open(path, "rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        except OSError as error:
            raise DataError(
                f"{path}: cannot read the label's polygons: {error.strerror}; in a YAML file a "
                f"path starts at the folder of that file, here it is {Path(path).absolute()}",
                "missing_file",
            ) from error
    return replace(config, vector=replace(config.vector, sha256=digest.hexdigest()))


def check_unchanged(config: LabelConfig) -> None:
    """Refuse a build whose vector file changed while it was used.

    Raises:
        DataError: it did.
    """
    if config.vector is not None and with_hash(config) != config:
        raise DataError(
            f"{config.vector.path}: the polygons changed while they were used: start the build "
            "again",
            "bad_vector",
        )


def check_vectors(config: LabelConfig, catalog_paths: Sequence[StrPath]) -> None:
    """Check the vector file of all scenes, and that each vector file meets a scene.

    Raises:
        DataError: a file breaks a rule (see `label_vectors.check_file`), or all its
            polygons and points lie outside the scenes that name it.
    """
    if config.vector is not None:
        label_vectors.check_file(_source(config.vector, config), config.target)
    boxes: dict[tuple[str, VectorColumns], shapely.STRtree] = {}
    met: set[tuple[str, VectorColumns]] = set()
    for scene in _labelled_scenes(config, catalog_paths):
        source = label_of(scene, config)
        if source is None or source.vector is None:
            continue
        key = source.path, source.vector
        if key not in boxes:
            label_vectors.check_file(source, config.target)
            boxes[key] = shapely.STRtree(label_vectors.lonlat_boxes(*key))
        if key not in met and boxes[key].query(footprints.on_globe(scene.footprint)).size:
            met.add(key)
        # Most files meet the first scene, and a catalog may list a million.
        if config.vector is not None and met:
            return
    for key, tree in boxes.items():
        if key in met:
            continue
        path, extent = key[0], shapely.total_bounds(tree.geometries)
        raise DataError(
            f"{path}: all polygons and points lie outside all scenes of {config.label_from}: they "
            f"are at {footprints.degrees(tuple(extent))}; check their coordinate system",
            "label_elsewhere",
        )


def label_of(scene: Scene, config: LabelConfig) -> LabelSource | None:
    """Return the label of a scene: that of the config for all scenes, else its own."""
    return scene.label if config.vector is None else _source(config.vector, config)


def check_scene(scene: Scene, config: LabelConfig | None) -> Refusal | None:
    """Return (reason, detail) if a sound label file has no label of the scene.

    Raises:
        DataError: the file breaks a rule, or a raster that the item names lies
            elsewhere.
    """
    if config is None or scene.sensor != config.label_from or scene.label is None:
        return None
    if scene.label.vector is not None:
        why = label_vectors.check_place(scene, config.target)
        return ("no_label", why) if why else None
    try:
        label_rasters.check_place(scene)
    except DataError as error:
        if error.reason == "unreadable_raster" and label_vectors.is_vector(scene.label.path):
            raise DataError(
                f"{scene.label.path}: the label holds polygons or points: name the column with "
                "their classes as terrapair:label_column",
                "bad_vector",
            ) from error
        raise
    return None


def absent_classes(
    config: LabelConfig, num_pixels: Mapping[tuple[str, int], int], splits: Collection[str]
) -> dict[str, list[str]]:
    """Return the splits without a pixel of each class that the task needs.

    Classes that no split lacks are left out. For the arguments see `check_classes`.
    """
    schema = config.label_schema
    missing = {
        name: [
            split
            for split in _JUDGED
            if split in splits and not num_pixels.get((split, schema.class_id(name)))
        ]
        for name in config.needed_classes
    }
    return {name: where for name, where in missing.items() if where}


def check_classes(
    config: LabelConfig,
    catalog_paths: Sequence[StrPath],
    num_pixels: Mapping[tuple[str, int], int],
    splits: Collection[str],
) -> None:
    """Check that every class the task needs has pixels in train and in test.

    A mask with 0 and 255, for example, has no water under the schema `water`, since 255
    means no label. A model that was trained and tested on it never says water, and its
    accuracy is close to 1.

    Args:
        config: says which classes are needed.
        catalog_paths: catalogs of the build.
        num_pixels: (split, label id) -> number of pixels in the shards.
        splits: splits that the build needs.

    Raises:
        DataError: a class has no pixel. The message holds the values of the files.
    """
    schema = config.label_schema
    missing = absent_classes(config, num_pixels, splits)
    if not missing:
        _warn_of_masks(config, catalog_paths)
        return
    listed = "; ".join(
        f"class {name!r} ({schema.class_id(name)}) has no pixel in {' and in '.join(where)}"
        for name, where in missing.items()
    )
    left = [name for name in config.needed_classes if name not in missing]
    fewer = f", or set label.required_classes to [{', '.join(left)}]" if len(left) > 1 else ""
    raise DataError(
        f"{', '.join(map(str, catalog_paths))}: {listed}. "
        f"{_found_values(config, catalog_paths)} "
        f"Correct the values, label more or use another split.seed{fewer}",
        "class_absent",
    )


def warn_of_few(catalog_paths: Sequence[StrPath], found: Manifest, contents: Contents) -> None:
    """Warn in one line, with advice, where little of what is labelled reaches train.

    Args:
        catalog_paths: catalogs of the build.
        found: manifest of the version that was built.
        contents: counts over its patches.
    """
    if text := few_labels.advice(found, contents):
        _LOGGER.warning("%s: %s", ", ".join(map(str, catalog_paths)), text)


def _source(vector: VectorConfig, config: LabelConfig) -> LabelSource:
    return LabelSource(
        path=vector.path,
        schema=vector.schema or config.schema,
        nodata=None,
        vector=vector.columns,
    )


def _labelled_scenes(config: LabelConfig, catalog_paths: Sequence[StrPath]) -> Iterator[Scene]:
    """Yield the scenes that have a label; items that break a rule are left out.

    The build rejects those with their reason.
    """
    for path in catalog_paths:
        for item in catalog.read_items(path):
            asset = (item.get("assets") or {}).get("label")
            constellation = constellation_of(item.get("properties") or {})
            if SENSOR_OF_CONSTELLATION.get(constellation) != config.label_from:
                continue
            if config.vector is None and not asset:
                continue
            try:
                yield from_item(item, locations.parse(path))
            except DataError:
                continue


@dataclass(frozen=True, kw_only=True)
class _Mask:
    """A label file with 255 and without the highest class of its schema."""

    path: str
    schema: LabelSchema
    values: list[int]


@dataclass(kw_only=True)
class _Values:
    """Values of label files.

    Attributes:
        num_pixels: value -> number of pixels, or of features of vector files.
        what: what is counted: "pixels" or "features".
        num_files: number of files that were read.
        masks: files with 255 and without the highest class of their schema.
    """

    num_pixels: Counter[str] = field(default_factory=Counter)
    what: str = "pixels"
    num_files: int = 0
    masks: list[_Mask] = field(default_factory=list)


def _warn_of_masks(config: LabelConfig, catalog_paths: Sequence[StrPath]) -> None:
    """Warn of masks of 0 and 255 among label files that have both classes.

    A clear scene without water may hold 0 and 255 too, so this is no error.
    """
    if config.vector is not None or len(config.label_schema.classes) > 2:
        return
    found = _count_values(config, catalog_paths)
    found.masks = [mask for mask in found.masks if len(mask.schema.classes) == 2]
    if found.masks:
        _LOGGER.warning("%s:%s", ", ".join(map(str, catalog_paths)), _mask_hint(found))


def _found_values(config: LabelConfig, catalog_paths: Sequence[StrPath]) -> str:
    """Return which values the label files hold, for a message."""
    found = _count_values(config, catalog_paths)
    ordered = found.num_pixels.most_common(_MAX_LISTED)
    values = ", ".join(f"{value} ({count} {found.what})" for value, count in ordered) or "nothing"
    more = len(found.num_pixels) - len(ordered)
    text = f"The {found.num_files} label files hold {values}{f' and {more} more' if more else ''}."
    return f"{text}{_mask_hint(found)}"


def _count_values(config: LabelConfig, catalog_paths: Sequence[StrPath]) -> _Values:
    """Return the values of the label files, at most `_MAX_COUNTED_PIXELS`."""
    found, seen = _Values(), set()
    for scene in _labelled_scenes(config, catalog_paths):
        source = label_of(scene, config)
        if source is None or source.path in seen:
            continue
        if found.num_pixels.total() > _MAX_COUNTED_PIXELS:
            break
        seen.add(source.path)
        try:
            if source.vector is not None:
                found.what = "features"
                found.num_pixels += label_vectors.count_classes(source)
            else:
                _count(source, found, config)
        except DataError:
            # The scene is rejected with this error.
            continue
        found.num_files += 1
    return found


def _mask_hint(found: _Values) -> str:
    """Return the cure for masks of 0 and 255, "" if there are none."""
    if not found.masks:
        return ""
    mask = found.masks[0]
    classes = mask.schema.classes
    highest = max(classes)
    named = {value: classes.get(value, "?") for value in mask.values if value != labels.IGNORE}
    num_others = len(found.masks) - 1
    others = f", as do {num_others} others" if num_others else ""
    mapping = ", ".join(
        f"{value}: {name}" for value, name in {**named, 255: classes[highest]}.items()
    )
    return (
        f" {mask.path} holds 255 and no {highest}{others}: 255 means no label."
        f" If it means {classes[highest]}, add"
        f" terrapair:label_values: {{{mapping}}} to the label asset of the items."
    )


def _count(source: LabelSource, found: _Values, config: LabelConfig) -> None:
    """Add the values of a raster, and note a mask of 255 without the top class."""
    counts = label_rasters.count_values(source)
    found.num_pixels += counts
    is_own = source.schema == config.schema
    schema = config.label_schema if is_own else labels.SCHEMAS.get(source.schema)
    if schema is None or source.values or str(labels.IGNORE) not in counts:
        return
    if str(max(schema.classes)) not in counts:
        values = sorted(int(value) for value in counts if value.lstrip("-").isdigit())
        found.masks.append(_Mask(path=source.path, schema=schema, values=values))
