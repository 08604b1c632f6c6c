"""The program `terrapair`: its verbs, its help, and how it ends.

Command line -> one verb -> exit code. A verb's module is imported only when the verb
is used, so that `terrapair --help` needs neither TensorFlow nor Beam. The table names
modules of `pipeline` as text, as entry points do: this package imports none of them.
"""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from typing import Any, NoReturn

import click

from beam_jobs import startup
from beam_jobs.contracts import object_store
from beam_jobs.contracts.errors import ExitCode
from beam_jobs.terminal import failures, options

NAME = "terrapair"
INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 and the number of the signal, as shells have it."""
SHELLS = ("bash", "zsh", "fish")
_COMPLETION_VARIABLE = "_TERRAPAIR_COMPLETE"

_DATA = "beam_jobs.commands"
_COLLECT = "beam_jobs.collect.commands"
_PREDICT = "beam_jobs.predict.commands"
_PIPELINE = "pipeline.commands"
_NEIGHBOURS = "pipeline.neighbours.commands"
_SERVICE = "pipeline.service.commands"
_KUBEFLOW = "pipeline.kubeflow.commands"
_TASKS = "pipeline.kubeflow.task_commands"
_SERVING = "pipeline.serving.commands"


@dataclass(frozen=True, kw_only=True)
class Verb:
    """One verb of the program.

    Attributes:
        module: module that holds the command.
        attribute: name of the command in it.
        help: one line for the list of verbs.
    """

    module: str
    attribute: str
    help: str


def _verb(module: str, attribute: str, help_line: str) -> Verb:
    return Verb(module=module, attribute=attribute, help=help_line)


SECTIONS: dict[str, dict[str, Verb]] = {
    "Scenes": {
        "simulate": _verb(_DATA, "simulate", "Write simulated scenes and their catalog."),
        "catalog": _verb(_DATA, "catalog", "Write a STAC catalog of a folder of scenes."),
        "sample": _verb(_COLLECT, "sample", "Draw places on Earth to collect pairs at."),
        "plan": _verb(_COLLECT, "plan", "Estimate what a fetch asks for and costs."),
        "fetch": _verb(_COLLECT, "fetch", "Fetch pairs of places from Earth Engine."),
        "export": _verb(_COLLECT, "export", "Export pairs of places to a bucket."),
        "emulate-ee": _verb(_DATA, "emulate_ee", "Serve simulated scenes as Earth Engine would."),
    },
    "Shards": {
        "build-pairs": _verb(_DATA, "build_pairs", "Build shards of unlabeled pairs."),
        "build-labels": _verb(_DATA, "build_labels", "Build shards of labelled pairs."),
        "verify": _verb(_DATA, "verify", "Check the shards of versions against their manifests."),
        "audit": _verb(_DATA, "audit", "Check that train and test patches do not overlap."),
        "card": _verb(_DATA, "card", "Write the data card of a version again."),
    },
    "Models": {
        "run": _verb(_PIPELINE, "run", "Run the whole pipeline on this machine."),
        "retrain": _verb(_PIPELINE, "retrain", "Bring new scenes into service, if there are any."),
        "config": _verb(_PIPELINE, "config", "Show the settings of a run, with all defaults."),
        "report": _verb(_PIPELINE, "report", "Show the report of the last run again."),
        "serve-check": _verb(_SERVING, "serve_check", "Compare published models with Keras."),
        "cross-validate": _verb(
            _PIPELINE, "cross_validate", "Measure a task by cross-validation over blocks."
        ),
        "serve-config": _verb(_SERVING, "serve_config", "Write the files of a model server."),
        "rollback": _verb(_SERVICE, "rollback", "Put an earlier version of a model in service."),
        "history": _verb(_SERVICE, "history", "Show what ran, what was published and refused."),
        "drift": _verb(_SERVICE, "drift", "Compare a span with the data of the models in service."),
        "gc": _verb(_SERVICE, "gc", "Remove old published versions that nobody needs."),
        "claim-check": _verb(_PIPELINE, "claim_check", "Measure whether pretraining helps."),
        "node": _verb(_TASKS, "node", "Run one node of the pipeline in this process."),
        "compile": _verb(_TASKS, "compile_", "Write the pipeline's specification for Kubeflow."),
        "submit": _verb(_KUBEFLOW, "submit", "Run a compiled pipeline on Kubeflow."),
        "schedule": _verb(
            _KUBEFLOW, "schedule", "Run a compiled pipeline on Kubeflow again and again."
        ),
        "training-job": _verb(
            _KUBEFLOW, "training_job", "Write the manifests of a training on several machines."
        ),
        "follow": _verb(_KUBEFLOW, "follow", "Train beside the first worker of several."),
        "import-weights": _verb(
            _PIPELINE, "import_weights", "Publish an encoder of public weights."
        ),
        "data-service": _verb(_PIPELINE, "data_service", "Serve input to trainers."),
    },
    "Maps": {
        "predict": _verb(_PREDICT, "predict", "Make maps of whole scenes with a published model."),
        "predict-remote": _verb(
            _PREDICT, "predict_remote", "Make maps with a model behind TensorFlow Serving."
        ),
        "flood": _verb(_PREDICT, "flood", "Subtract permanent water from a map of water."),
    },
    "Search": {
        "embed": _verb(_NEIGHBOURS, "embed", "Embed patches into an index."),
        "search": _verb(_NEIGHBOURS, "search", "Find the nearest patches of a patch."),
    },
    "Shell": {
        "completion": _verb(__name__, "completion", "Print the script for shell completion."),
    },
}
"""Heading -> name -> verb, in the order of the help."""
VERBS = {name: verb for verbs in SECTIONS.values() for name, verb in verbs.items()}


class _LazyGroup(click.Group):
    """A group that imports a command when it is used, and lists them without."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        verb = VERBS[cmd_name]
        command = getattr(importlib.import_module(verb.module), verb.attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{verb.module}.{verb.attribute} must be a command, got {command!r}")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            ctx.fail(f"No such command {args[0]!r}. Known: {', '.join(VERBS)}.")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, VERBS))
        for heading, verbs in SECTIONS.items():
            with formatter.section(heading):
                rows = [(name.ljust(width), verb.help) for name, verb in verbs.items()]
                formatter.write_dl(rows)


def _show_version(context: click.Context, _: click.Parameter, value: bool) -> None:
    if not value or context.resilient_parsing:
        return
    from beam_jobs.contracts.manifest import CODE_VERSION

    click.echo(f"{NAME} {CODE_VERSION}")
    context.exit()


@click.command(
    NAME,
    cls=_LazyGroup,
    context_settings=options.CONTEXT,
    params=[
        click.Option(
            ["--version"],
            is_flag=True,
            expose_value=False,
            is_eager=True,
            callback=_show_version,
            help="Show the version.",
        ),
        *options.common_flags(),
    ],
)
def group(**_: Any) -> None:
    """Pretrain on pairs of Sentinel-1 and -2 images, train tasks, publish the models.

    `terrapair <verb> --help` shows the options of a verb and an example. In a checkout
    that is not installed, `python -m pipeline <verb>` and `python -m beam_jobs <verb>`
    are the same program.

    \b
    Example:
      terrapair run --config pipeline/configs/demo.yaml

    \b
    Exit codes: 0 done, 1 crash, 2 wrong usage or config, 3 bad data,
                4 refused by a gate, 5 nothing new.
    Completion: eval "$(terrapair completion bash)" in ~/.bashrc; also zsh and fish.
    """


@options.verb("completion")
@click.argument("shell", type=click.Choice(SHELLS))
def completion(session: Any, shell: str) -> None:
    """Print the script for shell completion of verbs and options.

    \b
    Example:
      eval "$(terrapair completion bash)"                      # in ~/.bashrc
      eval "$(terrapair completion zsh)"                       # in ~/.zshrc
      terrapair completion fish > ~/.config/fish/completions/terrapair.fish
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    if found is None:
        raise click.UsageError(f"no completion for {shell}")
    # Not `source()`: it starts the shell to ask for its version.
    script = found.source_template % found(group, {}, NAME, _COMPLETION_VARIABLE).source_vars()
    session.result({"shell": shell, "script": script}, script)


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code; print what is wrong in one line.

    Args:
        arguments: of the command line, without the name of the program.
    """
    ours = arguments[: arguments.index("--")] if "--" in arguments else arguments
    verb = next((argument for argument in ours if argument in VERBS), "<verb>")
    try:
        code = group.main(
            arguments,
            prog_name=NAME,
            complete_var=_COMPLETION_VARIABLE,
            standalone_mode=False,
        )
    except click.Abort as error:
        # click also turns EOFError, which damaged files raise, into Abort.
        if isinstance(error.__cause__, EOFError):
            return _fail(error.__cause__, verb, "--debug" in ours)
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 - whatever a command raises ends here, in one line
        return _fail(error, verb, "--debug" in ours)
    return int(code or ExitCode.DONE)


def main() -> NoReturn:
    """Run the command line of this process and end the process with the exit code."""
    startup.prepare()
    object_store.run_to_exit(lambda: run(sys.argv[1:]))


def _fail(error: BaseException, verb: str, debug: bool) -> int:
    if debug:
        import traceback

        traceback.print_exception(error)
    failure = failures.failure_of(error, verb)
    click.echo(f"error: {failure.message}", err=True)
    return failure.exit_code
