"""Patches of a folder of scenes, cut as a published encoder wants them: what `embed --scenes` embeds.

Folder of scenes + encoder -> a version of unlabeled pairs, all of them in one split.
Called by `neighbour_commands.py`.
"""

from __future__ import annotations

from dataclasses import replace
from tempfile import TemporaryDirectory

from beam_jobs.build.driver import build_pairs
from beam_jobs.catalogs.catalog import discover
from beam_jobs.config import BuildConfig
from beam_jobs.contracts.bands import SENSORS
from beam_jobs.contracts.locations import Location
from models.published.card import read_card
from pipeline.data_build import OnProgress, Stage, resolve_catalogs


def cut_scenes(
    scenes: str,
    encoder: str,
    config: BuildConfig,
    output: str,
    stage: Stage,
    on_progress: OnProgress,
) -> Location:
    """Builds the version below `output`, or finds it there when nothing has changed.

    Args:
        scenes: folder with a catalog, in a public data set's layout, or of Earth Engine
            exports.
        encoder: published encoder of both sensors: bands, processing level and pixel
            size are those of its card.
        config: of the build; what the card says goes before it, and only what a data
            set itself declares as eval or test is apart from the rest.
        output: folder that holds the spans.
        stage: context manager around each named stage.
        on_progress: called with (done, total) within a stage.

    Raises:
        FileNotFoundError: no finished encoder.
        ValueError: it is of one sensor alone; or nothing in the folder can be read or
            paired (`DataError`).
    """
    card = read_card(encoder)
    if missing := [sensor for sensor in SENSORS if sensor not in card["inputs"]]:
        raise ValueError(
            f"{encoder}: must be an encoder of both sensors to search across them, got none of {missing[0]}"
        )
    config = replace(
        config,
        patch=replace(
            config.patch,
            pixel_size_m=card["pixel_size_m"],
            s1_bands=tuple(card["inputs"]["s1"]["bands"]),
            s2_bands=tuple(card["inputs"]["s2"]["bands"]),
            s2_processing_level=card["s2_processing_level"],
        ),
        split=replace(config.split, eval_fraction=0.0, test_fraction=0.0),
    )
    # The catalog of a folder names the scenes by their full paths, and nobody reads it
    # after the build.
    with TemporaryDirectory() as work_dir:
        catalogs = resolve_catalogs(discover(scenes), work_dir, stage, on_progress)
        with stage("build-pairs"):
            return build_pairs(
                config, catalogs, output, on_progress=on_progress, needed_splits=("train",)
            )
