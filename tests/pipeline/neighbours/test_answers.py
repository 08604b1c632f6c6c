"""Table and picture of a search, and the two commands."""

import dataclasses
import io
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
from matplotlib.colors import to_hex, to_rgb
from PIL import Image
from rich.console import Console

from beam_jobs.config import SimulateConfig
from beam_jobs.contracts import layout, manifest, records
from beam_jobs.contracts.shards import DamagedShardError
from beam_jobs.simulation.simulate import simulate
from models.neighbours.index import IndexedPatch, write_index
from models.neighbours.search import search
from pipeline.neighbours import answers
from pipeline.report import patch_images
from tests.data.faults import damage
from tests.data.networks import make_encoder, make_index
from tests.data.runs.run_pipeline import run_pipeline, run_pipeline_here
from tests.data.shards import make_shards


@pytest.fixture(scope="module")
def version(tmp_path_factory):
    return make_shards.make_version(tmp_path_factory.mktemp("pairs"), num_patches=12, seed=5)


@pytest.fixture(scope="module")
def encoder(version, tmp_path_factory):
    """An untrained encoder, published with all its files."""
    path = tmp_path_factory.mktemp("encoder") / "published"
    return make_encoder.publish(manifest.read(version), path)


@pytest.fixture(scope="module")
def patches(version):
    """The patches of the train split, as an index names them."""
    found = []
    for path in layout.shard_paths(version, "train"):
        for number, serialized in enumerate(
            tf.data.TFRecordDataset(str(path), "GZIP").as_numpy_iterator()
        ):
            patch = records.decode(serialized)
            fields = {
                name: getattr(patch, name) for name in IndexedPatch._fields if hasattr(patch, name)
            }
            found.append(
                IndexedPatch(**fields, split="train", shard=f"train/{path.name}", record=number)
            )
    return found


@pytest.fixture(scope="module")
def index(version, patches):
    embeddings = make_index.make_embeddings(len(patches), noise=2.0, seed=1)
    source = {"pairs": str(version), "manifest_sha256": manifest.read(version).sha256}
    return make_index.make_index(embeddings, patches, **source)


@pytest.fixture
def missed(index):
    """A query whose partner is not among its two answers."""
    results = search(index, range(len(index.patches)), query_sensor="s1", answer_sensor="s2", k=2)
    return next(found for found in results if found.partner.rank > 2)


def text_of(part):
    console = Console(file=io.StringIO(), width=160)
    console.print(part)
    return console.file.getvalue()


def test_table_shows_answers_and_a_partner_that_is_not_among_them(index, missed):
    rows = [
        line
        for line in text_of(answers.make_table(index, [missed])).splitlines()
        if line.startswith("│")
    ]
    assert len(rows) == 3
    assert index.patches[missed.row].patch_id in rows[0]
    for line, answer in zip(rows, (*missed.answers, missed.partner), strict=True):
        cells = [cell.strip() for cell in line.strip("│").split("│")]
        assert cells[1:6] == [
            str(answer.rank),
            index.patches[answer.row].patch_id,
            f"{answer.similarity:.3f}",
            f"{answer.distance_km:.1f}",
            f"{answer.gap_days:+.1f}".replace("-0.0", "+0.0"),
        ]
        assert cells[6] == ("partner" if answer is missed.partner else "")


def test_recall_is_told_for_both_directions_beside_chance(index):
    recall = {
        f"recall_at_{k}/{way}": k / 16 for k in (1, 5, 10) for way in ("s1_to_s2", "s2_to_s1")
    }
    recall["recall_at_5/s2_to_s1"] = 0.5
    info = dataclasses.replace(index.info, recall=recall, num_recall_patches=40)
    first, second = answers.describe_recall(info)
    assert (
        first
        == "recall s1 -> s2: @1 0.062, @5 0.312, @10 0.625  (among 40 patches; by chance @1 0.025)"
    )
    assert second.startswith("recall s2 -> s1: @1 0.062, @5 0.500, @10 0.625")


def test_patches_are_read_again_from_their_shards(version, patches):
    wanted = [patches[10], patches[3], patches[4]]
    found = answers.read_patches(str(version), wanted)
    assert set(found) == {patch.patch_id for patch in wanted}
    assert all(found[patch.patch_id].block == patch.block for patch in wanted)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"shard": "train/part-00007-of-00009.tfrecord.gz"},
            "part-00007-of-00009.tfrecord.gz: the shard is missing",
        ),
        ({"record": 1}, "record 1 must be patch {0}, as the index says: embed again"),
        ({"record": 99}, "record 99 must be patch {0}, as the index says: embed again"),
    ],
)
def test_shards_that_are_not_the_indexed_ones_are_one_line(version, patches, changes, message):
    with pytest.raises(ValueError, match=message.format(patches[0].patch_id)):
        answers.read_patches(str(version), [patches[0]._replace(**changes)])


