"""Image expressions: what Earth Engine computes for a request. Sends nothing.

Input: `PixelRequest`. Output: an `ee.Image` without masked pixels. Masked pixels get
explicit values, since formats without a mask would write 0, which is bright ground in
dB and "water" in Dynamic World.
"""

from __future__ import annotations

from beam_jobs.contracts.bands import S1_NODATA, S2_NODATA
from beam_jobs.contracts.labels import IGNORE
from beam_jobs.earth_engine.client import ee
from beam_jobs.earth_engine.requests import (
    CLOUD_SCORE_BAND,
    CLOUD_SCORE_NODATA,
    CLOUD_SCORE_SCALE,
    LABEL_BAND,
    PixelRequest,
)

CLOUD_SCORE_COLLECTION = "GOOGLE/CLOUD_SCORE_PLUS/V1/S2_HARMONIZED"
DYNAMIC_WORLD_COLLECTION = "GOOGLE/DYNAMICWORLD/V1"
WORLDCOVER_COLLECTION = "ESA/WorldCover/v200"
WORLDCOVER_NODATA = 0
"""No class of WorldCover has id 0."""


def request_image(request: PixelRequest) -> ee.Image:
    """Return the image of a request.

    It has `answer_bands` in order, all of `dtype`, and nothing is masked.
    """
    scene = ee.Image(request.image_id)
    if request.sensor == "s1":
        return _filled(scene.select(list(request.bands)), S1_NODATA).toFloat()
    image = _filled(scene.select(list(request.bands)), S2_NODATA)
    if request.cloud_score:
        # linkCollection instead of a lookup by id: a scene without a cloud score gives
        # masked pixels instead of an error.
        scores = scene.linkCollection(
            ee.ImageCollection(CLOUD_SCORE_COLLECTION), [CLOUD_SCORE_BAND]
        )
        scaled = scores.select(CLOUD_SCORE_BAND).multiply(CLOUD_SCORE_SCALE).round()
        image = image.addBands(_filled(scaled, CLOUD_SCORE_NODATA))
    if request.label == "dynamic_world":
        # Only scenes with at most 35 % cloud have a Dynamic World image.
        linked = scene.linkCollection(ee.ImageCollection(DYNAMIC_WORLD_COLLECTION), ["label"])
        image = image.addBands(_filled(linked.select(["label"], [LABEL_BAND]), IGNORE))
    elif request.label == "worldcover":
        image = image.addBands(_filled(_worldcover().select(["Map"], [LABEL_BAND]), IGNORE))
    # One GeoTIFF has one dtype, so labels and scores are uint16 too.
    return image.toUint16()


def overview_image() -> ee.Image:
    """Return WorldCover 2021 as uint8, WORLDCOVER_NODATA where masked."""
    return _filled(_worldcover().select(["Map"]), WORLDCOVER_NODATA).toUint8()


def _worldcover() -> ee.Image:
    # The collection holds one image of the whole Earth.
    return ee.ImageCollection(WORLDCOVER_COLLECTION).first()


def _filled(image: ee.Image, value: int) -> ee.Image:
    # sameFootprint=False also fills the pixels outside of the scene's footprint.
    return image.unmask(value, False)
