"""The picture of the README: some patches of a task as sensors, label and prediction.

Input: the shards and the published model of a finished run. Output: a PNG, small
enough for a page. Run as `python -m pipeline.report.example_picture`.
"""

from __future__ import annotations

import os
from pathlib import Path

import click
import matplotlib
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from beam_jobs.contracts import layout, locations, manifest, records
from beam_jobs.contracts.labels import IGNORE
from pipeline.config import load_run_config
from pipeline.report.patch_images import (
    NODATA_COLOR,
    label_image,
    optical_image,
    radar_image,
)
from pipeline.report.pictures import IGNORE_COLOR, choose_patches, decode_labeled

NUM_PATCHES = 4
PATCHES_PER_ROW = 2


def draw_example(
    patches: list[records.LabeledPatch],
    prediction: npt.NDArray[np.int64],
    data: manifest.Manifest,
) -> Figure:
    """Return the figure: two patches a row, four images a patch.

    Args:
        patches: labelled patches of one size; at most `NUM_PATCHES`.
        prediction: class ids [B, H, W], 255 = no data.
        data: manifest of the patches. It gives bands, stretch and label schema.

    Raises:
        ValueError: if the manifest names no label schema.
    """
    schema = data.schema
    if schema is None:
        raise ValueError("the manifest names no label schema: use the manifest of a labelled build")
    matplotlib.rcParams["font.size"] = 10
    headings = (f"Sentinel-1, {data.bands('s1')[0]}", "Sentinel-2", "label", "prediction")
    num_rows = -(-len(patches) // PATCHES_PER_ROW)
    # An empty column in the middle separates the two patches of a row.
    widths = [1, 1, 1, 1, 0.12, 1, 1, 1, 1]
    figure = Figure(figsize=(11.0, 1.3 * num_rows + 0.65), layout="constrained")
    axes = figure.subplots(num_rows, 9, squeeze=False, width_ratios=widths)
    for axis in axes.flat:
        axis.set_axis_off()
    for number, patch in enumerate(patches):
        row, first = number // PATCHES_PER_ROW, number % PATCHES_PER_ROW * 5
        images = (
            radar_image(patch.s1, data),
            optical_image(patch.s2, data),
            label_image(patch.label, schema, IGNORE_COLOR),
            label_image(prediction[number], schema, NODATA_COLOR),
        )
        for offset, image in enumerate(images):
            axis = axes[row][first + offset]
            axis.imshow(image, interpolation="nearest")
            if row == 0:
                axis.set_title(headings[offset], fontsize=10)
    shown = set(np.unique([patch.label for patch in patches])) | set(np.unique(prediction))
    handles = [
        Patch(color=schema.colors[i], label=schema.classes[i].replace("_", " "))
        for i in sorted(shown - {IGNORE})
    ]
    if any(not np.isfinite(patch.s1).all() for patch in patches) or (prediction == IGNORE).any():
        handles.append(Patch(color=NODATA_COLOR, label="no data"))
    if any((patch.label == IGNORE).any() for patch in patches):
        handles.append(Patch(color=IGNORE_COLOR, label="no label"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    return figure


@click.command()
@click.option("--config", "config_path", required=True, help="YAML file of a finished run.")
@click.option("--set", "overrides", multiple=True, metavar="A.B=C", help="Override one setting.")
@click.option("--task", required=True, help="Name of the task, e.g. flood.")
@click.option("--output", required=True, type=click.Path(path_type=Path), help="PNG to write.")
def main(config_path: str, overrides: tuple[str, ...], task: str, output: Path) -> None:
    """Draw the first patches of the report, with the newest published model."""
    config = load_run_config(config_path, overrides, os.environ)
    wanted = [one for one in config.tasks if one.name == task]
    if not wanted:
        names = ", ".join(one.name for one in config.tasks)
        raise click.UsageError(f"--task {task}: the run has the tasks {names}")
    data_dir = config.task_dir(wanted[0])
    version_dir = layout.version_dir(data_dir, *max(layout.list_versions(data_dir)))
    model_dir = max(
        (
            path
            for path in (locations.parse(config.serving_dir) / task).iterdir()
            if path.name.isdigit()
        ),
        key=lambda path: int(path.name),
    )
    serialized = choose_patches(layout.shard_paths(version_dir, "eval"))[:NUM_PATCHES]
    signature = tf.saved_model.load(str(model_dir)).signatures["serve_examples"]
    prediction = signature(examples=tf.constant(serialized))["label"].numpy()
    patches = [decode_labeled(item) for item in serialized]
    figure = draw_example(patches, prediction, manifest.read(version_dir))
    figure.savefig(output, format="png", dpi=100)
    click.echo(output)


if __name__ == "__main__":
    main()
