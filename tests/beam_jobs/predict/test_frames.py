"""Maps of whole frames lie where the frames lie, also askew and rotated."""

from pathlib import Path

import numpy as np
import rasterio
from rasterio import Affine
from scipy import ndimage

from beam_jobs.contracts.bands import S1_DEFAULT_BANDS
from beam_jobs.predict import driver, parts, segmenters
from beam_jobs.predict.config import PredictConfig
from tests.data.networks import make_segmenter
from tests.data.scenes import make_frames
from tests.data.scenes.make_frames import Frame

NEAR, FAR = (make_frames.TARGET_PX // 2 + sign * (make_segmenter.REACH + 2) for sign in (-1, 1))
"""Pixels from the middle of a bright square where all that a model sees is bright, or
nothing."""


def predict(frame: Frame, model: str, folder: Path, part_px: int) -> Path:
    """Return the folder of the map of a frame."""
    catalog = make_frames.write(folder, [frame])
    config = PredictConfig(part_height_px=part_px, part_width_px=part_px)
    made = driver.predict(config, segmenters.find(model), [str(catalog)], str(folder / "maps"))
    return made.maps[0]


def water_around(file: rasterio.DatasetReader, frame: Frame, px: int) -> np.ndarray:
    """The stored probability of water `px` pixels from the middles of the targets."""
    places = [
        frame.transform * (col + x, row + y)
        for row, col in frame.targets
        for x, y in ((-px, 0), (px, 0), (0, -px), (0, px))
    ]
    return np.array([values[1] for values in file.sample(places)])


def test_a_frame_with_empty_corners_keeps_its_place_and_its_no_data(flood, tmp_path):
    frame = Frame(
        name="frame",
        bands=S1_DEFAULT_BANDS,
        height=1500,
        width=2300,
        askew=0.15,
        targets=((400, 1100), (1017, 1309)),
    )
    folder = predict(frame, flood, tmp_path, part_px=900)
    whole = slice(0, frame.height)
    valid = frame.valid_mask(whole)
    assert 0.1 < 1.0 - valid.mean() < 0.5
    water = make_segmenter.water({"s1": np.moveaxis(frame.pixels(whole), 0, -1)})
    with rasterio.open(folder / "probability.tif") as file:
        assert file.crs == rasterio.crs.CRS.from_string(make_frames.UTM)
        assert file.transform == frame.transform
        stored = file.read(2, masked=True)
        np.testing.assert_array_equal(~stored.mask, valid)
        shares = stored.data * parts.SHARE_PER_COUNT
        np.testing.assert_allclose(shares[valid], water[valid], atol=0.0021)
        assert water_around(file, frame, NEAR).max() == 0
        assert water_around(file, frame, FAR).max() > 0


def test_the_map_of_a_rotated_frame_lies_on_the_ground_where_the_frame_lies(flood, tmp_path):
    frame = Frame(
        name="frame",
        bands=S1_DEFAULT_BANDS,
        height=500,
        width=700,
        askew=0.1,
        targets=((130, 310), (360, 400)),
        transform=make_frames.NORTH_UP * Affine.rotation(17.0),
    )
    folder = predict(frame, flood, tmp_path, part_px=400)
    valid = frame.valid_mask(slice(0, frame.height))
    with rasterio.open(folder / "class.tif") as file:
        ids = file.read(1)
        x, y = file.transform * (np.indices(ids.shape)[::-1] + 0.5)
    col, row = np.floor(~frame.transform * np.stack([x, y])).astype(int)
    is_inside = (row >= 0) & (col >= 0) & (row < frame.height) & (col < frame.width)
    expected = np.zeros(ids.shape, bool)
    expected[is_inside] = valid[row[is_inside], col[is_inside]]
    # Next to the edge, either side may be nearer.
    is_sure = ndimage.binary_erosion(expected) | ~ndimage.binary_dilation(expected)
    np.testing.assert_array_equal((ids != parts.NO_DATA)[is_sure], expected[is_sure])
    with rasterio.open(folder / "probability.tif") as file:
        assert water_around(file, frame, NEAR).max() == 0
        assert water_around(file, frame, FAR).max() > 0
