"""Images as the server computes with them: named bands, read on demand.

Input: arguments of `Image.*` algorithms. Output: new images. Pixels are read only when
`planes` is called with a grid.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from shapely.geometry.base import BaseGeometry

from beam_jobs.emulator.errors import RequestError
from beam_jobs.emulator.rasters import Plane
from beam_jobs.scenes.grids import Grid

Reader = Callable[[Grid], Plane]


@dataclass(frozen=True, kw_only=True)
class Band:
    """A name, and a function that reads the pixels [H, W] on a grid."""

    name: str
    read: Reader


@dataclass(frozen=True, kw_only=True)
class Image:
    """Bands with properties; `geometry` is the footprint in lon/lat."""

    bands: tuple[Band, ...]
    properties: Mapping[str, Any] = field(default_factory=dict)
    geometry: BaseGeometry | None = None

    @property
    def names(self) -> list[str]:
        """Band names in order."""
        return [band.name for band in self.bands]

    def planes(self, grid: Grid) -> list[Plane]:
        """Return the pixels of every band on the grid."""
        return [band.read(grid) for band in self.bands]

    def mapped(self, function: Callable[[Plane, Grid], Plane]) -> Image:
        """Return the image with `function` applied to each plane."""
        bands = [replace(band, read=_compose(function, band.read)) for band in self.bands]
        return replace(self, bands=tuple(bands))


def constant(value: float) -> Image:
    """Return an image with one band `constant` of that value everywhere."""
    return Image(bands=(Band(name="constant", read=lambda grid: _full(grid, value)),))


def select(image: Image, selectors: Sequence[str | int], new_names: Sequence[str] | None) -> Image:
    """Return the chosen bands, by name or index.

    They are renamed if `new_names` is given.

    Raises:
        RequestError: no such band.
    """
    bands = []
    for selector in selectors:
        found = [
            band
            for index, band in enumerate(image.bands)
            if selector == index
            or (isinstance(selector, str) and re.fullmatch(selector, band.name))
        ]
        if not found:
            raise RequestError(
                400,
                f"Image.select: Band pattern '{selector}' was applied to an Image "
                f"with no matching bands. Available bands: [{', '.join(image.names)}]",
            )
        bands += found
    chosen = replace(image, bands=tuple(bands))
    return chosen if new_names is None else rename(chosen, new_names)


def rename(image: Image, names: Sequence[str]) -> Image:
    """Return the same bands under other names."""
    if len(names) != len(image.bands):
        raise RequestError(
            400, f"Image.rename: Got {len(names)} names for {len(image.bands)} bands."
        )
    bands = [replace(band, name=name) for band, name in zip(image.bands, names, strict=True)]
    return replace(image, bands=tuple(bands))


def add_bands(destination: Image, source: Image) -> Image:
    """Return all bands of both, with properties and footprint of the first."""
    repeated = set(destination.names) & set(source.names)
    if repeated:
        raise RequestError(
            400,
            f"Image.addBands: the emulator renames no bands, and {sorted(repeated)} come twice.",
        )
    return replace(destination, bands=destination.bands + source.bands)


def unmask(image: Image, value: Image | None, same_footprint: bool) -> Image:
    """Return the image with its masked pixels set to the value.

    The dtype grows if it cannot hold the value.

    Raises:
        RequestError: sameFootprint is true, which the emulator does not know.
    """
    if same_footprint:
        raise RequestError(400, "Image.unmask: the emulator knows sameFootprint=false only.")
    fill = value or constant(0)

    def fill_plane(plane: Plane, grid: Grid) -> Plane:
        values = fill.bands[0].read(grid)
        fits = np.array_equal(values.data.astype(plane.dtype), values.data)
        dtype = plane.dtype if fits else np.result_type(plane.dtype, np.float64)
        return np.ma.masked_array(
            np.where(np.ma.getmaskarray(plane), values.data, plane.data).astype(dtype), False
        )

    return image.mapped(fill_plane)


def multiply(image: Image, factor: Image) -> Image:
    """Return every band times the one band of `factor`."""
    return image.mapped(lambda plane, grid: plane.astype(np.float64) * factor.bands[0].read(grid))


def rounded(image: Image) -> Image:
    """Return the image with every pixel rounded to the nearest integer."""
    return image.mapped(lambda plane, grid: np.ma.round(plane))


def cast(image: Image, dtype: str) -> Image:
    """Return every band in another dtype; integers are clamped to its range."""

    def convert(plane: Plane, grid: Grid) -> Plane:
        if np.issubdtype(np.dtype(dtype), np.integer):
            limits = np.iinfo(dtype)
            return np.ma.asarray(np.clip(plane, limits.min, limits.max).astype(dtype))
        return np.ma.asarray(plane.astype(dtype))

    return image.mapped(convert)


def link_collection(
    image: Image, collection: Sequence[Image], names: Sequence[str] | str, property_name: str
) -> Image:
    """Return the image with bands of the collection's image that shares a property.

    If no image shares it, the bands are fully masked.
    """
    names = [names] if isinstance(names, str) else list(names)
    key = image.properties.get(property_name)
    match = next(
        (other for other in collection if other.properties.get(property_name) == key), None
    )
    if match is None:
        empty = tuple(
            Band(
                name=name, read=lambda grid: np.ma.masked_all((grid.height, grid.width), np.float32)
            )
            for name in names
        )
        return add_bands(image, Image(bands=empty))
    return add_bands(image, select(match, names, None))


def half_masked(image: Image) -> Image:
    """Return the image with its left half masked on every grid: the fault `masked`."""

    def hide(plane: Plane, grid: Grid) -> Plane:
        mask = np.ma.getmaskarray(plane).copy()
        mask[:, : grid.width // 2] = True
        return np.ma.masked_array(plane.data, mask)

    return image.mapped(hide)


def _compose(function: Callable[[Plane, Grid], Plane], read: Reader) -> Reader:
    return lambda grid: function(read(grid), grid)


def _full(grid: Grid, value: float) -> Plane:
    return np.ma.masked_array(np.full((grid.height, grid.width), value), False)
