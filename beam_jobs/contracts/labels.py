"""Label schemas (the meaning of label ids) and the remaps between them.

A label raster is uint8, and 255 means ignore. All files with labels name their schema.
Only the remaps in this module and those that a task writes down itself
(`label_target.py`) exist, so ids of one schema are never taken for ids of another.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IGNORE = 255
"""Label id of pixels that losses and metrics do not count."""
_COLOR = re.compile(r"#[0-9a-fA-F]{6}")
_CLASS_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


@dataclass(frozen=True, kw_only=True)
class LabelClass:
    """One class of a schema, as configs, manifests and model cards hold it.

    Attributes:
        id: label id of the class.
        name: name of the class: letters, digits, _ and -, first a letter.
        color: color in maps, #rrggbb.
    """

    id: int
    name: str
    color: str

    def __post_init__(self) -> None:
        if not 0 <= self.id < IGNORE:
            raise ValueError(f"the id of a class must be within 0-{IGNORE - 1}, got {self.id}")
        if not _CLASS_NAME.fullmatch(self.name):
            raise ValueError(
                "the name of a class must be letters, digits, _ and -, first a letter, "
                f"got {self.name!r}"
            )
        if not _COLOR.fullmatch(self.color):
            raise ValueError(
                f"the color of class {self.name!r} must be #rrggbb in quotes, got {self.color!r}"
            )


@dataclass(frozen=True, kw_only=True)
class LabelSchema:
    """Names and colours of label ids.

    Attributes:
        name: name of the schema, as in `terrapair:label_schema` of a STAC asset.
        classes: id -> class name. Ids of model outputs are 0..K-1 (see `is_dense`); ids
            of other schemas may have gaps.
        colors: id -> color in maps, #rrggbb.
        source: web page that defines the schema.
    """

    name: str
    classes: Mapping[int, str]
    colors: Mapping[int, str]
    source: str

    @property
    def num_classes(self) -> int:
        """Number of classes K."""
        return len(self.classes)

    @property
    def is_dense(self) -> bool:
        """Whether the ids are 0..K-1, as a model needs them."""
        return sorted(self.classes) == list(range(len(self.classes)))

    @property
    def class_names(self) -> tuple[str, ...]:
        """Class names in the order of their ids."""
        return tuple(self.classes[i] for i in sorted(self.classes))

    @property
    def entries(self) -> tuple[LabelClass, ...]:
        """The classes in the order of their ids."""
        return tuple(
            LabelClass(id=i, name=self.classes[i], color=self.colors[i])
            for i in sorted(self.classes)
        )

    def class_id(self, key: str | int) -> int:
        """Return the id of a class that is given by its name or its id.

        Raises:
            ValueError: the schema has no such class.
        """
        text = str(key).strip()
        if re.fullmatch("[0-9]+", text) and int(text) in self.classes:
            return int(text)
        for i, name in self.classes.items():
            if name == text:
                return i
        known = ", ".join(f"{i} {name}" for i, name in sorted(self.classes.items()))
        raise ValueError(f"no class {text!r} in label schema {self.name!r}; known: {known}")


def _schema(name: str, source: str, classes: dict[int, tuple[str, str]]) -> LabelSchema:
    return LabelSchema(
        name=name,
        source=source,
        classes={i: title for i, (title, _) in classes.items()},
        colors={i: color for i, (_, color) in classes.items()},
    )


def _dense(name: str, schema: LabelSchema) -> LabelSchema:
    """Return `schema` with ids 0..K-1, which a model can output; the order stays."""
    order = sorted(schema.classes)
    return LabelSchema(
        name=name,
        source=schema.source,
        classes={new: schema.classes[old] for new, old in enumerate(order)},
        colors={new: schema.colors[old] for new, old in enumerate(order)},
    )


def _to_dense(schema: LabelSchema) -> dict[int, int]:
    return {old: new for new, old in enumerate(sorted(schema.classes))}


WATER = _schema(
    "water",
    "https://github.com/cloudtostreet/Sen1Floods11",
    {0: ("dry", "#d9c9a3"), 1: ("water", "#1f5fbf")},
)
DYNAMIC_WORLD = _schema(
    "dynamic_world",
    "https://developers.google.com/earth-engine/datasets/catalog/GOOGLE_DYNAMICWORLD_V1",
    {
        0: ("water", "#419bdf"),
        1: ("trees", "#397d49"),
        2: ("grass", "#88b053"),
        3: ("flooded_vegetation", "#7a87c6"),
        4: ("crops", "#e49635"),
        5: ("shrub_and_scrub", "#dfc35a"),
        6: ("built", "#c4281b"),
        7: ("bare", "#a59b8f"),
        8: ("snow_and_ice", "#b39fe1"),
    },
)
WORLDCOVER = _schema(
    "worldcover",
    "https://developers.google.com/earth-engine/datasets/catalog/ESA_WorldCover_v200",
    {
        10: ("tree_cover", "#006400"),
        20: ("shrubland", "#ffbb22"),
        30: ("grassland", "#ffff4c"),
        40: ("cropland", "#f096ff"),
        50: ("built_up", "#fa0000"),
        60: ("bare_sparse_vegetation", "#b4b4b4"),
        70: ("snow_and_ice", "#f0f0f0"),
        80: ("permanent_water", "#0064c8"),
        90: ("herbaceous_wetland", "#0096a0"),
        95: ("mangroves", "#00cf75"),
        100: ("moss_and_lichen", "#fae6a0"),
    },
)
TERRAMESH_LULC = _schema(
    "terramesh_lulc",
    "https://huggingface.co/datasets/ibm-esa-geospatial/TerraMesh",
    {
        1: ("water", "#419bdf"),
        2: ("trees", "#397d49"),
        3: ("flooded_vegetation", "#7a87c6"),
        4: ("crops", "#e49635"),
        5: ("built", "#c4281b"),
        6: ("bare", "#a59b8f"),
        7: ("snow_and_ice", "#b39fe1"),
        8: ("clouds", "#616161"),
        9: ("rangeland", "#dfc35a"),
    },
)
IGBP17 = _schema(
    "igbp17",
    "https://developers.google.com/earth-engine/datasets/catalog/MODIS_061_MCD12Q1",
    {
        1: ("evergreen_needleleaf_forest", "#05450a"),
        2: ("evergreen_broadleaf_forest", "#086a10"),
        3: ("deciduous_needleleaf_forest", "#54a708"),
        4: ("deciduous_broadleaf_forest", "#78d203"),
        5: ("mixed_forest", "#009900"),
        6: ("closed_shrubland", "#c6b044"),
        7: ("open_shrubland", "#dcd159"),
        8: ("woody_savanna", "#dade48"),
        9: ("savanna", "#fbff13"),
        10: ("grassland", "#b6ff05"),
        11: ("wetlands", "#27ff87"),
        12: ("croplands", "#c24f44"),
        13: ("urban", "#a5a5a5"),
        14: ("cropland_and_natural_vegetation", "#ff6d4c"),
        15: ("snow_and_ice", "#69fff8"),
        16: ("barren", "#f9ffa4"),
        17: ("water", "#1c0dff"),
    },
)
IGBP10 = _schema(
    "igbp10",
    "https://github.com/lukasliebel/dfc2020_baseline",
    {
        1: ("forest", "#009900"),
        2: ("shrubland", "#c6b044"),
        3: ("savanna", "#fbff13"),
        4: ("grassland", "#b6ff05"),
        5: ("wetlands", "#27ff87"),
        6: ("croplands", "#c24f44"),
        7: ("urban", "#a5a5a5"),
        8: ("snow_and_ice", "#69fff8"),
        9: ("barren", "#f9ffa4"),
        10: ("water", "#1c0dff"),
    },
)
IGBP8 = _schema(
    "igbp8",
    "https://github.com/lukasliebel/dfc2020_baseline",
    {
        0: ("forest", "#009900"),
        1: ("shrubland", "#c6b044"),
        2: ("grassland", "#b6ff05"),
        3: ("wetlands", "#27ff87"),
        4: ("croplands", "#c24f44"),
        5: ("urban", "#a5a5a5"),
        6: ("barren", "#f9ffa4"),
        7: ("water", "#1c0dff"),
    },
)
WORLDCOVER_DENSE = _dense("worldcover_dense", WORLDCOVER)
IGBP10_DENSE = _dense("igbp10_dense", IGBP10)
SCHEMAS: dict[str, LabelSchema] = {
    schema.name: schema
    for schema in (
        WATER,
        DYNAMIC_WORLD,
        WORLDCOVER,
        WORLDCOVER_DENSE,
        TERRAMESH_LULC,
        IGBP17,
        IGBP10,
        IGBP10_DENSE,
        IGBP8,
    )
}

_IGBP17_TO_IGBP10 = {
    **dict.fromkeys(range(1, 6), 1),
    **{6: 2, 7: 2, 8: 3, 9: 3, 10: 4, 11: 5, 12: 6, 13: 7, 14: 6, 15: 8, 16: 9, 17: 10},
}
_IGBP10_TO_DENSE = _to_dense(IGBP10)
_IGBP10_TO_IGBP8 = {1: 0, 2: 1, 4: 2, 5: 3, 6: 4, 7: 5, 9: 6, 10: 7}

# (from, to) -> {from id: to id}. Ids without a counterpart are left out on purpose and
# become 255. Flooded vegetation and wetlands, for example, are neither clearly water
# nor clearly dry. IGBP-8 drops savanna and snow, as DFC2020 does.
_REMAPS: dict[tuple[str, str], dict[int, int]] = {
    ("dynamic_world", "water"): {0: 1, 1: 0, 2: 0, 4: 0, 5: 0, 6: 0, 7: 0},
    # The correspondence that Google uses: wetland and mangrove -> flooded vegetation,
    # moss -> bare. Source: GoogleCloudPlatform/python-docs-samples,
    # people-and-planet-ai/land-cover-classification.
    ("worldcover", "dynamic_world"): {
        10: 1,
        20: 5,
        30: 2,
        40: 4,
        50: 6,
        60: 7,
        70: 8,
        80: 0,
        90: 3,
        95: 3,
        100: 7,
    },
    ("worldcover", "water"): {10: 0, 20: 0, 30: 0, 40: 0, 50: 0, 60: 0, 80: 1, 100: 0},
    ("worldcover", "worldcover_dense"): _to_dense(WORLDCOVER),
    # Rangeland joins grass and shrub; its definition ("homogeneous grasses") is closer
    # to grass.
    ("terramesh_lulc", "dynamic_world"): {1: 0, 2: 1, 3: 3, 4: 4, 5: 6, 6: 7, 7: 8, 9: 2},
    ("terramesh_lulc", "water"): {1: 1, 2: 0, 4: 0, 5: 0, 6: 0, 9: 0},
    # The mosaic of cropland and natural vegetation counts as cropland.
    # Source: lukasliebel/dfc2020_baseline.
    ("igbp17", "igbp10"): _IGBP17_TO_IGBP10,
    ("igbp17", "igbp10_dense"): {i: _IGBP10_TO_DENSE[j] for i, j in _IGBP17_TO_IGBP10.items()},
    ("igbp17", "igbp8"): {
        i: _IGBP10_TO_IGBP8[j] for i, j in _IGBP17_TO_IGBP10.items() if j in _IGBP10_TO_IGBP8
    },
    ("igbp17", "water"): {i: int(i == 17) for i in range(1, 18) if i not in (11, 15)},
    ("igbp10", "water"): {i: int(i == 10) for i in range(1, 11) if i not in (5, 8)},
    ("igbp10", "igbp10_dense"): _IGBP10_TO_DENSE,
    ("igbp10", "igbp8"): _IGBP10_TO_IGBP8,
}


def get_schema(name: str) -> LabelSchema:
    """Return the schema with this name.

    Raises:
        ValueError: there is no such schema.
    """
    if name not in SCHEMAS:
        raise ValueError(f"unknown label schema {name!r}; known: {', '.join(SCHEMAS)}")
    return SCHEMAS[name]


def own_schema(name: str, classes: Sequence[LabelClass]) -> LabelSchema:
    """Return the schema of a task's own classes.

    It is passed on by value: in configs, manifests and model cards. No table of schemas
    needs to know it.

    Raises:
        ValueError: the name is empty or that of a known schema, there are fewer than
            two classes, an id or a name comes twice, or the ids are not 0..K-1.
    """
    if not name or name in SCHEMAS:
        raise ValueError(
            "schema must be a name of your own for your classes, not one of "
            f"{', '.join(SCHEMAS)}, got {name!r}"
        )
    ids = [one.id for one in classes]
    for what, counts in (
        ("id", Counter(map(str, ids))),
        ("name", Counter(one.name for one in classes)),
    ):
        ((most, count),) = counts.most_common(1)
        if count > 1:
            raise ValueError(f"classes: each class needs its own {what}, got {most!r} twice")
    if len(ids) < 2 or sorted(ids) != list(range(len(ids))):
        raise ValueError(
            f"classes: at least two are needed, and their ids must be 0, 1, ... without gaps, "
            f"got {sorted(ids)}"
        )
    return LabelSchema(
        name=name,
        source="",
        classes={one.id: one.name for one in classes},
        colors={one.id: one.color for one in classes},
    )


def schema_of(name: str, classes: Sequence[LabelClass] = ()) -> LabelSchema:
    """Return the schema of a config, a manifest or a card.

    Args:
        name: of the schema.
        classes: all of its classes; empty = those of the known schema of this name.

    Raises:
        ValueError: there are no classes and no known schema has this name, or see
            `own_schema`.
    """
    if not classes or (name in SCHEMAS and SCHEMAS[name].entries == tuple(classes)):
        return get_schema(name)
    return own_schema(name, classes)


def remap_table(source: LabelSchema, target: LabelSchema) -> npt.NDArray[np.uint8]:
    """Return the lookup table from ids of `source` to ids of `target`.

    Returns:
        uint8 [256]; 255 where an id has no counterpart.

    Raises:
        ValueError: there is no remap between the two schemas.
    """
    table = np.full(256, IGNORE, np.uint8)
    if source.name == target.name:
        pairs = {i: i for i in source.classes}
    elif (source.name, target.name) in _REMAPS:
        pairs = _REMAPS[source.name, target.name]
    else:
        raise ValueError(
            f"no remap from label schema {source.name!r} to {target.name!r} is defined"
        )
    for from_id, to_id in pairs.items():
        table[from_id] = to_id
    return table


def remap(
    label: npt.NDArray[np.uint8], source: LabelSchema, target: LabelSchema
) -> npt.NDArray[np.uint8]:
    """Return `label` uint8 [H, W] in ids of `target`; 255 stays 255.

    Raises:
        ValueError: `label` has an id that `source` lacks, or there is no remap.
    """
    unknown = sorted(set(np.unique(label).tolist()) - set(source.classes) - {IGNORE})
    if unknown:
        raise ValueError(
            f"label ids {unknown} are not in schema {source.name!r} "
            f"(ids {sorted(source.classes)} and 255)"
        )
    return remap_table(source, target)[label]


def ignore(
    label: npt.NDArray[np.uint8], schema: LabelSchema, class_names: Collection[str]
) -> npt.NDArray[np.uint8]:
    """Return `label` uint8 [H, W] with the pixels of some classes set to 255.

    Args:
        label: ids of `schema` and 255.
        schema: schema of the label.
        class_names: names of the classes to ignore.
    """
    ids = [i for i, name in schema.classes.items() if name in class_names]
    return np.where(np.isin(label, ids), np.uint8(IGNORE), label)


def majority_label(label: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Return the most frequent label id of each patch, int64 [B].

    Args:
        label: label ids uint8 [B, H, W], 255 = ignore.

    Returns:
        One id per patch. Pixels with 255 do not count. The lowest id wins a tie. A
        patch without any labelled pixel gets 255.
    """
    counts = np.stack(
        [np.bincount(patch.ravel(), minlength=IGNORE + 1)[:IGNORE] for patch in label]
    )
    return np.where(counts.any(axis=1), counts.argmax(axis=1), IGNORE)
