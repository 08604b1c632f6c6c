"""The discovery document: the methods of the emulator.

Output: the answer to `GET /$discovery/rest`, in the form from which Google's client
library builds its calls.

Source: https://developers.google.com/discovery/v1/reference/apis
"""

from __future__ import annotations

from typing import Any

_PROJECT = "^projects/[^/]+$"
_OPERATION = "^projects/[^/]+/operations/.+$"
_ASSET = "^projects/[^/]+/assets/.+$"


def discovery_document(root_url: str) -> dict[str, Any]:
    """Return the document for a server at `root_url`, which ends with a slash."""
    resources = {
        "algorithms": {
            "list": _method("algorithms.list", "GET", "parent", _PROJECT, "v1/{+parent}/algorithms")
        },
        "assets": {
            "getPixels": _method("assets.getPixels", "POST", "name", _ASSET, "v1/{+name}:getPixels")
        },
        "image": {
            "computePixels": _method(
                "image.computePixels",
                "POST",
                "project",
                _PROJECT,
                "v1/{+project}/image:computePixels",
            ),
            "export": _method(
                "image.export", "POST", "project", _PROJECT, "v1/{+project}/image:export"
            ),
        },
        "operations": {
            "get": _method("operations.get", "GET", "name", _OPERATION, "v1/{+name}"),
            "list": _method("operations.list", "GET", "name", _PROJECT, "v1/{+name}/operations"),
            "cancel": _method("operations.cancel", "POST", "name", _OPERATION, "v1/{+name}:cancel"),
        },
        "value": {
            "compute": _method(
                "value.compute", "POST", "project", _PROJECT, "v1/{+project}/value:compute"
            )
        },
    }
    return {
        "kind": "discovery#restDescription",
        "discoveryVersion": "v1",
        "id": "earthengine:v1",
        "name": "earthengine",
        "version": "v1",
        "title": "Earth Engine emulator of terrapair",
        "protocol": "rest",
        "rootUrl": root_url,
        "servicePath": "",
        "baseUrl": root_url,
        "batchPath": "batch",
        "fullyEncodeReservedExpansion": True,
        "parameters": {
            "alt": {
                "type": "string",
                "location": "query",
                "default": "json",
                "enum": ["json", "media", "proto"],
            },
            "prettyPrint": {"type": "boolean", "location": "query", "default": "true"},
        },
        "schemas": {},
        "resources": {
            "projects": {
                "resources": {name: {"methods": methods} for name, methods in resources.items()}
            },
        },
    }


def _method(name: str, http_method: str, parameter: str, pattern: str, path: str) -> dict[str, Any]:
    parameters: dict[str, Any] = {
        parameter: {"type": "string", "location": "path", "required": True, "pattern": pattern},
    }
    if name == "operations.list":
        parameters |= {
            "pageSize": {"type": "integer", "format": "int32", "location": "query"},
            "pageToken": {"type": "string", "location": "query"},
        }
    method = {
        "id": f"earthengine.projects.{name}",
        "httpMethod": http_method,
        "path": path,
        "parameterOrder": [parameter],
        "parameters": parameters,
        "response": {"type": "any"},
    }
    return method if http_method == "GET" else {**method, "request": {"type": "any"}}
