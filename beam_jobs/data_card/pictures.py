"""The two pictures of the data card: a map of the patches, and histograms.

Input: the JSON values of a card. Output: PNG files. The same card gives the same bytes,
because the files hold no date and no version.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from beam_jobs.contracts.bands import SENSORS
from beam_jobs.data_card.contents import NUM_SCORE_BINS
from beam_jobs.data_card.land import land_mask

_LEAST_DEGREES = 20.0
"""Smallest height of the map. The coast line is too coarse for a smaller map."""
_ASPECT = 2.0
"""Width of the map divided by its height, both in degrees."""
_MAX_BARS = 48


def draw_map(card: Mapping[str, Any], path: Path) -> None:
    """Draw the cells that hold patches over a map of land and sea."""
    figure = Figure(figsize=(9, 4.8), dpi=90)
    axes = figure.add_axes((0.06, 0.08, 0.92, 0.86))
    axes.imshow(
        land_mask(),
        extent=(-180, 180, -90, 90),
        cmap="Greys",
        vmin=-0.4,
        vmax=4,
        interpolation="nearest",
        aspect="auto",
    )
    cells = np.array(card["cells"], dtype=np.float64).reshape(-1, 3)
    half = card["cell_degrees"] / 2
    lat, lon, number = cells[:, 0] + half, cells[:, 1] + half, cells[:, 2]
    axes.scatter(lon, lat, s=14 + 6 * np.log10(np.maximum(number, 1)), c="#c1272d", linewidths=0)
    if len(cells):
        half_height = max(
            (np.ptp(lat) + 2 * half) * 0.55,
            (np.ptp(lon) + 2 * half) * 0.55 / _ASPECT,
            _LEAST_DEGREES / 2,
        )
        middle_lon, middle_lat = ((values.min() + values.max()) / 2 for values in (lon, lat))
        axes.set_xlim(middle_lon - half_height * _ASPECT, middle_lon + half_height * _ASPECT)
        axes.set_ylim(middle_lat - half_height, middle_lat + half_height)
    axes.set_title(
        f"{int(number.sum())} patches in {len(cells)} cells of {card['cell_degrees']:g} degrees",
        fontsize=10,
    )
    _save(figure, path)


def draw_histograms(card: Mapping[str, Any], path: Path) -> None:
    """Draw the histograms of bands, time gaps, shifts and scores."""
    figure = Figure(figsize=(11, 6), dpi=90)
    panels = figure.subplots(2, 3).ravel()
    for axes, sensor, title in zip(panels, SENSORS, ("Sentinel-1", "Sentinel-2"), strict=False):
        _draw_bands(axes, {n: e for n, e in card["bands"].items() if e["sensor"] == sensor}, title)
    gaps = {int(hour): count for hour, count in card["time_gap_hours"].items()}
    _draw_bars(panels[2], gaps, "time gap S2 - S1, hours")
    measured = {float(px): count for px, count in card["offset_px"].items() if px != "not_measured"}
    _draw_bars(
        panels[3],
        measured,
        f"measured offset, pixels ({card['offset_px']['not_measured']} not measured)",
    )
    fractions = {
        name: entry for name, entry in card["scores"].items() if name not in ("quality", "weight")
    }
    scores = {
        name: entry for name, entry in card["scores"].items() if name in ("quality", "weight")
    }
    _draw_scores(panels[4], scores, "quality of the pair")
    _draw_scores(panels[5], fractions, "fractions of a patch")
    for axes in panels:
        axes.set_yticks([])
        axes.tick_params(labelsize=8)
    figure.subplots_adjust(left=0.03, right=0.98, top=0.94, bottom=0.07, wspace=0.1, hspace=0.3)
    _save(figure, path)


def _draw_bands(axes: Axes, bands: Mapping[str, Any], title: str) -> None:
    for name, entry in bands.items():
        counts = np.array(entry["counts"], dtype=np.float64)
        if counts.sum():
            axes.plot(
                entry["first_edge"] + entry["bin_width"] * (np.arange(counts.size) + 0.5),
                counts,
                label=name,
                lw=1,
            )
    shown = np.sum(
        [np.array(entry["counts"], dtype=np.float64) for entry in bands.values()], axis=0
    )
    if np.any(shown):
        # The axis shows 99.8 % of the pixels. A few bright ones would stretch it to the
        # end of the valid range.
        share = np.cumsum(shown) / shown.sum()
        low, high = np.searchsorted(share, (0.001, 0.999))
        entry = next(iter(bands.values()))
        axes.set_xlim(
            *(entry["first_edge"] + entry["bin_width"] * edge for edge in (low - 1, high + 2))
        )
        axes.legend(fontsize=7, ncols=2, frameon=False)
    unit = next((entry["unit"] for entry in bands.values()), "")
    axes.set_title(f"{title}, {unit}", fontsize=9)


def _draw_bars(axes: Axes, counts: Mapping[Any, int], title: str) -> None:
    if counts:
        values = np.array(list(counts), dtype=np.float64)
        num_bars = int(min(_MAX_BARS, max(len(counts), 8)))
        axes.hist(values, bins=num_bars, weights=list(counts.values()), color="#33658a")
    axes.set_title(title, fontsize=9)


def _draw_scores(axes: Axes, scores: Mapping[str, Any], title: str) -> None:
    middles = (np.arange(NUM_SCORE_BINS) + 0.5) / NUM_SCORE_BINS
    for name, entry in scores.items():
        unknown = f" ({entry['unknown']} unknown)" if entry["unknown"] else ""
        axes.plot(
            middles, entry["counts"], label=f"{name}{unknown}", lw=1, marker=".", markersize=3
        )
    if scores:
        axes.legend(fontsize=7, frameon=False)
    axes.set_title(title, fontsize=9)


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, format="png", metadata={"Software": None})
