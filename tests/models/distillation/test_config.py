import dataclasses

import pytest

from beam_jobs.contracts import settings
from beam_jobs.contracts.labels import LabelClass
from models.config import EncoderConfig, OptimizerConfig
from models.distillation.config import DistillConfig, StudentConfig
from models.segment_config import SegmentConfig

STUDENT = SegmentConfig(
    sensors=("s1",),
    label_schema="water",
    encoder=EncoderConfig(backbone="small", embedding_dim=64),
    num_steps=3,
)


def test_config_survives_plain_dicts():
    distill = DistillConfig(
        teacher="optical",
        num_steps=7,
        global_batch_size=5,
        optimizer=OptimizerConfig(learning_rate=0.02),
        temperature=2.0,
        edge_weight=0.5,
        edge_radius_px=3,
    )
    config = StudentConfig(segment=STUDENT, distill=distill)
    assert settings.from_dict(StudentConfig, settings.to_dict(config)) == config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_steps": 0}, "num_steps must be above 0, got 0"),
        ({"global_batch_size": 0}, "global_batch_size must be above 0, got 0"),
        ({"edge_radius_px": 0}, "edge_radius_px must be above 0, got 0"),
        ({"temperature": 0.0}, "temperature must be above 0 and finite, got 0.0"),
        ({"temperature": float("inf")}, "temperature must be above 0 and finite, got inf"),
        ({"edge_weight": -1.0}, "edge_weight must be above 0 and finite, got -1.0"),
    ],
)
def test_bad_values_are_refused_with_rule_and_value(changes, message):
    with pytest.raises(ValueError, match=message):
        DistillConfig(**{"teacher": "optical", "num_steps": 1, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"sensors": ("s1",)},
            r"must see a sensor that the student, of \['s1'\], lacks, got 'optical' of \['s1'\]",
        ),
        (
            {"label_schema": "dynamic_world"},
            "must have the student's label_schema 'water', got 'optical' with 'dynamic_world'",
        ),
    ],
)
def test_teacher_must_know_more_of_the_same(changes, message):
    distill = DistillConfig(teacher="optical", num_steps=1)
    for sensors in (("s2",), ("s1", "s2")):
        distill.check_teacher(STUDENT, dataclasses.replace(STUDENT, sensors=sensors))
    with pytest.raises(ValueError, match=message):
        distill.check_teacher(
            STUDENT, dataclasses.replace(STUDENT, **{"sensors": ("s2",), **changes})
        )


def test_a_teacher_with_other_classes_of_one_name_is_refused_by_its_classes():
    ice = (
        LabelClass(id=0, name="land", color="#000000"),
        LabelClass(id=1, name="ice", color="#ffffff"),
    )
    snow = (ice[0], dataclasses.replace(ice[1], name="snow"))
    student = dataclasses.replace(STUDENT, label_schema="mine", label_classes=ice)
    teacher = dataclasses.replace(student, sensors=("s2",), label_classes=snow)
    with pytest.raises(ValueError, match=r"1 ice #ffffff, got 'optical' with .*1 snow #ffffff"):
        DistillConfig(teacher="optical", num_steps=1).check_teacher(student, teacher)
