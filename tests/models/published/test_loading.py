"""Loaded models answer for arrays and files; the oracles are closed forms."""

import base64
import io
import shutil
from dataclasses import replace
from datetime import datetime, timezone

import numpy as np
import pytest
from PIL import Image

from beam_jobs.catalogs import items
from beam_jobs.contracts.bands import S1_DEFAULT_BANDS
from beam_jobs.errors import DataError
from beam_jobs.predict.config import PredictConfig
from beam_jobs.predict.windows import Lattice
from models.published import load
from models.published.inference import embed_patches, padded
from tests.data.networks import make_embedder, make_segmenter
from tests.data.scenes import make_rasters

SMALL_WINDOWS = PredictConfig(
    window=Lattice(size_px=48, margin_px=8, blend_px=4), max_batch_px=3 * 48 * 48
)
REACH = make_segmenter.REACH
DAY = datetime(2020, 5, 1, tzinfo=timezone.utc)


@pytest.fixture(scope="module")
def serving(tmp_path_factory):
    """The folder of a radar segmenter with the versions 3 and 12, of one band and of two."""
    folder = tmp_path_factory.mktemp("loading") / "flood"
    make_segmenter.publish(folder / "3", {"s1": ("VV",)})
    make_segmenter.publish(folder / "12", {"s1": S1_DEFAULT_BANDS})
    return folder


@pytest.fixture(scope="module")
def flood(serving):
    return load(serving)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("both") / "1"
    bands = {"s1": S1_DEFAULT_BANDS, "s2": ("B4", "B8")}
    return load(make_segmenter.publish(folder, bands, config={"modality_dropout": 0.3}))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder") / "1"
    return load(make_embedder.publish(folder, {"s1": S1_DEFAULT_BANDS, "s2": ("B4", "B8")}))


