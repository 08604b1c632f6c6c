"""Ensembles; the oracle is the mean and the spread of the members, pixel by pixel."""

from dataclasses import replace

import numpy as np
import pytest

from beam_jobs.contracts.labels import LabelClass
from beam_jobs.errors import DataError
from beam_jobs.predict import ensembles, parts
from beam_jobs.predict.segmenters import Segmenter
from beam_jobs.terminal import program

ONE = Segmenter(
    path="flood/1",
    name="flood",
    version="1",
    sha256="a" * 64,
    bands={"s1": ("VV", "VH")},
    stride=4,
    classes=(LabelClass(id=0, name="dry", color="#ffffff"),),
    threshold=0.4,
    pixel_size_m=10.0,
    s2_processing_level="L2A",
    takes_one_of_two=False,
    data_sha256="d1",
    code_version="0.1.0",
)


def member(seed, num_classes=3):
    """A model with one probability vector for each pixel, that depends on its value."""
    table = np.random.default_rng(seed).dirichlet(np.ones(num_classes), 100).astype(np.float32)
    return lambda pixels: table[pixels["s1"][..., 0].astype(int)]


def kinds(probabilities):
    """Entropy in units of the largest."""
    return -(probabilities * np.log(probabilities)).sum(-1) / np.log(probabilities.shape[-1])


@pytest.mark.parametrize("num_classes", [2, 3])
def test_the_answer_is_the_mean_and_disagreement_is_the_spread_of_the_members(num_classes):
    pixels = {"s1": np.random.default_rng(0).integers(0, 100, (2, 8, 12, 1)).astype(np.float32)}
    models = [member(seed, num_classes) for seed in range(3)]
    answers = np.stack([model(pixels) for model in models]).astype(np.float64)
    mean = ensembles.joined(models, has_views=False, has_moments=False)(pixels)
    np.testing.assert_allclose(mean, answers.mean(0), atol=1e-6)
    found = ensembles.joined(models, has_views=False, has_moments=True)(pixels)
    assert found.shape[-1] == num_classes + parts.NUM_MOMENTS
    probabilities, moments = found[..., :num_classes], found[..., num_classes:]
    np.testing.assert_allclose(probabilities, mean, atol=1e-6)
    information, deviation = parts.disagreement(probabilities, moments)
    expected = kinds(answers.mean(0)) - kinds(answers).mean(0)
    np.testing.assert_allclose(information, expected, atol=1e-5)
    assert information.max() > 0.2
    if num_classes == 2:
        np.testing.assert_allclose(deviation, answers[..., 1].std(0), atol=1e-3)
    else:
        np.testing.assert_allclose(deviation, np.sqrt(answers.var(0).sum(-1) / 2), atol=1e-3)


def test_members_that_agree_have_no_spread_and_opposed_ones_the_largest():
    def sure(index):
        return lambda pixels: np.eye(2, dtype=np.float32)[np.full(pixels["s1"].shape[:3], index)]

    pixels = {"s1": np.zeros((1, 4, 4, 1), np.float32)}
    for models, information, deviation in (
        ([sure(1), sure(1)], 0.0, 0.0),
        ([sure(0), sure(1)], 1.0, 0.5),
    ):
        found = ensembles.joined(models, has_views=False, has_moments=True)(pixels)
        spread = parts.disagreement(found[..., :2], found[..., 2:])
        for values, expected in zip(spread, (information, deviation), strict=True):
            np.testing.assert_allclose(values, expected, atol=1e-6)


def test_views_are_turned_back_onto_their_pixels():
    # A model that looks at one pixel answers the same in all eight views.
    pixels = {"s1": np.random.default_rng(1).integers(0, 100, (1, 8, 8, 1)).astype(np.float32)}
    model = member(5)
    found = ensembles.joined([model], has_views=True, has_moments=True)(pixels)
    np.testing.assert_allclose(found[..., :3], model(pixels), atol=1e-6)
    np.testing.assert_allclose(parts.disagreement(found[..., :3], found[..., 3:])[1], 0, atol=1e-3)

    def ramp(seen):
        """Depends on the place in the window: 0 at the left, 1 at the right."""
        share = np.broadcast_to(np.linspace(0, 1, 8, dtype=np.float32), seen["s1"].shape[:3])
        return np.stack([1 - share, share], axis=-1)

    mean = ensembles.joined([ramp], has_views=True, has_moments=False)(pixels)
    np.testing.assert_allclose(mean, 0.5, atol=1e-6)


def test_models_are_combined_if_they_see_and_tell_the_same():
    two = replace(ONE, path="flood/2", version="2", sha256="b" * 64, threshold=0.6, stride=6)
    both = ensembles.combine([ONE, two])
    assert ensembles.combine([ONE]) is ONE
    assert both.models == (ONE, two)
    assert (both.name, both.version, both.stride, both.data_sha256) == ("flood", "1+2", 12, "d1")
    assert both.threshold == pytest.approx(0.5)
    assert both.sha256 not in (ONE.sha256, two.sha256)
    for other, message in (
        (replace(two, bands={"s1": ("VV",)}), r"flood/2: .* the same bands, .* in flood/1"),
        (replace(two, classes=()), "the same classes, got , but dry in flood/1"),
        (replace(two, sha256=ONE.sha256), "must have different models"),
    ):
        with pytest.raises(DataError, match=message):
            ensembles.combine([ONE, other])


def test_versions_of_several_models_are_refused(simulated, tmp_path, capsys):
    command = ["predict", "--scenes", str(simulated), "--output", str(tmp_path / "maps")]
    models = ["--model", str(tmp_path), "--model", str(tmp_path)]
    assert program.run([*command, *models, "--version", "1"]) == 2
    assert "--version belongs to one --model" in capsys.readouterr().err
    assert not (tmp_path / "maps").exists()
