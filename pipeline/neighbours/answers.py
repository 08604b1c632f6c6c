"""Answers of a search: a table, and a picture with one row for each query.

An `EmbeddingIndex` and what was found in it -> rich table, PNG and lines of text. The
pixels are read from the shards that the index was made of.
"""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Sequence

import tensorflow as tf
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.table import Table

from beam_jobs.contracts import locations, records
from beam_jobs.contracts import manifest as manifest_lib
from beam_jobs.contracts.bands import SENSORS, Sensor
from beam_jobs.contracts.manifest import Manifest
from beam_jobs.contracts.shards import named_damage
from models.health.retrieval import RECALL_KS
from models.neighbours.index import EmbeddingIndex, IndexedPatch, IndexInfo
from models.neighbours.search import Answer, Found
from pipeline.report.patch_images import color_image, color_name

PARTNER_COLOR = "#00a050"
_SENSOR_NAMES: dict[Sensor, str] = {"s1": "Sentinel-1", "s2": "Sentinel-2"}
_DPI = 130


def describe_patches(info: IndexInfo) -> str:
    """Return a line with the contents of an index and how many patches it left out."""
    splits = ", ".join(info.source.splits)
    text = f"{info.num_patches} patches of {splits}, {info.embedding_dim} dimensions"
    left_out = info.source.num_records - info.num_patches
    return f"{text}; {left_out} without data in one sensor left out" if left_out else text


def describe_recall(info: IndexInfo) -> list[str]:
    """Return a line for each direction: recall of the index, and recall by chance."""
    lines = []
    for first, second in itertools.permutations(SENSORS, 2):
        values = ", ".join(
            f"@{k} {info.recall[f'recall_at_{k}/{first}_to_{second}']:.3f}" for k in RECALL_KS
        )
        lines.append(f"recall {first} -> {second}: {values}")
    chance = min(1.0, 1 / info.num_recall_patches)
    return [
        f"{line}  (among {info.num_recall_patches} patches; by chance @1 {chance:.3f})"
        for line in lines
    ]


def make_table(index: EmbeddingIndex, results: Sequence[Found]) -> Table:
    """Return the table of all queries and their answers.

    If a query's partner is not among its answers, it follows them with its rank.
    """
    table = Table(title=f"nearest of {len(index.patches)} patches", title_justify="left")
    for column in ("query", "rank", "patch", "similarity", "km", "days", ""):
        table.add_column(
            column, justify="left" if column in ("query", "patch", "") else "right", overflow="fold"
        )
    for found in results:
        shown = list(found.answers)
        if found.partner is not None and not any(answer.is_partner for answer in shown):
            shown.append(found.partner)
        for number, answer in enumerate(shown):
            table.add_row(
                index.patches[found.row].patch_id if number == 0 else "",
                str(answer.rank),
                index.patches[answer.row].patch_id,
                f"{answer.similarity:.3f}",
                f"{answer.distance_km:.1f}",
                _days(answer),
                "[green]partner[/green]" if answer.is_partner else "",
            )
        table.add_section()
    return table


def draw_search(
    index: EmbeddingIndex,
    results: Sequence[Found],
    query_sensor: Sensor,
    answer_sensor: Sensor,
    output: str,
) -> None:
    """Write the picture of a search.

    Args:
        index: the index that was searched.
        results: what was found, with equally many answers each.
        query_sensor: sensor shown of the queries.
        answer_sensor: sensor shown of partners and answers.
        output: the PNG; may be on an object store.

    Raises:
        FileNotFoundError: the version that the index was made of no longer exists.
        ValueError: the version was built again since, or a shard is missing or cannot
            be read.
    """
    source = index.info.source
    manifest = manifest_lib.read(source.pairs)
    if manifest.sha256 != source.manifest_sha256:
        raise ValueError(
            f"{source.pairs}: was built again since the index was made of it: embed it again"
        )
    rows = {found.row for found in results} | {
        answer.row for found in results for answer in found.answers
    }
    pixels = read_patches(source.pairs, [index.patches[row] for row in sorted(rows)])
    figure = draw(index, results, query_sensor, answer_sensor, pixels, manifest)
    with locations.staged(output) as partial:
        figure.savefig(partial, format="png", dpi=_DPI)