def backscatter(height, width, seed=0):
    """Backscatter in dB [H, W, 2] with water, land and a corner without data."""
    rng = np.random.default_rng(seed)
    level = np.where(np.arange(width)[:, np.newaxis] < width // 2, [-19.0, -26.0], [-9.0, -16.0])
    pixels = (level + rng.normal(0.0, 1.0, (height, width, 2))).astype(np.float32)
    pixels[: height // 4, : width // 5, 1] = np.nan
    return pixels


def raster(path, pixels, **writing):
    writing = {"descriptions": S1_DEFAULT_BANDS, **writing}
    return make_rasters.write_geotiff(path, np.moveaxis(pixels, -1, 0), **writing)


def test_the_newest_version_is_loaded_unless_another_is_named(serving, flood):
    assert flood.path.endswith("/12")
    assert flood.bands == {"s1": ("VV", "VH")}
    assert [one.name for one in flood.classes] == ["dry", "water"]
    assert load(str(serving), version=3).bands == {"s1": ("VV",)}
    assert load(serving / "3").bands == {"s1": ("VV",)}
    with pytest.raises(DataError, match="has no version 4; complete versions are: 3, 12"):
        load(serving, version=4)
    with pytest.raises(DataError, match="holds no published model"):
        load(serving.parent / "nothing")


# Smaller than a stride, not a multiple of it, and a multiple.
@pytest.mark.parametrize("shape", [(3, 2), (41, 26), (32, 16)])
def test_an_array_of_any_size_is_predicted_in_one_pass(flood, shape):
    pixels = backscatter(*shape)
    maps = flood.predict(pixels)
    assert maps.probabilities.shape == (*shape, 2)
    whole = padded(pixels[np.newaxis], flood.stride)
    assert all(side % flood.stride == 0 for side in whole.shape[1:3])
    expected = flood.signatures["serving_default"].run({"s1": whole})["probabilities"][0]
    valid = np.isfinite(pixels).all(-1)
    np.testing.assert_allclose(
        maps.probabilities[valid], np.array(expected)[: shape[0], : shape[1]][valid], atol=1e-6
    )
    np.testing.assert_array_equal(np.isnan(maps.probabilities[..., 0]), ~valid)
    np.testing.assert_array_equal(maps.label == 255, ~valid)
    np.testing.assert_array_equal(
        maps.label[valid], maps.probabilities[valid][:, 1] > flood.segmenter.threshold
    )
    assert (maps.transform, maps.crs) == (None, None)


def test_padding_mirrors_the_pixels(flood):
    rows = np.arange(6, dtype=np.float32)[np.newaxis, :, np.newaxis, np.newaxis]
    assert padded(rows, 4)[0, :, 0, 0].tolist() == [0, 1, 2, 3, 4, 5, 4, 3]


def test_a_stack_is_what_its_images_are(flood):
    stack = np.stack([backscatter(30, 22, seed) for seed in range(5)])
    config = replace(SMALL_WINDOWS, max_batch_px=2 * 32 * 24)
    found = flood.predict(stack, config)
    assert found.label.shape == (5, 30, 22)
    for number, image in enumerate(stack):
        alone = flood.predict(image, config)
        np.testing.assert_array_equal(found.label[number], alone.label)
        np.testing.assert_allclose(found.probabilities[number], alone.probabilities, atol=1e-6)


def test_a_large_array_is_predicted_in_windows(flood):
    stack = np.stack([backscatter(130, 97), backscatter(130, 97, seed=1)])
    maps = flood.predict(stack, SMALL_WINDOWS)
    for label, probabilities, pixels in zip(maps.label, maps.probabilities, stack, strict=True):
        water = make_segmenter.water({"s1": pixels})
        valid = np.isfinite(pixels).all(-1)
        np.testing.assert_allclose(probabilities[valid][:, 1], water[valid], atol=1e-5)
        np.testing.assert_array_equal(label == 255, ~valid)
        assert set(np.unique(label)) == {0, 1, 255}


def test_masked_pixels_and_impossible_values_are_no_data(flood):
    pixels = backscatter(24, 24, seed=2)
    expected = flood.predict(pixels)
    filled = np.nan_to_num(pixels, nan=-9999.0)
    np.testing.assert_array_equal(flood.predict(filled).label, expected.label)
    masked = np.ma.masked_equal(filled, -9999.0)
    np.testing.assert_array_equal(flood.predict(masked).label, expected.label)
    # What is under a mask may look like a measurement.
    zeros = np.ma.masked_array(np.nan_to_num(pixels, nan=-10.0), np.isnan(pixels))
    np.testing.assert_array_equal(flood.predict([zeros, zeros]).label[1], expected.label)
    assert np.isfinite(filled).all()  # The caller's array is as it was.


def test_test_time_augmentation_keeps_a_symmetric_answer(flood):
    # The segmenter's kernel is symmetric, so the mean of all eight answers is the answer.
    pixels = backscatter(32, 24, seed=3)
    config = replace(SMALL_WINDOWS, test_time_augmentation=True)
    found, expected = flood.predict(pixels, config), flood.predict(pixels, SMALL_WINDOWS)
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-6)


def test_a_file_is_the_map_of_its_pixels_at_its_place(flood, tmp_path):
    pixels = backscatter(90, 70)
    stored = np.nan_to_num(pixels, nan=-32768.0)
    path = raster(tmp_path / "scene.tif", stored, nodata=-32768.0)
    maps = flood.predict(path, SMALL_WINDOWS)
    assert maps.crs == make_rasters.UTM
    assert maps.transform == tuple(make_rasters.north_up())[:6]
    valid = np.isfinite(pixels).all(-1)
    np.testing.assert_allclose(
        maps.probabilities[valid][:, 1], make_segmenter.water({"s1": pixels})[valid], atol=1e-5
    )
    np.testing.assert_array_equal(maps.label == 255, ~valid)
    # Bands are found by their names.
    swapped = raster(
        tmp_path / "swapped.tif", stored[..., ::-1], nodata=-32768.0, descriptions=("vh", "VV")
    )
    np.testing.assert_array_equal(flood.predict(str(swapped), SMALL_WINDOWS).label, maps.label)


def test_digital_numbers_of_a_file_become_reflectance(both, tmp_path):
    dn = make_rasters.digital_numbers(2, 40, 40)
    path = make_rasters.write_geotiff(tmp_path / "s2.tif", dn, descriptions=("B04", "nir"))
    by_file = both.predict({"s2": path}, SMALL_WINDOWS)
    water = make_segmenter.water({"s2": np.moveaxis(dn, 0, -1) * 1e-4})
    np.testing.assert_allclose(by_file.probabilities[..., 1], water, atol=1e-5)


def test_sensors_are_named_and_one_may_be_left_out_if_it_was_in_training(both, tmp_path):
    s1 = backscatter(40, 40)
    s2 = np.random.default_rng(0).uniform(0.02, 0.5, (40, 40, 2))
    inside = (slice(REACH, -REACH),) * 2  # At the border its kernel sees zeros.
    for pixels in ({"s1": s1, "s2": s2}, {"s2": s2}, {"s1": s1}):
        water = make_segmenter.water(pixels)
        valid = np.logical_or.reduce([np.isfinite(one).all(-1) for one in pixels.values()])
        maps = both.predict(pixels)
        np.testing.assert_array_equal(maps.label == 255, ~valid)
        found = maps.probabilities[inside][valid[inside]]
        np.testing.assert_allclose(found[:, 1], water[inside][valid[inside]], atol=1e-5)
    paths = {
        "s1": raster(tmp_path / "s1.tif", s1),
        "s2": make_rasters.write_geotiff(
            tmp_path / "s2.tif",
            np.moveaxis(np.rint(s2 * 1e4), -1, 0).astype(np.uint16),
            descriptions=("B4", "B8"),
        ),
    }
    by_files = both.predict(paths, SMALL_WINDOWS)
    rounded = {"s1": s1, "s2": np.rint(s2 * 1e4) * 1e-4}
    np.testing.assert_allclose(
        by_files.probabilities[..., 1], make_segmenter.water(rounded), atol=1e-5
    )


LINEAR = 10.0 ** (backscatter(16, 16) / 10.0)
REFLECTANCE = np.random.default_rng(0).uniform(0.05, 0.5, (16, 16, 2))


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (
            LINEAR,
            r"s1: backscatter of VV, VH must be in dB, but the median is 0.0\d+: convert power",
        ),
        (LINEAR * 1e6, "must be in dB, but the median is .*e.04: convert power"),
        (
            np.zeros((16, 16, 3)),
            r"pixels must be \[H, W, 2\] or .* the bands VV, VH, got \[16, 16, 3\]",
        ),
        (np.zeros((2, 16, 16)), "move the bands to the end by numpy.moveaxis"),
        (np.zeros((0, 16, 2)), r"got \[0, 16, 2\]"),
        (np.array([["a"]]), "pixels must be numbers, got an array of <U1"),
        ({"s2": REFLECTANCE}, "takes pixels of s1, got s2"),
        ({}, "takes pixels of s1, got none"),
        ("nothing.tif", "nothing.tif: No such file|nothing.tif: cannot read"),
    ],
)
def test_pixels_of_another_kind_are_refused(flood, pixels, message):
    with pytest.raises(DataError, match=message) as caught:
        flood.predict(pixels)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        ({"s2": REFLECTANCE * 1e4}, "s2: reflectance of B4, B8 must be 0-1, but the median is"),
        ({"s2": REFLECTANCE * 1e-4}, "divide digital numbers by 10000 only once"),
        (REFLECTANCE, r'takes pixels of s1 and s2: name them, as in {"s1": pixels}'),
        ({"s1": backscatter(16, 16), "s2": REFLECTANCE[:8]}, "must lie on one grid"),
        ({"s1": backscatter(16, 16), "s2": "scene.tif"}, "arrays, or all of them paths"),
    ],
)
def test_pixels_of_two_sensors_must_fit(both, pixels, message):
    with pytest.raises(DataError, match=message):
        both.predict(pixels)


