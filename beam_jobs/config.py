"""Configs of the Beam jobs: one frozen dataclass a concern, units in the names, defaults only here.

`pipeline/config.py` assembles them into a run; each job's manifest holds the resolved
config and its hash.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from beam_jobs.contracts.bands import S1_DEFAULT_BANDS, S2_L2A_BANDS, Sensor, check_band_names
from beam_jobs.contracts.labels import get_schema

ProcessingLevel = Literal["L1C", "L2A"]
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
]
"""Folders that `beam_jobs/public_datasets` can read."""


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
        num_places: places on Earth, spread over real UTM zones.
        num_dates: dates per place; each gives one Sentinel-1 and one Sentinel-2 scene,
            hours apart.
        size_px: height and width of a scene in 10 m pixels.
        nuisance: what hides the classes in radar; see beam_jobs/simulation/simulate.py.
        shared_edges: give both sensors the same no-data margin (a shortcut that
            destroys contrastive pretraining unseen).
        s2_processing_level: L2A writes the 12 surface bands, L1C all 13 bands with the
            path reflectance of the air.
        seed: same seed, same bytes; 0 or above.
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
                f"num_dates must be within 1-48 (two years, 12 days apart at least), got {self.num_dates}"
            )
        if self.seed < 0:
            raise ValueError(f"seed must be 0 or above, got {self.seed}")
        if self.size_px < 64:
            raise ValueError(f"size_px must be at least 64, got {self.size_px}")


@dataclass(frozen=True, kw_only=True)
class CatalogConfig:
    """One source of scenes.

    Attributes:
        layout: "stac" (a catalog file), one of FolderLayout (a folder in a public data
            set's layout, or of Earth Engine exports), or "simulated" (the simulator
            writes it first, as `simulate` says).
        path: catalog file or folder; for "simulated" leave it empty: the run's own
            folder is used.
        split_lists: files that say which scenes or patches a split holds, for "sen12ms"
            and "dfc2020" only; those in the folder are found.
        simulate: options of the simulator, for "simulated" only.
    """

    layout: Literal["stac", FolderLayout, "simulated"]
    path: str = ""
    split_lists: tuple[str, ...] = ()
    simulate: SimulateConfig | None = None

    def __post_init__(self) -> None:
        if (self.layout == "simulated") != (self.simulate is not None):
            raise ValueError(
                f"simulate goes with layout 'simulated' and only with it, got layout {self.layout!r}"
            )
        if self.layout != "simulated" and not self.path:
            raise ValueError(f"path is needed with layout {self.layout!r}")
        if self.split_lists and self.layout not in ("sen12ms", "dfc2020"):
            raise ValueError(
                f"split_lists go with layouts sen12ms and dfc2020 only, got layout {self.layout!r}"
            )


@dataclass(frozen=True, kw_only=True)
class PairingConfig:
    """Which Sentinel-2 scene goes with which Sentinel-1 scene.

    Attributes:
        max_time_gap_hours: largest |S2 - S1|. Default 72: floods move within days.
        min_overlap_fraction: share of the smaller footprint that the two must share.
        max_s2_per_s1: a Sentinel-1 scene goes with so many Sentinel-2 scenes at most,
            nearest in time first. Default 1: exports by place; a whole Sentinel-1 frame
            covers up to a dozen Sentinel-2 tiles.
        max_s1_per_s2: a Sentinel-2 scene goes with so many Sentinel-1 passes at most,
            nearest in time first; None takes all that chose it. Frames of one pass
            count as one.
        orbit_preference: which of two Sentinel-1 passes equally near in time goes
            first, with `max_s1_per_s2` only.
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
                f"orbit_preference {self.orbit_preference!r} needs max_s1_per_s2: else no pass goes first"
            )


