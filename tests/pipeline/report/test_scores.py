import dataclasses
import io

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from models.scores import score_file
from models.scores.patch_scores import select
from models.scores.summary import summarize
from pipeline.report import scores as score_report
from tests.data.networks import make_scores


def text_of(scores):
    console = Console(file=io.StringIO(), width=200)
    for part in score_report.score_parts("flood", scores, "test"):
        console.print(part)
    return console.file.getvalue()


def cells_of(text, first):
    (line,) = [line for line in text.splitlines() if line.startswith(f"│ {first} ")]
    return [cell.strip() for cell in line.strip("│").split("│")]


def test_tables_tell_pooled_from_patch_iou_with_intervals_and_slices():
    scores = make_scores.make_scores(seed=4)
    figures = summarize(scores)
    text = text_of(scores)
    cells = cells_of(text, "class1")
    assert cells[1] == f"{figures['pooled_iou/class1']:.3f}"
    low, high = (float(bound) for bound in cells[2].split(" to "))
    assert low < figures["pooled_iou/class1"] < high
    assert cells[3] == f"{figures['mean_patch_iou/class1']:.3f}"
    assert cells[3] != cells[1]
    assert f"calibration error {figures['ece']:.3f}, 12 patches" in text
    assert (
        f"threshold of class1 0.50: pooled IoU {figures['pooled_iou/class1']:.3f} at 0.50" in text
    )
    ascending = summarize(select(scores, scores.orbit_state == "ascending"))
    told = (
        "pooled_iou/class1",
        "mean_patch_iou/class1",
        "f1/class1",
        "mean_iou",
        "pixel_accuracy",
        "ece",
    )
    assert cells_of(text, "orbit_state=ascending")[1:] == [
        "6",
        *(f"{ascending[name]:.3f}" for name in told),
    ]
    assert cells_of(text, "event=flood-a")[1] == "4"
    assert "slices of the test split" in text


def test_dimension_that_no_record_tells_has_no_row():
    scores = make_scores.make_scores()
    assert "event=unknown" in text_of(scores)
    assert "holdout=" not in text_of(scores)
    bolivia = np.where(np.arange(len(scores)) < 5, "block0@bolivia", scores.block)
    assert "holdout=none" in text_of(dataclasses.replace(scores, block=bolivia))
    assert "event=" not in text_of(dataclasses.replace(scores, event=np.full(len(scores), "")))


def test_line_tells_the_second_of_two_classes_and_the_mean():
    scores = make_scores.make_scores()
    figures = summarize(scores)
    values = [
        figures[name]
        for name in ("pooled_iou/class1", "mean_patch_iou/class1", "f1/class1", "mean_iou")
    ]
    names = ("class1 pooled IoU", "class1 mean patch IoU", "class1 F1", "mean IoU")
    told = ", ".join(f"{name} {value:.3f}" for name, value in zip(names, values, strict=True))
    assert score_report.score_line(scores, "eval") == f"  eval split (12 patches): {told}"
    many = make_scores.make_scores(3)
    assert score_report.score_line(many, "eval").endswith(
        f"patches): mean IoU {summarize(many)['mean_iou']:.3f}"
    )


def test_scenes_beyond_counting_are_left_out_and_too_few_blocks_have_no_interval():
    text = text_of(make_scores.make_scores(3, num_patches=60, num_blocks=3))
    assert "scene=" not in text
    assert "majority_label=class2" in text
    assert " to " not in text
    assert "threshold" not in text


def test_scores_are_read_from_beside_the_model_if_there_are_any(tmp_path):
    assert score_report.read_eval_scores(tmp_path) is None
    assets = tmp_path / "assets.extra"
    assets.mkdir()
    scores = make_scores.make_scores()
    score_file.write_scores(assets / "eval_scores.npz", scores)
    found = score_report.read_eval_scores(tmp_path)
    np.testing.assert_array_equal(found.confusion, scores.confusion)


@pytest.mark.parametrize("num_patches", [1, 12])
def test_reliability_curve_is_drawn(tmp_path, num_patches):
    output = tmp_path / "report" / "curve.png"
    score_report.draw_reliability(
        "flood", make_scores.make_scores(num_patches=num_patches), "test", output
    )
    with Image.open(output) as picture:
        assert len(picture.convert("RGB").getcolors(maxcolors=2**24)) > 10
