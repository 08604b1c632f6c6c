import dataclasses

import numpy as np
import pytest

from models.scores import score_file
from tests.data.networks import make_scores


@pytest.mark.parametrize("num_classes", [2, 3])
def test_file_gives_back_what_was_written_and_is_small(tmp_path, num_classes):
    scores = make_scores.make_scores(num_classes)
    path = tmp_path / "scores.npz"
    score_file.write_scores(path, scores)
    found = score_file.read_scores(path)
    assert found.arrays().keys() == scores.arrays().keys()
    for name, array in scores.arrays().items():
        np.testing.assert_array_equal(found.arrays()[name], array)
        assert found.arrays()[name].dtype == array.dtype
    assert (found.class_names, found.threshold) == (scores.class_names, scores.threshold)
    first = path.read_bytes()
    score_file.write_scores(path, scores)
    assert path.read_bytes() == first
    assert len(first) < 20_000


def test_file_that_is_cut_short_or_another_is_refused(tmp_path):
    path = tmp_path / "scores.npz"
    score_file.write_scores(path, make_scores.make_scores())
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"no scores"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"scores\.npz: must be a complete file of scores"):
            score_file.read_scores(path)
    np.savez(path, header=np.array('{"format_version": 99}'))
    with pytest.raises(ValueError, match="format_version must be 2, got 99"):
        score_file.read_scores(path)
    np.savez(path, header=np.array('{"format_version": 2, "class_names": [], "threshold": null}'))
    with pytest.raises(ValueError, match=r"scores\.npz: must hold all arrays of scores"):
        score_file.read_scores(path)


def test_arrays_that_do_not_fit_together_are_refused():
    scores = make_scores.make_scores()
    with pytest.raises(
        ValueError, match=r"confusion must have the shape \(12, 2, 2\), got \(11, 2, 2\)"
    ):
        dataclasses.replace(scores, confusion=scores.confusion[1:])
    with pytest.raises(ValueError, match="threshold must be given for 2 classes and must be None"):
        dataclasses.replace(scores, threshold=None)


@pytest.mark.parametrize("name", ["loss", "reliability"])
def test_scores_with_nan_are_refused_with_their_file(tmp_path, name):
    path = tmp_path / "scores.npz"
    score_file.write_scores(path, make_scores.make_scores())
    with np.load(path) as file:
        arrays = {key: file[key] for key in file.files}
    arrays[name][5:7] = np.nan
    np.savez(path, **arrays)
    with pytest.raises(
        ValueError,
        match=rf"scores\.npz: .* {name} must be finite, got NaN .* in 2 of 12 patches, .* patch5",
    ):
        score_file.read_scores(path)