def test_a_sensor_that_was_always_there_must_be_there(tmp_path):
    bands = {"s1": S1_DEFAULT_BANDS, "s2": ("B4", "B8")}
    model = load(make_segmenter.publish(tmp_path / "1", bands))
    with pytest.raises(DataError, match="was not trained for patches without s2"):
        model.predict({"s1": backscatter(16, 16)})


def test_files_that_readers_refuse_are_refused(flood, both, tmp_path):
    nameless = raster(tmp_path / "nameless.tif", backscatter(40, 40), descriptions=())
    with pytest.raises(
        DataError, match=r"nameless\.tif: holds no scene of s1 with the bands VV, VH"
    ):
        flood.predict(nameless)
    one = raster(tmp_path / "one.tif", backscatter(40, 40)[..., :1], descriptions=("VV",))
    with pytest.raises(DataError, match=r"one.tif: bands \['VH'\] are missing"):
        flood.predict(one)
    linear = raster(tmp_path / "linear.tif", np.nan_to_num(LINEAR, nan=0.01).astype(np.float32))
    with pytest.raises(DataError, match="backscatter must be in dB, but these are linear values"):
        flood.predict(linear)
    placeless = raster(tmp_path / "placeless.tif", backscatter(40, 40), crs=None)
    with pytest.raises(DataError, match=r"placeless\.tif: the raster has no CRS"):
        flood.predict(placeless)
    dn = make_rasters.digital_numbers(3, 40, 40)
    cirrus = make_rasters.write_geotiff(tmp_path / "l1c.tif", dn, descriptions=("B4", "B8", "B10"))
    with pytest.raises(DataError, match="must be L2A, as the model was trained on, got L1C"):
        both.predict({"s2": cirrus})


