"""Expressions: graphs of function calls that the client sends, evaluated here.

Input: the JSON of an Expression
(https://developers.google.com/earth-engine/reference/rest/v1/Expression) and the
assets. Output: its value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from beam_jobs.emulator.algorithms import ALGORITHMS, Assets
from beam_jobs.emulator.errors import RequestError


def evaluate(expression: Mapping[str, Any], assets: Assets) -> Any:
    """Return the value of an expression.

    It is a number, text, list, dict, Image, Feature, tuple of elements, or geometry.

    Raises:
        RequestError: 400; the emulator does not know an algorithm or a kind of node, or
            the graph is incomplete.
    """
    try:
        return _Evaluator(expression["values"], assets).value(expression["result"], {})
    except (KeyError, TypeError, AttributeError) as error:
        raise RequestError(
            400, f"The expression is incomplete: {type(error).__name__}: {error}"
        ) from error


class _Evaluator:
    """Evaluates the nodes of one graph; a shared node only once."""

    def __init__(self, nodes: Mapping[str, Any], assets: Assets) -> None:
        self._nodes = nodes
        self._assets = assets
        self._done: dict[str, Any] = {}

    def value(self, reference: str, arguments: Mapping[str, Any]) -> Any:
        """Return the value of a named node.

        Inside a function the value depends on the function's `arguments`, so it is not
        kept.
        """
        if arguments:
            return self._node(self._nodes[reference], arguments)
        if reference not in self._done:
            self._done[reference] = self._node(self._nodes[reference], arguments)
        return self._done[reference]

    def _node(self, node: Mapping[str, Any], arguments: Mapping[str, Any]) -> Any:
        ((kind, content),) = node.items()
        if kind == "constantValue":
            return content
        if kind == "integerValue":
            return int(content)
        if kind == "valueReference":
            return self.value(content, arguments)
        if kind == "argumentReference":
            return arguments[content]
        if kind == "arrayValue":
            return [self._node(item, arguments) for item in content["values"]]
        if kind == "dictionaryValue":
            return {name: self._node(item, arguments) for name, item in content["values"].items()}
        if kind == "functionDefinitionValue":
            return self._function(content, arguments)
        if kind == "functionInvocationValue":
            return self._call(content, arguments)
        raise RequestError(400, f"The emulator does not know a node of kind {kind!r}.")

    def _function(
        self, definition: Mapping[str, Any], outer: Mapping[str, Any]
    ) -> Callable[..., Any]:
        names = definition["argumentNames"]
        return lambda *values: self.value(
            definition["body"], {**outer, **dict(zip(names, values, strict=True))}
        )

    def _call(self, invocation: Mapping[str, Any], arguments: Mapping[str, Any]) -> Any:
        name = invocation.get("functionName")
        if name not in ALGORITHMS:
            raise RequestError(
                400,
                f"The emulator does not know the algorithm {name!r}; "
                f"it knows {sorted(ALGORITHMS)}.",
            )
        named = {
            key: self._node(item, arguments)
            for key, item in invocation.get("arguments", {}).items()
        }
        return ALGORITHMS[name].run(self._assets, named)


def loaded_images(expression: Mapping[str, Any]) -> list[str]:
    """Return the ids of the images that an expression loads, for the request log."""
    nodes = expression.get("values", {})
    found = []
    for node in nodes.values():
        for invocation in _invocations(node):
            if invocation.get("functionName") == "Image.load":
                found.append(_constant(invocation["arguments"]["id"], nodes))
    return sorted({image_id for image_id in found if isinstance(image_id, str)})


def _invocations(node: Any) -> list[Mapping[str, Any]]:
    """Return all function calls below a node.

    The client nests a call that is used once into the call that uses it.
    """
    if isinstance(node, list):
        return [call for item in node for call in _invocations(item)]
    if not isinstance(node, Mapping):
        return []
    own = [node["functionInvocationValue"]] if "functionInvocationValue" in node else []
    return own + [call for item in node.values() for call in _invocations(item)]


def _constant(node: Mapping[str, Any], nodes: Mapping[str, Any]) -> Any:
    return (
        _constant(nodes[node["valueReference"]], nodes)
        if "valueReference" in node
        else node.get("constantValue")
    )