def test_a_damaged_shard_is_named_with_what_is_wrong(version, patches, tmp_path):
    copied = shutil.copytree(version, tmp_path / "version")
    path = damage.cut(copied / patches[0].shard)
    with pytest.raises(DamagedShardError) as caught:
        answers.read_patches(str(copied), patches)
    assert str(caught.value).startswith(f"{path}: the shard is damaged: its gzip stream is broken")


def frames(axes):
    return [
        to_hex(spine.get_edgecolor()) == answers.PARTNER_COLOR for spine in axes.spines.values()
    ]


def test_picture_has_a_row_for_each_query_with_its_partner_framed(index, version):
    found_manifest = manifest.read(version)
    results = search(index, [2, 9, 5], query_sensor="s1", answer_sensor="s2", k=4)
    pixels = answers.read_patches(str(version), index.patches)
    figure = answers.draw(index, results, "s1", "s2", pixels, found_manifest)
    assert len(figure.axes) == 3 * (2 + 4)
    for row, found in enumerate(results):
        query, partner, *others = figure.axes[6 * row : 6 * row + 6]
        own = pixels[index.patches[found.row].patch_id]
        np.testing.assert_array_equal(
            query.images[0].get_array(), patch_images.radar_color_image(own.s1, found_manifest)
        )
        np.testing.assert_array_equal(
            partner.images[0].get_array(), patch_images.optical_image(own.s2, found_manifest)
        )
        assert f"rank {found.partner.rank} of 12" in partner.get_title()
        assert all(frames(partner))
        assert not any(frames(query))
        for axes, answer in zip(others, found.answers, strict=True):
            shown = pixels[index.patches[answer.row].patch_id]
            np.testing.assert_array_equal(
                axes.images[0].get_array(), patch_images.optical_image(shown.s2, found_manifest)
            )
            assert axes.get_title().startswith(
                f"{answer.rank}: {answer.similarity:.3f}, {answer.distance_km:.1f} km"
            )
            assert frames(axes) == [answer.is_partner] * 4


def test_picture_within_one_sensor_has_no_partner(index, version, tmp_path):
    results = search(index, [0, 1], query_sensor="s2", answer_sensor="s2", k=3)
    answers.draw_search(index, results, "s2", "s2", str(tmp_path / "deep" / "search.png"))
    with Image.open(tmp_path / "deep" / "search.png") as image:
        assert image.width > image.height > 300


def test_a_version_that_was_built_again_is_refused(index, missed, tmp_path):
    source = dataclasses.replace(index.info.source, manifest_sha256="e" * 64)
    stale = dataclasses.replace(index, info=dataclasses.replace(index.info, source=source))
    with pytest.raises(
        ValueError, match="was built again since the index was made of it: embed it again"
    ):
        answers.draw_search(stale, [missed], "s1", "s2", str(tmp_path / "x.png"))
    assert list(tmp_path.iterdir()) == []


def test_radar_in_colour_shows_two_polarizations_and_their_ratio(version):
    found = manifest.read(version)
    first, second = found.s1_statistics
    s1 = np.empty((1, 4, 2), np.float32)
    s1[0, 0] = first.p98, second.p98
    s1[0, 1] = first.p02, second.p02
    s1[0, 2] = np.nan, second.p50
    # The ratio is at its middle, and both bands are a little brighter.
    s1[0, 3] = first.p50 + 1.0, second.p50 + 1.0
    image = patch_images.radar_color_image(s1, found)
    assert image[0, 0, :2].tolist() == [1.0, 1.0]
    assert image[0, 1, :2].tolist() == [0.0, 0.0]
    assert image[0, 2].tolist() == list(to_rgb(patch_images.NODATA_COLOR))
    assert image[0, 3, 2] == pytest.approx(0.5, abs=1e-6)
    s1[0, 3, 1] -= 3.0
    assert patch_images.radar_color_image(s1, found)[0, 3, 2] == pytest.approx(0.75, abs=1e-6)


def test_radar_of_one_polarization_is_grey(version):
    found = manifest.read(version)
    single = dataclasses.replace(found, s1_bands=("VV",), s1_statistics=found.s1_statistics[:1])
    s1 = np.linspace(-20, 0, 6, dtype=np.float32).reshape(1, 6, 1)
    image = patch_images.radar_color_image(s1, single)
    np.testing.assert_array_equal(image[..., 0], image[..., 2])
    assert image[0, 0, 0] < image[0, 5, 0]


def one_line(ended, exit_code):
    assert ended.returncode == exit_code, ended.stderr
    (line,) = ended.stderr.splitlines()
    return line


def test_a_search_without_a_query_is_one_line(tmp_path):
    ended = run_pipeline("search", "--index", str(tmp_path), "--output", str(tmp_path / "x.png"))
    assert one_line(ended, 2) == (
        "error: a search needs either --patch or --random, got both or none"
        " (see terrapair search --help)"
    )