def read_patches(
    version_dir: str, wanted: Sequence[IndexedPatch]
) -> dict[str, records.PairedPatch]:
    """Return the records of some patches of an index, by patch id.

    Args:
        version_dir: version directory that the index was made of.
        wanted: patches of the index.

    Raises:
        DamagedShardError: a shard cannot be read whole.
        ValueError: a shard is missing, or its patches are not those of the index.
    """
    by_shard: dict[str, dict[int, str]] = {}
    for patch in wanted:
        by_shard.setdefault(patch.shard, {})[patch.record] = patch.patch_id
    found = {}
    for shard, patch_ids in by_shard.items():
        path = locations.locate(version_dir) / shard
        if not path.exists():
            raise ValueError(f"{path}: the shard is missing, but the index names it: embed again")
        dataset = tf.data.TFRecordDataset(str(path), "GZIP").take(max(patch_ids) + 1)
        with named_damage((str(path),)):
            held = {
                number: item
                for number, item in enumerate(dataset.as_numpy_iterator())
                if number in patch_ids
            }
        for number, patch_id in patch_ids.items():
            record = records.decode(held[number]) if number in held else None
            if record is None or record.patch_id != patch_id:
                raise ValueError(
                    f"{path}: record {number} must be patch {patch_id}, as the index says: "
                    "embed again"
                )
            found[patch_id] = record
    return found


def draw(
    index: EmbeddingIndex,
    results: Sequence[Found],
    query_sensor: Sensor,
    answer_sensor: Sensor,
    pixels: dict[str, records.PairedPatch],
    manifest: Manifest,
) -> Figure:
    """Return the figure, with one row for each query.

    A row shows the query, its partner (in a search across the sensors) and its answers.

    Args:
        index: the index that was searched.
        results: what was found, with equally many answers each.
        query_sensor: sensor shown of the queries.
        answer_sensor: sensor shown of partners and answers.
        pixels: records of all patches that are shown, by id.
        manifest: manifest of their version; gives bands and stretch.
    """
    num_before = 1 if results[0].partner is None else 2
    num_columns = num_before + len(results[0].answers)
    figure = Figure(
        figsize=(1.9 * num_columns + 0.4, 2.25 * len(results) + 0.5), layout="constrained"
    )
    all_axes = figure.subplots(len(results), num_columns, squeeze=False)

    def show(axes: Axes, row: int, sensor: Sensor, caption: str) -> None:
        patch = pixels[index.patches[row].patch_id]
        image = color_image(sensor, getattr(patch, sensor), manifest)
        axes.imshow(image, interpolation="nearest")
        axes.set(xticks=[], yticks=[])
        axes.set_title(f"{caption}\n{_place_and_day(index.patches[row], sensor)}", fontsize=7)

    for axes, found in zip(all_axes, results, strict=True):
        show(axes[0], found.row, query_sensor, f"query {index.patches[found.row].patch_id}")
        if found.partner is not None:
            rank = f"rank {found.partner.rank} of {len(index.patches)}"
            show(
                axes[1],
                found.row,
                answer_sensor,
                f"its partner: {found.partner.similarity:.3f}, {rank}",
            )
            _frame(axes[1])
        for answer_axes, answer in zip(axes[num_before:], found.answers, strict=True):
            show(answer_axes, answer.row, answer_sensor, _caption(answer))
            if answer.is_partner:
                _frame(answer_axes)
    names = [
        f"{_SENSOR_NAMES[sensor]} ({color_name(sensor, manifest)})"
        for sensor in (query_sensor, answer_sensor)
    ]
    figure.suptitle(" → ".join(names), fontsize=10)
    return figure


def _caption(answer: Answer) -> str:
    return f"{answer.rank}: {answer.similarity:.3f}, {answer.distance_km:.1f} km, {_days(answer)} d"


def _days(answer: Answer) -> str:
    # Adding zero turns -0.0 into 0.0.
    return f"{round(answer.gap_days, 1) + 0.0:+.1f}"


def _place_and_day(patch: IndexedPatch, sensor: Sensor) -> str:
    day = datetime.datetime.fromtimestamp(patch.acquired_at(sensor), datetime.timezone.utc).date()
    return f"{day}  {patch.lat:.3f}°, {patch.lon:.3f}°"


def _frame(axes: Axes) -> None:
    for spine in axes.spines.values():
        spine.set(color=PARTNER_COLOR, linewidth=3.0)
