"""Validate STAC documents against the schemas of STAC and of their extensions, offline."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
from pystac.validation.local_validator import get_local_schema_cache
from referencing import Registry, Resource

_FOLDER = Path(__file__).parent / "stac_schemas"
_CORE = "https://schemas.stacspec.org/v{version}/{kind}-spec/json-schema/{kind}.json"


def errors(document: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with an item or a collection; [] if it is valid.

    An extension without a schema here is an error, too.
    """
    kind = {"Feature": "item", "Collection": "collection"}[document["type"]]
    schemas = dict(get_local_schema_cache())
    for path in sorted(_FOLDER.glob("*.json")):
        schema = json.loads(path.read_text())
        schemas[schema["$id"].rstrip("#")] = schema
    registry = Registry().with_resources(
        [(uri, Resource.from_contents(schema)) for uri, schema in schemas.items()]
    )
    core = _CORE.format(version=document["stac_version"], kind=kind)
    found = []
    for uri in (core, *document.get("stac_extensions", ())):
        if uri not in schemas:
            found.append(f"no schema {uri}")
            continue
        checker = jsonschema.Draft7Validator(
            schemas[uri], registry=registry, format_checker=jsonschema.FormatChecker()
        )
        found += [f"{uri}: {one.json_path}: {one.message}" for one in checker.iter_errors(document)]

    return found
