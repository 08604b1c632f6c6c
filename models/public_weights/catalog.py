"""Facts about public weights that their files do not hold, and a list of known weights.

A state dict does not say which bands, units, normalization or licence belong to it.
With wrong ones the features would be useless, and nothing would show it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from beam_jobs.contracts import settings
from beam_jobs.contracts.bands import (
    S1_DEFAULT_BANDS,
    S2_L1C_BANDS,
    SENSORS,
    Sensor,
    check_band_names,
)
from models.config import TORCH_PREFIX, Backbone

ProcessingLevel = Literal["L1C", "L2A"]
"""Level of Sentinel-2 pixels: L1C is top of atmosphere, L2A surface reflectance."""

_LEVELS: dict[Sensor, tuple[ProcessingLevel | None, ...]] = {"s1": (None,), "s2": ("L1C", "L2A")}


@dataclass(frozen=True, kw_only=True)
class PublicWeights:
    """One set of public weights.

    Attributes:
        sensor: sensor whose pixels they take.
        backbone: "torch_resnet18" or "torch_resnet50".
        bands: bands of the first convolution, in its order, in Earth Engine's spelling.
        mean: per band, in dB or reflectance: what their training subtracted.
        std: per band, in dB or reflectance: what their training divided by.
        license: licence under which they are published; it goes into the model card.
        source: page that states the licence.
        s2_processing_level: level of the pixels they were trained on; None for
            Sentinel-1.
    """

    sensor: Sensor
    backbone: Backbone
    bands: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    license: str
    source: str
    s2_processing_level: ProcessingLevel | None = None

    def __post_init__(self) -> None:
        if self.sensor not in SENSORS:
            raise ValueError(f"sensor must be s1 or s2, got {self.sensor!r}")
        check_band_names(self.sensor, self.bands)
        if not self.backbone.startswith(TORCH_PREFIX):
            raise ValueError(
                f"backbone must be torch_resnet18 or torch_resnet50, got {self.backbone!r}"
            )
        if not len(self.bands) == len(self.mean) == len(self.std):
            raise ValueError(
                f"{len(self.bands)} bands need as many means and stds, "
                f"got {self.mean} and {self.std}"
            )
        if not all(value > 0 for value in self.std):
            raise ValueError(f"std must be above 0, got {self.std}")
        if not self.license or not self.source:
            raise ValueError(
                "license and source must not be empty: the model card states the weights' terms"
            )
        levels = _LEVELS[self.sensor]
        if self.s2_processing_level not in levels:
            raise ValueError(
                f"s2_processing_level must be one of {levels}, got {self.s2_processing_level!r}"
            )


_SSL4EO = "https://github.com/zhu-xlab/SSL4EO-S12"
_DECUR = "https://github.com/zhu-xlab/DeCUR"
_SOFTCON = "https://github.com/zhu-xlab/softcon"
# Source of the licences: torchgeo, docs/api/weights/sentinel1.csv and sentinel2.csv.

_S1_MEAN_DB, _S1_STD_DB = (-12.59, -20.26), (5.26, 5.91)
"""VV, VH.

Source: torchgeo, torchgeo/models/resnet.py, from DeCUR's linear_BE_resnet.py.
"""

# Source: torchgeo, torchgeo/models/resnet.py: statistics of SSL4EO-S12's level 1C, in
# digital numbers.
_S2_MEAN_DN = (
    1612.9,
    1397.6,
    1322.3,
    1373.1,
    1561.0,
    2108.4,
    2390.7,
    2318.7,
    2581.0,
    837.7,
    22.0,
    2195.2,
    1537.4,
)
_S2_STD_DN = (
    791.0,
    854.3,
    878.7,
    1144.9,
    1127.5,
    1164.2,
    1276.0,
    1249.5,
    1345.9,
    577.5,
    47.5,
    1340.0,
    1142.9,
)


def _s1(license_name: str, source: str) -> PublicWeights:
    return PublicWeights(
        sensor="s1",
        backbone="torch_resnet50",
        bands=S1_DEFAULT_BANDS,
        mean=_S1_MEAN_DB,
        std=_S1_STD_DB,
        license=license_name,
        source=source,
    )


def _s2(
    license_name: str,
    source: str,
    backbone: Backbone = "torch_resnet50",
    bands: tuple[str, ...] = S2_L1C_BANDS,
) -> PublicWeights:
    """Return weights trained on digital numbers / 10000, which are reflectance.

    Source: torchgeo, torchgeo/models/resnet.py.
    """
    return PublicWeights(
        sensor="s2",
        backbone=backbone,
        bands=bands,
        mean=(0.0,) * len(bands),
        std=(1.0,) * len(bands),
        license=license_name,
        source=source,
        s2_processing_level="L1C",
    )


KNOWN: dict[str, PublicWeights] = {
    "ssl4eo-s12-s1-moco-resnet50": _s1("CC-BY-4.0", _SSL4EO),
    "ssl4eo-s12-s2-moco-resnet50": _s2("CC-BY-4.0", _SSL4EO),
    "ssl4eo-s12-s2-moco-resnet18": _s2("CC-BY-4.0", _SSL4EO, "torch_resnet18"),
    "ssl4eo-s12-s2-dino-resnet50": _s2("CC-BY-4.0", _SSL4EO),
    "ssl4eo-s12-rgb-moco-resnet50": _s2("CC-BY-4.0", _SSL4EO, bands=("B4", "B3", "B2")),
    "ssl4eo-s12-rgb-moco-resnet18": _s2(
        "CC-BY-4.0", _SSL4EO, "torch_resnet18", bands=("B4", "B3", "B2")
    ),
    "decur-s1-resnet50": _s1("Apache-2.0", _DECUR),
    "decur-s2-resnet50": _s2("Apache-2.0", _DECUR),
    "softcon-s1-resnet50": _s1("CC-BY-4.0", _SOFTCON),
    "softcon-s2-resnet50": PublicWeights(
        sensor="s2",
        backbone="torch_resnet50",
        bands=S2_L1C_BANDS,
        mean=tuple(value / 1e4 for value in _S2_MEAN_DN),
        std=tuple(value / 1e4 for value in _S2_STD_DN),
        license="CC-BY-4.0",
        source=_SOFTCON,
        s2_processing_level="L1C",
    ),
}
"""Published weights by our name.

Nothing is downloaded: the user brings the file, from the page in `source`.
"""


def find_weights(name: str) -> PublicWeights:
    """Return known weights by name, or weights described in a YAML file.

    The keys of the file are the attributes of `PublicWeights`.

    Raises:
        ValueError: `name` is neither, or a key of the file is missing, unknown or
            wrong.
    """
    if name in KNOWN:
        return KNOWN[name]
    if name.endswith((".yaml", ".yml")):
        return settings.load_yaml(PublicWeights, name)
    raise ValueError(
        f"weights must be a YAML file or one of {', '.join(sorted(KNOWN))}, got {name!r}"
    )
