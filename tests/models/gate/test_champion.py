"""The champion's own test split: which versions judge both models, and why others do not."""

import dataclasses
import json
import shutil

import pytest

from beam_jobs.contracts import layout, manifest, windows
from models.gate import champion as champion_lib
from models.gate.champion import champions_test
from models.published.card import Interface, Provenance, make_card
from tests.data.shards import make_spans


@pytest.fixture
def root(tmp_path):
    for span in (1, 2, 3):
        make_spans.make_span(tmp_path, span, kind="labels", label_schema="water")
    return tmp_path


def card_of(data: manifest.Manifest) -> dict:
    """The card of a segmenter that was trained on this data."""
    provenance = Provenance(
        name="flood", config={}, manifest=data, metrics={"iou": 0.5}, started_from={}
    )
    interface = Interface(task="segmentation", sensors=("s1",), stride=16, signatures=())
    # As it is read from its file.
    return json.loads(json.dumps(make_card(provenance, interface)))


def window_of(root, numbers, num_trained):
    """The manifest of a window of these spans, as it was when they were the newest."""
    entries = [one for one in windows.resolve(root, windows.WindowConfig()) if one.span in numbers]
    judged = [
        dataclasses.replace(one, splits=windows.JUDGED) for one in entries[: -num_trained or None]
    ]
    return windows.read(root, [*judged, *entries[len(judged) :]])


def own_test(root, data):
    files = windows.shard_paths(root, windows.entries_of(data), "test")
    return champion_lib.TestSplit(
        manifest=data, files=[str(path) for path in files], data_root=str(root)
    )


def shards(root, *versions):
    return [
        str(path)
        for span, version in versions
        for path in layout.shard_paths(layout.version_dir(root, span, version), "test")
    ]


def test_a_window_judges_by_the_test_splits_of_all_spans_so_a_champion_of_some_adds_none(root):
    test = own_test(root, window_of(root, (1, 2, 3), 2))
    assert test.files == shards(root, (1, 1), (2, 1), (3, 1))
    champion = card_of(window_of(root, (1, 2), 2))
    assert champions_test(champion, test) == ([], ())
    alone = card_of(manifest.read(layout.version_dir(root, 2, 1)))
    assert champions_test(alone, test) == ([], ())


def test_a_champion_of_a_window_judges_a_candidate_of_the_newest_span_by_all_its_spans(root):
    test = own_test(root, manifest.read(layout.version_dir(root, 3, 1)))
    champion = card_of(window_of(root, (1, 2), 1))
    assert champions_test(champion, test) == (shards(root, (1, 1), (2, 1)), ())
    # Without windows, as before.
    alone = card_of(manifest.read(layout.version_dir(root, 1, 1)))
    assert champions_test(alone, test) == (shards(root, (1, 1)), ())
    same = card_of(manifest.read(layout.version_dir(root, 3, 1)))
    assert champions_test(same, test) == ([], ())


def test_a_span_that_was_built_again_judges_in_the_version_that_the_champion_knows(root):
    champion = card_of(window_of(root, (1, 2), 2))
    make_spans.make_span(root, 1, version=2, kind="labels", label_schema="water")
    test = own_test(root, window_of(root, (1, 2, 3), 3))
    assert champions_test(champion, test) == (shards(root, (1, 1)), ())


@pytest.mark.parametrize(
    ("change", "note"),
    [
        (lambda root: shutil.rmtree(root / "span-1"), "span-1/version-1/manifest.json: no manif"),
        (lambda root: rebuild(root, config={"split": {"seed": 17}, "x": 1}), "was built anew"),
    ],
)
def test_a_version_that_cannot_judge_is_noted_and_the_others_judge(root, change, note):
    champion = card_of(window_of(root, (1, 2), 2))
    change(root)
    test = own_test(root, manifest.read(layout.version_dir(root, 3, 1)))
    files, (found,) = champions_test(champion, test)
    assert files == shards(root, (2, 1))
    assert note in found


def test_another_split_does_not_judge_because_the_candidate_may_have_trained_on_it(root):
    champion = card_of(window_of(root, (1, 2), 2))
    rebuild(root, span=3, config={"split": {"seed": 18}})
    test = own_test(root, manifest.read(layout.version_dir(root, 3, 1)))
    files, notes = champions_test(champion, test)
    assert (files, len(notes)) == ([], 2)
    assert "the settings of the split have changed" in notes[0]


def test_a_card_that_does_not_name_its_data_is_noted(root):
    test = own_test(root, manifest.read(layout.version_dir(root, 3, 1)))
    assert champions_test({"data_span": None}, test) == (
        [],
        ("the champion's card does not say what data it was trained on",),
    )


def rebuild(root, span=1, **options):
    shutil.rmtree(layout.version_dir(root, span, 1))
    make_spans.make_span(root, span, kind="labels", label_schema="water", **options)
