"""Real encoders, trained and spoilt, probed on shards that none of them has seen."""

import dataclasses
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from beam_jobs.contracts import layout, manifest
from beam_jobs.contracts.published import ASSETS_DIR, read_card
from models.encoder_probe.config import ProbeConfig
from models.encoder_probe.measurements import LabeledFiles, ProbeData, why_one_sided
from models.encoder_probe.probe import probe_encoder
from models.encoders import SensorEncoder
from models.published import card, export
from tests.data.shards import make_shards

CONFIG = ProbeConfig(num_candidates=16, min_recall_over_chance=1.5)


def probe(*given):
    return probe_encoder(*given).report


def files_of(version, split):
    return [str(path) for path in layout.shard_paths(version, split)]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("probe_data")
    pairs = make_shards.make_version(root / "pairs", num_patches=180, seed=11)
    labels = make_shards.make_version(
        root / "labels", kind="labels", label_schema="water", num_patches=90, seed=12
    )
    return ProbeData(
        manifest=manifest.read(pairs),
        files=files_of(pairs, "eval"),
        labels=LabeledFiles(
            task="flood",
            manifest=manifest.read(labels),
            train_files=files_of(labels, "train"),
            eval_files=files_of(labels, "eval"),
        ),
    )


@pytest.fixture(scope="module")
def pairs_alone(data):
    return ProbeData(manifest=data.manifest, files=data.files)


@pytest.fixture(scope="module")
def spoil(pretrained, tmp_path_factory):
    """A function that publishes a changed copy of the trained encoder."""

    def make(name, change_encoder=lambda _: _, change_head=lambda _: None):
        path = tmp_path_factory.mktemp(name) / "model"
        shutil.copytree(pretrained.dir, path)
        for part, models, change in (
            ("encoder", export.load_encoders(pretrained.dir), change_encoder),
            ("head", export.load_heads(pretrained.dir), lambda head: change_head(head) or head),
        ):
            for sensor, model in models.items():
                change(model).save(f"{path}/{ASSETS_DIR}/{sensor}_{part}.keras")
        return str(path)

    return make


def set_projection(kernel_scale, bias):
    def change(head):
        kernel, old = head.get_layer("projection").get_weights()
        head.get_layer("projection").set_weights([kernel * kernel_scale, np.full_like(old, bias)])

    return change


def outcome(report):
    return SimpleNamespace(
        refused=[check.name for check in report.checks if not check.passed],
        values={check.name: check.value for check in report.checks},
    )


def test_an_equal_encoder_is_blessed_and_compared_with_an_untrained_one(pretrained, data):
    report = probe(CONFIG, pretrained.dir, pretrained.dir, data)
    assert report.is_blessed, report.refusals
    found = outcome(report).values
    assert list(found) == [
        *(f"finite_{sensor}" for sensor in ("s1", "s2")),
        *(f"{name}_{sensor}" for sensor in ("s1", "s2") for name in ("spread", "effective_rank")),
        *("recall_s1_to_s2", "recall_s2_to_s1", "accuracy_s1", "accuracy_s2"),
        *("accuracy_s1_over_random", "accuracy_s2_over_random"),
        *(
            "recall_s1_to_s2_over_last",
            "recall_s2_to_s1_over_last",
            "accuracy_s1_over_last",
            "accuracy_s2_over_last",
        ),
    ]
    assert {value for name, value in found.items() if name.endswith("_over_last")} == {0.0}
    assert found["accuracy_s2"] > 0.75
    assert (report.num_pairs, report.num_train_patches, report.num_eval_patches) == (60, 90, 30)
    assert (report.labels, report.last_encoder, report.notes) == ("flood", pretrained.dir, ())


def test_an_untrained_encoder_is_refused_for_recall_and_for_falling_behind(
    spoil, pretrained, pairs_alone
):
    untrained = spoil(
        "untrained", change_encoder=lambda encoder: SensorEncoder.from_config(encoder.get_config())
    )
    # The encoder of the tests is 20 steps old and its lead is small against the noise
    # of fifteen blocks: a narrower interval.
    report = probe(
        dataclasses.replace(CONFIG, confidence=0.8), untrained, pretrained.dir, pairs_alone
    )
    refused = outcome(report).refused
    assert {"recall_s1_to_s2", "recall_s2_to_s1"} <= set(refused), report.refusals
    assert {"recall_s1_to_s2_over_last", "recall_s2_to_s1_over_last"} & set(refused), (
        report.refusals
    )


