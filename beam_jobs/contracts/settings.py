"""Settings: read trees of frozen dataclasses from YAML, and write them as JSON.

Input: YAML or plain dicts. Output: checked dataclass instances, canonical JSON and its
SHA-256. Errors name the full path of the wrong key. Configs cross the TFX boundary as
JSON.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from beam_jobs.contracts.errors import ExitCode, TerrapairError

T = TypeVar("T")

_QUOTES = ("'", '"', "|", ">", "!", "&", "*")
"""Characters with which a YAML text begins that does not stand for itself."""
_PATH = "path"
INPUT_PATH = {_PATH: "input"}
"""Metadata of a field with the path of an input, or with several."""
REQUIRED_PATH = {_PATH: "required"}
"""The same for a file that must exist when the config is read."""
_UNLESS = "unless"


def input_path_unless(key: str, value: str) -> dict[str, Any]:
    """Return the metadata of a path that is no input if another field has a value."""
    return {**INPUT_PATH, _UNLESS: (key, value)}


class SettingsError(TerrapairError, ValueError):
    """A setting that is unknown, missing, of a wrong type or out of range; one line."""

    exit_code = ExitCode.USAGE


def from_dict(cls: type[T], values: Mapping[str, Any], path: str = "") -> T:
    """Return an instance of the frozen dataclass `cls` made from plain values.

    Args:
        cls: a dataclass. Its fields may be nested dataclasses, `tuple[X, ...]`,
            `dict[str, X]`, `Literal` and unions.
        values: plain dicts, lists and scalars, as YAML or JSON gives them.
        path: dotted path of `values` in the whole tree, for error messages.

    Raises:
        SettingsError: a key is unknown or missing, a type is wrong, or the
            `__post_init__` of a class refuses a value.
    """
    where = path or cls.__name__
    if not isinstance(values, Mapping):
        raise SettingsError(f"{where}: expected a mapping, got {type(values).__name__} {values!r}")
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}  # type: ignore[arg-type]
    for key in values:
        if key not in fields:
            raise SettingsError(
                f"{_join(path, key)}: unknown key; known here: {', '.join(sorted(fields))}"
            )
    arguments = {}
    for name, field in fields.items():
        if name in values:
            arguments[name] = _convert(hints[name], values[name], _join(path, name))
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise SettingsError(f"{_join(path, name)}: required, but not given")
    try:
        return cls(**arguments)
    except SettingsError:
        raise
    except ValueError as error:
        raise SettingsError(f"{where}: {error}") from error


def to_dict(config: Any) -> Any:
    """Return a dataclass tree as plain dicts, lists and scalars.

    `from_dict` makes an equal tree from the result.
    """
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {
            field.name: to_dict(getattr(config, field.name)) for field in dataclasses.fields(config)
        }
    if isinstance(config, Mapping):
        return {key: to_dict(value) for key, value in config.items()}
    if isinstance(config, (tuple, list)):
        return [to_dict(value) for value in config]
    return config


def load_yaml(cls: type[T], path: str | Path, overrides: Sequence[str] = ()) -> T:
    """Return `cls` as read from a YAML file, after `a.b=c` overrides.

    Raises:
        SettingsError: the file is missing or is no YAML mapping, or its content does
            not fit `cls`.
    """
    values = read_yaml(path, "config")
    try:
        values = resolve_paths(cls, {} if values is None else values, Path(path).parent)
        return from_dict(cls, apply_overrides(values, overrides))
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from error


class _UniqueKeyLoader(yaml.SafeLoader):
    """PyYAML's safe loader, which also refuses a key that comes twice in a mapping."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return the mapping; PyYAML itself would keep the last of two equal keys."""
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag.endswith(":merge"):
                continue
            key = self.construct_object(key_node)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    "while constructing a mapping",
                    node.start_mark,
                    f"found the key {key!r} twice",
                    key_node.start_mark,
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def read_yaml(path: str | Path, what: str) -> Any:
    """Return the plain values of a YAML file.

    Args:
        path: of the file.
        what: what the file holds, for messages.

    Raises:
        SettingsError: the file is missing or is no YAML, or a key comes twice.
    """
    try:
        # A subclass of SafeLoader, so nothing but plain values is made.
        return yaml.load(Path(path).read_text(), _UniqueKeyLoader)
    except OSError as error:
        raise SettingsError(f"{path}: cannot read the {what}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise SettingsError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error


def resolve_paths(cls: Any, values: Any, folder: Path, path: str = "") -> Any:
    """Return `values` with the relative paths of inputs resolved against a folder.

    A path starts at the folder of the YAML file that holds it. If nothing is there, it
    may start at the current folder. Values of a wrong type stay as they are:
    `from_dict` reports them.

    Args:
        cls: type that `from_dict` will make of the values; its fields with the metadata
            INPUT_PATH or REQUIRED_PATH hold paths.
        values: plain values; not changed.
        folder: folder of the file that holds the values.
        path: dotted path of `values` in the whole tree, for error messages.

    Raises:
        SettingsError: a required file does not exist. The message names the path as it
            is written and both folders.
    """
    if isinstance(values, Mapping) and dataclasses.is_dataclass(cls):
        hints = typing.get_type_hints(cls)
        by_name = {field.name: field for field in dataclasses.fields(cls)}
        result = dict(values)
        for name in values.keys() & by_name.keys():
            kind, value = by_name[name].metadata.get(_PATH), values[name]
            key, other = by_name[name].metadata.get(_UNLESS, ("", None))
            if key and values.get(key) == other:
                continue
            where = _join(path, name)
            result[name] = (
                _resolved(value, folder, where, is_required=kind == "required")
                if kind
                else resolve_paths(hints[name], value, folder, where)
            )
        return result
    arguments = [kind for kind in typing.get_args(cls) if kind not in (type(None), Ellipsis)]
    if isinstance(values, (list, tuple)) and arguments:
        return [
            resolve_paths(arguments[0], value, folder, f"{path}[{i}]")
            for i, value in enumerate(values)
        ]
    nested = next((kind for kind in arguments if dataclasses.is_dataclass(kind)), None)
    return values if nested is None else resolve_paths(nested, values, folder, path)


def input_paths(config: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield (dotted path, value) of each path of an input in a tree of settings.

    Args:
        config: a dataclass, or what its fields hold.
        path: dotted path of `config` in the whole tree.
    """
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        for field in dataclasses.fields(config):
            where, value = _join(path, field.name), getattr(config, field.name)
            if _PATH in field.metadata:
                yield from _texts(value, where)
            else:
                yield from input_paths(value, where)
    elif isinstance(config, (tuple, list)):
        for i, value in enumerate(config):
            yield from input_paths(value, f"{path}[{i}]")


def _texts(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Yield (dotted path, text) of the texts in a value; empty ones are left out."""
    if isinstance(value, str) and value:
        yield path, value
    elif isinstance(value, Mapping):
        for key, one in value.items():
            yield from _texts(one, _join(path, key))
    elif isinstance(value, (tuple, list)):
        for i, one in enumerate(value):
            yield from _texts(one, f"{path}[{i}]")


def _resolved(value: Any, folder: Path, where: str, *, is_required: bool) -> Any:
    """Return one path, or several, as a run can open them."""
    if isinstance(value, Mapping):
        return {
            key: _resolved(one, folder, _join(where, key), is_required=is_required)
            for key, one in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [
            _resolved(one, folder, f"{where}[{i}]", is_required=is_required)
            for i, one in enumerate(value)
        ]
    if not isinstance(value, str) or not value or Path(value).is_absolute():
        return value
    # URIs and environment variables have no folder.
    if "://" in value or value.startswith("${"):
        return value
    beside = folder / value
    if beside.exists() or (not is_required and not Path(value).exists()):
        return str(beside)
    if Path(value).exists():
        return value
    raise SettingsError(
        f"{where}: there is no file {value!r}: a path starts at the folder of its YAML file, and "
        f"{beside.resolve()} does not exist (nor {Path.cwd() / value})"
    )


def apply_overrides(values: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return a copy of `values` with each override `a.b=c` applied.

    `c` is read as YAML, but `#` begins no comment in a text. A number in the key is a
    position in a list, as in `a.0.b=c`.

    Raises:
        SettingsError: `values` is no mapping, or an override has no value, is no YAML
            or names a key below a plain value.
    """
    if not isinstance(values, Mapping):
        raise SettingsError(f"expected a mapping, got {type(values).__name__} {values!r}")
    result = copy.deepcopy(dict(values))
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator:
            raise SettingsError(f"--set {override}: expected a.b=value")
        *parents, last = key.split(".")
        node: Any = result
        for name in parents:
            node = (
                node[_index(node, name, key)]
                if isinstance(node, list)
                else node.setdefault(name, {})
            )
            if not isinstance(node, (dict, list)):
                raise SettingsError(f"--set {key}: {name!r} is a value, not a group of settings")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise SettingsError(
                f"--set {key}: not valid YAML: {' '.join(str(error).split())}"
            ) from error
        if isinstance(value, str) and not text.lstrip().startswith(_QUOTES):
            # On a command line, `#` begins no comment: it is a part of a path.
            value = text.strip()
        node[_index(node, last, key) if isinstance(node, list) else last] = value
    return result


def canonical_json(config: Any) -> str:
    """Return the JSON text of a dataclass tree, with sorted keys and no spaces."""
    return json.dumps(to_dict(config), sort_keys=True, separators=(",", ":"))


def sha256(config: Any) -> str:
    """Return the hex SHA-256 of `canonical_json`; manifests and model cards hold it."""
    return hashlib.sha256(canonical_json(config).encode()).hexdigest()


def _join(path: str, key: Any) -> str:
    return f"{path}.{key}" if path else str(key)


def _index(node: list[Any], name: str, key: str) -> int:
    if not name.isdigit() or int(name) >= len(node):
        raise SettingsError(f"--set {key}: {name!r} is no position in a list of {len(node)}")
    return int(name)


def _convert(hint: Any, value: Any, path: str) -> Any:
    """Return `value` converted to the type `hint`; `path` is for error messages."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        return _convert_union(arguments, value, path)
    if origin is typing.Literal:
        if value not in arguments:
            raise SettingsError(
                f"{path}: expected one of {', '.join(map(repr, arguments))}, got {value!r}"
            )
        return value
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise SettingsError(f"{path}: expected a list, got {type(value).__name__} {value!r}")
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return tuple(
                _convert(arguments[0], item, f"{path}[{i}]") for i, item in enumerate(value)
            )
        if len(value) != len(arguments):
            raise SettingsError(
                f"{path}: expected {len(arguments)} values, got {len(value)}: {value!r}"
            )
        return tuple(
            _convert(kind, item, f"{path}[{i}]")
            for i, (kind, item) in enumerate(zip(arguments, value, strict=True))
        )
    if origin is dict:
        if not isinstance(value, Mapping):
            raise SettingsError(f"{path}: expected a mapping, got {type(value).__name__} {value!r}")
        texts = [str(key) for key in value]
        if len(set(texts)) != len(texts):
            twice = next(text for text in texts if texts.count(text) > 1)
            raise SettingsError(f"{path}: the key {twice} comes twice")
        return {
            str(key): _convert(arguments[1], item, _join(path, key)) for key, item in value.items()
        }
    if dataclasses.is_dataclass(hint):
        return from_dict(hint, value, path)  # type: ignore[arg-type]
    return _convert_scalar(hint, value, path)


def _convert_union(arguments: tuple[Any, ...], value: Any, path: str) -> Any:
    if value is None and type(None) in arguments:
        return None
    choices = [argument for argument in arguments if argument is not type(None)]
    if len(choices) == 1:
        return _convert(choices[0], value, path)
    for choice in choices:
        if typing.get_origin(choice) is typing.Literal and value in typing.get_args(choice):
            return value
        if dataclasses.is_dataclass(choice) and isinstance(value, Mapping):
            return _convert(choice, value, path)
        kind = typing.get_origin(choice) or choice
        if (
            isinstance(kind, type)
            and isinstance(value, kind)
            and not (kind is not bool and isinstance(value, bool))
        ):
            return _convert(choice, value, path)
    raise SettingsError(
        f"{path}: expected {' or '.join(map(_name_of, choices))}, "
        f"got {type(value).__name__} {value!r}"
    )


def _name_of(hint: Any) -> str:
    """Return a type of a union as a message names it."""
    if dataclasses.is_dataclass(hint):
        return "a mapping"
    if typing.get_origin(hint) is typing.Literal:
        return " or ".join(map(repr, typing.get_args(hint)))
    return str(hint)


def _convert_scalar(hint: Any, value: Any, path: str) -> Any:
    # bool is a subclass of int in Python, so `seed: true` would pass as 1.
    if isinstance(value, bool) and hint is not bool:
        raise SettingsError(f"{path}: expected {hint.__name__}, got bool {value!r}")
    if hint is float and isinstance(value, int):
        return float(value)
    if not isinstance(value, hint):
        hint_for_exponent = (
            " (write 1.0e-3: YAML reads 1e-3 as text)"
            if hint is float and isinstance(value, str)
            else ""
        )
        raise SettingsError(
            f"{path}: expected {hint.__name__}, "
            f"got {type(value).__name__} {value!r}{hint_for_exponent}"
        )
    return value
