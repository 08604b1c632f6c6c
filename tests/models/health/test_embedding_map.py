import io

import numpy as np
import pytest
from PIL import Image

from models.health import embedding_map
from tests.data.networks import make_embeddings


def test_projection_finds_the_plane_and_keeps_distances_in_it():
    rng = np.random.default_rng(0)
    plane = np.linalg.qr(rng.normal(size=(16, 2)))[0].T
    flat = [rng.normal(size=(30, 2)) * [3.0, 1.0] for _ in range(2)]
    points, share = embedding_map.project([rows @ plane + 5.0 for rows in flat])
    assert share == pytest.approx(1.0)
    for got, rows in zip(points, flat, strict=True):
        expected = np.linalg.norm(rows[0] - rows, axis=1)
        np.testing.assert_allclose(np.linalg.norm(got[0] - got, axis=1), expected, rtol=1e-6)
    # Widest first.
    assert np.concatenate(points)[:, 0].std() > np.concatenate(points)[:, 1].std()


def test_sensors_that_are_not_aligned_do_not_look_aligned():
    rng = np.random.default_rng(0)
    s1 = make_embeddings.unit(np.array([1.0, 0.0, 0.0]) + 0.1 * rng.normal(size=(40, 3)))
    points, _ = embedding_map.project([s1, -s1])
    assert abs(points[0][:, 0].mean() - points[1][:, 0].mean()) > 1.9


def test_equal_rows_are_one_point():
    points, share = embedding_map.project([np.ones((3, 4)), np.ones((3, 4))])
    assert share == 0.0
    np.testing.assert_allclose(points, 0.0)


def test_surfaces_by_their_spectra():
    bands = ("B2", "B3", "B4", "B8")
    means = np.array(
        [
            [0.05, 0.06, 0.04, 0.02],  # water: green above infrared
            [0.10, 0.14, 0.18, 0.22],  # soil
            [0.06, 0.09, 0.10, 0.22],  # grass
            [0.03, 0.05, 0.03, 0.35],  # forest
        ]
    )
    assert embedding_map.surface_index(means, bands).tolist() == [0, 1, 2, 3]
    assert embedding_map.surface_index(means[:, :3], bands[:3]) is None


def colors_of(png):
    image = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
    assert image.shape[0] > 400
    assert image.shape[1] > 2 * 400
    return {f"#{r:02x}{g:02x}{b:02x}" for r, g, b in np.unique(image.reshape(-1, 3), axis=0)}


def test_map_shows_the_colours_of_what_is_there():
    from beam_jobs.contracts.bands import S2_L2A_BANDS
    from beam_jobs.contracts.labels import WATER

    split = make_embeddings.make_split(num_patches=60)
    means = np.full((60, 12), 0.1, np.float32)
    means[:, S2_L2A_BANDS.index("B8")] = 0.4
    forest = make_embeddings.replace(split, band_means={**split.band_means, "s2": means})
    found = colors_of(embedding_map.draw_map(forest, S2_L2A_BANDS, None, "test"))
    assert embedding_map._SURFACES["dense vegetation"] in found
    assert embedding_map._SURFACES["water"] not in found
    labelled = make_embeddings.replace(split, label=np.where(np.arange(60) % 3 == 0, 255, 1))
    found = colors_of(embedding_map.draw_map(labelled, S2_L2A_BANDS, WATER, "test"))
    assert {WATER.colors[1], "#bbbbbb"} <= found
    assert WATER.colors[0] not in found
    by_latitude = colors_of(embedding_map.draw_map(split, ("B2",), None, "test"))
    assert "#fde725" in by_latitude
