"""A compiled pipeline: the YAML file that `compile` or kfp's own compiler writes.

File or specification -> Package: name, declared parameters, task names. `values` turns
`name=value` options into the values that the pipeline declares.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from beam_jobs.contracts.settings import SettingsError
from beam_jobs.errors import DataError

_COMPILE = "write it with `terrapair compile`"
NODE_COMMAND = ("terrapair", "node")
"""Command of the tasks that `compile` writes."""
ROOT_OPTION = "--run"
"""Their option with the root of the run."""
_NUM_DIGITS = 12
_WHOLE = "NUMBER_INTEGER"
_TYPES: dict[str, tuple[str, tuple[type, ...]]] = {
    _WHOLE: ("a whole number", (int, float)),
    "NUMBER_DOUBLE": ("a number", (int, float)),
    "BOOLEAN": ("true or false", (bool,)),
    "LIST": ("a list, such as [1, 2]", (list,)),
    "STRUCT": ("a mapping, such as {a: 1}", (dict,)),
}
"""Type in the specification -> words, and what YAML makes of such a value."""
_TEXT = "STRING"


@dataclass(frozen=True, kw_only=True)
class Package:
    """A compiled pipeline.

    Attributes:
        name: of the pipeline.
        parameters: name -> its declaration (`parameterType`, `defaultValue`, ...).
        tasks: names of all tasks, those of groups (conditions, loops) included.
        root: of the run, which `compile` writes into the tasks; "" if it did not.
        path: the file; None if the specification came from the server.
        version: hash of the file, which names the uploaded version; "" without a file.
    """

    name: str
    parameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    tasks: frozenset[str] = frozenset()
    root: str = ""
    path: Path | None = None
    version: str = ""


def read_package(path: Path) -> Package:
    """Return the pipeline of a YAML file.

    The server checks the rest: only it knows what it can run.

    Raises:
        DataError: the file is missing, is no YAML, or holds no pipeline for Kubeflow.
    """
    if path.suffix not in (".yaml", ".yml"):
        # kfp and the server tell archives from YAML by the name.
        raise DataError(f"{path}: must be a pipeline as .yaml: {_COMPILE}")
    try:
        content = path.read_bytes()
        documents = [one for one in yaml.safe_load_all(content) if one is not None]
    except OSError as error:
        raise DataError(
            f"{path}: cannot read the pipeline: {error.strerror}", "missing_file"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        why = " ".join(str(error).split())
        raise DataError(f"{path}: must be YAML ({why}): {_COMPILE}") from error
    if not documents or not all(isinstance(one, dict) for one in documents):
        raise DataError(f"{path}: must hold the mapping of a pipeline: {_COMPILE}")
    if "pipelineSpec" in documents[0]:
        raise DataError(
            f"{path}: is a PipelineJob for Vertex AI, which Kubeflow does not load: {_COMPILE}"
        )
    digest = hashlib.sha256(content).hexdigest()[:_NUM_DIGITS]
    try:
        return _package(documents[0], path, digest)
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: no pipeline of Kubeflow Pipelines 2, because pipelineInfo.name or root is "
            f"missing: {_COMPILE}"
        ) from error


def package_of(specification: Mapping[str, Any]) -> Package:
    """Return the pipeline of a specification that the server gave."""
    # With settings for Kubernetes, the server puts both into one mapping.
    return _package(specification.get("pipeline_spec", specification), None, "")


def values(package: Package, options: Iterable[str]) -> dict[str, Any]:
    """Return the values of `name=value` options, each of its parameter's type.

    The server takes 3.7 for a whole number and refuses other mistakes only after the
    upload, so they are found here.

    Args:
        package: declares the parameters.
        options: values are YAML; those of text parameters stand for themselves.

    Raises:
        SettingsError: an option is no `name=value`, a name is unknown or comes twice,
            a value has another type, or a parameter without a default is missing.
    """
    given: dict[str, Any] = {}
    for option in options:
        name, equals, text = option.partition("=")
        if not equals or not name:
            raise SettingsError(f"--param: must be NAME=VALUE, got {option!r}")
        if name in given:
            raise SettingsError(f"--param {name}: is given twice; give one value")
        if name not in package.parameters:
            known = ", ".join(sorted(package.parameters)) or "none"
            raise SettingsError(
                f"--param {name}: the pipeline {package.name!r} has no such parameter; known: "
                f"{known}"
            )
        given[name] = _value(name, text, package.parameters[name]["parameterType"])
    for name, declared in package.parameters.items():
        is_needed = "defaultValue" not in declared and not declared.get("isOptional")
        if is_needed and name not in given:
            raise SettingsError(
                f"--param {name}=VALUE: the pipeline {package.name!r} needs this parameter, which "
                "has no default"
            )
    return given


def _value(name: str, text: str, kind: str) -> Any:
    if kind not in _TYPES:
        return text
    words, types = _TYPES[kind]
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = None
    is_wrong = not isinstance(value, types) or (isinstance(value, bool) and bool not in types)
    if not is_wrong and isinstance(value, float):
        # JSON has neither NaN nor infinity.
        is_wrong = not math.isfinite(value) or (kind == _WHOLE and not value.is_integer())
    if is_wrong:
        raise SettingsError(f"--param {name}: must be {words}, got {text!r}")
    return int(value) if kind == _WHOLE else value


def _package(specification: Mapping[str, Any], path: Path | None, version: str) -> Package:
    root = specification["root"]
    return Package(
        name=str(specification["pipelineInfo"]["name"]),
        parameters=root.get("inputDefinitions", {}).get("parameters", {}),
        tasks=frozenset(_task_names(specification, root)),
        root=next(_roots(specification), ""),
        path=path,
        version=version,
    )


def _task_names(specification: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[str]:
    for component in (root, *specification.get("components", {}).values()):
        yield from component.get("dag", {}).get("tasks", {})


def _roots(specification: Mapping[str, Any]) -> Iterator[str]:
    """Yield the roots that tasks of `terrapair node` have."""
    for executor in specification.get("deploymentSpec", {}).get("executors", {}).values():
        container = executor.get("container", {})
        if container.get("command") == list(NODE_COMMAND):
            arguments = container.get("args", [])
            if ROOT_OPTION in arguments[:-1]:
                yield arguments[arguments.index(ROOT_OPTION) + 1]
