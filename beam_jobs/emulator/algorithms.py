"""The algorithms of the emulator: the signature of each, and what it does.

Input: none; this is a table. Output: the answer to `algorithms`, and functions for
`expressions.py`. Names, argument names and types are those that Earth Engine publishes.
Algorithms that are not in the table are refused.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from shapely.geometry import Polygon

from beam_jobs.emulator import elements, images
from beam_jobs.emulator.elements import Feature
from beam_jobs.emulator.errors import RequestError
from beam_jobs.emulator.images import Image


class Assets(Protocol):
    """Where images and collections come from, and what requests cost."""

    def image(self, image_id: str) -> Image:
        """Return the image of that id."""

    def collection(self, collection_id: str) -> tuple[Image, ...]:
        """Return the images of a collection."""

    def profile(self, profile_ids: list[str]) -> str:
        """Return the cost of the requests with these ids, as text."""


@dataclass(frozen=True, kw_only=True)
class Algorithm:
    """One algorithm.

    Attributes:
        returns: type of the result, as Earth Engine names it.
        arguments: "name:Type" each; a type that ends with ? is optional.
        run: called with the assets and the named arguments.
    """

    returns: str
    arguments: tuple[str, ...]
    run: Callable[[Assets, Mapping[str, Any]], Any]


def _algorithm(
    returns: str, arguments: str, run: Callable[[Assets, Mapping[str, Any]], Any]
) -> Algorithm:
    return Algorithm(returns=returns, arguments=tuple(arguments.split()), run=run)


_FIELDS = "leftField:String? rightValue:Object? rightField:String? leftValue:Object?"


def _comparison(compare: Callable[[Any, Any], bool], extra: str = "") -> Algorithm:
    def run(assets: Assets, a: Mapping[str, Any]) -> elements.Filter:
        return elements.field_filter(
            compare,
            left_field=a.get("leftField"),
            right_value=a.get("rightValue"),
            left_value=a.get("leftValue"),
            right_field=a.get("rightField"),
        )

    return _algorithm("Filter", f"{_FIELDS} {extra}", run)


def _cast(dtype: str) -> Algorithm:
    return _algorithm("Image", "value:Image", lambda assets, a: images.cast(a["value"], dtype))


def _date_range(assets: Assets, a: Mapping[str, Any]) -> tuple[float, float]:
    start = elements.milliseconds(a["start"])
    return start, elements.milliseconds(a["end"]) if a.get("end") is not None else start + 1


def _first(assets: Assets, a: Mapping[str, Any]) -> elements.Element:
    if not a["collection"]:
        raise RequestError(400, "Collection.first: the collection is empty.")
    return a["collection"][0]


def _get(assets: Assets, a: Mapping[str, Any]) -> Any:
    return elements.get_property(a["object"], a["property"])


def _feature(assets: Assets, a: Mapping[str, Any]) -> Feature:
    return Feature(geometry=a.get("geometry"), properties=a.get("metadata") or {})


def _map(assets: Assets, a: Mapping[str, Any]) -> tuple[Any, ...]:
    mapped = []
    for element in a["collection"]:
        result = a["baseAlgorithm"](element)
        index = {"system:index": element.properties.get("system:index", "")}
        mapped.append(Feature(geometry=result.geometry, properties={**result.properties, **index}))
    return tuple(mapped)


ALGORITHMS: dict[str, Algorithm] = {
    "Image.load": _algorithm(
        "Image", "id:String version:Long?", lambda assets, a: assets.image(a["id"])
    ),
    "Image.constant": _algorithm(
        "Image", "value:Object", lambda assets, a: images.constant(a["value"])
    ),
    "Image.select": _algorithm(
        "Image",
        "input:Image bandSelectors:List<Object> newNames:List<String>?",
        lambda assets, a: images.select(a["input"], a["bandSelectors"], a.get("newNames")),
    ),
    "Image.rename": _algorithm(
        "Image",
        "input:Image names:List<String>",
        lambda assets, a: images.rename(a["input"], a["names"]),
    ),
    "Image.unmask": _algorithm(
        "Image",
        "input:Image value:Image? sameFootprint:Boolean?",
        lambda assets, a: images.unmask(a["input"], a.get("value"), a.get("sameFootprint", True)),
    ),
    "Image.multiply": _algorithm(
        "Image",
        "image1:Image image2:Image",
        lambda assets, a: images.multiply(a["image1"], a["image2"]),
    ),
    "Image.round": _algorithm("Image", "value:Image", lambda assets, a: images.rounded(a["value"])),
    "Image.toUint8": _cast("uint8"),
    "Image.toUint16": _cast("uint16"),
    "Image.toInt16": _cast("int16"),
    "Image.toFloat": _cast("float32"),
    "Image.addBands": _algorithm(
        "Image",
        "dstImg:Image srcImg:Image names:List<String>? overwrite:Boolean?",
        lambda assets, a: images.add_bands(a["dstImg"], a["srcImg"]),
    ),
    "Image.linkCollection": _algorithm(
        "Image",
        "input:Image imageCollection:ImageCollection linkedBands:Object? linkedProperties:Object? "
        "matchPropertyName:String?",
        lambda assets, a: images.link_collection(
            a["input"],
            a["imageCollection"],
            a["linkedBands"],
            a.get("matchPropertyName", "system:index"),
        ),
    ),
    "ImageCollection.load": _algorithm(
        "ImageCollection", "id:String version:Long?", lambda assets, a: assets.collection(a["id"])
    ),
    "Collection.filter": _algorithm(
        "FeatureCollection",
        "collection:FeatureCollection filter:Object",
        lambda assets, a: tuple(filter(a["filter"], a["collection"])),
    ),
    "Collection.map": _algorithm(
        "FeatureCollection",
        "collection:FeatureCollection baseAlgorithm:Algorithm dropNulls:Boolean?",
        _map,
    ),
    "Collection.merge": _algorithm(
        "FeatureCollection",
        "collection1:FeatureCollection collection2:FeatureCollection",
        lambda assets, a: elements.merge(a["collection1"], a["collection2"]),
    ),
    "Collection.first": _algorithm("Element", "collection:FeatureCollection", _first),
    "Collection.size": _algorithm(
        "Integer", "collection:FeatureCollection", lambda assets, a: len(a["collection"])
    ),
    "Element.get": _algorithm("Object", "object:Element property:String", _get),
    "Feature": _algorithm(
        "Feature", "geometry:Geometry? metadata:Dictionary<Object>? geometryKey:String?", _feature
    ),
    "Filter.equals": _comparison(operator.eq),
    "Filter.lessThan": _comparison(operator.lt),
    "Filter.lessThanOrEquals": _comparison(operator.le),
    "Filter.greaterThan": _comparison(operator.gt),
    "Filter.greaterThanOrEquals": _comparison(operator.ge),
    "Filter.listContains": _comparison(lambda left, right: right in left),
    "Filter.dateRangeContains": _comparison(lambda left, right: left[0] <= right < left[1]),
    "Filter.intersects": _comparison(
        lambda left, right: elements.geometry_of(left).intersects(elements.geometry_of(right)),
        "maxError:ErrorMargin?",
    ),
    "Filter.contains": _comparison(
        lambda left, right: elements.geometry_of(left).contains(elements.geometry_of(right)),
        "maxError:ErrorMargin?",
    ),
    "Filter.and": _algorithm(
        "Filter",
        "filters:List<Filter>",
        lambda assets, a: lambda element: all(matches(element) for matches in a["filters"]),
    ),
    "Filter.not": _algorithm(
        "Filter", "filter:Filter", lambda assets, a: lambda element: not a["filter"](element)
    ),
    "Date": _algorithm(
        "Date", "value:Object timeZone:String?", lambda assets, a: elements.milliseconds(a["value"])
    ),
    "DateRange": _algorithm("DateRange", "start:Object end:Object? timeZone:String?", _date_range),
    "GeometryConstructors.BBox": _algorithm(
        "Geometry",
        "west:Float south:Float east:Float north:Float",
        lambda assets, a: elements.bounding_box(a["west"], a["south"], a["east"], a["north"]),
    ),
    "GeometryConstructors.Polygon": _algorithm(
        "Geometry",
        "coordinates:List<Object> crs:Projection? geodesic:Boolean? maxError:ErrorMargin? "
        "evenOdd:Boolean?",
        lambda assets, a: Polygon(a["coordinates"][0], a["coordinates"][1:]),
    ),
    "Profile.getProfiles": _algorithm(
        "Object",
        "ids:List<String> format:String? maxEntries:Integer?",
        lambda assets, a: assets.profile(a["ids"]),
    ),
}


def algorithms_answer() -> dict[str, Any]:
    """Return the answer to `GET projects/*/algorithms`."""
    return {"algorithms": [_describe(name, algorithm) for name, algorithm in ALGORITHMS.items()]}


def _describe(name: str, algorithm: Algorithm) -> dict[str, Any]:
    arguments = []
    for text in algorithm.arguments:
        argument_name, _, type_name = text.partition(":")
        argument: dict[str, Any] = {
            "argumentName": argument_name,
            "type": type_name.removesuffix("?"),
        }
        if type_name.endswith("?"):
            argument |= {"optional": True, "defaultValue": None}
        arguments.append(argument)
    return {
        "name": f"algorithms/{name}",
        "description": f"{name}, as the emulator implements it.",
        "returnType": algorithm.returns,
        "arguments": arguments,
    }
