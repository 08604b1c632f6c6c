"""Compare SavedModels of one segmenter by precision, and by what was tried and left.

Each round calls all of them in turn with one image of 1024 x 1024 px, and a ratio is the
median over rounds of the time of float32 divided by theirs, so above 1 is faster. The
models are untrained U-Nets of two bands with random normalizations. Tried and left:

- frozen: variables become constants of the graph.
- folded: each BatchNorm that follows a convolution becomes part of its kernel.
- grappler: TensorFlow's own pass to bfloat16 (`auto_mixed_precision_onednn_bfloat16`),
  which holds for a whole process, so it runs in one of its own and in turns with float32.

`ONEDNN_MAX_CPU_ISA=AVX512_CORE` shows a CPU without bfloat16.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

BACKBONES = ("small", "resnet18")
SIDE_PX, NUM_ROUNDS = 1024, 7


def measure() -> dict[str, object]:
    """Return megabytes, ratios and differences to float32 by backbone and SavedModel."""
    found = {}
    for backbone in BACKBONES:
        with tempfile.TemporaryDirectory() as folder:
            _export(backbone, Path(folder))
            names = sorted(path.name for path in Path(folder).iterdir())
            found[backbone] = _compare(Path(folder), names)
            # As many processes with the pass as without, in turns.
            seconds = {"plain": [], "grappler": []}
            for _ in range(3):
                for kind, taken in seconds.items():
                    taken.append(_child(kind, Path(folder) / "float32"))
            cpu = {kind: np.median([one[0] for one in taken]) for kind, taken in seconds.items()}
            found[backbone]["grappler"] = {"cpu_ratio": round(cpu["plain"] / cpu["grappler"], 2)}
    return found


def _segmenter(backbone: str):
    """Return an untrained segmenter whose normalizations do something."""
    import keras

    from models.encoders import SensorEncoder
    from models.segmenter import Segmenter

    keras.utils.set_random_seed(0)
    encoder = SensorEncoder(
        sensor="s1", bands=["VV", "VH"], mean=[-12.0, -19.0], std=[5.0, 5.0], backbone=backbone
    )
    widths = (256, 128, 64, 32, 16)
    model = Segmenter(
        encoders={"s1": encoder}, num_classes=2, decoder_channels=widths, border="mirror"
    )
    rng = np.random.default_rng(1)
    ranges = {
        "moving_mean": (-0.3, 0.3),
        "moving_variance": (0.3, 2.0),
        "gamma": (0.5, 1.5),
        "beta": (-0.3, 0.3),
    }
    for variable in model.variables:
        name = variable.path.rpartition("/")[2]
        if name in ranges:
            variable.assign(rng.uniform(*ranges[name], variable.shape))
    return model


def _export(backbone: str, folder: Path) -> None:
    """Write all SavedModels, each in a folder of its name."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    from models.published import saved_model, signatures
    from models.published.precision import as_served

    model = _segmenter(backbone)

    def endpoint(served):
        return saved_model.Endpoint(
            function=signatures.pixels_endpoint(served), specs=signatures.pixel_specs(served)
        )

    for precision in ("float32", "bfloat16", "mixed_bfloat16"):
        served = as_served(model, precision)
        saved_model.write(
            [served],
            {"serving_default": endpoint(served)},
            str(folder / precision),
            in_half=precision != "float32",
        )
    specs = signatures.pixel_specs(model)
    traced = tf.function(signatures.pixels_endpoint(model), input_signature=specs, autograph=False)
    constant = convert_variables_to_constants_v2(traced.get_concrete_function())
    frozen = tf.Module()
    frozen.serve = tf.function(
        lambda pixels: dict(zip(("label", "probabilities"), constant(pixels), strict=True)),
        input_signature=specs,
        autograph=False,
    )
    tf.saved_model.save(frozen, str(folder / "frozen"), {"serving_default": frozen.serve})
    _fold(model)
    saved_model.write([model], {"serving_default": endpoint(model)}, str(folder / "folded"))


