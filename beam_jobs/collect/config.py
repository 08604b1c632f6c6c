"""Settings of `plan`, `fetch` and `export`, and of what `retrain` fetches.

Input: YAML or `--set` options. Output: dataclasses that are checked at construction:
what is asked for at each place, how fast, and where it goes. `EarthEngineConfig` in
`beam_jobs/config.py` names the collections.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from beam_jobs.config import EarthEngineConfig
from beam_jobs.contracts.bands import S1_DEFAULT_BANDS, S2_L1C_BANDS, S2_L2A_BANDS, check_band_names
from beam_jobs.contracts.settings import INPUT_PATH
from beam_jobs.places.config import Day, check_day

Tier = Literal["community", "contributor", "partner", "commercial"]
OrbitPreference = Literal["any", "ascending", "descending"]


@dataclass(frozen=True, kw_only=True)
class QuotaConfig:
    """How hard Earth Engine is asked, by all workers together.

    Attributes:
        max_requests_per_second: requests that begin in a second. The default is below
            the 100 of a project. Source:
            https://developers.google.com/earth-engine/guides/usage.
        max_concurrency: requests at once. The default is the 40 of a project. Source:
            as above.
        num_workers: worker processes the job is cut for; each gets an equal share of
            both limits.
        max_attempts: how often a request is asked before its place is rejected.
        first_backoff_s: longest wait after the first failure; it doubles with each
            failure.
        max_backoff_s: longest wait of all.
        max_failures_in_a_row: after so many places in a row that one worker gave up,
            Earth Engine counts as down. The job then stops instead of rejecting the
            rest.
    """

    max_requests_per_second: float = 90.0
    max_concurrency: int = 40
    num_workers: int = 1
    max_attempts: int = 8
    first_backoff_s: float = 1.0
    max_backoff_s: float = 64.0
    max_failures_in_a_row: int = 20

    def __post_init__(self) -> None:
        for name in ("max_requests_per_second", "first_backoff_s", "max_backoff_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        for name in ("max_concurrency", "num_workers", "max_attempts", "max_failures_in_a_row"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class CollectConfig:
    """Settings of what `fetch` and `export` collect at each place and window.

    Attributes:
        size_px: height and width of the square that is read around each place.
        pixel_size_m: size of its pixels.
        s1_bands: bands of Sentinel-1.
        s2_bands: bands of Sentinel-2; () = all of the processing level.
        earth_engine: collections, clouds and labels.
        max_time_gap_hours: largest |S2 - S1| of a pair. Default 72, as when pairs are
            built.
        orbit_preference: orbit of Sentinel-1. The other orbit is taken only if the
            preferred one has no pair.
        max_cloud_fraction: a square with more cloud by Cloud Score+ is rejected.
        min_valid_fraction: least share of pixels with a measurement, in each sensor.
    """

    size_px: int = 256
    pixel_size_m: float = 10.0
    s1_bands: tuple[str, ...] = S1_DEFAULT_BANDS
    s2_bands: tuple[str, ...] = ()
    earth_engine: EarthEngineConfig = field(default_factory=EarthEngineConfig)
    max_time_gap_hours: float = 72.0
    orbit_preference: OrbitPreference = "any"
    max_cloud_fraction: float = 0.5
    min_valid_fraction: float = 0.7

    def __post_init__(self) -> None:
        if self.size_px < 16:
            raise ValueError(f"size_px must be at least 16, got {self.size_px}")
        if not self.pixel_size_m > 0:
            raise ValueError(f"pixel_size_m must be above 0, got {self.pixel_size_m}")
        if not self.max_time_gap_hours > 0:
            raise ValueError(f"max_time_gap_hours must be above 0, got {self.max_time_gap_hours}")
        for name in ("max_cloud_fraction", "min_valid_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be within 0-1, got {getattr(self, name)}")
        check_band_names("s1", self.s1_bands)
        check_band_names("s2", self.bands_of_s2)
        if self.earth_engine.s2_processing_level == "L2A" and "B10" in self.bands_of_s2:
            raise ValueError(
                "s2_bands holds B10, which L2A products do not have; remove it or use L1C"
            )

    @property
    def bands_of_s2(self) -> tuple[str, ...]:
        """Bands of Sentinel-2: `s2_bands`, or all of the processing level."""
        return self.s2_bands or (
            S2_L2A_BANDS if self.earth_engine.s2_processing_level == "L2A" else S2_L1C_BANDS
        )


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Where batch tasks write.

    Attributes:
        bucket: Google Cloud Storage bucket, without gs://.
        prefix: folder in the bucket.
        file_format: GEO_TIFF, or TFRECORD with a mixer.
        max_tasks: tasks in Earth Engine's queue at once. The default is below the 3,000
            that a queue takes. Source:
            https://developers.google.com/earth-engine/guides/usage.
        max_attempts: how often a task is started before its place is rejected.
        poll_s: seconds between two looks at the running tasks.
        local_dir: where the bucket is mounted or copied to; "" = the catalog names
            gs:// files.
    """

    bucket: str = ""
    prefix: str = "terrapair"
    file_format: Literal["GEO_TIFF", "TFRECORD"] = "GEO_TIFF"
    max_tasks: int = 2500
    max_attempts: int = 3
    poll_s: float = 30.0
    local_dir: str = ""

    def __post_init__(self) -> None:
        if self.bucket.startswith("gs://") or "/" in self.bucket:
            raise ValueError(f"bucket must be a name without gs://, got {self.bucket!r}")
        if not 2 <= self.max_tasks <= 3000:
            raise ValueError(
                f"max_tasks must be within 2-3000 (a pair takes two), got {self.max_tasks}"
            )
        if self.max_attempts < 1:
            raise ValueError(f"max_attempts must be at least 1, got {self.max_attempts}")
        if not self.poll_s > 0:
            raise ValueError(f"poll_s must be above 0, got {self.poll_s}")


@dataclass(frozen=True, kw_only=True)
class FetchConfig:
    """Settings of `plan`, `fetch` and `export`.

    Attributes:
        collect: what is collected.
        quota: how fast.
        export: where to, for `export` only.
        tier: tier of the account, for `plan` only.
    """

    collect: CollectConfig = field(default_factory=CollectConfig)
    quota: QuotaConfig = field(default_factory=QuotaConfig)
    export: ExportConfig = field(default_factory=ExportConfig)
    tier: Tier = "community"


@dataclass(frozen=True, kw_only=True)
class WatchConfig:
    """Places at which `retrain` asks Earth Engine for newer pairs.

    Attributes:
        places: file of places, as for `fetch`. Time windows in it are not used.
        start: first day of the first time window.
        window_days: length of a time window. One pair of each place is looked for in
            each window, when it is over. Default 30.
        delay_days: days after the end of a window until it is asked for. Default 3,
            since Sentinel-1 scenes come within two days. Source:
            https://developers.google.com/earth-engine/datasets/catalog/COPERNICUS_S1_GRD.
        collect: what is collected.
        quota: how fast.
    """

    places: str = field(metadata=INPUT_PATH)
    start: Day
    window_days: int = 30
    delay_days: int = 3
    collect: CollectConfig = field(default_factory=CollectConfig)
    quota: QuotaConfig = field(default_factory=QuotaConfig)

    def __post_init__(self) -> None:
        object.__setattr__(self, "start", str(self.start))
        check_day("start", str(self.start))
        if not self.places:
            raise ValueError("places must be a file, got ''")
        if self.window_days < 1:
            raise ValueError(f"window_days must be at least 1, got {self.window_days}")
        if self.delay_days < 0:
            raise ValueError(f"delay_days must be at least 0, got {self.delay_days}")
