"""Label assets: where a scene's label is stored, and what its values mean.

Input: a STAC item. Output: a LabelSource. The file itself is not opened here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pystac

from beam_jobs.contracts.label_target import VectorColumns, check_label_values
from beam_jobs.contracts.locations import Location
from beam_jobs.errors import DataError
from beam_jobs.scenes import hrefs
from beam_jobs.scenes.assets import href_of

LabelKind = Literal["hand", "weak"]
_VECTOR_FIELDS = {
    "terrapair:label_column": "column",
    "terrapair:label_layer": "layer",
    "terrapair:label_date_column": "date_column",
    "terrapair:label_start_column": "start_column",
    "terrapair:label_end_column": "end_column",
    "terrapair:label_max_days": "max_days",
}
"""Fields of a vector label in an item -> fields of VectorColumns."""


@dataclass(frozen=True, kw_only=True)
class LabelSource:
    """The file of a scene's label, and the meaning of its values.

    Attributes:
        path: of the raster or vector file.
        schema: name of its label schema.
        nodata: value that means no label, in addition to 255.
        kind: "hand" for labels drawn by people; "weak" for labels made by a rule or
            another model, which are never used to measure a model.
        index: 1-based band of the raster; None = it has only one.
        values: stored value -> name or id of a class of `schema`; empty = the values
            are ids. A value that stands here is a class, even 255 or the value that the
            file declares as no data.
        vector: columns of a vector file; None = the file is a raster.
    """

    path: str
    schema: str
    nodata: int | None
    kind: LabelKind = "hand"
    index: int | None = None
    values: Mapping[str, str | int] = field(default_factory=dict)
    vector: VectorColumns | None = None


def label_source(item: pystac.Item, folder: Location, where: str) -> LabelSource | None:
    """Return the label of the asset `label`, or None when the item has none.

    Raises:
        DataError: the asset names no schema, an unknown kind, or an unsupported
            location, or one of its other fields has a wrong value.
    """
    if "label" not in item.assets:
        return None
    asset = item.assets["label"]
    schema = asset.extra_fields.get("terrapair:label_schema")
    if not schema:
        raise DataError(f"{where}: asset 'label' lacks terrapair:label_schema", "bad_item")
    kind = asset.extra_fields.get("terrapair:label_kind", "hand")
    # A typing error must not turn a weak label into one that models are measured on.
    if kind not in ("hand", "weak"):
        raise DataError(
            f"{where}: terrapair:label_kind must be hand or weak, got {kind!r}", "bad_item"
        )
    return LabelSource(
        path=hrefs.resolve(href_of(asset, folder), folder, where),
        schema=str(schema),
        nodata=asset.extra_fields.get("terrapair:label_nodata"),
        kind="weak" if kind == "weak" else "hand",
        **_label_fields(asset.extra_fields, where),
    )


def _label_fields(fields: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the optional fields of a LabelSource.

    Raises:
        DataError: one has a wrong value.
    """
    found: dict[str, Any] = {}
    index = fields.get("terrapair:index")
    if index is not None:
        if type(index) is not int or index < 1:
            raise DataError(
                f"{where}: terrapair:index of a label must be a whole number from 1, got {index!r}",
                "bad_item",
            )
        found["index"] = index
    nodata = fields.get("terrapair:label_nodata")
    if nodata is not None and type(nodata) not in (int, float):
        raise DataError(
            f"{where}: terrapair:label_nodata must be a number, got {nodata!r}", "bad_item"
        )
    columns = {
        name: fields[key] for key, name in _VECTOR_FIELDS.items() if fields.get(key) is not None
    }
    try:
        if "terrapair:label_values" in fields:
            found["values"] = check_label_values(fields["terrapair:label_values"])
        if columns:
            wrong = [
                f"{name} {value!r}"
                for name, value in columns.items()
                if type(value) is not (int if name == "max_days" else str)
            ]
            if wrong or "column" not in columns:
                raise ValueError(
                    "a vector label needs terrapair:label_column, the name of its class column, "
                    f"and names of columns as text, got {', '.join(wrong) or 'none'}"
                )
            found["vector"] = VectorColumns(**columns)
    except ValueError as error:
        raise DataError(f"{where}: {error}", "bad_item") from error
    if nodata is not None and str(nodata) in found.get("values", {}):
        raise DataError(
            f"{where}: the value {nodata} is terrapair:label_nodata and has a class in "
            "terrapair:label_values; remove one of them",
            "bad_item",
        )
    return found
