"""Vector labels: burn polygons and points with a class onto any grid.

Input: a LabelSource with `vector`, a Grid and the time of the scene. Output: uint8 ids
of the wanted schema, 255 = ignore. GeoPackage, GeoJSON and shapefile are read; the
content of a file tells its kind.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyogrio
import pyproj
import shapely
from pyogrio import raw
from rasterio.errors import CRSError
from rasterio.features import rasterize
from rasterio.warp import transform_bounds

from beam_jobs.contracts.label_target import LabelTarget, VectorColumns
from beam_jobs.contracts.labels import IGNORE
from beam_jobs.errors import DataError
from beam_jobs.rasters import gdal_paths
from beam_jobs.scenes import footprints
from beam_jobs.scenes.grids import LONLAT, Bounds, Grid, transformer
from beam_jobs.scenes.label_assets import LabelSource
from beam_jobs.scenes.scene import Scene

Kind = Literal["GeoPackage", "shapefile", "GeoJSON"]
_STARTS: dict[bytes, Kind] = {
    b"SQLite format 3\x00": "GeoPackage",
    b"\x00\x00\x27\x0a": "shapefile",
    b"{": "GeoJSON",
}
"""First bytes of a file -> its kind.

Source: SQLite's file format, section 1.3; ESRI Shapefile Technical Description, p. 4;
RFC 7946 (a GeoJSON text is a JSON object).
"""
_SIDE_SUFFIXES = (".dbf", ".shx", ".prj", ".cpg")
"""Files beside a shapefile that hold its columns, index, CRS and text encoding."""
_DRIVERS = ("GPKG", "GeoJSON", "ESRI Shapefile")
"""Names that GDAL has for these kinds; it knows other files with the same start."""
_KINDS = ("Polygon", "MultiPolygon", "Point", "MultiPoint")
_Stamp = tuple[tuple[int, int], ...]
_BATCH = 1 << 16
"""Features that are checked at a time, so that memory does not grow with the file."""


@dataclass(frozen=True, kw_only=True)
class Features:
    """Features of a vector file.

    Attributes:
        geometries: shapely geometries [N] in `crs`; None where a feature has none.
        classes: texts of the class column [N], "" = none.
        columns: name -> class texts, or days as datetime64[D].
        crs: coordinate system as text that pyproj reads.
    """

    geometries: npt.NDArray[Any]
    classes: list[str]
    columns: Mapping[str, npt.NDArray[Any]]
    crs: str

    def __len__(self) -> int:
        return len(self.classes)


def kind_of(path: str) -> Kind | None:
    """Return which kind of vector file this is, by its first bytes; None = no such.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")
    except OSError as error:
        raise DataError(
            f"{path}: cannot read the label's polygons: {error.strerror}", "missing_file"
        ) from error
    return next((kind for first, kind in _STARTS.items() if start.startswith(first)), None)


def is_vector(path: str) -> bool:
    """Return whether a path is a vector file of this machine."""
    return Path(path).is_file() and kind_of(path) is not None


def files_of(path: str) -> list[str]:
    """Return the file and those that belong to it, as a shapefile has them."""
    at = Path(path)
    if at.suffix.lower() != ".shp":
        return [path]
    # Some programs write .DBF; on a file system that ignores case both exist.
    beside = (at.with_suffix(end) for low in _SIDE_SUFFIXES for end in (low, low.upper()))
    return [path, *(str(other) for other in beside if other.exists())]


def read(
    source: LabelSource, target: LabelTarget, grid: Grid, acquired_at: int
) -> npt.NDArray[np.uint8]:
    """Return the label on `grid` in ids of `target`, uint8 [H, W], 255 = ignore.

    A polygon gives its class to the pixels whose centre it contains, a point to the
    pixel that contains it. Pixels without a feature are 255, and so are pixels with
    features of several classes: which of them is right cannot be told.

    Args:
        source: where the label is, with `vector`.
        target: classes of the build.
        grid: wanted grid.
        acquired_at: time of the scene, in seconds since 1970, UTC. Features of another
            time are left out; see `VectorColumns.is_valid`.

    Raises:
        DataError: the file cannot be read, has no such column or no CRS, or a class is
            unknown.
    """
    columns = _columns(source)
    found = _read_in(source.path, columns, [(grid.crs, grid.bounds)])
    found = _only(found, columns.is_valid(found.columns, acquired_at))
    ids = np.asarray(_ids(source, target, found.classes), np.uint8)
    shapes = _in_crs(source.path, found, grid.crs)
    result = np.full((grid.height, grid.width), IGNORE, np.uint8)
    num_classes = np.zeros(result.shape, np.uint8)
    for label_id in np.unique(ids):
        covered = rasterize(
            [(one, 1) for one in shapes[ids == label_id]],
            out_shape=result.shape,
            transform=grid.affine,
            dtype=np.uint8,
        ).astype(bool)
        result[covered] = label_id
        num_classes += covered
    result[num_classes > 1] = IGNORE
    return result


