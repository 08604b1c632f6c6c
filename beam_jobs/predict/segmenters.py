"""Segmenters: a published model as a function of pixels.

Input: a folder `serving/<model>` or one version in it. Output: Segmenter, what the
model card says; and `load`, the SavedModel as this process keeps it. The model runs by
its signature `serving_default`, as in TF Serving.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import tensorflow as tf

from beam_jobs.contracts import published
from beam_jobs.contracts.bands import SENSORS, ProcessingLevel, Sensor
from beam_jobs.contracts.fingerprint import tree_sha256
from beam_jobs.contracts.labels import LabelClass
from beam_jobs.contracts.locations import Location, content_of, locate, without_pattern
from beam_jobs.contracts.object_store import is_remote
from beam_jobs.contracts.records import FloatArray
from beam_jobs.errors import DataError
from beam_jobs.predict import memory
from beam_jobs.predict.blending import Pixels

_SIGNATURE = "serving_default"
_REGION_BYTES = 1 << 30
"""More than models of this project take at once for a window of 1024 px."""


@dataclass(frozen=True, kw_only=True)
class Segmenter:
    """A published segmenter, by its card.

    Attributes:
        path: folder of the version.
        name: of the model.
        version: number of the version; "" for a folder that is none.
        sha256: hash of all files of the model.
        bands: sensor -> names of its bands, in the order of the channels.
        stride: height and width of inputs are multiples of it.
        classes: what the model tells apart, by id.
        threshold: probability above which a pixel is of the second class; None with
            more than two classes: the likeliest class.
        pixel_size_m: of the patches that it was trained on.
        s2_processing_level: of the Sentinel-2 pixels that it was trained on.
        takes_one_of_two: whether it was trained for patches that lack a sensor.
        data_sha256: hash of the manifest of its training data.
        code_version: version of terrapair that wrote it.
        architecture: head and encoder, such as "unet on resnet18".
        members: models of an ensemble; empty for one model. See `ensembles`.
    """

    path: str
    name: str
    version: str
    sha256: str
    bands: dict[Sensor, tuple[str, ...]]
    stride: int
    classes: tuple[LabelClass, ...]
    threshold: float | None
    pixel_size_m: float
    s2_processing_level: ProcessingLevel
    takes_one_of_two: bool
    data_sha256: str
    code_version: str
    architecture: str = "unknown"
    members: tuple[Segmenter, ...] = ()

    @property
    def sensors(self) -> tuple[Sensor, ...]:
        """The sensors that the model sees."""
        return tuple(self.bands)

    @property
    def models(self) -> tuple[Segmenter, ...]:
        """The models that answer: the members of an ensemble, or this one."""
        return self.members or (self,)


def find(path: str, version: int | None = None) -> Segmenter:
    """Return the segmenter in a folder.

    Args:
        path: folder of one version, or of all versions of a model, of which the newest
            is taken.
        version: number of the wanted version, if `path` holds several.

    Raises:
        DataError: there is no such version, or the model is no segmenter.
        DamagedFileError: the card is damaged.
    """
    folder = version_dir(path, version)
    card = published.read_card(folder)
    if card.get("task") != "segmentation":
        raise DataError(
            f"{folder}: must be a segmenter, which makes maps, got a model of task "
            f"{card.get('task')!r}",
            "bad_model",
        )
    with content_of(f"{folder}/{published.ASSETS_DIR}/{published.CARD_NAME}", published.CURE):
        bands = {
            name: tuple(card["inputs"][name]["bands"]) for name in SENSORS if name in card["inputs"]
        }
        return Segmenter(
            path=folder,
            name=str(card["name"]),
            version=os.path.basename(folder) if os.path.basename(folder).isdigit() else "",
            sha256=tree_sha256(folder),
            bands=bands,
            stride=int(card["stride"]),
            classes=tuple(
                LabelClass(id=number, name=name, color=color)
                for number, (name, color) in enumerate(
                    zip(card["class_names"], card["class_colors"], strict=True)
                )
            ),
            threshold=card["threshold"],
            pixel_size_m=float(card["pixel_size_m"]),
            s2_processing_level=card["s2_processing_level"] or "L2A",
            takes_one_of_two=len(bands) == 2 and bool(card["config"].get("modality_dropout")),
            data_sha256=str(card["data_manifest_sha256"]),
            code_version=str(card["code_version"]),
            architecture=_architecture(card["config"]),
        )


def _architecture(config: Mapping[str, Any]) -> str:
    encoder = config.get("encoder") or {}
    parts = [one for one in (config.get("head"), encoder.get("backbone")) if one]
    return " on ".join(parts) or "unknown"


def version_dir(path: str, version: int | None) -> str:
    """Return the folder of the wanted version of any published model; see `find`.

    Raises:
        DataError: there is none.
    """
    root = os.fspath(locate(path))
    if (locate(root) / published.ASSETS_DIR / published.CARD_NAME).exists():
        name = os.path.basename(root)
        if version is not None and name.isdecimal() and name != str(version):
            raise DataError(
                f"{root}: is version {name} itself, but --version is {version}: name the folder "
                "of all versions",
                "bad_model",
            )
        return root
    found = {int(one.name): os.fspath(one) for one in published.versions(root)}
    if version is not None and version in found:
        return found[version]
    if version is not None:
        known = ", ".join(map(str, found)) or "none"
        raise DataError(
            f"{root}: has no version {version}; complete versions are: {known}", "bad_model"
        )
    if not found:
        raise DataError(
            f"{root}: holds no published model: name a folder serving/<model>, or a version in it",
            "bad_model",
        )
    served = published.in_service(root)
    return os.fspath(served) if served is not None else found[max(found)]


def labelled_version(path: str, label: str, server_dir: str | None = None) -> int:
    """Return the version that has a label.

    Args:
        path: folder of all versions of a model.
        label: such as "stable".
        server_dir: folder that `serve-config` wrote: the version is that which its
            server has under the label. None = the version that the model's own labels
            name; see `published.in_service`.

    Raises:
        DataError: `path` is one version, there is no such folder of a server, or it
            gives no version this label.
        DamagedFileError: the list of models in it is damaged.
    """
    model_dir = locate(path if is_remote(path) else os.path.abspath(path))
    if (model_dir / published.ASSETS_DIR / published.CARD_NAME).exists():
        raise DataError(
            f"{path}: is version {model_dir.name} itself: for --label, name the folder of all "
            "versions",
            "bad_model",
        )
    if server_dir is None:
        file = model_dir / published.LABELS_NAME
        found = published.in_service(model_dir, label)
        if found is not None:
            return int(found.name)
        labels: dict[str, int] = dict(published.read_labels(model_dir).versions)
        raise _no_label(file, model_dir.name, label, labels)
    file = published.models_file(locate(server_dir))
    try:
        models = published.version_labels(file)
    except FileNotFoundError as error:
        raise DataError(
            f"{file}: no such file, so no version has the label {label!r}: write it by "
            f"`terrapair serve-config`, or name another folder by --server",
            "missing_file",
        ) from error
    labels = models.get(model_dir.name, {})
    if label not in labels:
        raise _no_label(file, model_dir.name, label, labels)
    return labels[label]


def _no_label(file: Location, model: str, label: str, labels: Mapping[str, int]) -> DataError:
    known = ", ".join(f"{name} = {version}" for name, version in sorted(labels.items()))
    return DataError(
        f"{file}: the model {model!r} has no version with the label {label!r}; labels are: "
        f"{known or 'none'}",
        "bad_model",
    )


def load(segmenter: Segmenter, *, num_threads: int = 0) -> Callable[[Pixels], FloatArray]:
    """Return the function pixels [B, H, W, C] -> probabilities [B, H, W, K] of a model.

    This process loads a model once.

    Args:
        segmenter: of which the SavedModel is loaded.
        num_threads: of TensorFlow, if it has not computed yet in this process; 0 = one
            for each core.

    Raises:
        DataError: the SavedModel cannot be read.
    """
    loaded = _loaded(segmenter.path, segmenter.sha256, num_threads)
    expected = {str(name): len(bands) for name, bands in segmenter.bands.items()}
    if (loaded.num_bands, loaded.num_classes) != (expected, len(segmenter.classes)):
        raise DataError(
            f"{segmenter.path}: the SavedModel takes {loaded.num_bands} and tells "
            f"{loaded.num_classes} classes apart, but its card says {expected} and "
            f"{len(segmenter.classes)}; {published.CURE}",
            "bad_model",
        )

    def probabilities(pixels: Pixels) -> FloatArray:
        found = loaded.run({str(name): pixels[name] for name in segmenter.sensors})
        # A copy: TensorFlow's allocator takes another large region (seen: 0.5 GB) when
        # its own memory is still in use while the next batch runs.
        return np.array(found["probabilities"])

    return probabilities


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A signature of a SavedModel in this process.

    Attributes:
        model: keeps the variables, which the signature alone does not.
        run: arrays by input -> tensors by output.
        num_bands: input -> number of its channels.
        num_classes: channels of `probabilities`; None = there is no such output.
    """

    model: Any
    run: Callable[[dict[str, Any]], dict[str, Any]]
    num_bands: dict[str, int]
    num_classes: int | None


