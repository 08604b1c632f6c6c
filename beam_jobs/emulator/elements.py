"""Features, collections and filters as the server computes with them.

Input: arguments of `Collection.*`, `Filter.*`, `Feature` and geometry algorithms.
Output: features, filters, geometries and JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import Any

from shapely import affinity
from shapely.geometry import MultiPolygon, box
from shapely.geometry.base import BaseGeometry

from beam_jobs.emulator.errors import RequestError
from beam_jobs.emulator.images import Image

MAX_RESULT_ELEMENTS = 5_000
"""Most elements that one value:compute may return. Source: the message "Collection
query aborted after accumulating over 5000 elements"."""


@dataclass(frozen=True, kw_only=True)
class Feature:
    """A geometry, which may be missing, with properties."""

    properties: Mapping[str, Any] = field(default_factory=dict)
    geometry: BaseGeometry | None = None


Element = Image | Feature
Filter = Callable[[Element], bool]


def get_property(element: Element, name: str) -> Any:
    """Return a property; None if there is none of that name.

    `.geo` and `.all` give the footprint.
    """
    if name in (".geo", ".all"):
        return element.geometry
    return element.properties.get(name)


def field_filter(
    compare: Callable[[Any, Any], bool],
    *,
    left_field: str | None,
    right_value: Any,
    left_value: Any,
    right_field: str | None,
) -> Filter:
    """Return a filter that compares left with right.

    Each side is a property or a value. A missing property never matches.

    Args:
        compare: called with (left, right).
        left_field: name of the left property; None = `left_value` is compared.
        right_value: right side if `right_field` is None.
        left_value: left side if `left_field` is None.
        right_field: name of the right property; None = `right_value` is compared.
    """

    def matches(element: Element) -> bool:
        left = left_value if left_field is None else get_property(element, left_field)
        right = right_value if right_field is None else get_property(element, right_field)
        return left is not None and right is not None and bool(compare(left, right))

    return matches


def geometry_of(value: Any) -> BaseGeometry:
    """Return the geometry of a geometry, a feature or an image.

    Raises:
        RequestError: 400; the value has no geometry.
    """
    geometry = value.geometry if isinstance(value, Image | Feature) else value
    if not isinstance(geometry, BaseGeometry):
        raise RequestError(400, f"A geometry is needed, got {type(value).__name__}.")
    return geometry


def bounding_box(west: float, south: float, east: float, north: float) -> BaseGeometry:
    """Return a planar box in degrees.

    A box that crosses the antimeridian becomes two boxes, since longitudes are a
    circle.
    """
    if east < west:
        east += 360.0
    if east <= 180.0:
        return box(west, south, east, north)
    return MultiPolygon(
        [box(west, south, 180.0, north), affinity.translate(box(180.0, south, east, north), -360.0)]
    )


def milliseconds(value: Any) -> float:
    """Return a date as milliseconds since 1970.

    The value is that number already, or ISO 8601 text in UTC.
    """
    if isinstance(value, int | float):
        return float(value)
    moment = datetime.fromisoformat(str(value).replace("Z", "+00:00"))
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp() * 1000.0


def merge(first: Sequence[Element], second: Sequence[Element]) -> tuple[Element, ...]:
    """Return the elements of both; their indexes begin with 1_ and 2_."""
    return tuple(_prefixed(element, "1_") for element in first) + tuple(
        _prefixed(element, "2_") for element in second
    )


def to_json(value: Any) -> Any:
    """Return a computed value as value:compute sends it.

    Raises:
        RequestError: more than MAX_RESULT_ELEMENTS elements.
    """
    if isinstance(value, tuple):
        if len(value) > MAX_RESULT_ELEMENTS:
            raise RequestError(
                400,
                f"Collection query aborted after accumulating over {MAX_RESULT_ELEMENTS} elements.",
            )
        return {
            "type": "FeatureCollection",
            "columns": {},
            "features": [to_json(element) for element in value],
        }
    if isinstance(value, Feature):
        geometry = None if value.geometry is None else value.geometry.__geo_interface__
        properties = {
            name: item for name, item in value.properties.items() if name != "system:index"
        }
        return {
            "type": "Feature",
            "geometry": geometry,
            "id": value.properties.get("system:index", ""),
            "properties": to_json(properties),
        }
    if isinstance(value, Image):
        return {
            "type": "Image",
            "bands": [{"id": name} for name in value.names],
            "properties": dict(value.properties),
        }
    if isinstance(value, Mapping):
        return {name: to_json(item) for name, item in value.items()}
    if isinstance(value, list):
        return [to_json(item) for item in value]
    return value


def _prefixed(element: Element, prefix: str) -> Element:
    index = f"{prefix}{element.properties.get('system:index', '0')}"
    return replace(element, properties={**element.properties, "system:index": index})
