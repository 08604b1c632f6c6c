"""Loading: a published model as an object that answers for arrays and for files.

Input: a folder `serving/<model>`, or one version in it. Output: PublishedModel, whose
`predict` and `embed` run the signatures of the SavedModel, as TensorFlow Serving does.
No Keras model is built, so no class of this project needs to be registered.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from beam_jobs.contracts import published
from beam_jobs.contracts.bands import SENSORS, Sensor
from beam_jobs.contracts.labels import IGNORE, LabelClass
from beam_jobs.contracts.locations import content_of
from beam_jobs.contracts.records import FloatArray
from beam_jobs.errors import DataError
from beam_jobs.predict import ensembles, parts, segmenters
from beam_jobs.predict.blending import Pixels, Source
from beam_jobs.predict.config import PredictConfig
from beam_jobs.predict.parts import MapTask
from beam_jobs.predict.segmenters import Loaded, Segmenter
from models.published import arrays, inference, scenes
from models.published.inference import Embedder
from models.published.results import Embeddings, Maps

PATCH_PX = 256
"""Height and width of the patches of a scene on disk, unless `embed` is told others."""
_FINEST_PIXEL_M = 10.0
"""Grid for encoders whose card names none: that of Sentinel-1 GRD and of B2 to B4."""
_METHODS = {"segmentation": "predict", "pretraining": "embed"}
"""Task of a card -> what its model offers."""

PixelsOrPath = npt.ArrayLike | str | os.PathLike[str]
Inputs = PixelsOrPath | Mapping[Sensor, PixelsOrPath]


def load(path: str | os.PathLike[str], version: int | None = None) -> PublishedModel:
    """Return a published model.

    Args:
        path: folder of one version, or of all versions of a model, of which the newest
            complete one is taken.
        version: number of the wanted version, if `path` holds several.

    Raises:
        DataError: there is no such version, the model has no signatures, or its
            SavedModel cannot be read.
        DamagedFileError: its card is damaged.
    """
    folder = segmenters.version_dir(os.fspath(path), version)
    card = published.read_card(folder)
    with content_of(f"{folder}/{published.ASSETS_DIR}/{published.CARD_NAME}", published.CURE):
        task, stride, inputs = str(card["task"]), int(card["stride"]), card["inputs"]
        bands: dict[Sensor, tuple[str, ...]] = {
            sensor: tuple(inputs[sensor]["bands"]) for sensor in SENSORS if sensor in inputs
        }
    if task not in _METHODS:
        raise DataError(
            f"{folder}: must be a segmenter or an encoder, got a model of task {task!r}, which is "
            "not served: name the model that was trained from it",
            "bad_model",
        )
    names = ["serving_default"] if task == "segmentation" else [f"embed_{one}" for one in bands]
    return PublishedModel(
        path=folder,
        task=task,
        bands=bands,
        stride=stride,
        card=card,
        segmenter=segmenters.find(folder) if task == "segmentation" else None,
        signatures={name: segmenters.open_signature(folder, name) for name in names},
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class PublishedModel:
    """A published model; see `load`.

    Attributes:
        path: folder of the version.
        task: "segmentation", which offers `predict`, or "pretraining", which offers
            `embed`.
        bands: sensor -> names of its bands, in the order of the channels.
        stride: pixels per cell of the deepest features. Pixels of any size are padded
            to it, and outputs are cut back.
        card: content of `model_card.json`.
        segmenter: the card of a segmenter, parsed; None for an encoder.
        signatures: signature -> function of arrays.
    """

    path: str
    task: str
    bands: Mapping[Sensor, tuple[str, ...]]
    stride: int
    card: Mapping[str, Any] = field(repr=False)
    segmenter: Segmenter | None = field(repr=False)
    signatures: Mapping[str, Loaded] = field(repr=False)

    @property
    def classes(self) -> tuple[LabelClass, ...]:
        """The classes of a segmenter, by id; none for an encoder."""
        return self.segmenter.classes if self.segmenter else ()

    def predict(self, pixels: Inputs, config: PredictConfig | None = None) -> Maps:
        """Return the classes of pixels.

        An array that fits into one window is predicted in one pass. Larger arrays, and
        all files, are predicted in the windows of `terrapair predict`, and files are
        read by its readers. The whole answer is held in memory.

        Args:
            pixels: array [H, W, C] or [B, H, W, C] of any size, in dB or reflectance of
                0-1, NaN = no data; or the path of a raster, of a STAC item, or of a
                catalog of one scene. For a model of both sensors: `{"s1": a, "s2": b}`;
                one may be left out if the model was trained for that.
            config: windows, bound on the pixels at once, test-time augmentation. Other
                settings do not matter here.

        Raises:
            DataError: the model is an encoder, shapes or units are wrong, or a file is
                refused; see `scenes.open_scenes`.
            ValueError: the windows do not fit the stride.
        """
        if self.segmenter is None:
            raise self._refused("predict")
        config = config or PredictConfig()
        config.window.check(self.stride)
        model: Callable[[Pixels], FloatArray] = self._probabilities
        if config.test_time_augmentation:
            model = ensembles.joined([model], has_views=True, has_moments=False)
        count = len(self.classes)
        place: dict[str, Any] = {}
        named = self._named(pixels)
        if _are_paths(named):
            task = self._open(named, self.bands)
            source = Source(read=parts.reader(task, self.bands), model=model, num_classes=count)
            shape = (task.grid.height, task.grid.width)
            found, valid = inference.predict_windows(source, shape, config, self.stride)
            place = {"transform": task.grid.transform, "crs": task.grid.crs}
        else:
            stack, is_stack = self._stack(named)
            found, valid = inference.predict_stack(
                model, stack, config, stride=self.stride, num_classes=count
            )
            if not is_stack:
                found, valid = found[0], valid[0]
        label = np.where(valid, parts.class_ids(found, self.segmenter.threshold), np.uint8(IGNORE))
        found[~valid] = np.nan
        return Maps(probabilities=found, label=label, classes=self.classes, **place)

    def embed(self, pixels: Inputs, patch_px: int | None = None) -> Embeddings:
        """Return features and embeddings of pixels of one sensor.

        Args:
            pixels: as for `predict`, of one sensor. An encoder of both sensors must be
                told which: `{"s1": a}`.
            patch_px: cut images into patches of this height and width, and embed each.
                None = embed each image of an array as a whole, and files in patches of
                PATCH_PX.

        Raises:
            DataError: the model is a segmenter, shapes or units are wrong, there are
                several sensors, or a file is refused; see `scenes.open_scenes`.
            ValueError: `patch_px` is no multiple of the stride.
        """
        if self.segmenter is not None:
            raise self._refused("embed")
        if patch_px is not None and (patch_px < 1 or patch_px % self.stride):
            raise ValueError(
                f"patch_px must be a multiple of the model's stride {self.stride}, got {patch_px}"
            )
        named = self._named(pixels)
        if len(named) != 1:
            raise DataError(
                f"{self.path}: embed takes one sensor at a time, got {' and '.join(named)}: name "
                'it, as in {"s1": pixels}'
            )
        sensor = next(iter(named))
        embedder = self._embedder(sensor)
        if _are_paths(named):
            return self._embed_scene(named, embedder, patch_px or PATCH_PX)
        stack, is_stack = self._stack(named)
        if patch_px is None:
            features, embedding = inference.embed_stack(embedder, stack[sensor])
        else:
            found = [inference.embed_patches(embedder, one, patch_px) for one in stack[sensor]]
            features, embedding = (np.stack(part) for part in zip(*found, strict=True))
        if not is_stack:
            features, embedding = features[0], embedding[0]
        return Embeddings(embedding=embedding, features=features, stride=self.stride)

    def _embed_scene(
        self, named: Mapping[Sensor, Any], embedder: Embedder, patch_px: int
    ) -> Embeddings:
        bands = {embedder.sensor: self.bands[embedder.sensor]}
        task = self._open(named, bands)
        shape = (task.grid.height, task.grid.width)
        features, embedding = inference.embed_scene(
            embedder, parts.reader(task, bands), shape, patch_px
        )
        # The origin is that of the scene; a patch is `patch_px` pixels wide and high.
        x, x_down, left, y, y_down, top = task.grid.transform
        turned = (x * patch_px, x_down * patch_px, left, y * patch_px, y_down * patch_px, top)
        return Embeddings(
            embedding=embedding,
            features=features,
            stride=self.stride,
            transform=turned,
            crs=task.grid.crs,
        )

    def _named(self, pixels: Inputs) -> dict[Sensor, Any]:
        """Return the pixels, or their path, by sensor.

        Raises:
            DataError: they are of another sensor, or of an unnamed one of two.
        """
        if isinstance(pixels, Mapping):
            known = ", ".join(self.bands)
            if not pixels or set(pixels) - set(self.bands):
                names = ", ".join(map(str, pixels)) or "none"
                raise DataError(f"{self.path}: the model takes pixels of {known}, got {names}")
            return {sensor: pixels[sensor] for sensor in self.bands if sensor in pixels}
        if _is_path(pixels) or len(self.bands) == 1:
            return dict.fromkeys(self.bands, pixels)
        raise DataError(
            f"{self.path}: the model takes pixels of {' and '.join(self.bands)}: name them, as in "
            '{"s1": pixels}'
        )

    def _stack(self, named: Mapping[Sensor, Any]) -> tuple[dict[Sensor, FloatArray], bool]:
        """Return checked pixels [B, H, W, C], and whether they were a stack.

        Raises:
            DataError: a sensor is missing, or what `arrays.checked` refuses.
        """
        missing = [sensor for sensor in self.bands if sensor not in named]
        if missing and self.segmenter and not self.segmenter.takes_one_of_two:
            raise DataError(
                f"{self.path}: the model takes pixels of {' and '.join(self.bands)}, and was not "
                f"trained for patches without {missing[0]}: name both",
                "no_scene",
            )
        stack = {
            sensor: arrays.checked(values, sensor, self.bands[sensor])
            for sensor, values in named.items()
        }
        shapes = {sensor: list(np.shape(values)[:-1]) for sensor, values in named.items()}
        shape = next(iter(shapes.values()))
        if any(other != shape for other in shapes.values()):
            raise DataError(f"pixels of all sensors must lie on one grid, got {shapes}")
        if self.segmenter:
            stack = arrays.with_absent(stack, self.bands)
        return stack, len(shape) == 3

    def _open(
        self, named: Mapping[Sensor, Any], bands: Mapping[Sensor, tuple[str, ...]]
    ) -> MapTask:
        card, segmenter = self.card, self.segmenter
        return scenes.open_scenes(
            named,
            scenes.Wanted(
                bands=bands,
                s2_processing_level=card.get("s2_processing_level") or "L2A",
                pixel_size_m=float(card.get("pixel_size_m") or _FINEST_PIXEL_M),
                takes_one_of_two=bool(segmenter and segmenter.takes_one_of_two),
            ),
        )

    def _probabilities(self, pixels: Pixels) -> FloatArray:
        run = self.signatures["serving_default"].run
        found = run({sensor: np.asarray(pixels[sensor], np.float32) for sensor in self.bands})
        # A copy, because tensors cannot be written to.
        return np.array(found["probabilities"])

    def _embedder(self, sensor: Sensor) -> Embedder:
        run = self.signatures[f"embed_{sensor}"].run

        def embed(pixels: FloatArray) -> tuple[FloatArray, FloatArray]:
            found = run({sensor: pixels})
            return np.array(found["features"]), np.array(found["embedding"])

        return Embedder(sensor=sensor, embed=embed, stride=self.stride)

    def _refused(self, method: str) -> DataError:
        return DataError(
            f"{self.path}: is a model of {self.task}, which has no {method}: call "
            f"{_METHODS[self.task]}, or load another model",
            "bad_model",
        )


def _is_path(pixels: object) -> bool:
    return isinstance(pixels, str | os.PathLike)


def _are_paths(named: Mapping[Sensor, Any]) -> bool:
    """Return whether all values are paths, not arrays.

    Raises:
        DataError: some are.
    """
    kinds = {_is_path(pixels) for pixels in named.values()}
    if len(kinds) > 1:
        raise DataError("pixels of all sensors must be arrays, or all of them paths")
    return kinds.pop()