@dataclass(frozen=True, kw_only=True)
class PatchConfig:
    """What a patch is.

    Attributes:
        size_px: height and width.
        pixel_size_m: ground size of a pixel of the common grid.
        s1_bands: channels of `s1`, in order.
        s2_bands: channels of `s2`, in order.
        s2_processing_level: top of atmosphere (L1C) or surface (L2A) reflectance; the
            two are never mixed.
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


@dataclass(frozen=True, kw_only=True)
class QualityConfig:
    """Which patches are kept, and what they count: in full, less, or not at all.

    Attributes:
        min_valid_fraction: least share of valid pixels, in each sensor.
        max_cloud_fraction: most share of cloud; patches whose source does not tell are
            kept.
        max_edge_noise_fraction: most share of radar pixels that are noise of the
            swath's edge. Default 0.01: a clean patch has none, and one line of them
            across a patch of 64 px is 0.016.
        max_saturated_fraction: most share of optical pixels at the top of their number
            range. Default 0.01: single glints stay, burnt-out clouds and broken lines
            go.
        measure_offset: look for a shift between the two sensors in every kept patch;
            about 1 ms for 64 px.
        max_offset_px: longest measured shift that is kept; None keeps all and only
            records and scores it. A patch whose shift cannot be told is kept.
        min_quality: a patch of a lower score (see `quality.score`) is refused. Default
            0 refuses none: the limits above speak of one part each.
        full_weight_quality: a patch of a lower score counts in training in proportion,
            one from it on in full. Default 0.5, the score of a patch without any fault
            but the largest time gap.
        max_rejected_fraction: the job fails when a larger share of scenes is unreadable
            or breaks a rule.
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
    """What goes to one split whatever its blocks say: an event, a country, a region. Give `values` or `geojson`.

    Attributes:
        name: lower case letters, digits and -; told in the blocks of its patches and in
            the manifest's counts.
        split: "eval" or "test". What is held out never trains.
        property: property of the STAC items that `values` are of.
        values: items whose property is one of these are held out, with every pair that
            one of their scenes is in.
        geojson: file with polygons in degrees; patches inside are held out, patches
            across the edge left out.
        geojson_sha256: of the file; the build fills it in, so that a changed file is a
            changed config.
    """

    name: str
    split: Literal["eval", "test"]
    property: str = "terrapair:event"
    values: tuple[str, ...] = ()
    geojson: str = ""
    geojson_sha256: str = ""

    def __post_init__(self) -> None:
        if not _HOLDOUT_NAME.match(self.name):
            raise ValueError(f"name must be lower case letters, digits and -, got {self.name!r}")
        if bool(self.values) == bool(self.geojson):
            raise ValueError(f"hold-out {self.name!r} needs either values or geojson")


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """Spatial blocks -> train, eval, test. The same config gives the same split of a place in every job and span.

    Attributes:
        block_size_km: side of a block.
        eval_fraction: expected share of blocks in eval.
        test_fraction: expected share of blocks in test.
        seed: of the hash that assigns blocks.
        buffer_m: train patches closer than this to a block of eval or test are left
            out, and so are eval patches this close to one of test. 0 leaves out only
            what reaches into another split.
        holdouts: go before declared splits and blocks.
    """

    block_size_km: float = 2.56
    eval_fraction: float = 0.15
    test_fraction: float = 0.15
    seed: int = 0
    buffer_m: float = 0.0
    holdouts: tuple[HoldoutConfig, ...] = ()

    def __post_init__(self) -> None:
        _check_positive("block_size_km", self.block_size_km)
        # More would leave out nearly all of train, and many blocks would have to be
        # looked at for each patch.
        if not 0 <= self.buffer_m <= self.block_size_km * 1000:
            raise ValueError(f"buffer_m must be within 0 and block_size_km, got {self.buffer_m:g}")
        if len({holdout.name for holdout in self.holdouts}) != len(self.holdouts):
            raise ValueError(
                f"holdouts must have distinct names, got {[holdout.name for holdout in self.holdouts]}"
            )
        _check_fraction("eval_fraction", self.eval_fraction)
        _check_fraction("test_fraction", self.test_fraction)
        if self.eval_fraction + self.test_fraction >= 1.0:
            raise ValueError(
                f"eval_fraction + test_fraction must be below 1, got {self.eval_fraction + self.test_fraction}"
            )


