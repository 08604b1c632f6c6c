"""Results: maps and embeddings of pixels, as `PublishedModel` returns them.

Input: arrays of a model. Output: frozen dataclasses that notebooks show as pictures.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from beam_jobs.contracts.labels import IGNORE, LabelClass
from beam_jobs.contracts.records import FloatArray

_MAX_SHOWN_PX = 512
_MAX_SHOWN = 8
_NO_DATA_COLOR = "#ffffff"

Transform = tuple[float, ...]
"""Six numbers of an affine transform in rasterio's order: `Affine(*transform)`."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Maps:
    """Classes of pixels, and how sure the model is.

    Attributes:
        probabilities: float32 [H, W, K], or [B, H, W, K] of a stack; NaN = no data.
        label: class ids, uint8 [H, W] or [B, H, W]; 255 = no data.
        classes: the K classes, by id.
        transform: of the pixels of a scene; None for arrays.
        crs: of `transform`; None for arrays.
    """

    probabilities: FloatArray
    label: npt.NDArray[np.uint8]
    classes: tuple[LabelClass, ...]
    transform: Transform | None = None
    crs: str | None = None

    def __repr__(self) -> str:
        """Return shape, place and the share of each class."""
        place = f", crs={self.crs}" if self.crs else ""
        return f"Maps(label={list(self.label.shape)}, {_shares(self.label, self.classes)}{place})"

    def to_picture(self, index: int = 0) -> Image.Image:
        """Return a map in the colors of its classes; no data is white.

        Args:
            index: which map of a stack.
        """
        return _picture(self.label[index] if self.label.ndim == 3 else self.label, self.classes)

    def _repr_html_(self) -> str:
        """Return the pictures of the first maps, and a legend."""
        stack = self.label if self.label.ndim == 3 else self.label[np.newaxis]
        pictures = "".join(
            f'<img alt="" style="margin:2px" src="data:image/png;base64,{_png(one, self.classes)}">'
            for one in stack[:_MAX_SHOWN]
        )
        legend = " ".join(
            f'<span style="color:{one.color}">&#9632;</span> {html.escape(one.name)}'
            for one in self.classes
        )
        return f"<div>{pictures}<br>{legend}<br><code>{html.escape(repr(self))}</code></div>"


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Embeddings:
    """What an encoder makes of patches.

    Attributes:
        embedding: float32 [E], or [B, E] of a stack, or [R, C, E] of rows and columns
            of patches; unit norm; NaN = no pixel has data.
        features: float32 [h, w, F] or [B, h, w, F], one cell per `stride` pixels.
        stride: pixels per cell of `features`.
        transform: of the patches of a scene, as pixels; None for arrays.
        crs: of `transform`; None for arrays.
    """

    embedding: FloatArray
    features: FloatArray
    stride: int
    transform: Transform | None = None
    crs: str | None = None

    def __repr__(self) -> str:
        """Return the shapes and the place."""
        place = f", crs={self.crs}" if self.crs else ""
        return (
            f"Embeddings(embedding={list(self.embedding.shape)}, "
            f"features={list(self.features.shape)}{place})"
        )


def _picture(label: npt.NDArray[np.uint8], classes: Sequence[LabelClass]) -> Image.Image:
    colors = [_NO_DATA_COLOR] * 256
    for one in classes:
        colors[one.id] = one.color
    picture = Image.fromarray(label)
    picture.putpalette(b"".join(bytes.fromhex(color[1:]) for color in colors))
    return picture


def _png(label: npt.NDArray[np.uint8], classes: Sequence[LabelClass]) -> str:
    step = -(-max(label.shape) // _MAX_SHOWN_PX)
    buffer = io.BytesIO()
    # A copy, because Pillow wants contiguous rows.
    _picture(label[::step, ::step].copy(), classes).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def _shares(label: npt.NDArray[np.uint8], classes: Sequence[LabelClass]) -> str:
    counts = np.bincount(label.ravel(), minlength=256)
    num_valid = max(int(counts[:IGNORE].sum()), 1)
    shares = [f"{one.name} {100 * counts[one.id] / num_valid:.1f} %" for one in classes]
    return ", ".join([*shares, f"no data {100 * counts[IGNORE] / max(label.size, 1):.1f} %"])