def test_an_unknown_patch_is_one_line(index, tmp_path):
    folder = tmp_path / "index"
    write_index(folder, index.info.source, [(index.embeddings, list(index.patches))])
    ended = run_pipeline(
        "search", "--index", str(folder), "--patch", "nowhere", "--output", str(tmp_path / "x.png")
    )
    assert one_line(ended, 3).startswith(
        "error: patch 'nowhere': must be a patch_id of the index's 12 patches"
    )
    assert not (tmp_path / "x.png").exists()
    # Far from all patches: Rome, and the patches are near 10 E, 45 N.
    ended = run_pipeline(
        *("search", "--index", str(folder), "--patch", "12.5,41.9"),
        *("--output", str(tmp_path / "x.png")),
    )
    line = one_line(ended, 3)
    assert line.startswith("error: 12.5,41.9: the index has no patch within 5.0 km (--max-km): ")
    assert "km away" in line
    assert "its 12 patches lie in lon 10." in line
    assert not (tmp_path / "x.png").exists()


@pytest.mark.parametrize(
    ("options", "message", "exit_code"),
    [
        ((), "an index needs either --scenes or --pairs, got both or none", 2),
        (
            ("--scenes", "x", "--pairs", "y"),
            "an index needs either --scenes or --pairs, got both or none",
            2,
        ),
        (("--scenes", "x", "--split", "all"), "--split goes with --pairs only", 2),
        (
            ("--pairs", "x", "--set", "patch.size_px=32"),
            "--config and --set say how --scenes are cut",
            2,
        ),
        (("--scenes", "x"), "nowhere: cannot read the encoder: no such folder", 3),
    ],
)
def test_options_of_embed_that_do_not_fit_are_one_line(options, message, exit_code, tmp_path):
    ended = run_pipeline(
        "embed", "--encoder", "nowhere", "--output", str(tmp_path / "index"), *options
    )
    assert message in one_line(ended, exit_code)


@pytest.mark.e2e
def test_a_folder_of_scenes_is_embedded_and_searched(encoder, tmp_path):
    simulate(SimulateConfig(num_places=1, num_dates=2, size_px=128), tmp_path / "scenes" / "place")
    index = ("--output", str(tmp_path / "index"))
    embedded = run_pipeline_here(
        *(
            "embed",
            "--encoder",
            encoder,
            "--scenes",
            str(tmp_path / "scenes"),
            "--set",
            "patch.size_px=32",
        ),
        *index,
    )
    assert embedded.returncode == 0, embedded.stderr
    version = tmp_path / "index-patches" / "span-1" / "version-1"
    num_patches = sum(manifest.read(version).num_examples.values())
    assert f"Patches: {version}" in embedded.stdout
    assert f"({num_patches} patches of train, 8 dimensions)" in embedded.stdout
    drawn = run_pipeline_here(
        "search",
        "--index",
        str(tmp_path / "index"),
        "--random",
        "1",
        "--output",
        str(tmp_path / "a.png"),
    )
    assert f"nearest of {num_patches} patches" in drawn.stdout
    assert (tmp_path / "a.png").exists()


@pytest.mark.e2e
def test_a_version_is_embedded_and_searched(version, encoder, tmp_path):
    found = manifest.read(version)
    options = ("--pairs", str(version), "--output", str(tmp_path / "index"))
    embedded = run_pipeline_here("embed", "--encoder", encoder, "--split", "all", *options)
    assert embedded.returncode == 0, embedded.stderr
    assert (
        f"Index: {tmp_path / 'index'}  (20 patches of train, eval, test, 8 dimensions)"
        in embedded.stdout
    )
    assert "recall s1 -> s2: @1 " in embedded.stdout
    values = json.loads((tmp_path / "index" / "index.json").read_text())
    assert values["source"]["manifest_sha256"] == found.sha256
    again = run_pipeline_here("embed", "--encoder", encoder, *options)
    assert "holds an index already, and an index is never overwritten" in one_line(again, 2)

    drawn = run_pipeline_here(
        "search",
        "--index",
        str(tmp_path / "index"),
        "--random",
        "3",
        "--k",
        "4",
        "--output",
        str(tmp_path / "a.png"),
    )
    assert drawn.returncode == 0, drawn.stderr
    assert "nearest of 20 patches" in drawn.stdout
    assert f"Picture: {tmp_path / 'a.png'}" in drawn.stdout
    asked = run_pipeline_here(
        *("search", "--index", str(tmp_path / "index"), "--patch", "10.031,45"),
        *("--from", "s2", "--to", "s1", "--output", str(tmp_path / "b.png")),
    )
    assert asked.returncode == 0, asked.stderr
    assert "Nearest to 10.031,45: patch " in asked.stdout
    with Image.open(tmp_path / "a.png") as many, Image.open(tmp_path / "b.png") as single:
        assert many.height > 2 * single.height
