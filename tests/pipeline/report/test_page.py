import dataclasses
import io
import math
import re
import shutil

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from rich.console import Console

from beam_jobs.contracts import manifest, settings, windows
from beam_jobs.contracts.labels import WATER
from beam_jobs.contracts.set_aside import SetAside
from models.drift.report import DriftReport, Finding
from models.encoder_probe.report import Check, ProbeReport
from models.gate.verdict import Comparison, Verdict
from models.published import golden
from models.published.canary import CanaryConfig, Findings
from models.scores.score_file import write_scores
from pipeline.config import RunConfig
from pipeline.refused_spans import RefusedSpan
from pipeline.report import page, patch_images, pictures, results
from pipeline.report.drift import drift_table
from pipeline.report.run_record import ComponentRecord, RunRecord
from tests.data.faults import damage
from tests.data.networks import make_scores, make_segmenter
from tests.data.shards import make_shards, make_spans


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    version = make_shards.make_version(
        tmp_path_factory.mktemp("data"), kind="labels", label_schema="water"
    )
    return results.DataResult(
        name="flood",
        version_dir=version,
        manifest=manifest.read(version),
        anomalies={"eval": ("orbit_state: Unexpected string values [sideways]",)},
    )


def test_the_spans_of_a_window_are_named_and_their_eval_patches_drawn(tmp_path):
    for span in (1, 2, 3):
        path = make_spans.make_span(tmp_path, span)
    window = windows.resolve(tmp_path, windows.WindowConfig(last=2))
    found = results.DataResult(
        name="pairs", version_dir=path, manifest=windows.read(tmp_path, window), anomalies={}
    )
    console = Console(width=120, file=io.StringIO())
    console.print(page._data_table((found,)))
    assert "2/1, 3/1; eval and test of 1/1" in console.file.getvalue()
    expected = [p for span in (1, 2, 3) for p in (tmp_path / f"span-{span}").glob("*/eval/*")]
    assert found.shard_paths("eval") == expected
    assert {path.parts[-4] for path in found.shard_paths("train")} == {"span-2", "span-3"}


def make_probe(is_blessed):
    values = {"encoder": "new", "last_encoder": "", "labels": "flood", "num_pairs": 40}
    values |= {
        "num_train_patches": 30,
        "num_eval_patches": 10,
        "notes": ("nothing [to] compare with",),
    }
    check = Check(
        name="recall_s1_to_s2",
        value=0.6875 if is_blessed else 0.0625,
        asked=0.125,
        passed=is_blessed,
        reason="recall@1 is high enough" if is_blessed else "recall@1 is below the 0.125 asked",
    )
    undecided = Check(
        name="accuracy_s1_over_random",
        value=-0.5,
        asked=0.0,
        passed=True,
        judged=False,
        reason="2 blocks are too few",
    )
    return ProbeReport(**values, checks=(check, undecided))


VERDICT = Verdict(
    outcome="blessed",
    champion="serving/flood/6",
    reasons=("mean_iou 0.750, in service 0.500: it has lost less than the margin 0.02",),
    comparisons=(
        Comparison(
            name="event=[Ghana]",
            metric="mean_iou",
            candidate=0.75,
            champion=0.5,
            low=0.125,
            high=0.375,
            margin=0.05,
            num_patches=64,
            num_units=8,
            unit="block",
            passed=True,
            reason="event=[Ghana]: within the margin",
        ),
    ),
    notes=("event=tiny: 2 test patches are too few to judge",),
)


