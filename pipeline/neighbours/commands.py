"""Verbs on indexes: `embed` makes an index of patches, `search` looks for near ones.

TensorFlow is imported inside the verbs, after options and input files are checked: a
wrong option then costs a fraction of a second.
"""

from __future__ import annotations

from dataclasses import asdict

import click

from beam_jobs.config import BuildConfig
from beam_jobs.contracts.bands import SENSORS, Sensor
from beam_jobs.contracts.layout import SPLITS
from beam_jobs.storage import locks
from beam_jobs.terminal import inputs
from beam_jobs.terminal.options import config_option, load_config, verb
from beam_jobs.terminal.session import Session


@verb("embed")
@click.option(
    "--encoder", required=True, help="Published encoder of both sensors: a SavedModel folder."
)
@click.option(
    "--scenes",
    help="Folder of scenes, as `run --data` takes it. They are cut into patches first, in "
    "OUTPUT-patches.",
)
@config_option("build settings, for --scenes")
@click.option("--pairs", help="Instead of scenes: a version that build-pairs wrote.")
@click.option("--split", type=click.Choice([*SPLITS, "all"]), help="Split of --pairs. [eval]")
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
def embed(
    session: Session,
    encoder: str,
    scenes: str | None,
    config_path: str | None,
    overrides: tuple[str, ...],
    pairs: str | None,
    split: str | None,
    output: str,
    batch_size: int,
) -> None:
    """Embed patches into an index for `search`.

    The patches are cut from a folder of scenes, or are those of a version. See
    docs/neighbours.md.

    \b
    Example:
      terrapair embed --encoder runs/demo/serving/encoder/<version> \\
        --scenes exports --set patch.size_px=32 --output runs/index
      terrapair embed --encoder runs/demo/serving/encoder/<version> \\
        --pairs runs/demo/data/pairs/span-1/version-1 --output runs/demo/index
    """
    if (scenes is None) == (pairs is None):
        raise click.UsageError("an index needs either --scenes or --pairs, got both or none")
    if scenes is None and (config_path or overrides):
        raise click.UsageError("--config and --set say how --scenes are cut, but got --pairs")
    if scenes is not None and split is not None:
        raise click.UsageError("--split goes with --pairs only: --scenes have no splits")
    config = load_config(BuildConfig, config_path, overrides)
    inputs.check_encoder(encoder)
    if scenes is not None:
        inputs.check_folder(scenes, "scenes")
    else:
        inputs.check_version(str(pairs))
    from models.neighbours.index import check_absent

    # Before the scenes are cut, which may take hours.
    check_absent(output)
    with locks.hold(f"{output.rstrip('/')}/.lock", output), session.progress() as progress:
        if scenes is None:
            version, splits = str(pairs), SPLITS if split == "all" else (split or "eval",)
        else:
            from pipeline.neighbours.scene_patches import cut_scenes

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
    session.result(
        {"index": output, "patches": version, **asdict(info)},
        f"Patches: {version}",
        f"Index: {output}  ({describe_patches(info)})",
        *describe_recall(info),
    )


@verb("search")
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
    help="Instead of --patch: N random queries.",
)
@click.option(
    "--max-km",
    type=click.FloatRange(min=0.0, min_open=True),
    help="Largest distance of a place LON,LAT from the centre of its patch. [5 patch widths]",
)
@click.option("--seed", default=0, show_default=True, help="Of the random queries.")
@click.option(
    "--from",
    "query_sensor",
    type=click.Choice(SENSORS),
    default="s1",
    show_default=True,
    help="Sensor of the query.",
)
@click.option(
    "--to",
    "answer_sensor",
    type=click.Choice(SENSORS),
    default="s2",
    show_default=True,
    help="Sensor of the answers.",
)
@click.option(
    "--k", default=5, show_default=True, type=click.IntRange(1, 20), help="Answers to each query."
)
@click.option("--output", required=True, help="PNG to write.")
def search(
    session: Session,
    folder: str,
    wanted: str | None,
    num_random: int | None,
    max_km: float | None,
    seed: int,
    query_sensor: Sensor,
    answer_sensor: Sensor,
    k: int,
    output: str,
) -> None:
    """Find the nearest patches of a patch, in the other sensor: a table and a picture.

    \b
    Example:
      terrapair search --index runs/demo/index --random 8 --output neighbours.png
      terrapair search --index runs/demo/index --patch 12.5,41.9 --output rome.png

    \b
    A place is refused (exit code 3) if no patch is within --max-km.
    """
    if (wanted is None) == (num_random is None):
        raise click.UsageError("a search needs either --patch or --random, got both or none")
    inputs.check_folder(folder, "index")
    from models.neighbours.index import read_index
    from models.neighbours.search import default_max_km, draw_patches, find_patch
    from models.neighbours.search import search as search_index

    index = read_index(folder)
    query, distances = None, []
    if wanted is None:
        rows = draw_patches(len(index.patches), num_random or 1, seed)
    else:
        limit = default_max_km(index.info.source.patch_width_km) if max_km is None else max_km
        query = find_patch(index.patches, wanted, limit)
        rows = [query.row]
        if query.place_km is not None:
            distances = [
                f"Nearest to {wanted.strip()}: patch {index.patches[query.row].patch_id}, "
                f"{query.place_km:.2f} km away"
            ]
    # Only now: importing TensorFlow takes seconds that a wrong id should not cost.
    from pipeline.neighbours.answers import describe_recall, draw_search, make_table

    results = search_index(index, rows, query_sensor=query_sensor, answer_sensor=answer_sensor, k=k)
    draw_search(index, results, query_sensor, answer_sensor, output)
    document = {
        "picture": output,
        "place_km": None if query is None else query.place_km,
        "queries": [
            {
                "patch": index.patches[found.row].patch_id,
                "answers": [
                    {**asdict(answer), "patch": index.patches[answer.row].patch_id}
                    for answer in found.answers
                ],
            }
            for found in results
        ],
    }
    session.result(
        document,
        *distances,
        make_table(index, results),
        *describe_recall(index.info),
        f"Picture: {output}",
    )
