"""`embed` and `search`: an index of a version's or a folder's patches, and what lies near to a patch in it.

Options -> `models/neighbours/` and `pipeline/neighbours/answers.py`.
`pipeline/__main__.py` adds the commands; TensorFlow is imported inside them, so that
`--help` and a wrong option answer at once.
"""

from __future__ import annotations

import os

import click

from beam_jobs.config import BuildConfig
from beam_jobs.contracts.bands import SENSORS, Sensor
from beam_jobs.contracts.layout import SPLITS
from beam_jobs.terminal import load_config
from pipeline.console import CONSOLE, RunProgress, guarded, prepare_libraries


@click.command()
@click.option(
    "--encoder", required=True, help="Published encoder of both sensors: a SavedModel folder."
)
@click.option(
    "--scenes",
    help="Folder of scenes, as `run --data` takes it; cut into patches first, in OUTPUT-patches.",
)
@click.option("--config", "config_path", help="YAML file with build settings, for --scenes.")
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="A.B=C",
    help="Override one build setting, for --scenes.",
)
@click.option("--pairs", help="Instead of scenes: a version directory, as build-pairs writes it.")
@click.option("--split", type=click.Choice([*SPLITS, "all"]), help="Of --pairs.  [default: eval]")
@click.option(
    "--output", required=True, help="Folder for the index; one that exists is never overwritten."
)
@click.option(
    "--batch-size",
    default=64,
    show_default=True,
    type=click.IntRange(min=1),
    help="Patches at a time.",
)
@click.option("--verbose", is_flag=True, help="Show the log of TensorFlow.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def embed(
    encoder: str,
    scenes: str | None,
    config_path: str | None,
    overrides: tuple[str, ...],
    pairs: str | None,
    split: str | None,
    output: str,
    batch_size: int,
    verbose: bool,
    debug: bool,
) -> None:
    """Embed a folder of scenes, or the patches of a version, with a published encoder: an index for `search`.

    See docs/neighbours.md.

    \b
    Examples:
      python -m pipeline embed --encoder runs/demo/serving/encoder/<version> \\
        --scenes exports --set patch.size_px=32 --output runs/index
      python -m pipeline embed --encoder runs/demo/serving/encoder/<version> \\
        --pairs runs/demo/data/pairs/span-1/version-1 --output runs/demo/index
    """
    prepare_libraries(os.environ, verbose)

    def work() -> int:
        if (scenes is None) == (pairs is None):
            raise ValueError("an index needs either --scenes or --pairs, got both or none")
        if scenes is None and (config_path or overrides):
            raise ValueError(
                "--config and --set say how scenes are cut, and go with --scenes only, got --pairs"
            )
        if scenes is not None and split is not None:
            raise ValueError("--split goes with --pairs only: of --scenes all patches are embedded")
        with RunProgress(CONSOLE) as progress:
            if scenes is None:
                version, splits = str(pairs), SPLITS if split == "all" else (split or "eval",)
            else:
                config = load_config(BuildConfig, config_path, overrides)
                from models.neighbours.index import check_absent
                from pipeline.neighbours.scene_patches import cut_scenes

                # Before the scenes are cut, which may take hours.
                check_absent(output)
                patches = f"{output.rstrip('/')}-patches"
                version = str(
                    cut_scenes(scenes, encoder, config, patches, progress.stage, progress.update)
                )
                splits = SPLITS
            from models.neighbours.embedding import embed_version
            from pipeline.neighbours.answers import describe_patches, describe_recall

            with progress.stage("embed"):
                info = embed_version(
                    encoder,
                    version,
                    output,
                    splits=splits,
                    batch_size=batch_size,
                    on_progress=progress.update,
                )
        for line in (
            f"Patches: {version}",
            f"Index: {output}  ({describe_patches(info)})",
            *describe_recall(info),
        ):
            CONSOLE.print(line, highlight=False, soft_wrap=True)
        return 0

    guarded(debug, work)


@click.command()
@click.option("--index", "folder", required=True, help="Folder that `embed` wrote.")
@click.option(
    "--patch",
    "wanted",
    metavar="ID|LON,LAT",
    help="The query: a patch id, or the patch nearest to a place.",
)
@click.option(
    "--random",
    "num_random",
    type=click.IntRange(1, 100),
    metavar="N",
    help="N queries drawn by lot instead.",
)
@click.option("--seed", default=0, show_default=True, help="Of the lot.")
@click.option("--from", "query_sensor", type=click.Choice(SENSORS), default="s1", show_default=True)
@click.option("--to", "answer_sensor", type=click.Choice(SENSORS), default="s2", show_default=True)
@click.option(
    "--k", default=5, show_default=True, type=click.IntRange(1, 20), help="Answers to each query."
)
@click.option("--output", required=True, help="PNG to write.")
@click.option("--verbose", is_flag=True, help="Show the log of TensorFlow.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def search(
    folder: str,
    wanted: str | None,
    num_random: int | None,
    seed: int,
    query_sensor: Sensor,
    answer_sensor: Sensor,
    k: int,
    output: str,
    verbose: bool,
    debug: bool,
) -> None:
    """Find the patches whose embedding is nearest to that of a patch in the other sensor, as a table and a picture.

    \b
    Examples:
      python -m pipeline search --index runs/demo/index --random 8 --output neighbours.png
      python -m pipeline search --index runs/demo/index --patch 12.5,41.9 --from s2 --to s1 --output rome.png
    """
    prepare_libraries(os.environ, verbose)

    def work() -> int:
        if (wanted is None) == (num_random is None):
            raise ValueError("a search needs either --patch or --random, got both or none")
        from models.neighbours.index import read_index
        from models.neighbours.search import draw_patches, find_patch
        from models.neighbours.search import search as search_index

        index = read_index(folder)
        if wanted is None:
            rows = draw_patches(len(index.patches), num_random or 1, seed)
        else:
            rows = [find_patch(index.patches, wanted)]
        # Only now, since importing TensorFlow takes seconds that a wrong id should not
        # cost.
        from pipeline.neighbours.answers import describe_recall, draw_search, make_table

        results = search_index(
            index, rows, query_sensor=query_sensor, answer_sensor=answer_sensor, k=k
        )
        CONSOLE.print(make_table(index, results))
        for line in describe_recall(index.info):
            CONSOLE.print(line, highlight=False, soft_wrap=True)
        draw_search(index, results, query_sensor, answer_sensor, output)
        CONSOLE.print(f"Picture: {output}", highlight=False, soft_wrap=True)
        return 0

    guarded(debug, work)


COMMANDS = (embed, search)