@dataclass(frozen=True, kw_only=True)
class LabelConfig:
    """Which label a patch gets.

    Attributes:
        schema: label schema of the shards; source labels are remapped to it.
        label_from: sensor whose scene the label belongs to (a flood label is the water
            of the radar's date).
        min_labeled_fraction: least share of pixels that have a label other than 255.
        weak_weight: what a patch with a weak label counts in training, 0-1, times what
            its quality gives; 0 leaves such scenes out. Default 0.5; origin: ours, half
            a label drawn by hand, not tuned on data.
        weak_only: train on weak labels alone. Hand-drawn ones that fall into train are
            left out; those of eval and test judge.
        partner: what a labelled scene without a partner of the other sensor becomes:
            "required" rejects it, "optional" cuts it into patches whose other sensor is
            all no data, for tasks of its own sensor alone.
        ignore: names of classes of `schema` whose pixels become 255, on top of what the
            remap has no counterpart for.
    """

    schema: str
    label_from: Sensor = "s2"
    min_labeled_fraction: float = 0.5
    weak_weight: float = 0.5
    weak_only: bool = False
    partner: Literal["required", "optional"] = "required"
    ignore: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        schema = get_schema(self.schema)
        if not schema.is_dense:
            raise ValueError(
                f"schema {self.schema!r} has gaps in its ids; choose one a model can output"
            )
        _check_fraction("min_labeled_fraction", self.min_labeled_fraction)
        _check_fraction("weak_weight", self.weak_weight)
        if self.weak_only and self.weak_weight == 0:
            raise ValueError("weak_only needs a weak_weight above 0: nothing would train, got 0")
        for name in self.ignore:
            if name not in schema.class_names:
                raise ValueError(
                    f"ignore: no class {name!r} in {self.schema!r}; known: {', '.join(schema.class_names)}"
                )
        if len(set(self.ignore)) > schema.num_classes - 2:
            raise ValueError(
                f"ignore must leave two classes of {self.schema!r}, got {', '.join(self.ignore)}"
            )


@dataclass(frozen=True, kw_only=True)
class ShardConfig:
    """How records lie in shards.

    Attributes:
        target_shard_mb: about how large a shard is, in 10^6 bytes as it lies on disk.
        num_examples_per_shard: about how many examples a shard holds at most; None = as
            many as make its size.
        num_workers: worker processes of the local runner.
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
        s2_processing_level: L2A reads COPERNICUS/S2_SR_HARMONIZED, L1C
            COPERNICUS/S2_HARMONIZED.
        max_scene_cloud_fraction: most cloud over the whole Sentinel-2 scene, by its own
            metadata.
        cloud_score: fetch Cloud Score+ (GOOGLE/CLOUD_SCORE_PLUS/V1/S2_HARMONIZED, band
            cs_cdf) with every Sentinel-2 patch.
        min_clear_score: a pixel whose Cloud Score+ is below is cloud. Default 0.6,
            within the 0.50-0.65 that Google advises.
        label: what the label band holds: Dynamic World of the same scene, WorldCover
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
    """Config of `build-pairs` (no `label`) and `build-labels` (with `label`)."""

    pairing: PairingConfig = field(default_factory=PairingConfig)
    patch: PatchConfig = field(default_factory=PatchConfig)
    quality: QualityConfig = field(default_factory=QualityConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    shards: ShardConfig = field(default_factory=ShardConfig)
    label: LabelConfig | None = None

    def __post_init__(self) -> None:
        patch_km = self.patch.size_px * self.patch.pixel_size_m / 1000.0
        # The split looks at a patch's corners: smaller blocks could lie between them,
        # and their pixels in two splits.
        if self.split.block_size_km < patch_km:
            raise ValueError(
                f"split.block_size_km must be at least a patch's side, {patch_km:g} km, got {self.split.block_size_km:g}"
            )