def test_a_collapsed_encoder_is_refused_for_its_spread_without_labels_too(spoil, pairs_alone):
    report = probe(
        CONFIG, spoil("collapsed", change_head=set_projection(0.0, 1.0)), "", pairs_alone
    )
    assert outcome(report).refused == [
        *("spread_s1", "effective_rank_s1", "spread_s2", "effective_rank_s2"),
        *("recall_s1_to_s2", "recall_s2_to_s1"),
    ]
    assert report.refusals[0] == "s1: the embeddings' spread is 0.000, below the required 0.050"
    # Ties are broken by lot: exactly chance.
    assert outcome(report).values["recall_s1_to_s2"] == pytest.approx(1 / 16)
    assert report.notes == (
        "no labelled task, so no linear probe: only retrieval and collapse are judged",
        "no encoder is published yet: nothing to compare with",
    )
    assert (report.labels, report.num_train_patches) == ("", 0)


def test_an_encoder_that_is_not_finite_is_refused_for_that_alone(spoil, pretrained, pairs_alone):
    broken = spoil("nan", change_head=set_projection(1.0, np.nan))
    report = probe(CONFIG, broken, pretrained.dir, pairs_alone)
    assert outcome(report).refused == ["finite_s1", "finite_s2"]
    assert report.refusals[0] == "s1: features and embeddings are finite for 0.0% of the patches"


def test_labels_of_one_sensor_only_are_noted_and_not_used(pretrained, data):
    manifest = data.labels.manifest
    some = dataclasses.replace(
        manifest, num_absent={"s2": {"train": manifest.num_examples["train"] - 1, "test": 2}}
    )
    assert why_one_sided(some) is None
    alone = dataclasses.replace(manifest, num_absent={"s2": manifest.num_examples})
    labels = dataclasses.replace(data.labels, manifest=alone)
    config = dataclasses.replace(CONFIG, num_pairs=16)
    report = probe(config, pretrained.dir, "", dataclasses.replace(data, labels=labels))
    assert (
        report.notes[0]
        == "no linear probe on the labels of flood: no train patch has a scene of s2"
    )
    assert (report.labels, report.num_train_patches) == ("", 0)


def test_labels_of_one_class_are_noted_and_not_used(pretrained, data):
    config = dataclasses.replace(CONFIG, num_pairs=16, num_train_patches=1, num_eval_patches=8)
    report = probe(config, pretrained.dir, "", data)
    assert report.notes[0] == (
        "no linear probe on the labels of flood: 1 class among the 1 train patches "
        "that have a label, a probe needs 2"
    )
    assert (report.labels, report.num_pairs, report.num_eval_patches) == ("", 16, 0)


def test_what_the_objective_does_not_train_is_not_judged(spoil, pairs_alone):
    path = spoil("simclr")
    content = read_card(path)
    content["config"]["objective"] = "simclr_s1"
    card.write_card(f"{path}/{ASSETS_DIR}", content)
    report = probe(CONFIG, path, "", pairs_alone)
    assert [check.name for check in report.checks] == [
        "finite_s1",
        "spread_s1",
        "effective_rank_s1",
    ]
    assert (
        report.notes[0] == "simclr_s1 trains only s1: retrieval and the other sensor are not judged"
    )


def refused_and_accepted(pretrained, last, pairs):
    """Reasons of the refusal, and notes of the report if it is accepted."""
    refused = probe(CONFIG, pretrained.dir, last, pairs)
    accepted = dataclasses.replace(CONFIG, accept_incomparable=True)
    report = probe(accepted, pretrained.dir, last, pairs)
    assert report.is_blessed
    # Nothing else differs.
    assert refused.checks[:-1] == report.checks
    assert not refused.is_blessed
    return refused.refusals, report.notes


def test_an_encoder_that_cannot_be_compared_is_refused_unless_that_is_accepted(
    pretrained, spoil, pairs_alone
):
    def fewer_bands(encoder):
        if encoder.sensor == "s2":
            return encoder
        values = encoder.get_config()
        return SensorEncoder.from_config(
            values | {name: values[name][:1] for name in ("bands", "mean", "std")}
        )

    last = spoil("fewer_bands", change_encoder=fewer_bands)
    (reason,), notes = refused_and_accepted(pretrained, last, pairs_alone)
    why = f"{last}: it takes s1 bands VV, but the patches hold VV, VH"
    assert reason == (
        f"it cannot be compared with the encoder in service: {why}; to publish it by the other "
        "checks alone, set probe.accept_incomparable=true"
    )
    assert notes[1] == f"not compared with the encoder in service: {why}"


def test_an_encoder_of_one_sensor_or_damaged_cannot_be_compared(pretrained, spoil, pairs_alone):
    last = spoil("one_sensor")
    for part in ("encoder", "head"):
        Path(last, ASSETS_DIR, f"s1_{part}.keras").unlink()
    (reason,), _ = refused_and_accepted(pretrained, last, pairs_alone)
    assert f"{last}: must hold encoders of s1 and s2, got s2 without s1" in reason
    Path(last, ASSETS_DIR, "s2_encoder.keras").write_text("not a Keras model")
    Path(last, ASSETS_DIR, "s1_encoder.keras").write_text("not a Keras model")
    (reason,), _ = refused_and_accepted(pretrained, last, pairs_alone)
    assert "s1_encoder.keras: must be a Keras model" in reason