def make_results(data, tmp_path, published):
    model = {
        "saved_model": tmp_path / "model",
        "log_dir": tmp_path / "logs",
        "training": {
            "train_loss": 0.5,
            "eval_loss": 0.625,
            "mean_iou": 0.75,
            "pooled_iou/water": math.nan,
        },
        "health": {},
        "canary": Findings(
            faults=() if published else ("signature embed_s1: [x] missing",),
            num_calls=8,
            second_reader="not checked: openvino is not installed",
        ),
        "published": tmp_path / "serving/1" if published else None,
    }
    task = results.TaskResult(
        name="flood",
        **model,
        test={
            "all": {"mean_iou": 0.4375, "pooled_iou/dry": 0.875, "pooled_iou/water": math.nan},
            "orbit_state=ascending": {},
        },
        failures=()
        if published
        else (
            results.ThresholdFailure(metric="mean_iou", value=0.4375, lower_bound=0.6),
            results.ThresholdFailure(metric="pooled_iou/water", value=math.nan, lower_bound=0.125),
            results.ThresholdFailure(metric="num_pixels/water", value=0.0, lower_bound=1.0),
        ),
        verdict=VERDICT if published else dataclasses.replace(VERDICT, outcome="refused"),
        test_scores=None,
    )
    parts = [("Trainer-flood", True), ("Pusher-flood", False)]
    record = RunRecord(
        components=tuple(
            ComponentRecord(
                component_id=name, is_cached=cached, is_complete=True, num_seconds=1.0, outputs={}
            )
            for name, cached in parts
        )
    )
    health = {
        "recall_at_1/s1_to_s2": 0.375,
        "recall_at_1/s2_to_s1": 0.4375,
        "alignment/s1_s2": 0.8125,
    }
    encoder = results.ModelResult(
        name="encoder",
        **model
        | {
            "canary": Findings(faults=()),
            "published": tmp_path / "serving/encoder/1",
            "training": {"train_loss": 0.5, "eval_loss": 0.625} | health,
            "health": {
                "alarms": ["nothing [is] learned"],
                "not_measured": {"shortcut_latitude/s1": "within 1 degree"},
            },
        },
    )
    return results.RunResults(
        record=record,
        data=(data,),
        encoder=encoder,
        probe=make_probe(is_blessed=True),
        tasks=(task,),
        audits={"flood": "3 [of] 9 overlap"},
    )


def refused_results(data, tmp_path):
    """Results of a run that ended at the encoder's gate."""
    found = make_results(data, tmp_path, published=True)
    return dataclasses.replace(
        found,
        probe=make_probe(is_blessed=False),
        encoder=dataclasses.replace(found.encoder, published=None),
        tasks=(),
    )


def text_of(values, tmp_path, monkeypatch, found):
    config = settings.from_dict(RunConfig, values | {"root": str(tmp_path)})
    monkeypatch.setattr(page, "draw_task", lambda *_: None)
    console = Console(file=io.StringIO(), width=200)
    for part in page.render_report(config, found):
        console.print(part)
    return console.file.getvalue()


def test_unblessed_task_is_told_with_metric_value_and_threshold(
    values, data, tmp_path, monkeypatch
):
    text = text_of(values, tmp_path, monkeypatch, make_results(data, tmp_path, published=False))
    assert "flood: not published: mean_iou is 0.438, the config asks for at least 0.600" in text
    assert "flood: not published: pooled_iou/water could not be measured (no test pixel)" in text
    assert "flood: not published: the class water has no pixel in the test split" in text
    assert not make_results(data, tmp_path, published=False).is_published


def test_all_refusals_are_one_list_for_programs(data, tmp_path):
    assert make_results(data, tmp_path, published=True).refusals == ()
    found = make_results(data, tmp_path, published=False).refusals
    assert found[:3] == (
        "flood: the canary: signature embed_s1: [x] missing",
        f"flood: {VERDICT.reasons[0]}",
        "flood: mean_iou is 0.438, the config asks for at least 0.600",
    )
    assert len(found) == 5
    assert refused_results(data, tmp_path).refusals == (
        "encoder: recall@1 is below the 0.125 asked",
    )


def test_a_blessed_model_that_is_not_served_was_replaced_unless_something_refused_it(
    data, tmp_path
):
    (task,) = make_results(data, tmp_path, published=True).tasks
    assert not task.is_displaced
    displaced = dataclasses.replace(task, published=None)
    assert displaced.refusals == (results.DISPLACED,)
    broken = dataclasses.replace(displaced, canary=Findings(faults=("it does not load",)))
    assert broken.refusals == ("the canary: it does not load",)


