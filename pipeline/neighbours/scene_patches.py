"""Patches of a folder of scenes, cut as a published encoder needs them.

Folder of scenes + encoder -> a version of unlabeled pairs, all in one split.
"""

from __future__ import annotations

from dataclasses import replace
from tempfile import TemporaryDirectory

from beam_jobs.build.driver import Execution, build_pairs
from beam_jobs.catalogs.catalog import discover
from beam_jobs.config import BuildConfig
from beam_jobs.contracts.bands import SENSORS
from beam_jobs.contracts.locations import Location
from beam_jobs.contracts.published import read_card
from pipeline.data_build import OnProgress, Stage, resolve_catalogs


def cut_scenes(
    scenes: str,
    encoder: str,
    config: BuildConfig,
    output: str,
    stage: Stage,
    on_progress: OnProgress,
) -> Location:
    """Build the version below `output`, or return the one there if nothing changed.

    Args:
        scenes: folder with a catalog, with a public data set, or with Earth Engine
            exports.
        encoder: published encoder of both sensors. Its card gives bands, processing
            level and pixel size.
        config: build settings; the encoder's card overrides them. All patches go into
            `train`, except those that a data set itself declares as eval or test.
        output: folder that holds the spans.
        stage: context manager around each named stage.
        on_progress: called with (done, total) within a stage.

    Raises:
        FileNotFoundError: the encoder does not exist or is incomplete.
        ValueError: the encoder has only one sensor; or nothing in the folder can be
            read or paired (`DataError`).
    """
    card = read_card(encoder)
    if missing := [sensor for sensor in SENSORS if sensor not in card["inputs"]]:
        raise ValueError(
            f"{encoder}: must be an encoder of both sensors to search across them, got none of "
            f"{missing[0]}"
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
    # The catalog of a folder names the scenes by full paths. It is not read after the
    # build, so a temporary folder is enough.
    with TemporaryDirectory() as work_dir:
        catalogs = resolve_catalogs(discover(scenes), work_dir, stage, on_progress)
        with stage("build-pairs"):
            return build_pairs(
                config,
                catalogs,
                output,
                execution=Execution(on_progress=on_progress, needed_splits=("train",)),
            )
