"""Settings of the Beam jobs: one frozen dataclass per subject.

Units are in the names of the fields, and defaults are only here. `pipeline/config.py`
puts these classes together into the config of a run. The manifest of each version holds
the resolved config and its hash.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from beam_jobs.contracts.bands import (
    S1_DEFAULT_BANDS,
    S2_L2A_BANDS,
    SENSORS,
    ProcessingLevel,
    Sensor,
    check_band_names,
)
from beam_jobs.contracts.label_target import LabelTarget, VectorColumns
from beam_jobs.contracts.labels import LabelClass, LabelSchema, schema_of
from beam_jobs.contracts.settings import INPUT_PATH, REQUIRED_PATH, input_path_unless

FolderLayout = Literal[
    "terramesh",
    "terramesh_shards",
    "bigearthnet",
    "sen1floods11",
    "sen12ms",
    "dfc2020",
    "ssl4eo",
    "ssl4eo_v11",
    "ee_timeseries",
    "ee_tfrecord",
    "stac_items",
]
"""Layouts of folders that the modules in `beam_jobs/catalogs` can read."""


def _check_fraction(name: str, value: float) -> None:
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"{name} must be within 0-1, got {value}")


def _check_positive(name: str, value: float) -> None:
    if not value > 0:
        raise ValueError(f"{name} must be above 0, got {value}")


@dataclass(frozen=True, kw_only=True)
class SimulateConfig:
    """What the simulator writes.

    Attributes:
        num_places: number of places on Earth, spread over real UTM zones.
        num_dates: number of dates per place. Each date gives one Sentinel-1 and one
            Sentinel-2 scene, some hours apart.
        size_px: height and width of a scene in pixels of 10 m.
        nuisance: what hides the classes in radar; see
            `beam_jobs/simulation/simulate.py`.
        shared_edges: give both sensors the same no-data margin. This is a pretext
            shortcut: contrastive training can match pairs by the shape of the margin.
        s2_processing_level: L2A writes the 12 surface bands; L1C writes all 13 bands
            with the path reflectance of the air.
        seed: seed of the random numbers, 0 or above. The same seed gives the same
            bytes.
    """

    num_places: int = 8
    num_dates: int = 3
    size_px: int = 512
    nuisance: Literal["private", "augmentable"] = "private"
    shared_edges: bool = False
    s2_processing_level: ProcessingLevel = "L2A"
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.num_places <= 10_000:
            raise ValueError(f"num_places must be within 1-10000, got {self.num_places}")
        if not 1 <= self.num_dates <= 48:
            raise ValueError(
                "num_dates must be within 1-48 (two years, at least 12 days apart), "
                f"got {self.num_dates}"
            )
        if self.seed < 0:
            raise ValueError(f"seed must be 0 or above, got {self.seed}")
        if self.size_px < 64:
            raise ValueError(f"size_px must be at least 64, got {self.size_px}")


@dataclass(frozen=True, kw_only=True)
class CatalogConfig:
    """One source of scenes.

    Attributes:
        layout: "stac" = a catalog file; one of FolderLayout = a folder of a public data
            set or of Earth Engine exports; "simulated" = the simulator writes the
            scenes first, with the settings in `simulate`.
        path: catalog file or folder. Empty for "simulated", which uses the run's own
            folder.
        split_lists: files that list the scenes or patches of each split; for "sen12ms"
            and "dfc2020" only. Lists inside the folder are found without this setting.
        simulate: settings of the simulator; for "simulated" only.
    """

    layout: Literal["stac", FolderLayout, "simulated"]
    path: str = field(default="", metadata=input_path_unless("layout", "simulated"))
    split_lists: tuple[str, ...] = field(default=(), metadata=INPUT_PATH)
    simulate: SimulateConfig | None = None

    def __post_init__(self) -> None:
        if (self.layout == "simulated") != (self.simulate is not None):
            raise ValueError(
                "simulate goes with layout 'simulated' and only with it, "
                f"got layout {self.layout!r}"
            )
        if self.layout != "simulated" and not self.path:
            raise ValueError(f"path is needed with layout {self.layout!r}")
        if self.layout not in ("stac", "simulated") and "://" in self.path:
            raise ValueError(
                f"path of layout {self.layout!r} must be a folder on a disk, got {self.path!r}: "
                "write a catalog there with `terrapair catalog`, and read that with layout stac"
            )
        if self.split_lists and self.layout not in ("sen12ms", "dfc2020"):
            raise ValueError(
                f"split_lists go with layouts sen12ms and dfc2020 only, got layout {self.layout!r}"
            )


@dataclass(frozen=True, kw_only=True)
class PairingConfig:
    """Which Sentinel-2 scene goes with which Sentinel-1 scene.

    Attributes:
        max_time_gap_hours: largest time between the two scenes. Default 72, because
            floods move within days.
        min_overlap_fraction: smallest overlap, as a share of the smaller footprint.
        max_s2_per_s1: most Sentinel-2 scenes for one Sentinel-1 scene; the nearest in
            time are taken. Default 1, for exports by place. A whole Sentinel-1 frame
            covers up to a dozen Sentinel-2 tiles.
        max_s1_per_s2: most Sentinel-1 passes for one Sentinel-2 scene; the nearest in
            time are taken. None = all passes that chose the scene. Frames of one pass
            count as one pass.
        orbit_preference: which of two Sentinel-1 passes is taken first when both are
            equally near in time; needs `max_s1_per_s2`.
    """

    max_time_gap_hours: float = 72.0
    min_overlap_fraction: float = 0.2
    max_s2_per_s1: int = 1
    max_s1_per_s2: int | None = None
    orbit_preference: Literal["any", "ascending", "descending"] = "any"

    def __post_init__(self) -> None:
        _check_positive("max_time_gap_hours", self.max_time_gap_hours)
        _check_fraction("min_overlap_fraction", self.min_overlap_fraction)
        _check_positive("max_s2_per_s1", self.max_s2_per_s1)
        if self.max_s1_per_s2 is not None:
            _check_positive("max_s1_per_s2", self.max_s1_per_s2)
        elif self.orbit_preference != "any":
            raise ValueError(
                f"orbit_preference {self.orbit_preference!r} needs max_s1_per_s2: "
                "without a limit all passes are taken"
            )


@dataclass(frozen=True, kw_only=True)
class PatchConfig:
    """Size and bands of a patch.

    Attributes:
        size_px: height and width in pixels.
        pixel_size_m: ground size of a pixel of the common grid, in metres.
        s1_bands: bands of `s1`, in the order of its channels.
        s2_bands: bands of `s2`, in the order of its channels.
        s2_processing_level: L1C = top-of-atmosphere reflectance; L2A = surface
            reflectance. One build never mixes the two.
    """

    size_px: int = 64
    pixel_size_m: float = 10.0
    s1_bands: tuple[str, ...] = S1_DEFAULT_BANDS
    s2_bands: tuple[str, ...] = S2_L2A_BANDS
    s2_processing_level: ProcessingLevel = "L2A"

    def __post_init__(self) -> None:
        if self.size_px < 16:
            raise ValueError(f"size_px must be at least 16, got {self.size_px}")
        _check_positive("pixel_size_m", self.pixel_size_m)
        check_band_names("s1", self.s1_bands)
        check_band_names("s2", self.s2_bands)
        if self.s2_processing_level == "L2A" and "B10" in self.s2_bands:
            raise ValueError("s2_bands holds B10, which L2A products do not have")

    def bands(self, sensor: Sensor) -> tuple[str, ...]:
        """Return the band names of `sensor`, in the order of its channels."""
        return {"s1": self.s1_bands, "s2": self.s2_bands}[sensor]


@dataclass(frozen=True, kw_only=True)
class QualityConfig:
    """Which patches are kept, and their weight in training.

    Attributes:
        min_valid_fraction: smallest share of valid pixels, in each sensor.
        max_cloud_fraction: largest share of cloud. A patch with an unknown share is
            kept.
        max_edge_noise_fraction: largest share of radar pixels that are noise at the
            edge of the swath. Default 0.01: a clean patch has none, and one line of
            noise across a patch of 64 px is 0.016.
        max_saturated_fraction: largest share of saturated optical pixels. Default 0.01:
            it keeps single glints and refuses overexposed clouds and broken lines.
        measure_offset: measure the shift between the two images in every kept patch;
            takes about 1 ms for 64 px.
        max_offset_px: longest shift that is kept, in pixels. None keeps all patches;
            the shift is still recorded and lowers the score. A patch whose shift cannot
            be measured is kept.
        min_quality: smallest quality score that is kept (see `quality.score`). The
            default 0 refuses no patch; the limits above each check one part of the
            score.
        full_weight_quality: score from which a patch has full weight in training. Below
            it the weight falls in proportion to the score. Default 0.5, the score of a
            patch whose only fault is the largest allowed time gap.
        max_rejected_fraction: largest share of scenes that may be unreadable or break a
            rule. Above it the job fails.
    """

    min_valid_fraction: float = 0.7
    max_cloud_fraction: float = 0.3
    max_edge_noise_fraction: float = 0.01
    max_saturated_fraction: float = 0.01
    measure_offset: bool = True
    max_offset_px: float | None = None
    min_quality: float = 0.0
    full_weight_quality: float = 0.5
    max_rejected_fraction: float = 0.1

    def __post_init__(self) -> None:
        _check_fraction("min_valid_fraction", self.min_valid_fraction)
        _check_fraction("max_cloud_fraction", self.max_cloud_fraction)
        _check_fraction("max_edge_noise_fraction", self.max_edge_noise_fraction)
        _check_fraction("max_saturated_fraction", self.max_saturated_fraction)
        _check_fraction("max_rejected_fraction", self.max_rejected_fraction)
        _check_fraction("min_quality", self.min_quality)
        _check_fraction("full_weight_quality", self.full_weight_quality)
        _check_positive("full_weight_quality", self.full_weight_quality)
        if self.max_offset_px is not None:
            _check_positive("max_offset_px", self.max_offset_px)
            if not self.measure_offset:
                raise ValueError(
                    f"max_offset_px needs measure_offset, got {self.max_offset_px:g} without it"
                )


_HOLDOUT_NAME = re.compile(r"[a-z0-9][a-z0-9-]*$")


@dataclass(frozen=True, kw_only=True)
class HoldoutConfig:
    """An event, country or region whose patches all go to one split.

    A hold-out takes precedence over the split of a block. Give either `values` or
    `geojson`.

    Attributes:
        name: lower case letters, digits and "-". It stands in `block` of the patches
            and in the counts of the manifest.
        split: "eval" or "test". Held-out patches are never used in training.
        property: property of the STAC items that is compared with `values`.
        values: an item is held out if its property is one of these, together with every
            pair that contains its scene.
        geojson: file with polygons in degrees. Patches inside are held out; patches
            across an edge are not used.
        geojson_sha256: hash of the file. The build fills it in, so a changed file is a
            changed config.
    """

    name: str
    split: Literal["eval", "test"]
    property: str = "terrapair:event"
    values: tuple[str, ...] = ()
    geojson: str = field(default="", metadata=REQUIRED_PATH)
    geojson_sha256: str = ""

    def __post_init__(self) -> None:
        if not _HOLDOUT_NAME.match(self.name):
            raise ValueError(f"name must be lower case letters, digits and -, got {self.name!r}")
        if bool(self.values) == bool(self.geojson):
            raise ValueError(f"hold-out {self.name!r} needs either values or geojson")


MIN_FOLDS = 3
"""Fewest folds of a cross-validation: one each for test, eval and train."""


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """How spatial blocks are assigned to train, eval and test.

    The same config gives a place the same split in every job and span.

    Attributes:
        block_size_km: side of a block in kilometres.
        eval_fraction: expected share of blocks in eval; not used with folds.
        test_fraction: expected share of blocks in test; not used with folds.
        folds: number of folds of a cross-validation, at least 3. Each block belongs to
            one fold. 0 = off: the fractions decide.
        fold: fold whose blocks are test. Those of the next fold are eval, and all
            others are train. `cross-validate` sets it to each fold in turn.
        seed: seed of the hash that assigns the blocks. With folds it chooses the
            pattern, of which there are few; see `splits.fold_of`.
        buffer_m: smallest distance in metres. Train patches closer to a block of eval
            or test are not used, nor are eval patches closer to a block of test. With 0
            only patches that reach into another split are not used.
        holdouts: take precedence over declared splits and over blocks.
    """

    block_size_km: float = 2.56
    eval_fraction: float = 0.15
    test_fraction: float = 0.15
    folds: int = 0
    fold: int = 0
    seed: int = 0
    buffer_m: float = 0.0
    holdouts: tuple[HoldoutConfig, ...] = ()

    def __post_init__(self) -> None:
        _check_positive("block_size_km", self.block_size_km)
        # A larger buffer would remove nearly all of train, and each patch would have to
        # be compared with many blocks.
        if not 0 <= self.buffer_m <= self.block_size_km * 1000:
            raise ValueError(f"buffer_m must be within 0 and block_size_km, got {self.buffer_m:g}")
        if len({holdout.name for holdout in self.holdouts}) != len(self.holdouts):
            raise ValueError(
                "holdouts must have distinct names, "
                f"got {[holdout.name for holdout in self.holdouts]}"
            )
        _check_fraction("eval_fraction", self.eval_fraction)
        _check_fraction("test_fraction", self.test_fraction)
        if self.eval_fraction + self.test_fraction >= 1.0:
            raise ValueError(
                "eval_fraction + test_fraction must be below 1, "
                f"got {self.eval_fraction + self.test_fraction}"
            )
        if self.folds != 0 and self.folds < MIN_FOLDS:
            raise ValueError(
                f"folds must be at least {MIN_FOLDS} (one each for test, eval and train), or 0 "
                f"for no folds, got {self.folds}"
            )
        if not 0 <= self.fold < max(self.folds, 1):
            allowed = f"within 0-{self.folds - 1}" if self.folds else "0 without folds"
            raise ValueError(f"fold must be {allowed}, got {self.fold} with folds {self.folds}")


@dataclass(frozen=True, kw_only=True)
class VectorConfig(VectorColumns):
    """A vector file with the labels of all scenes; it replaces the labels of the items.

    The fields of `VectorColumns` say which columns are read.

    Attributes:
        path: GeoPackage, GeoJSON or shapefile. In a YAML file it starts at the folder
            of that file.
        schema: label schema of the class column; "" = that of the build.
        sha256: hash of the file. The build fills it in, so a changed file is a changed
            config.
    """

    path: str = field(metadata=REQUIRED_PATH)
    schema: str = ""
    sha256: str = ""

    @property
    def columns(self) -> VectorColumns:
        """The columns that are read."""
        return VectorColumns(
            **{entry.name: getattr(self, entry.name) for entry in fields(VectorColumns)}
        )


@dataclass(frozen=True, kw_only=True)
class LabelConfig:
    """Which label a patch gets.

    Attributes:
        schema: label schema of the shards: the name of a known one, or a name for the
            `classes`. Labels of other schemas are remapped to it.
        classes: classes of a schema of one's own, with the ids 0, 1, ...; empty = those
            of the known schema.
        remap: how labels of other schemas become these classes; see
            `LabelTarget.remap`. Empty = the known remaps.
        vector: vector file with the labels of all scenes of `label_from`; None = the
            items have the labels.
        label_from: sensor whose scene has the label. A flood label, for example, shows
            the water on the date of the radar scene.
        min_labeled_fraction: smallest share of pixels whose label is not 255.
        weak_weight: factor on the training weight of a patch with a weak label, 0-1.
            0 leaves such scenes out. Default 0.5, half the weight of a label drawn by
            hand; our own choice, not tuned on data.
        weak_only: train on weak labels only. Hand-drawn labels are not used in train,
            but still in eval and test.
        partner: what happens to a labelled scene without a partner of the other sensor.
            "required" rejects it. "optional" cuts it into patches whose other sensor
            has no data, for tasks that use one sensor only.
        sensors: sensors that the tasks on these shards use. Gaps of the other sensor
            refuse no patch. Empty = both; a run fills in those of its task.
        ignore: names of classes of `schema` whose pixels become 255. Classes without a
            counterpart in the remap become 255 in any case.
        required_classes: names of the classes that must have pixels in train and in
            test, at least two. Without them the build fails, and no model is published.
            None = all classes of `schema`, less `ignore`.
    """

    schema: str
    classes: tuple[LabelClass, ...] = ()
    remap: dict[str, Any] = field(default_factory=dict)
    vector: VectorConfig | None = None
    label_from: Sensor = "s2"
    min_labeled_fraction: float = 0.5
    weak_weight: float = 0.5
    weak_only: bool = False
    partner: Literal["required", "optional"] = "required"
    sensors: tuple[Sensor, ...] = ()
    ignore: tuple[str, ...] = ()
    required_classes: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        schema = self.label_schema
        if not schema.is_dense:
            raise ValueError(
                f"schema {self.schema!r} has gaps in its ids, which no model can output; "
                "choose another schema"
            )
        if len(set(self.sensors)) != len(self.sensors) or not set(self.sensors) <= set(SENSORS):
            raise ValueError(f"sensors must be distinct ones of {SENSORS}, got {self.sensors}")
        if self.partner == "optional" and self.sensors not in ((), (self.label_from,)):
            raise ValueError(
                f"partner optional gives patches of {self.label_from} alone, "
                f"but sensors are {', '.join(self.sensors)}"
            )
        self._check_remap()
        if self.vector is not None:
            why = self.target.why_not(self.vector.schema or self.schema)
            if why:
                raise ValueError(f"vector.schema: {why}")
        _check_fraction("min_labeled_fraction", self.min_labeled_fraction)
        _check_fraction("weak_weight", self.weak_weight)
        if self.weak_only and self.weak_weight == 0:
            raise ValueError(
                "weak_only needs a weak_weight above 0, got 0: no patch would be left for training"
            )
        for key in ("ignore", "required_classes"):
            for name in getattr(self, key) or ():
                if name not in schema.class_names:
                    raise ValueError(
                        f"{key}: no class {name!r} in {self.schema!r}; "
                        f"known: {', '.join(schema.class_names)}"
                    )
        both = sorted(set(self.ignore) & set(self.required_classes or ()))
        if both:
            raise ValueError(f"required_classes: {both[0]!r} is in ignore, so it has no pixel")
        # With one class there is nothing to tell apart.
        if self.required_classes is not None and len(set(self.required_classes)) < 2:
            raise ValueError(
                f"required_classes must name at least two classes, got {self.required_classes}"
            )
        if len(set(self.ignore)) > schema.num_classes - 2:
            raise ValueError(
                f"ignore must leave at least two classes of {self.schema!r}, "
                f"got {', '.join(self.ignore)}"
            )

    def _check_remap(self) -> None:
        target = self.target
        target.check()
        if not self.remap or target.is_by_source:
            return
        # With one mapping for all labels, a class that no value gets is a slip.
        reached = target.reachable(self.schema)
        for entry in self.label_schema.entries:
            if entry.id not in reached and entry.name not in self.ignore:
                raise ValueError(
                    f"remap: no value becomes the class {entry.name!r}: add one, "
                    "or put the class into ignore"
                )

    @property
    def label_schema(self) -> LabelSchema:
        """The classes of the shards."""
        return schema_of(self.schema, self.classes)

    @property
    def target(self) -> LabelTarget:
        """What the values of label files become."""
        return LabelTarget(schema=self.label_schema, remap=self.remap)

    @property
    def needed_classes(self) -> tuple[str, ...]:
        """Names of the classes that must have pixels in train and in test."""
        names = self.label_schema.class_names
        if self.required_classes is not None:
            return tuple(name for name in names if name in self.required_classes)
        return tuple(name for name in names if name not in self.ignore)


@dataclass(frozen=True, kw_only=True)
class ShardConfig:
    """How large shards are, and how many processes write them.

    Attributes:
        target_shard_mb: approximate size of a shard on disk, in 10^6 bytes.
        num_examples_per_shard: approximate upper limit of examples in a shard; None =
            no limit.
        num_workers: number of worker processes of the local runner.
    """

    target_shard_mb: float = 128.0
    num_examples_per_shard: int | None = None
    num_workers: int = 1

    def __post_init__(self) -> None:
        _check_positive("target_shard_mb", self.target_shard_mb)
        if self.num_examples_per_shard is not None:
            _check_positive("num_examples_per_shard", self.num_examples_per_shard)
        _check_positive("num_workers", self.num_workers)


@dataclass(frozen=True, kw_only=True)
class EarthEngineConfig:
    """Which collections of Earth Engine are read, and which scenes of them.

    Attributes:
        s2_processing_level: L2A reads COPERNICUS/S2_SR_HARMONIZED; L1C reads
            COPERNICUS/S2_HARMONIZED.
        max_scene_cloud_fraction: largest share of cloud in the whole Sentinel-2 scene,
            according to its metadata.
        cloud_score: fetch Cloud Score+ (GOOGLE/CLOUD_SCORE_PLUS/V1/S2_HARMONIZED, band
            cs_cdf) with every Sentinel-2 patch.
        min_clear_score: a pixel with a Cloud Score+ below this is cloud. Default 0.6,
            within the range 0.50-0.65 that Google advises.
        label: content of the label band: Dynamic World of the same scene, WorldCover
            2021, or none.
    """

    s2_processing_level: ProcessingLevel = "L2A"
    max_scene_cloud_fraction: float = 0.6
    cloud_score: bool = True
    min_clear_score: float = 0.6
    label: Literal["none", "dynamic_world", "worldcover"] = "none"

    def __post_init__(self) -> None:
        _check_fraction("max_scene_cloud_fraction", self.max_scene_cloud_fraction)
        _check_fraction("min_clear_score", self.min_clear_score)


@dataclass(frozen=True, kw_only=True)
class BuildConfig:
    """Config of `build-pairs` (without `label`) or `build-labels` (with `label`).

    Attributes:
        pairing: which scenes make a pair.
        patch: size and bands.
        quality: which patches are kept.
        split: which patches are for train, eval and test.
        shards: size of the files.
        label: which labels; None = none.
        allow_http: read assets whose href is http(s). Off by default, so that a catalog
            from elsewhere cannot make workers ask any server.
    """

    pairing: PairingConfig = field(default_factory=PairingConfig)
    patch: PatchConfig = field(default_factory=PatchConfig)
    quality: QualityConfig = field(default_factory=QualityConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    shards: ShardConfig = field(default_factory=ShardConfig)
    label: LabelConfig | None = None
    allow_http: bool = False

    def __post_init__(self) -> None:
        patch_km = self.patch.size_px * self.patch.pixel_size_m / 1000.0
        # The split is decided by the corners of a patch. A smaller block could lie
        # between them, and its pixels would be in two splits.
        if self.split.block_size_km < patch_km:
            raise ValueError(
                f"split.block_size_km must be at least the side of a patch, {patch_km:g} km, "
                f"got {self.split.block_size_km:g}"
            )