@pytest.mark.parametrize(
    ("harm", "why"),
    [
        (lambda folder: shutil.rmtree(folder / "variables"), "variables"),
        (lambda folder: damage.cut(folder / "saved_model.pb"), "saved_model.pb"),
        (lambda folder: damage.cut(folder / "assets.extra/golden.npz"), "golden.npz"),
    ],
)
def test_a_published_version_that_does_not_load_is_said(
    values, data, tmp_path, monkeypatch, harm, why
):
    folder = tmp_path / "serving/1"
    make_segmenter.publish(folder, {"s1": ("VV", "VH")})
    golden.write(str(folder / "assets.extra"), make_segmenter.golden_calls(folder))
    found = make_results(data, tmp_path, published=True)
    (task,) = found.tasks
    assert results.loaded(task, CanaryConfig()) is task
    harm(folder)
    broken = results.loaded(task, CanaryConfig())
    assert broken.published is None
    (line,) = broken.refusals
    assert line.startswith(f"{folder}: is in service but damaged (")
    assert why in line
    assert "\n" not in line
    found = dataclasses.replace(found, tasks=(broken,))
    assert found.is_damaged
    assert not found.is_published
    text = text_of(values, tmp_path, monkeypatch, found)
    assert f"flood: {folder}: is in service but damaged (" in text.replace("\n", "")


def test_report_names_counts_losses_anomalies_and_places(values, data, tmp_path, monkeypatch):
    text = text_of(values, tmp_path, monkeypatch, make_results(data, tmp_path, published=True))
    for expected in (
        "24",
        "0.500",
        "0.625",
        "0.875",
        "sideways",
        "1 ran, 1 cached",
        "flood: 3 [of] 9 overlap",
        "none: terrapair card",
        "Encoder probe: blessed (40 pairs, 30 + 10 patches of flood)",
        "nothing [to] compare with",
        "0.688",
        "too few to judge",
        str(tmp_path / "serving/1"),
        "8 calls; second reader: not checked: openvino is not installed",
    ):
        assert expected in text
    assert "not published" not in text
    assert make_results(data, tmp_path, published=True).is_published


def test_test_scores_come_first_and_those_of_eval_in_a_line(values, data, tmp_path, monkeypatch):
    found = make_results(data, tmp_path, published=True)
    assets = tmp_path / "model" / "assets.extra"
    assets.mkdir(parents=True)
    write_scores(assets / "eval_scores.npz", make_scores.make_scores(seed=1))
    before = text_of(values, tmp_path, monkeypatch, found)
    assert "flood: scores on the eval split" in before
    assert "slices of the eval split" in before
    kept = tmp_path / "test_scores.npz"
    write_scores(kept, make_scores.make_scores(seed=2, num_patches=20))
    scored = dataclasses.replace(
        found, tasks=(dataclasses.replace(found.tasks[0], test_scores=kept),)
    )
    text = text_of(values, tmp_path, monkeypatch, scored)
    assert "flood: scores on the test split" in text
    assert "scores on the eval split (docs" not in text
    assert text.index("slices of the test split") < text.index(
        "  eval split (12 patches): class1 pooled IoU"
    )
    assert str(kept) in text


def test_refused_encoder_is_told_with_its_reasons_and_no_task_is_shown(
    values, data, tmp_path, monkeypatch
):
    found = refused_results(data, tmp_path)
    text = text_of(values, tmp_path, monkeypatch, found)
    assert "Encoder probe: refused" in text
    assert "encoder: not published: recall@1 is below the 0.125 asked" in text
    assert "no task was trained: the encoder is refused" in text
    assert "pooled IoU on the test split" not in text
    assert not found.is_published


def test_the_gate_shows_both_models_and_its_reason(values, data, tmp_path, monkeypatch):
    text = text_of(values, tmp_path, monkeypatch, make_results(data, tmp_path, published=True))
    assert "flood: gate: blessed (against serving/flood/6)" in text
    assert re.search(r"event=\[Ghana\] \(64\) +│ mean_iou +│ +0.750 │ +0.500 │", text)
    assert "0.125 to 0.375" in text
    assert "event=tiny: 2 test patches are too few to judge" in text
    assert "flood: blessed: mean_iou 0.750, in service 0.500" in text
    refused = text_of(values, tmp_path, monkeypatch, make_results(data, tmp_path, published=False))
    assert "flood: not published: mean_iou 0.750, in service 0.500" in refused
    assert "flood: not published: the canary: signature embed_s1: [x] missing" in refused