def test_a_catalog_of_one_scene_is_read_and_one_of_several_refused(flood, tmp_path):
    pixels = backscatter(60, 50)
    written = []
    for name in ("a", "b"):
        path = str(raster(tmp_path / f"{name}.tif", pixels))
        asset = items.asset(path, S1_DEFAULT_BANDS)
        item = items.item(name, path, DAY, items.radar(), {"data": asset})
        item.save_object(include_self_link=False, dest_href=str(tmp_path / f"{name}.json"))
        written.append(tmp_path / f"{name}.json")
    maps = flood.predict(written[0], SMALL_WINDOWS)
    by_file = flood.predict(tmp_path / "a.tif", SMALL_WINDOWS)
    np.testing.assert_array_equal(maps.label, by_file.label)
    with pytest.raises(DataError, match="must hold one scene of s1, got 2"):
        flood.predict(tmp_path)


def test_an_encoder_embeds_images_and_patches(encoder):
    stack = np.stack([backscatter(24, 16, seed) for seed in range(3)])
    found = encoder.embed({"s1": stack})
    assert found.features.shape == (3, 6, 4, 2)
    for image, embedding in zip(stack, found.embedding, strict=True):
        np.testing.assert_allclose(embedding, make_embedder.embedding(image), atol=1e-6)
    image = backscatter(27, 21)
    patches = encoder.embed({"s1": image}, patch_px=8)
    assert patches.embedding.shape == (4, 3, 2)
    assert patches.features.shape == (7, 6, 2)
    np.testing.assert_allclose(
        patches.embedding[1, 1], make_embedder.embedding(image[8:16, 8:16]), atol=1e-6
    )
    mirrored = padded(image[np.newaxis], 8)[0]
    np.testing.assert_allclose(
        patches.embedding[3, 2], make_embedder.embedding(mirrored[24:32, 16:24]), atol=1e-6
    )
    valid = np.isfinite(image).all(-1, keepdims=True)
    np.testing.assert_allclose(
        patches.features[5, 4], np.where(valid, image, 0.0)[20:24, 16:20].mean((0, 1)), atol=1e-5
    )