def check_place(scene: Scene, target: LabelTarget) -> str:
    """Return why a scene gets no label from its vector file; "" = it gets one.

    Raises:
        DataError: the file breaks a rule; see `check_file`.
    """
    source = scene.label
    if source is None or source.vector is None:
        raise ValueError(f"{scene.scene_id}: has no vector label")
    check_file(source, target)
    footprint = footprints.on_globe(scene.footprint)
    boxes = [(LONLAT, part.bounds) for part in shapely.get_parts(footprint) if not part.is_empty]
    if not boxes:
        return f"{source.path}: the scene has no extent"
    found = _read_in(source.path, source.vector, boxes)
    inside = shapely.intersects(_in_crs(source.path, found, LONLAT), footprint)
    inside = np.asarray(inside, bool)
    if not inside.any():
        return f"{source.path}: no polygon or point lies in the scene"
    valid = source.vector.is_valid(found.columns, scene.acquired_at)
    if not (inside & valid).any():
        day = datetime.fromtimestamp(scene.acquired_at, timezone.utc).date()
        return f"{source.path}: no polygon or point of the scene holds on {day}"
    return ""


def check_file(source: LabelSource, target: LabelTarget) -> None:
    """Check all features of a vector file; a file that was checked is not read again.

    Raises:
        DataError: the file is missing, of another kind, or has no CRS, several layers
            and none named, no such column, a geometry that is empty, invalid or neither
            polygon nor point, an unknown class or a date that cannot be read.
    """
    _check_file(source.path, _columns(source), source.schema, _as_key(target), _stamp(source.path))


def lonlat_boxes(path: str, columns: VectorColumns) -> npt.NDArray[Any]:
    """Return the boxes of all features in degrees, as shapely geometries [N]."""
    boxes = [
        shapely.box(*shapely.bounds(_in_crs(path, batch, LONLAT)).T)
        for batch in _batches(path, columns)
    ]
    return np.concatenate(boxes) if boxes else np.array([], object)


def count_classes(source: LabelSource) -> Counter[str]:
    """Return the number of features of each text in the class column."""
    counts: Counter[str] = Counter()
    for batch in _batches(source.path, _columns(source)):
        counts.update(batch.classes)
    return counts


@dataclass(frozen=True)
class _Target:
    """A LabelTarget that `lru_cache` can take; equal texts are equal targets."""

    text: str
    target: LabelTarget

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Target) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)


def _as_key(target: LabelTarget) -> _Target:
    return _Target(repr(target), target)


def _stamp(path: str) -> _Stamp:
    """Return sizes and times of a file and those that belong to it."""
    states = [Path(one).stat() for one in files_of(path) if Path(one).exists()]
    return tuple((state.st_size, state.st_mtime_ns) for state in states)


@lru_cache(maxsize=16)
def _check_file(
    path: str, columns: VectorColumns, schema: str, target: _Target, stamp: _Stamp
) -> None:
    del stamp  # A part of the key only: a changed file is checked again.
    source = LabelSource(path=path, schema=schema, nodata=None, vector=columns)
    classes: set[str] = set()
    num_features = 0
    for batch in _batches(path, columns):
        _check_geometries(path, batch, num_features)
        classes |= set(batch.classes)
        num_features += len(batch)
    if not num_features:
        raise DataError(f"{path}: holds no polygon and no point", "bad_vector")
    _ids(source, target.target, sorted(classes))


def _check_geometries(path: str, batch: Features, first: int) -> None:
    """Refuse geometries that cannot be burned, and features without a class."""
    shapes = batch.geometries
    empty = np.array([one is None or one.is_empty for one in shapes], bool)
    checks = [(empty, "has no geometry: delete it or draw it")]
    kinds = np.array(["" if one is None else one.geom_type for one in shapes], object)
    other = ~empty & ~np.isin(kinds, _KINDS)
    checks.append((other, "is neither polygon nor point: convert it"))
    invalid = ~empty & ~other & ~shapely.is_valid(shapes)
    checks.append((invalid, "is not valid: mend it, with ST_MakeValid for example"))
    nameless = np.array([not text for text in batch.classes], bool)
    checks.append((nameless, "has no class: fill in its column"))
    for wrong, why in checks:
        if wrong.any():
            at = int(np.argmax(wrong))
            detail = f" ({shapely.is_valid_reason(shapes[at])})" if wrong is invalid else ""
            more = f" (and {wrong.sum() - 1} more like it)" if wrong.sum() > 1 else ""
            raise DataError(f"{path}: feature {first + at + 1}{more} {why}{detail}", "bad_vector")


