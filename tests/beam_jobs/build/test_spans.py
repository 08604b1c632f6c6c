"""New spans: scenes that an earlier span was cut from are not taken again."""

import json

import pytest
import tensorflow as tf

from beam_jobs.__main__ import run
from beam_jobs.build import spans
from beam_jobs.build.driver import build_pairs
from beam_jobs.contracts import layout, manifest, records, windows
from beam_jobs.errors import DataError, NothingNewError


@pytest.fixture
def dates(simulated) -> list[list[str]]:
    """Lines of the catalog, one list per date of the three places."""
    lines = simulated.read_text().splitlines()
    by_place: dict[str, list[str]] = {}
    for line in sorted(lines, key=lambda line: json.loads(line)["properties"]["datetime"]):
        by_place.setdefault(json.loads(line)["properties"]["terrapair:place"], []).append(line)
    return [
        [line for of_place in by_place.values() for line in of_place[start : start + 2]]
        for start in (0, 2)
    ]


def places_of(version) -> dict[str, str]:
    """Block -> split of all patches in the shards of a version."""
    found = {}
    for split in layout.SPLITS:
        paths = [str(path) for path in layout.shard_paths(version, split)]
        for raw in tf.data.TFRecordDataset(paths, "GZIP").as_numpy_iterator():
            assert found.setdefault(records.decode(raw).block, split) == split
    return found


def ids_of(lines: list[str]) -> set[str]:
    return {json.loads(line)["id"] for line in lines}


@pytest.mark.e2e
def test_a_new_span_takes_only_new_scenes_and_counts_the_others(
    copied, build_config, tmp_path, dates
):
    everything = copied.read_text()
    copied.write_text("\n".join(dates[0]) + "\n")
    first = build_pairs(build_config, [copied], tmp_path / "out", span="new")
    assert first == layout.version_dir(tmp_path / "out", 1, 1)
    assert set((first / "scenes.txt").read_text().splitlines()) == ids_of(dates[0])
    copied.write_text(everything)
    second = build_pairs(build_config, [copied], tmp_path / "out", span="new")
    assert second == layout.version_dir(tmp_path / "out", 2, 1)
    assert set((second / "scenes.txt").read_text().splitlines()) == ids_of(dates[1])
    assert manifest.read(second).num_rejected["in_earlier_span"] == 6
    rows = [
        json.loads(line)
        for line in (second / "rejected" / "scenes.ndjson").read_text().splitlines()
    ]
    assert {row["id"] for row in rows if row["reason"] == "in_earlier_span"} == ids_of(dates[0])
    # No scene, so no pair of scenes, is in two spans. No block moves to another split.
    one, two = places_of(first), places_of(second)
    assert set(one) & set(two)
    assert all(one[block] == two[block] for block in set(one) & set(two))
    window = windows.resolve(tmp_path / "out", windows.WindowConfig())
    windows.check_disjoint(tmp_path / "out", window)
    merged = windows.read(tmp_path / "out", window)
    assert merged.num_examples == {
        split: sum(manifest.read(part).num_examples[split] for part in (first, second))
        for split in layout.SPLITS
    }
    # A third one finds nothing new, says so and leaves no span behind.
    with pytest.raises(NothingNewError, match="was built from the same scenes, so there is no"):
        build_pairs(build_config, [copied], tmp_path / "out", span="new")
    assert build_pairs(build_config, [copied], tmp_path / "out", span="newest") == second
    # A scene that is new but finds no partner is nothing new either, as is an old one.
    alone = {**json.loads(dates[0][0]), "id": "new"}
    copied.write_text(everything + json.dumps(alone) + "\n")
    with pytest.raises(NothingNewError, match=r"no pair of scenes is new .*in_earlier_span 12"):
        build_pairs(build_config, [copied], tmp_path / "out", span="new")
    copied.write_text(everything)
    assert layout.list_versions(tmp_path / "out") == [(1, 1), (2, 1)]
    # The same span without the rule is another data set, not the one that is there.
    assert build_pairs(build_config, [copied], tmp_path / "out", span=2) == layout.version_dir(
        tmp_path / "out", 2, 2
    )


def test_an_earlier_span_without_the_list_of_its_scenes_is_named(tmp_path):
    version = layout.version_dir(tmp_path, 3, 2)
    version.mkdir(parents=True)
    (version / layout.MANIFEST_NAME).write_text("{}")
    assert (spans.number_of(tmp_path, "new"), spans.number_of(tmp_path, "newest")) == (4, 3)
    with pytest.raises(
        DataError, match=r"span-3/version-2/scenes\.txt: the file is missing; build that span again"
    ):
        spans.earlier_scene_files(tmp_path, 4)


def test_the_newest_of_no_span_is_the_first(tmp_path):
    assert (spans.number_of(tmp_path, "new"), spans.number_of(tmp_path, "newest")) == (1, 1)


def test_only_the_newest_version_of_a_span_counts(tmp_path):
    for version in (1, 2):
        folder = layout.version_dir(tmp_path, 1, version)
        folder.mkdir(parents=True)
        (folder / layout.MANIFEST_NAME).write_text("{}")
        (folder / "scenes.txt").write_text(f"scene-{version}\n")
    (path,) = spans.earlier_scene_files(tmp_path, 2)
    assert path.read_text() == "scene-2\n"
    # A span that is built again does not leave out its own scenes.
    assert spans.earlier_scene_files(tmp_path, 1) == []


def test_span_and_new_span_exclude_each_other(simulated, tmp_path, capsys):
    arguments = [
        "build-pairs",
        "--catalog",
        str(simulated),
        "--output",
        str(tmp_path),
        "--span",
        "2",
        "--new-span",
    ]
    assert run(arguments) != 0
    assert "--span and --new-span exclude each other" in capsys.readouterr().err
