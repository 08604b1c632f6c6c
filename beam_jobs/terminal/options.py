"""Make a function a verb of the program, and the options that several verbs share.

All verbs take `--verbose`, `--quiet`, `--json` and `--debug`. Verbs with settings take
`--config` and `--set`.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click

from beam_jobs.contracts import settings
from beam_jobs.contracts.errors import ExitCode, TerrapairError
from beam_jobs.contracts.settings import SettingsError
from beam_jobs.terminal import prerequisites, quiet
from beam_jobs.terminal.session import Session

Function = TypeVar("Function", bound=Callable[..., Any])

FLAGS = ("verbose", "quiet", "as_json", "debug")
CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class MissingGroupError(TerrapairError, ImportError):
    """An optional group of dependencies is not installed."""

    exit_code = ExitCode.USAGE


def common_flags() -> list[click.Parameter]:
    """Return the flags of every verb; the group takes them as well."""
    return [
        click.Option(
            ["--verbose"], is_flag=True, help="Show the logs of TensorFlow, Beam and TFX."
        ),
        click.Option(["--quiet"], is_flag=True, help="Show results and errors only."),
        click.Option(["as_json", "--json"], is_flag=True, help="Print the result as JSON."),
        click.Option(["--debug"], is_flag=True, help="Show the traceback of an error, and logs."),
    ]


def verb(
    name: str, *, needs: tuple[str, ...] = ()
) -> Callable[[Callable[..., Any]], click.Command]:
    """Return a decorator that makes a command of a function `(session, **options)`.

    The libraries are made quiet and the groups are checked before the function runs.

    Args:
        name: of the command.
        needs: optional groups of dependencies that the command cannot do without.
    """

    def decorate(function: Callable[..., Any]) -> click.Command:
        @functools.wraps(function)
        def run(**options: Any) -> Any:
            session = _session(click.get_current_context(), options)
            quiet.prepare_libraries(os.environ, session.verbose)
            check_groups(name, needs)
            return function(session, **options)

        command = click.command(name, context_settings=CONTEXT)(run)
        command.params.extend(common_flags())
        return command

    return decorate


def check_groups(name: str, groups: tuple[str, ...]) -> None:
    """Refuse to go on without optional groups of dependencies.

    Args:
        name: of the command.
        groups: that it needs.

    Raises:
        MissingGroupError: one is not installed; with the line that installs it.
    """
    if line := prerequisites.missing_group(name, groups):
        raise MissingGroupError(line)


def config_option(what: str, required: bool = False) -> Callable[[Function], Function]:
    """Return a decorator that adds `--config` and `--set`.

    Args:
        what: the settings, for the help text, such as "build settings".
        required: whether the command needs a file.
    """

    def decorate(function: Function) -> Function:
        function = click.option(
            "--set",
            "overrides",
            multiple=True,
            metavar="A.B=C",
            help="Override one setting. Repeatable.",
        )(function)
        return click.option(
            "--config",
            "config_path",
            required=required,
            type=click.Path(),
            help=f"YAML file with {what}.",
        )(function)

    return decorate


def load_config(cls: type[Any], path: str | None, overrides: tuple[str, ...]) -> Any:
    """Return the config of a YAML file, or the defaults, with the `--set` overrides."""
    if path is not None:
        return settings.load_yaml(cls, path, overrides)
    return settings.from_dict(cls, settings.apply_overrides({}, overrides))


@contextmanager
def as_usage() -> Iterator[None]:
    """Turn the ValueError of a check of options into an error of usage, exit code 2.

    Raises:
        SettingsError: the body raised a ValueError that knows no exit code itself.
    """
    try:
        yield
    except TerrapairError:
        raise
    except ValueError as error:
        raise SettingsError(str(error)) from error


def _session(context: click.Context, options: dict[str, Any]) -> Session:
    """Take the common flags out of `options`; a flag before the verb counts, too."""
    above = context.parent.params if context.parent is not None else {}
    flags = {name: bool(options.pop(name, False) or above.get(name)) for name in FLAGS}
    if flags["verbose"] and flags["quiet"]:
        raise click.UsageError("--verbose and --quiet exclude each other")
    return Session(
        verbose=flags["verbose"] or flags["debug"],
        quiet=flags["quiet"],
        as_json=flags["as_json"],
    )