def _columns(source: LabelSource) -> VectorColumns:
    if source.vector is None:
        raise ValueError(f"{source.path}: is no vector label")
    return source.vector


def _ids(source: LabelSource, target: LabelTarget, classes: list[str]) -> list[int]:
    distinct = sorted(set(classes))
    try:
        ids = target.ids(distinct, source.schema, source.values)
    except ValueError as error:
        column = _columns(source).column
        raise DataError(
            f"{source.path}: column {column!r}: {error}", "label_id_outside_schema"
        ) from error
    table = dict(zip(distinct, ids, strict=True))
    return [table[text] for text in classes]


def _only(found: Features, chosen: npt.NDArray[np.bool_]) -> Features:
    return Features(
        geometries=found.geometries[chosen],
        classes=[text for text, wanted in zip(found.classes, chosen, strict=True) if wanted],
        columns={name: values[chosen] for name, values in found.columns.items()},
        crs=found.crs,
    )


@dataclass(frozen=True, kw_only=True)
class _Layer:
    """The layer of a vector file that holds the labels."""

    name: str
    crs: str


def _layer(path: str, columns: VectorColumns) -> _Layer:
    """Return the layer, after checking the file.

    Raises:
        DataError: as of `check_file`.
    """
    if gdal_paths.is_remote(path):
        raise DataError(
            f"{path}: vector labels are read from local files only: copy it to a local folder",
            "bad_vector",
        )
    return _layer_once(path, columns, _stamp(path))


@lru_cache(maxsize=64)
def _layer_once(path: str, columns: VectorColumns, stamp: _Stamp) -> _Layer:
    # A build reads a file once for each strip of each scene, and GDAL parses a whole
    # GeoJSON to name its layers.
    del stamp  # A part of the key only: a changed file is looked at again.
    if kind_of(path) is None:
        raise DataError(
            f"{path}: is neither a GeoPackage, a GeoJSON nor a shapefile (.shp): convert it; for "
            "a raster remove terrapair:label_column",
            "bad_vector",
        )
    try:
        names = [str(name) for name in pyogrio.list_layers(path)[:, 0]]
        if columns.layer and columns.layer not in names:
            raise DataError(
                f"{path}: has no layer {columns.layer!r}; it has {', '.join(names)}", "bad_vector"
            )
        if len(names) != 1 and not columns.layer:
            raise DataError(
                f"{path}: has {len(names)} layers ({', '.join(names)}): name one as `layer` "
                "(terrapair:label_layer)",
                "bad_vector",
            )
        name = columns.layer or names[0]
        info = pyogrio.read_info(path, layer=name)
    except pyogrio.errors.DataSourceError as error:
        raise _unreadable(path, error) from error
    if info["driver"] not in _DRIVERS:
        raise DataError(
            f"{path}: is {info['driver']}, not a GeoPackage, a GeoJSON or a shapefile: convert it",
            "bad_vector",
        )
    known = [str(field) for field in info["fields"]]
    for column in columns.names:
        if column not in known:
            raise DataError(
                f"{path}: has no column {column!r}; it has {', '.join(known) or 'none'}",
                "bad_vector",
            )
    return _Layer(name=name, crs=_usable_crs(path, info["crs"]))


def _usable_crs(path: str, crs: str | None) -> str:
    """Return the CRS if it says where on Earth the features lie."""
    try:
        found = pyproj.CRS.from_user_input(crs) if crs else None
    except pyproj.exceptions.CRSError:
        found = None
    # An undefined system of a GeoPackage comes as an engineering CRS.
    if found is None or not (found.is_geographic or found.is_projected):
        raise DataError(
            f"{path}: the file has no coordinate system"
            f"{f' but {found.name!r}' if found is not None else ''}: write one into it "
            "(a shapefile has it in its .prj)",
            "missing_crs",
        )
    return str(crs)


def _batches(path: str, columns: VectorColumns) -> Iterator[Features]:
    """Yield all features of the layer, at most `_BATCH` at a time."""
    layer = _layer(path, columns)
    first = 0
    while True:
        batch = _read(path, layer, columns, skip_features=first, max_features=_BATCH)
        if len(batch):
            yield batch
        first += len(batch)
        if len(batch) < _BATCH:
            return


