"""Sen1Floods11 v1.1: flood events with water labels, hand-drawn and weak.

Input: the folder with `data/flood_events`, `splits` and
`Sen1Floods11_Metadata.geojson`. Output: STAC items of Sentinel-1 and Sentinel-2.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pystac

from beam_jobs.catalogs import items
from beam_jobs.contracts.bands import S1_DEFAULT_BANDS, S2_L1C_BANDS
from beam_jobs.errors import DataError
from beam_jobs.scenes.label_assets import LabelKind

METADATA_NAME = "Sen1Floods11_Metadata.geojson"
HOLD_OUT_EVENT = "Bolivia"
"""The one event that is not in the data set's train split."""
SPLIT_OF_LIST = {
    "flood_train_data.csv": "train",
    "flood_valid_data.csv": "eval",
    "flood_test_data.csv": "test",
    "flood_bolivia_data.csv": "test",
}
NO_LABEL = -1

# Files are named after the river; the metadata name the country.
_LOCATION_OF_EVENT = {"Mekong": "Cambodia"}


@dataclass(frozen=True, kw_only=True)
class _Event:
    """What the metadata say of an event."""

    s1_acquired_at: datetime
    s2_acquired_at: datetime
    orbit: dict[str, Any]


def read(folder: Path) -> Iterator[pystac.Item]:
    """Yield the items of a Sen1Floods11 folder: S1Hand, S2Hand and, if present, S1Weak.

    Both sensors' items carry the label: it shows the water of the event, not of one
    sensor. They also carry the data set's own split (`terrapair:split`). Weakly
    labelled patches have no Sentinel-2 image and are for training only; those of the
    hold-out event are left out. The metadata give the day only, so the times, at noon,
    are nominal.

    Raises:
        DataError: metadata or split lists are missing, or do not list a patch.

    Source: https://github.com/cloudtostreet/Sen1Floods11 (docs, metadata): S1 float32
    VV, VH in dB; S2 uint16 L1C x 10000, 13 bands; labels int16 with -1 = no data. All
    images are from 2016-2019, before the 2022 offset.
    """
    events = _events(folder / METADATA_NAME)
    hand = folder / "data" / "flood_events" / "HandLabeled"
    split_of_patch = _splits(folder / "splits" / "flood_handlabeled") if hand.is_dir() else {}
    for path in sorted((hand / "S1Hand").glob("*_S1Hand.tif")):
        patch, event = _patch_and_event(path, events)
        assets = {"data": items.asset(path, S1_DEFAULT_BANDS), **_label(hand / "LabelHand", patch)}
        properties = items.radar({**event.orbit, **_declared(patch, split_of_patch, path)})
        yield items.item(path.stem, path, event.s1_acquired_at, properties, assets)
    for path in sorted((hand / "S2Hand").glob("*_S2Hand.tif")):
        patch, event = _patch_and_event(path, events)
        assets = {"data": items.asset(path, S2_L1C_BANDS), **_label(hand / "LabelHand", patch)}
        properties = items.optical("L1C", 0, _declared(patch, split_of_patch, path))
        yield items.item(path.stem, path, event.s2_acquired_at, properties, assets)
    yield from _weak(folder / "data" / "flood_events" / "WeaklyLabeled", events)


def _weak(weak: Path, events: dict[str, _Event]) -> Iterator[pystac.Item]:
    for path in sorted((weak / "S1Weak").glob("*_S1Weak.tif")):
        patch, event = _patch_and_event(path, events)
        # The hold-out event is not for training, and weak labels are for training only.
        if patch.startswith(f"{HOLD_OUT_EVENT}_"):
            continue
        assets = {
            "data": items.asset(path, S1_DEFAULT_BANDS),
            **_label(weak / "S1OtsuLabelWeak", patch, "weak"),
        }
        declared = {"terrapair:split": "train", "terrapair:event": _event_name(patch)}
        properties = items.radar({**event.orbit, **items.NOMINAL_TIME, **declared})
        yield items.item(path.stem, path, event.s1_acquired_at, properties, assets)


def _patch_and_event(path: Path, events: dict[str, _Event]) -> tuple[str, _Event]:
    """Return ("Sri-Lanka_12", its event) for .../Sri-Lanka_12_S1Hand.tif."""
    patch = path.stem.rsplit("_", 1)[0]
    name = _event_name(patch)
    event = events.get(_LOCATION_OF_EVENT.get(name, name))
    if event is None:
        raise DataError(
            f"{path}: {METADATA_NAME} has no location for event {name!r}; it has {sorted(events)}",
            "bad_item",
        )
    return patch, event


def _declared(patch: str, split_of_patch: dict[str, str], path: Path) -> dict[str, Any]:
    if patch not in split_of_patch:
        raise DataError(f"{path}: is in none of the lists {', '.join(SPLIT_OF_LIST)}", "bad_item")
    return {
        "terrapair:split": split_of_patch[patch],
        "terrapair:event": _event_name(patch),
        **items.NOMINAL_TIME,
    }


def _event_name(patch: str) -> str:
    """Return the event of a patch, as hold-outs name it: Sri-Lanka of Sri-Lanka_12."""
    return patch.rsplit("_", 1)[0]


def _label(labels: Path, patch: str, kind: LabelKind = "hand") -> dict[str, pystac.Asset]:
    path = labels / f"{patch}_{labels.name}.tif"
    return {"label": items.label(path, "water", NO_LABEL, kind)} if path.exists() else {}


def _splits(folder: Path) -> dict[str, str]:
    """Return patch -> split, from the data set's lists.

    A list has two columns without a header: S1Hand file and LabelHand file.
    """
    found: dict[str, str] = {}
    for name, split in SPLIT_OF_LIST.items():
        try:
            with (folder / name).open(newline="") as lines:
                for row in csv.reader(lines):
                    if row:
                        found[Path(row[0].strip()).stem.rsplit("_", 1)[0]] = split
        except OSError as error:
            # Scores on this data set are comparable only on its own split.
            raise DataError(
                f"{folder / name}: cannot read the split list: {error.strerror}", "missing_file"
            ) from error
    return found


def _events(path: Path) -> dict[str, _Event]:
    """Return location -> event, from the features of the metadata."""
    if not path.exists():
        raise DataError(
            f"{path}: is missing, and only it has the dates "
            f"(get gs://sen1floods11/v1.1/{METADATA_NAME})",
            "missing_file",
        )
    features = items.read_json(path).get("features")
    if not isinstance(features, list):
        raise DataError(f"{path}: needs a list of features", "bad_item")
    found = {}
    for feature in features:
        properties = feature.get("properties") if isinstance(feature, dict) else None
        if not isinstance(properties, dict) or "location" not in properties:
            raise DataError(
                f"{path}: each feature needs the properties location, s1_date and s2_date",
                "bad_item",
            )
        orbit: dict[str, Any] = {"sat:orbit_state": str(properties.get("orbit", "unknown")).lower()}
        if isinstance(properties.get("rel_orbit_num"), (int, float)):
            orbit["sat:relative_orbit"] = int(properties["rel_orbit_num"])
        found[str(properties["location"])] = _Event(
            s1_acquired_at=_noon(properties.get("s1_date"), "s1_date", path),
            s2_acquired_at=_noon(properties.get("s2_date"), "s2_date", path),
            orbit=orbit,
        )
    return found


def _noon(text: object, what: str, path: Path) -> datetime:
    """Return noon of a day; the metadata write days as 2018/02/15."""
    return items.utc_time(str(text).replace("/", "-"), what, path).replace(hour=12)
