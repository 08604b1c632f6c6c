"""Kubernetes manifests against the models of the Python client, without a cluster.

The client's models are generated from Kubernetes' own OpenAPI description. Like the API
server with strict validation, `complaints` finds unknown fields, wrong types and missing
fields. `python -m tests.peers kubernetes` asks a real API server.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any

from kubernetes import client

_PLAIN = {"str": str, "int": int, "bool": bool, "float": (int, float)}
_LIST = re.compile(r"list\[(.*)\]")
_MAP = re.compile(r"dict\(str, (.*)\)")


def complaints(manifest: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with a manifest, one line each, with the path of the field."""
    group, _, version = manifest["apiVersion"].rpartition("/")
    prefix = version[0].upper() + version[1:]
    # Groups other than autoscaling have no two versions of one kind.
    known = getattr(client, f"{prefix}{manifest['kind']}", None)
    if known is None:
        return [f"{manifest['kind']}: no such kind in {group or 'core'}/{version}"]
    return list(_object(manifest, known, manifest["kind"]))


def _object(value: Any, model: type, path: str) -> Iterator[str]:
    if not isinstance(value, Mapping):
        yield f"{path}: must be an object, got {value!r}"
        return
    attribute_of = {name: attribute for attribute, name in model.attribute_map.items()}
    for name, content in value.items():
        if name not in attribute_of:
            yield f"{path}.{name}: unknown field"
        else:
            kind = model.openapi_types[attribute_of[name]]
            yield from _value(content, kind, f"{path}.{name}")
    # The client checks required fields where it sets them.
    for attribute, name in model.attribute_map.items():
        setter = inspect.getsource(getattr(model, attribute).fset)
        if value.get(name) is None and "must not be `None`" in setter:
            yield f"{path}.{name}: missing"


def _value(value: Any, kind: str, path: str) -> Iterator[str]:
    if found := _LIST.fullmatch(kind):
        if not isinstance(value, list):
            yield f"{path}: must be a list, got {value!r}"
            return
        for index, one in enumerate(value):
            yield from _value(one, found[1], f"{path}[{index}]")
    elif found := _MAP.fullmatch(kind):
        for name, one in value.items():
            yield from _value(one, found[1], f"{path}.{name}")
    elif kind in _PLAIN:
        if not isinstance(value, _PLAIN[kind]) or (kind != "bool" and isinstance(value, bool)):
            yield f"{path}: must be {kind}, got {value!r}"
    elif kind != "object":
        yield from _object(value, getattr(client, kind), path)
