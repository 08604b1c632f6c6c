"""Pictures: a map at a glance, and the page that shows all maps of a folder.

Input: `class.tif`. Output: PNG with legend, scale bar and date; HTML. The same map
gives the same bytes.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rasterio
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from beam_jobs.contracts.labels import LabelClass
from beam_jobs.predict.parts import MapTask
from beam_jobs.rasters import writing

PICTURE_FILE = "map.png"
PAGE_FILE = "index.html"
_MAX_PX = 900
_WIDTH_INCHES, _FOOT_INCHES, _DPI = 7.0, 0.9, 110
_NO_DATA_RGB = (255, 255, 255)


def draw(class_file: Path, task: MapTask, classes: Sequence[LabelClass], path: Path) -> None:
    """Draw a map with legend, scale bar and date."""
    with rasterio.open(class_file) as dataset:
        smaller = max(1.0, max(dataset.shape) / _MAX_PX)
        shape = tuple(max(1, round(side / smaller)) for side in dataset.shape)
        ids = dataset.read(1, out_shape=shape)
        pixel_m = abs(dataset.transform.a) * dataset.width / shape[1]
    table = np.full((256, 3), _NO_DATA_RGB, np.uint8)
    for one in classes:
        table[one.id] = [int(one.color[at : at + 2], 16) for at in (1, 3, 5)]
    height, width = shape
    map_inches = _WIDTH_INCHES * height / width
    figure = Figure(figsize=(_WIDTH_INCHES, map_inches + _FOOT_INCHES), dpi=_DPI)
    foot = _FOOT_INCHES / (map_inches + _FOOT_INCHES)
    axes = figure.add_axes((0.0, foot, 1.0, 1.0 - foot))
    axes.imshow(table[ids], interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    _add_scale_bar(axes, width, height, pixel_m)
    title = f"{task.map_id}\n{task.acquired:%Y-%m-%d %H:%M} UTC"
    figure.text(0.02, 0.95 * foot, title, fontsize=8, verticalalignment="top")
    shares = np.bincount(ids.ravel(), minlength=256)
    num_valid = max(int(shares[:255].sum()), 1)
    figure.legend(
        handles=[
            Patch(color=one.color, label=f"{one.name} {100 * shares[one.id] / num_valid:.1f} %")
            for one in classes
        ],
        loc="lower right",
        ncols=3,
        fontsize=7,
        frameon=False,
    )
    # Without the version of matplotlib, which would change the bytes.
    with writing.whole(path, is_tiff=False):
        figure.savefig(path, metadata={"Software": None})


def _add_scale_bar(axes: Axes, width: int, height: int, pixel_m: float) -> None:
    """Draw a bar of a round length, about a fifth of the map."""
    wanted = 0.2 * width * pixel_m
    step = 10.0 ** math.floor(math.log10(wanted))
    length_m = max(factor * step for factor in (1, 2, 5) if factor * step <= wanted)
    text = f"{length_m / 1000:g} km" if length_m >= 1000 else f"{length_m:g} m"
    left, top = 0.03 * width, 0.96 * height
    for color, line in (("black", 5.0), ("white", 2.5)):
        axes.plot([left, left + length_m / pixel_m], [top, top], color=color, linewidth=line)
    axes.text(
        left,
        top - 0.02 * height,
        text,
        fontsize=8,
        bbox={"facecolor": "white", "alpha": 0.7, "pad": 1.0, "linewidth": 0},
    )


def page(title: str, names: Sequence[str]) -> str:
    """Return an HTML page with the pictures of all maps.

    Args:
        title: of the page.
        names: folders of the maps, relative to the page.
    """
    figures = "\n".join(
        f'<figure><a href="{html.escape(_url(name))}/class.tif">'
        f'<img src="{html.escape(_url(name))}/{PICTURE_FILE}" alt="" loading="lazy"></a>'
        f"<figcaption>{html.escape(name)}</figcaption></figure>"
        for name in names
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{html.escape(title)}</title>
<style>
body {{ font-family: sans-serif; margin: 2em; }}
main {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(20em, 1fr)); gap: 1em; }}
figure {{ margin: 0; }}
img {{ width: 100%; }}
figcaption {{ font-size: 0.8em; overflow-wrap: anywhere; }}
</style>
</head>
<body>
<h1>{html.escape(title)}</h1>
<main>
{figures}
</main>
</body>
</html>
"""


def _url(name: str) -> str:
    return name.replace("%", "%25")
