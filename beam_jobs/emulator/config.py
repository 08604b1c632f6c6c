"""Settings of the emulator: its scenes, its faults and its exports."""

from __future__ import annotations

from dataclasses import dataclass, field

from beam_jobs.config import SimulateConfig
from beam_jobs.emulator.faults import FaultsConfig


@dataclass(frozen=True, kw_only=True)
class EmulatorConfig:
    """How the server behaves.

    Attributes:
        simulate: scenes to serve when no folder of scenes is given.
        faults: faults at the start; `POST /emulator/faults` changes them.
        pending_s: seconds that an export waits.
        running_s: seconds that an export runs at least.
        max_file_side_px: longest side of an exported GeoTIFF; larger exports are split.
    """

    simulate: SimulateConfig = field(default_factory=SimulateConfig)
    faults: FaultsConfig = field(default_factory=FaultsConfig)
    pending_s: float = 0.5
    running_s: float = 1.0
    max_file_side_px: int = 8192

    def __post_init__(self) -> None:
        if self.pending_s < 0 or self.running_s < 0:
            raise ValueError(
                f"pending_s and running_s must be 0 or above, "
                f"got {self.pending_s} and {self.running_s}"
            )
        if self.max_file_side_px < 1:
            raise ValueError(f"max_file_side_px must be at least 1, got {self.max_file_side_px}")