def test_a_patch_without_data_has_no_embedding(encoder):
    image = backscatter(16, 16)
    image[:8, :8] = np.nan
    found = encoder.embed({"s1": image}, patch_px=8)
    assert np.isnan(found.embedding[0, 0]).all()
    assert np.isfinite(found.embedding[1:]).all()
    assert np.isnan(encoder.embed({"s1": np.full((8, 8, 2), np.nan)}).embedding).all()


def test_a_file_is_embedded_patch_by_patch_at_its_place(encoder, tmp_path):
    pixels = np.nan_to_num(backscatter(70, 90), nan=-12.0)
    path = raster(tmp_path / "scene.tif", pixels)
    found = encoder.embed({"s1": path}, patch_px=32)
    by_array = encoder.embed({"s1": pixels}, patch_px=32)
    assert found.embedding.shape == (3, 3, 2)
    np.testing.assert_allclose(found.embedding, by_array.embedding, atol=1e-6)
    np.testing.assert_allclose(found.features, by_array.features, atol=1e-5)
    assert found.crs == make_rasters.UTM
    assert found.transform == tuple(make_rasters.north_up(320.0))[:6]


def test_the_reader_of_patches_may_be_a_part_of_an_image(encoder):
    # Rows beyond the end are mirrored from what was read, whatever the height.
    image = backscatter(5, 40)
    embedder = encoder._embedder("s1")
    features, embedding = embed_patches(embedder, image, 16)
    assert features.shape == (2, 10, 2)
    assert embedding.shape == (1, 3, 2)


def test_a_model_refuses_the_method_of_the_other_kind(flood, encoder):
    with pytest.raises(DataError, match="is a model of segmentation, which has no embed"):
        flood.embed(backscatter(8, 8))
    with pytest.raises(DataError, match="is a model of pretraining, which has no predict"):
        encoder.predict({"s1": backscatter(8, 8)})
    with pytest.raises(DataError, match="one sensor at a time, got s1 and s2"):
        encoder.embed({"s1": backscatter(8, 8), "s2": REFLECTANCE})
    with pytest.raises(ValueError, match="patch_px must be a multiple of the model's stride 4"):
        encoder.embed({"s1": backscatter(8, 8)}, patch_px=10)


def test_models_that_are_not_served_or_damaged_are_refused(serving, tmp_path):
    make_segmenter.write_card(_folder(tmp_path / "student"), {"s1": ("VV",)}, task="distillation")
    with pytest.raises(DataError, match="must be a segmenter or an encoder, got a model of task"):
        load(tmp_path / "student")
    shutil.copytree(serving / "3", tmp_path / "damaged")
    graph = tmp_path / "damaged" / "saved_model.pb"
    graph.write_bytes(graph.read_bytes()[:100])
    with pytest.raises(DataError, match="the SavedModel cannot be read"):
        load(tmp_path / "damaged")


def _folder(path):
    path.mkdir()
    return path


def test_maps_show_themselves(flood):
    maps = flood.predict(backscatter(40, 20))
    share = 100 * (maps.label == 1).sum() / (maps.label != 255).sum()
    assert f"water {share:.1f} %" in repr(maps)
    page = maps._repr_html_()
    assert "#1f5fbf" in page
    encoded = page.partition("base64,")[2].partition('"')[0]
    picture = np.array(Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB"))
    np.testing.assert_array_equal(picture, np.array(maps.to_picture().convert("RGB")))
    assert tuple(picture[maps.label == 1][0]) == (0x1F, 0x5F, 0xBF)
    assert tuple(picture[maps.label == 0][0]) == (0xD9, 0xC9, 0xA3)
    assert (picture[maps.label == 255] == 255).all()


def test_a_large_map_is_shown_smaller(flood):
    stack = flood.predict(np.full((12, 8, 1100, 2), -12.0, np.float32))
    assert stack._repr_html_().count("<img") == 8
    encoded = stack._repr_html_().partition("base64,")[2].partition('"')[0]
    assert Image.open(io.BytesIO(base64.b64decode(encoded))).size[0] <= 512
