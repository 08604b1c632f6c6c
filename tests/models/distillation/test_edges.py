import numpy as np
import pytest
from scipy import ndimage

from models.distillation.edges import edge_weights


def label_maps(num_classes=4):
    """Return smooth maps of several classes, uint8 [3, 24, 20], partly without labels."""
    rng = np.random.default_rng(0)
    fields = ndimage.gaussian_filter(rng.normal(size=(num_classes, 3, 24, 20)), (0, 0, 3, 3))
    label = fields.argmax(axis=0).astype(np.uint8)
    label[rng.random(label.shape) < 0.05] = 255
    label[1, :, :6] = 255
    # A map of one class has no edge, whatever its holes.
    label[2][label[2] != 255] = 3
    return label


def by_the_loop(label, edge_weight, radius):
    weight = np.zeros(label.shape)
    for patch, row, column in np.ndindex(label.shape):
        if label[patch, row, column] == 255:
            continue
        rows, columns = (slice(max(0, at - radius), at + radius + 1) for at in (row, column))
        classes = set(label[patch, rows, columns].ravel()) - {255}
        weight[patch, row, column] = edge_weight if len(classes) > 1 else 1.0
    return weight


@pytest.mark.parametrize("radius", [1, 2, 5])
@pytest.mark.parametrize("edge_weight", [4.0, 0.25])
def test_weights_equal_those_of_the_loop(radius, edge_weight):
    label = label_maps()
    expected = by_the_loop(label, edge_weight, radius)
    np.testing.assert_allclose(edge_weights(label, edge_weight, radius).numpy(), expected)
    # All three cases occur.
    assert set(np.unique(expected)) == {0.0, 1.0, edge_weight}


def test_band_is_the_morphological_gradient():
    label = np.minimum(label_maps(), 3)
    size = (1, 5, 5)
    gradient = ndimage.grey_dilation(label, size=size) - ndimage.grey_erosion(label, size=size)
    np.testing.assert_array_equal(edge_weights(label, 4.0, 2).numpy() == 4.0, gradient > 0)


def test_no_data_makes_no_edge():
    weight = edge_weights(label_maps(), 4.0, 2).numpy()
    assert set(np.unique(weight[2])) == {0.0, 1.0}