def _read_in(path: str, columns: VectorColumns, boxes: list[tuple[str, Bounds]]) -> Features:
    """Return the features whose boxes meet one of some boxes, each given in its CRS."""
    layer = _layer(path, columns)
    parts = [
        _read(path, layer, columns, bbox=bounds)
        for crs, box in boxes
        for bounds in _in_layer(path, layer, crs, box)
    ]
    if len(parts) == 1:
        return parts[0]
    return Features(
        geometries=np.concatenate([part.geometries for part in parts]),
        classes=[text for part in parts for text in part.classes],
        columns={
            name: np.concatenate([part.columns[name] for part in parts]) for name in columns.names
        },
        crs=layer.crs,
    )


def _in_layer(path: str, layer: _Layer, crs: str, box: Bounds) -> list[Bounds]:
    """Return a box in the CRS of the layer; two boxes across the antimeridian."""
    try:
        xmin, ymin, xmax, ymax = transform_bounds(crs, layer.crs, *box, densify_pts=21)
    except CRSError as error:
        raise DataError(
            f"{path}: its coordinate system cannot be used: {' '.join(str(error).split())}",
            "wrong_crs",
        ) from error
    if xmin > xmax:
        return [(xmin, ymin, 180.0, ymax), (-180.0, ymin, xmax, ymax)]
    return [(xmin, ymin, xmax, ymax)]


def _read(path: str, layer: _Layer, columns: VectorColumns, **which: Any) -> Features:
    try:
        meta, _, geometries, values = raw.read(
            path,
            layer=layer.name,
            columns=columns.names,
            force_2d=True,
            datetime_as_string=True,
            **which,
        )
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, ValueError) as error:
        raise _unreadable(path, error) from error
    by_name = dict(zip(map(str, meta["fields"]), values, strict=True))
    classes = [_class_text(value) for value in by_name[columns.column]]
    found: dict[str, npt.NDArray[Any]] = {columns.column: np.array(classes, object)}
    for name in columns.names[1:]:
        found[name] = _days(path, name, by_name[name])
    try:
        shapes = shapely.from_wkb(geometries)
    except shapely.errors.GEOSException as error:
        raise _unreadable(path, error) from error
    return Features(
        geometries=np.asarray(shapes, object), classes=classes, columns=found, crs=layer.crs
    )


def _class_text(value: Any) -> str:
    """Return a class as text; whole numbers without a fraction, "" for none."""
    if value is None or value != value:
        return ""
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    return str(value).strip()


def _days(path: str, column: str, values: npt.NDArray[Any]) -> npt.NDArray[np.datetime64]:
    """Return dates as days of UTC, NaT = none.

    Raises:
        DataError: a text is no ISO 8601 date.
    """
    return np.array([_day(path, column, value) for value in values], "datetime64[D]")


def _day(path: str, column: str, value: Any) -> np.datetime64:
    if value is None or value != value or not str(value).strip():
        return np.datetime64("NaT")
    if isinstance(value, np.datetime64):
        return value.astype("datetime64[D]")
    try:
        # Shapefiles and GDAL write 2024/01/31, too.
        time = datetime.fromisoformat(str(value).strip().replace("/", "-"))
    except ValueError as error:
        raise DataError(
            f"{path}: column {column!r}: dates must be like 2024-01-31, got {str(value)!r}",
            "bad_vector",
        ) from error
    return np.datetime64((time.astimezone(timezone.utc) if time.tzinfo else time).date(), "D")


def _in_crs(path: str, found: Features, crs: str) -> npt.NDArray[Any]:
    """Return the geometries in another CRS.

    Raises:
        DataError: a coordinate has no place there.
    """
    if found.crs == crs or not len(found):
        return found.geometries
    project = transformer(found.crs, crs).transform
    moved = shapely.transform(
        found.geometries, lambda xy: np.column_stack(project(xy[:, 0], xy[:, 1]))
    )
    if not np.isfinite(shapely.get_coordinates(moved)).all():
        raise DataError(
            f"{path}: a coordinate cannot be brought from {found.crs.split(',')[0]} to {crs}: "
            "correct the coordinate system or the feature",
            "wrong_crs",
        )
    return moved


def _unreadable(path: str, error: Exception) -> DataError:
    # The rest of GDAL's message advises on options that nobody can set here.
    detail = " ".join(str(error).split()).split(".;")[0]
    return DataError(f"{path}: cannot read the label's polygons: {detail}", "bad_vector")
