"""The picture of the README: which image stands where, and what the legend names."""

import dataclasses

import numpy as np
import pytest

from beam_jobs.contracts import layout, manifest
from pipeline.report.example_picture import draw_example
from pipeline.report.pictures import choose_patches, decode_labeled
from tests.data.shards import make_shards


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_shards.make_version(
        tmp_path_factory.mktemp("data"), kind="labels", label_schema="water"
    )


def test_each_patch_has_four_images_two_patches_a_row(data):
    patches = [
        decode_labeled(item) for item in choose_patches(layout.shard_paths(data, "eval"))[:3]
    ]
    prediction = np.stack([1 - (patch.label == 1) for patch in patches]).astype(np.int64)
    figure = draw_example(patches, prediction, manifest.read(data))
    images = [[len(axis.images) for axis in figure.axes[row * 9 : row * 9 + 9]] for row in (0, 1)]
    assert images == [[1, 1, 1, 1, 0, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0, 0, 0, 0]]
    headings = [axis.get_title() for axis in figure.axes[:4]]
    assert headings == ["Sentinel-1, VV", "Sentinel-2", "label", "prediction"]
    # Prediction and label are opposites, so their images differ in every labelled pixel.
    label, predicted = (figure.axes[i].images[0].get_array() for i in (2, 3))
    assert (label != predicted).any(axis=-1).all()


def test_no_data_is_named_only_where_it_is_shown(data):
    patch = decode_labeled(choose_patches(layout.shard_paths(data, "eval"))[0])
    prediction = patch.label[None].astype(np.int64)

    def names(shown, predicted):
        figure = draw_example([shown], predicted, manifest.read(data))
        return [text.get_text() for text in figure.legends[0].get_texts()]

    whole = dataclasses.replace(
        patch, s1=np.nan_to_num(patch.s1, nan=-12.0), label=np.minimum(patch.label, 1)
    )
    assert "no data" not in names(whole, np.minimum(prediction, 1))
    torn = dataclasses.replace(whole, s1=np.where(np.arange(2) == 0, np.nan, whole.s1))
    assert "no data" in names(torn, prediction)


def test_data_without_labels_are_refused(data):
    unlabeled = dataclasses.replace(manifest.read(data), label_schema=None)
    patch = decode_labeled(choose_patches(layout.shard_paths(data, "eval"))[0])
    with pytest.raises(ValueError, match="names no label schema"):
        draw_example([patch], patch.label[None].astype(np.int64), unlabeled)