def _fold(model) -> None:
    """Make each BatchNorm a part of the convolution before it, and only a sum itself."""
    import keras
    import tensorflow as tf

    def layers(of):
        for layer in of.layers:
            yield from layers(layer) if isinstance(layer, keras.Model) else (layer,)

    for norm in layers(model):
        if not isinstance(norm, keras.layers.BatchNormalization):
            continue
        (before,) = {
            tensor._keras_history.operation
            for node in norm._inbound_nodes
            for tensor in node.input_tensors
        }
        if not isinstance(before, keras.layers.Conv2D) or len(before._outbound_nodes) > 1:
            raise ValueError(f"{norm.name} does not follow a convolution of its own")
        scale = norm.gamma.numpy() / np.sqrt(norm.moving_variance.numpy() + norm.epsilon)
        shift = norm.beta.numpy() - norm.moving_mean.numpy() * scale
        if before.use_bias:
            shift += before.bias.numpy() * scale
            before.bias.assign(np.zeros_like(shift))
        before.kernel.assign(before.kernel.numpy() * scale)
        norm.call = lambda inputs, training=None, mask=None, shift=shift: tf.nn.bias_add(
            inputs, tf.constant(shift, tf.float32)
        )


def _compare(folder: Path, names: list[str]) -> dict[str, object]:
    import tensorflow as tf

    from tests.benchmarks.maps import map_seams

    pixels = tf.constant(map_seams.scene(SIDE_PX)[np.newaxis])
    models = {name: tf.saved_model.load(str(folder / name)) for name in names}
    serve = {name: one.signatures["serving_default"] for name, one in models.items()}
    answers = {name: one(s1=pixels)["probabilities"].numpy() for name, one in serve.items()}
    seconds = {name: [] for name in names}
    for _ in range(NUM_ROUNDS):
        for name in names:
            seconds[name].append(_seconds(lambda one=serve[name]: one(s1=pixels)))
    expected = answers["float32"]
    cpu = {name: np.array(taken) for name, taken in seconds.items()}
    return {
        name: {
            "megabytes": round(
                sum(p.stat().st_size for p in (folder / name).rglob("*.*")) / 1e6, 1
            ),
            "cpu_ratio": round(float(np.median(cpu["float32"][:, 0] / cpu[name][:, 0])), 2),
            "wall_ratio": round(float(np.median(cpu["float32"][:, 1] / cpu[name][:, 1])), 2),
            "largest_difference": float(np.abs(answers[name] - expected).max()),
            "pixels_of_another_class": float(
                (answers[name].argmax(-1) != expected.argmax(-1)).mean()
            ),
        }
        for name in names
    }


def _seconds(call) -> tuple[float, float]:
    """Return the CPU and wall seconds of a call."""
    begin = time.process_time(), time.perf_counter()
    call()["probabilities"].numpy()
    return time.process_time() - begin[0], time.perf_counter() - begin[1]


def _child(kind: str, folder: Path) -> tuple[float, float]:
    command = [sys.executable, "-W", "ignore", "-m", "tests.benchmarks.maps.export_speed"]
    ran = subprocess.run([*command, kind, str(folder)], check=True, capture_output=True, text=True)
    return tuple(json.loads(ran.stdout.splitlines()[-1]))


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    from tests.benchmarks.maps import map_seams

    if sys.argv[1] == "grappler":
        tf.config.optimizer.set_experimental_options({"auto_mixed_precision_onednn_bfloat16": True})
    loaded = tf.saved_model.load(sys.argv[2])
    image = tf.constant(map_seams.scene(SIDE_PX)[np.newaxis])
    taken = [_seconds(lambda: loaded.signatures["serving_default"](s1=image)) for _ in range(6)]
    print(json.dumps(np.median(taken[2:], axis=0).tolist()))
