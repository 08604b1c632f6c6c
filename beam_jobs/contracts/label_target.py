"""Label target: what the values stored in label files become in the labels of a build.

Input: the schema of a build, its own `remap` if it has one, and what an item says about
its file. Output: the label id of each stored value, or of each class name of a vector
file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

import numpy as np
import numpy.typing as npt

from beam_jobs.contracts import labels
from beam_jobs.contracts.labels import IGNORE, SCHEMAS, LabelSchema

_WHOLE = re.compile(r"-?[0-9]+")
LEFT_OUT = "ignore"
"""Class name in a remap that turns a value into 255."""
_MAX_LISTED = 12


@dataclass(frozen=True, kw_only=True)
class VectorColumns:
    """Which columns of a vector file hold the class and the time of a feature.

    Attributes:
        column: column with the class: its name, its id, or a key of the remap.
        layer: layer of the file; "" = the only one.
        date_column: column with the day on which a feature was seen; a feature counts
            for scenes that are at most `max_days` away. "" = there is none.
        start_column: column with the first day on which a feature holds.
        end_column: column with the last day on which a feature holds.
        max_days: see `date_column`; in days of UTC, 0 = the same day.
    """

    column: str
    layer: str = ""
    date_column: str = ""
    start_column: str = ""
    end_column: str = ""
    max_days: int = 0

    def __post_init__(self) -> None:
        if not self.column:
            raise ValueError("column must name the column with the class, got ''")
        if self.date_column and (self.start_column or self.end_column):
            raise ValueError(
                "give either date_column or start_column and end_column, "
                f"got {self.date_column!r} and {(self.start_column or self.end_column)!r}"
            )
        if self.max_days < 0 or (self.max_days and not self.date_column):
            raise ValueError(
                f"max_days goes with date_column and must not be negative, got {self.max_days}"
            )

    @property
    def names(self) -> list[str]:
        """The columns that are read."""
        return [
            name
            for name in (self.column, self.date_column, self.start_column, self.end_column)
            if name
        ]

    def is_valid(
        self, columns: Mapping[str, npt.NDArray[Any]], acquired_at: int
    ) -> npt.NDArray[np.bool_]:
        """Return which features count for a scene, bool [N].

        Days are those of UTC, and both ends count. A feature without a date holds at
        any time.

        Args:
            columns: column name -> days as datetime64[D], NaT = no date.
            acquired_at: time of the scene, in seconds since 1970, UTC.
        """
        day = np.datetime64(datetime.fromtimestamp(acquired_at, timezone.utc).date(), "D")
        valid = np.ones(len(columns[self.column]), bool)
        if self.date_column:
            seen = columns[self.date_column]
            valid &= np.isnat(seen) | (np.abs((seen - day).astype(np.int64)) <= self.max_days)
        if self.start_column:
            start = columns[self.start_column]
            valid &= np.isnat(start) | (start <= day)
        if self.end_column:
            end = columns[self.end_column]
            valid &= np.isnat(end) | (end >= day)
        return valid


@dataclass(frozen=True, kw_only=True)
class LabelTarget:
    """The classes of a build, and how labels of other schemas are turned into them.

    Attributes:
        schema: classes of the build.
        remap: empty = the known remaps between schemas. Else either stored value or
            class name -> class of `schema`, for labels of any schema; or source schema
            -> such a mapping, for labels of that schema. A class is given by name or
            id, and "ignore" is 255.
    """

    schema: LabelSchema
    remap: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_by_source(self) -> bool:
        """Whether the remap names source schemas."""
        return any(isinstance(value, Mapping) for value in self.remap.values())

    def check(self) -> None:
        """Check the remap itself.

        Raises:
            ValueError: it maps to an unknown class, mixes its two forms, names one
                value twice or an unknown class of a known source.
        """
        if not self.is_by_source:
            _pairs(self.remap, None, self.schema)
            return
        for source, pairs in self.remap.items():
            if not isinstance(pairs, Mapping):
                raise ValueError(
                    "remap must map either values to classes or source schemas to such mappings, "
                    f"got both: {source}: {pairs!r}"
                )
            _pairs(pairs, SCHEMAS.get(source), self.schema, f"{source}.")

    def why_not(self, source: str) -> str:
        """Return why labels of a schema cannot be used; "" = they can.

        Args:
            source: name of the schema that the labels have.
        """
        try:
            self._table(source)
        except ValueError as error:
            return str(error)
        return ""

    def reachable(self, source: str) -> set[int]:
        """Return the ids that labels of a schema can become.

        Raises:
            ValueError: they cannot be remapped at all.
        """
        return set(self._table(source).ids.values()) - {IGNORE}

    def ids(
        self, values: Iterable[str | int], source: str, named: Mapping[str, str | int]
    ) -> list[int]:
        """Return the label id of each value of a label file; 255 = ignore.

        Args:
            values: stored values, or the texts in a class column.
            source: name of the schema of the file.
            named: stored value -> name or id of a class of `source`, as the item says
                (`terrapair:label_values`); empty = the values are its ids.

        Raises:
            ValueError: a value has no class. The message holds all such values and
                the known ones.
        """
        table = self._table(source)
        texts = [_text(value) for value in values]
        others = [text for text in texts if text not in named and text != str(IGNORE)]
        if named and others:
            raise ValueError(
                f"label values {_list(others)} are not among those of terrapair:label_values, "
                f"{_list(named)}: add them there"
            )
        keys = [_text(named.get(text, text)) for text in texts]
        found = {key: table.get(key) for key in keys}
        unknown = [key for key, label_id in found.items() if label_id is None]
        if unknown:
            raise ValueError(table.refusal(unknown))
        return [label_id for key in keys if (label_id := found[key]) is not None]

    def _table(self, source: str) -> _Table:
        known = self.schema if source == self.schema.name else SCHEMAS.get(source)
        if self.remap and not self.is_by_source:
            return _Table(ids=_pairs(self.remap, None, self.schema), source=None, name="")
        if source in self.remap:
            ids = _pairs(self.remap[source], known, self.schema)
            return _Table(ids=ids, source=known, name=source)
        if known is None:
            known = labels.get_schema(source)
        table = labels.remap_table(known, self.schema)
        return _Table(ids={str(i): int(table[i]) for i in known.classes}, source=known, name=source)


@dataclass(frozen=True, kw_only=True)
class _Table:
    """Label ids by the key of a source class.

    Attributes:
        ids: id or text of the source's class -> label id.
        source: schema of the keys; None = they are only those of `ids`.
        name: of the source schema; "" = any.
    """

    ids: Mapping[str, int]
    source: LabelSchema | None
    name: str

    def get(self, key: str) -> int | None:
        """Return the label id of a source class; None = there is no such class."""
        if key in self.ids:
            return self.ids[key]
        # After the keys: a remap may give 255 a class.
        if key == str(IGNORE):
            return IGNORE
        if self.source is None:
            return None
        try:
            return self.ids.get(str(self.source.class_id(key)), IGNORE)
        except ValueError:
            return None

    def refusal(self, unknown: list[str]) -> str:
        """Return why values have no class, with the known ones and the cure."""
        if self.source is not None:
            if all(_WHOLE.fullmatch(text) for text in unknown):
                return (
                    f"label ids {_list(unknown)} are not in schema {self.source.name!r} "
                    f"(ids {sorted(self.source.classes)} and 255)"
                )
            names = ", ".join(self.source.class_names)
            return (
                f"classes {_list(unknown)} are not in label schema {self.source.name!r}, "
                f"which has {names}: correct them, or give them a class in label.remap"
            )
        where = f"label.remap.{self.name}" if self.name else "label.remap"
        return (
            f"label values {_list(unknown)} are not in {where}, which has {_list(self.ids)}: "
            f"add them there ({unknown[0]}: {LEFT_OUT} leaves one out)"
        )


def check_label_values(values: object) -> dict[str, str | int]:
    """Return `terrapair:label_values` of an item with keys as plain whole numbers.

    Raises:
        ValueError: it is no mapping of whole numbers to names or ids, or a value comes
            twice.
    """
    if not isinstance(values, Mapping) or not values:
        raise ValueError(
            "terrapair:label_values must map stored values to names or ids of classes, "
            f"got {values!r}"
        )
    found: dict[str, str | int] = {}
    for key, name in values.items():
        text = str(key).strip()
        if not _WHOLE.fullmatch(text) or isinstance(name, bool) or type(name) not in (str, int):
            raise ValueError(
                "terrapair:label_values must map whole numbers to names or ids of classes, "
                f"got {key!r}: {name!r}"
            )
        if str(int(text)) in found:
            raise ValueError(f"terrapair:label_values names the value {int(text)} twice")
        found[str(int(text))] = name
    return found


def _pairs(
    remap: Mapping[str, Any], source: LabelSchema | None, target: LabelSchema, path: str = ""
) -> dict[str, int]:
    """Return source id or text -> label id.

    Raises:
        ValueError: as of `LabelTarget.check`.
    """
    found: dict[str, int] = {}
    for key, name in remap.items():
        where = f"remap.{path}{key}"
        if isinstance(name, (bool, Mapping)) or not isinstance(name, (str, int)):
            raise ValueError(f"{where}: must be the name or the id of a class, got {name!r}")
        try:
            text = _text(key) if source is None else str(source.class_id(key))
            label_id = IGNORE if name == LEFT_OUT else target.class_id(name)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        if text in found:
            raise ValueError(f"{where}: the value {text} is given twice")
        found[text] = label_id
    return found


def _text(value: object) -> str:
    """Return a value of a file, or a YAML key, as text without leading zeros."""
    text = str(value).strip()
    return str(int(text)) if _WHOLE.fullmatch(text) else text


def _list(values: Iterable[str]) -> str:
    listed = list(values)
    numbers = all(_WHOLE.fullmatch(text) for text in listed)
    shown = sorted(listed, key=int) if numbers else sorted(listed)
    more = f" and {len(shown) - _MAX_LISTED} more" if len(shown) > _MAX_LISTED else ""
    return f"[{', '.join(shown[:_MAX_LISTED])}]{more}"