@lru_cache(maxsize=8)  # The members of an ensemble.
def _loaded(path: str, sha256: str, num_threads: int) -> Loaded:
    del sha256  # A part of the key only: another model may be written to the same path.
    if num_threads:
        # TensorFlow refuses when this process has computed before.
        with suppress(RuntimeError):
            tf.config.threading.set_intra_op_parallelism_threads(num_threads)
            tf.config.threading.set_inter_op_parallelism_threads(1)
    _reserve_region()
    # A worker process has not opened the store yet.
    locate(path)
    return open_signature(path, _SIGNATURE)


def _reserve_region() -> None:
    """Let TensorFlow's allocator for the CPU own one large region from the start.

    By itself it takes regions, each twice as large as the last, and returns none.
    Windows of several sizes leave gaps at their ends, so that it takes one more (0.5
    GB) in the middle of a large scene. In one region, the gaps join. Pages that are
    never used take no memory. Source: BFCAllocator::Extend in tsl/framework.
    """
    # The memory may be bounded; then the allocator grows as before.
    with suppress(tf.errors.ResourceExhaustedError), tf.device("CPU"):
        tf.raw_ops.Empty(shape=[_REGION_BYTES], dtype=tf.uint8)


def _tensor(values: Any) -> Any:
    """Return an array as a tensor, which shares its memory if it is aligned for that.

    `tf.constant` copies twice: 0.1 GB for a window of twelve bands.
    """
    is_shared = (
        isinstance(values, np.ndarray)
        and values.dtype == np.float32
        and values.flags.c_contiguous
        and values.flags.writeable
        # TensorFlow ends the process if it is not.
        and values.ctypes.data % memory.ALIGNED_BYTES == 0
    )
    if is_shared and values.size:
        return tf.experimental.dlpack.from_dlpack(values.__dlpack__())
    return tf.constant(values)


def open_signature(path: str, name: str) -> Loaded:
    """Return a signature of a SavedModel.

    Raises:
        DataError: the SavedModel cannot be read, or has no such signature.
    """
    try:
        with without_pattern(path) as readable:
            model = tf.saved_model.load(readable)
        signature = model.signatures[name]
        specs = signature.structured_input_signature[1]
        outputs = signature.structured_outputs
        return Loaded(
            model=model,
            run=lambda pixels: dict(
                signature(**{key: _tensor(values) for key, values in pixels.items()})
            ),
            num_bands={key: spec.shape[-1] for key, spec in specs.items()},
            num_classes=outputs["probabilities"].shape[-1] if "probabilities" in outputs else None,
        )
    except (OSError, KeyError, ValueError, tf.errors.OpError) as error:
        why = " ".join(str(error).split())[:200]
        raise DataError(
            f"{path}: the SavedModel cannot be read ({why}); {published.CURE}", "bad_model"
        ) from error
