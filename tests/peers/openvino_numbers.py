"""Compare published models as TensorFlow runs them with what OpenVINO makes of them.

OpenVINO reads SavedModels itself, so it is an independent reader: what it computes
follows from the published files alone. TERRAPAIR_OPENVINO_PYTHON names an interpreter
with `openvino`. The canary asks it in the same way.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np

from models.published import second_reader
from models.published.second_reader import PYTHON_VARIABLE

SIZES = ((64, 96), (128, 32), (256, 256))
LARGEST = {"probabilities": 5e-7, "label": 0.0, "embedding": 1e-6, "features": 5e-6}
"""Output -> largest difference that passes; of features, relative to the largest one."""


def check() -> dict[str, object]:
    """Return the largest difference by model and output.

    Raises:
        RuntimeError: it is above the limit.
    """
    from beam_jobs.contracts import manifest
    from models.config import EncoderConfig
    from tests.data.networks import make_encoder, make_unet
    from tests.data.shards import make_shards

    if PYTHON_VARIABLE not in os.environ:
        raise RuntimeError(f"set {PYTHON_VARIABLE} to an interpreter with openvino")
    found: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        labels = make_shards.make_version(
            root / "labels", kind="labels", label_schema="water", num_patches=4
        )
        pairs = manifest.read(make_shards.make_version(root / "pairs", num_patches=4))
        for backbone in ("small", "resnet18"):
            path = make_unet.publish(root / backbone / "segmenter", labels, backbone)
            found[f"{backbone} segmenter"] = _compare(path, ("serving_default",))
            config = EncoderConfig(backbone=backbone, embedding_dim=32)
            path = make_encoder.publish(pairs, root / backbone / "encoder", config=config)
            found[f"{backbone} encoder"] = _compare(path, ("embed_s1", "embed_s2"))
    return found


def _compare(path: str, signatures: tuple[str, ...]) -> dict[str, float]:
    """Return the largest difference by signature and output."""
    import tensorflow as tf

    loaded = tf.saved_model.load(path).signatures
    found = {}
    for signature in signatures:
        _, specs = loaded[signature].structured_input_signature
        calls = {
            str(number): {
                name: _pixels(name, (2, *size, spec.shape[-1])) for name, spec in specs.items()
            }
            for number, size in enumerate(SIZES)
        }
        theirs = second_reader.ask(path, signature, calls, os.environ[PYTHON_VARIABLE]).outputs
        for number, given in calls.items():
            ours = loaded[signature](**{name: tf.constant(one) for name, one in given.items()})
            for name, values in ours.items():
                other = theirs[number][name]
                if other.shape != values.shape:
                    raise RuntimeError(f"{path}: {name} has the shape {other.shape}")
                # Features are not bounded.
                scale = float(np.abs(values).max()) if name == "features" else 1.0
                difference = float(np.abs(np.subtract(values, other, dtype=np.float64)).max())
                key = f"{signature} {name}"
                found[key] = max(found.get(key, 0.0), difference / scale)
    too_large = {key: one for key, one in found.items() if not one <= LARGEST[key.split()[1]]}
    if too_large:
        raise RuntimeError(f"{path}: differs from TensorFlow by {too_large}, limits {LARGEST}")
    return found


def _pixels(sensor: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return plausible physical values with gaps: a corner, single pixels, one band."""
    rng = np.random.default_rng(0)
    values = rng.normal(-15, 5, shape) if sensor == "s1" else rng.uniform(0, 0.6, shape)
    values[0, : shape[1] // 2, : shape[2] // 3] = np.nan
    values[rng.random(shape[:3]) < 0.05] = np.nan
    values[1, 3:5, :, 0] = np.nan
    return values.astype(np.float32)