def test_drift_is_told_and_refused_data_end_the_report(values, data, tmp_path, monkeypatch):
    finding = Finding(
        rule="s1_mean",
        about="VV",
        reference=-12.0,
        found=-24.0,
        value=2.5,
        limit=2.0,
        severity="refuse",
        reason="VV: the mean is -24 [dB]",
    )
    report = DriftReport(
        data="flood",
        span=2,
        version=1,
        reference="serving/flood/6",
        reference_span="1.3",
        outcome="refused",
        findings=(finding, dataclasses.replace(finding, severity="warn", reason="VH: warned")),
        refusals=(finding.reason,),
        notes=("too few [scenes]",),
    )
    poisoned = dataclasses.replace(data, drift=report)
    found = make_results(data, tmp_path, published=True)
    found = dataclasses.replace(found, data=(poisoned,), encoder=None, probe=None, tasks=())
    record = SetAside(span=2, version=1, at="2026-02-01", reasons=("VV: [odd]",))
    aside = (RefusedSpan(data="flood", record=record, is_newest=True),)
    found = dataclasses.replace(found, refused_spans=aside)
    text = text_of(values, tmp_path, monkeypatch, found)
    assert "flood 2.1: refused, score 1.25 of 1 against span 1.3 of serving/flood/6" in text
    assert "refused: VV: the mean is -24 [dB]" in text
    assert "warning: VH: warned" in text
    assert "too few [scenes]" in text
    assert "flood: span 2.1 was set aside 2026-02-01 (windows leave it out): VV: [odd]" in text
    assert "nothing was trained: the data are refused: flood" in text
    assert not found.is_published
    assert drift_table(report).row_count == 2
    fine = dataclasses.replace(report, outcome="passed", findings=(), refusals=(), notes=())
    assert drift_table(fine) is None
    found = make_results(dataclasses.replace(data, drift=fine), tmp_path, published=True)
    assert "flood 2.1: passed\n" in text_of(values, tmp_path, monkeypatch, found)
    assert found.is_published


def test_untrained_control_is_told_and_its_tasks_are_published(values, data, tmp_path, monkeypatch):
    found = make_results(data, tmp_path, published=True)
    note = "objective none leaves the encoders untrained, as a control: never published"
    probe = dataclasses.replace(make_probe(is_blessed=True), is_control=True, notes=(note,))
    found = dataclasses.replace(
        found, probe=probe, encoder=dataclasses.replace(found.encoder, published=None)
    )
    text = text_of(values, tmp_path, monkeypatch, found)
    assert "Encoder probe: control" in text
    assert note in text
    assert "not published: an untrained control" in text
    assert "flood: pooled IoU on the test split" in text
    # The run did all that it should.
    assert found.is_published
    held_back = dataclasses.replace(found.tasks[0], published=None)
    assert not dataclasses.replace(found, tasks=(held_back,)).is_published


def test_run_from_a_published_encoder_names_it_and_shows_no_probe(
    values, data, tmp_path, monkeypatch
):
    del values["pretrain"]
    values["tasks"][0]["segment"]["encoder_paths"] = {"s1": "/models/[7]"}
    found = dataclasses.replace(
        make_results(data, tmp_path, published=True),
        encoder=None,
        probe=None,
        audits={"flood": "not compared with /models/7"},
    )
    text = text_of(values, tmp_path, monkeypatch, found)
    assert "started from" in text
    assert "/models/[7]" in text
    assert "flood: not compared with /models/7" in text
    assert "Encoder probe" not in text
    assert "model encoder" not in text
    assert found.is_published


def test_student_that_a_refused_teacher_kept_from_training_is_named_with_it(
    values, data, tmp_path, monkeypatch
):
    (flood,) = values["tasks"]
    for number in (1, 2):
        student = {
            **flood,
            "name": f"radar-{number}",
            "segment": flood["segment"] | {"sensors": ["s2"]},
        }
        values["tasks"].append(student | {"distill": {"teacher": "flood", "num_steps": 3}})
    found = dataclasses.replace(
        make_results(data, tmp_path, published=False), refused_teachers=("flood",)
    )
    text = text_of(values, tmp_path, monkeypatch, found)
    assert "not trained: radar-1, radar-2: the run ended at a refused teacher: flood" in text
    assert "flood: not published: mean_iou is 0.438" in text
    assert not found.is_published


def test_report_shows_the_health_of_the_encoders_their_alarms_and_the_map(
    values, data, tmp_path, monkeypatch
):
    assets = tmp_path / "model" / "assets.extra"
    assets.mkdir(parents=True)
    (assets / "embedding_map.png").write_bytes(b"png")
    text = text_of(values, tmp_path, monkeypatch, make_results(data, tmp_path, published=True))
    lines = {line.split("│")[1].strip(): line for line in text.splitlines() if line.count("│") == 4}
    assert [cell.strip() for cell in lines["recall_at_1"].split("│")[1:4]] == [
        "recall_at_1",
        "0.375",
        "0.438",
    ]
    assert [cell.strip() for cell in lines["alignment"].split("│")[1:4]] == [
        "alignment",
        "0.812",
        "-",
    ]
    assert "alarm: nothing [is] learned" in text
    assert "not measured: shortcut_latitude/s1 (within 1 degree)" in text
    shown = tmp_path / "report" / "embedding_map.png"
    assert str(shown) in text
    assert shown.read_bytes() == b"png"


def test_chosen_patches_are_mixed_and_from_different_scenes(data):
    chosen = [
        pictures.decode_labeled(item) for item in pictures.choose_patches(data.shard_paths("eval"))
    ]
    entropies = [pictures.label_entropy(patch.label) for patch in chosen]
    num_eval = data.manifest.num_examples["eval"]
    num_scenes = -(-num_eval // 4)
    assert len(chosen) == pictures.NUM_PATCHES
    assert len({patch.s1_scene_id for patch in chosen[:num_scenes]}) == num_scenes
    assert entropies[0] == max(entropies)


def test_entropy_of_known_label():
    label = np.array([[0, 0], [1, 255]], np.uint8)
    assert pictures.label_entropy(label) == pytest.approx(
        -(2 / 3) * math.log(2 / 3) - (1 / 3) * math.log(1 / 3)
    )
    assert pictures.label_entropy(np.full((2, 2), 255, np.uint8)) == 0.0


def test_images_show_no_data_in_its_own_colour_and_classes_in_theirs(data):
    s1 = np.full((2, 2, 2), data.manifest.s1_statistics[0].p98, np.float32)
    s1[0, 0] = np.nan
    image = patch_images.radar_image(s1, data.manifest)
    assert image[0, 0].tolist() == list(to_rgb(patch_images.NODATA_COLOR))
    assert image[1, 1].tolist() == [1.0, 1.0, 1.0]
    label = patch_images.label_image(np.array([[0, 1, 255]]), WATER, pictures.IGNORE_COLOR)
    assert label[0].tolist() == [
        list(to_rgb(color)) for color in (*WATER.colors.values(), pictures.IGNORE_COLOR)
    ]


def test_optical_image_takes_the_visible_bands(data):
    bands = data.manifest.s2_bands
    s2 = np.full((1, 2, len(bands)), 0.01, np.float32)
    s2[0, 0, bands.index("B4")] = s2[0, 1, bands.index("B2")] = 1.0
    image = pictures.optical_image(s2, data.manifest)
    assert image[0, 0].argmax() == 0
    assert image[0, 1].argmax() == 2
    assert image.max() == 1.0


def test_figure_has_one_column_a_patch(data):
    patches = [
        pictures.decode_labeled(item) for item in pictures.choose_patches(data.shard_paths("eval"))
    ][:3]
    figure = pictures.draw(
        "flood", patches, np.stack([patch.label for patch in patches]), data.manifest
    )
    assert len(figure.axes) == 12
    assert figure.axes[9].get_xlabel() == "100% of pixels right"
