"""A tiny task: real shards and a SavedModel with the signature `serve_examples`."""

import functools
import json
from collections.abc import Callable
from pathlib import Path

import apache_beam as beam
import pytest
import tensorflow as tf
import tensorflow_model_analysis as tfma
from tfx.components.trainer.fn_args_utils import FnArgs
from tfx.types import standard_artifacts
from tfx_bsl.tfxio import tf_example_record

from beam_jobs.contracts import layout, settings
from beam_jobs.runner import LOCAL_RUNNER
from components import evaluation
from components.trainers import segment
from models.config import EncoderConfig
from models.segment_config import SegmentConfig
from tests.data.runs.made_once import made_once
from tests.data.runs.make_artifacts import artifact_of
from tests.data.shards import make_shards


class RollingModel(tf.Module):
    """Predict the label moved by three columns.

    The prediction is 255 where the moved label is 255, and in the first row.
    """

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def serve_examples(self, examples):
        spec = {
            name: tf.io.FixedLenFeature([], kind)
            for name, kind in (("label", tf.string), ("height", tf.int64))
        }
        parsed = tf.io.parse_example(examples, spec)
        label = tf.reshape(tf.io.decode_raw(parsed["label"], tf.uint8), [tf.size(examples), 32, 32])
        rolled = tf.cast(tf.roll(label, shift=3, axis=2), tf.int32)
        first_row = tf.range(32)[None, :, None] == 0
        # Return two outputs, as the published segmenter does. TFMA would turn a single
        # output into an array.
        return {"label": tf.where(first_row, 255, rolled), "probabilities": tf.one_hot(rolled, 2)}


@pytest.fixture(scope="session")
def water_version(tmp_path_factory) -> Path:
    make = functools.partial(make_shards.make_version, kind="labels", label_schema="water")
    return made_once(tmp_path_factory, "components-water", make)


@pytest.fixture(scope="session")
def pairs_version(tmp_path_factory) -> Path:
    make = functools.partial(make_shards.make_version, kind="pairs")
    return made_once(tmp_path_factory, "components-pairs", make)


@pytest.fixture(scope="session")
def rolling_model(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("rolling_model")
    model = RollingModel()
    tf.saved_model.save(model, str(path), signatures={"serve_examples": model.serve_examples})
    return path


@pytest.fixture(scope="session")
def evaluate() -> Callable[[Path, Path, tfma.EvalConfig, str], tfma.EvalResult]:
    """Return a function that runs TFMA as the Evaluator does.

    Its arguments are model, version, config and output folder.
    """

    def evaluate(
        model: Path, version: Path, config: tfma.EvalConfig, output: str
    ) -> tfma.EvalResult:
        config = tfma.utils.update_eval_config_with_defaults(
            evaluation.with_code_fingerprint(config), has_baseline=False, rubber_stamp=True
        )
        source = tf_example_record.TFExampleRecord(
            [str(path) for path in layout.shard_paths(version, "test")],
            raw_record_column_name=tfma.ARROW_INPUT_COLUMN,
            telemetry_descriptors=["test"],
        )
        shared = tfma.default_eval_shared_model(str(model), eval_config=config)
        with beam.Pipeline(LOCAL_RUNNER) as pipeline:
            _ = (
                pipeline
                | source.BeamSource()
                | tfma.ExtractEvaluateAndWriteResults(
                    eval_shared_model=shared, eval_config=config, output_path=output
                )
            )
        return tfma.load_eval_result(output)

    return evaluate


@pytest.fixture(scope="session")
def values_of() -> Callable[..., dict[str, float]]:
    """Return a function that maps a TFMA result and a slice key to values by metric."""

    def values_of(
        result: tfma.EvalResult, slice_key: tuple[tuple[str, str], ...]
    ) -> dict[str, float]:
        (metrics,) = [
            metrics[""][""] for key, metrics in result.slicing_metrics if key == slice_key
        ]
        return {name: value["doubleValue"] for name, value in metrics.items()}

    return values_of


@pytest.fixture(scope="session")
def model(water_version, tmp_path_factory):
    """Model artifact after two steps; its threshold makes it predict some water."""
    make = functools.partial(_train, water_version)
    return artifact_of(
        standard_artifacts.Model, made_once(tmp_path_factory, "components-model", make)
    )


def _train(water_version: Path, root: Path) -> Path:
    config = SegmentConfig(
        sensors=("s1",),
        label_schema="water",
        encoder=EncoderConfig(backbone="small", embedding_dim=8),
        regime="scratch",
        decoder_channels=(8, 8, 8, 8),
        num_steps=2,
        global_batch_size=4,
    )
    segment.run_fn(
        FnArgs(
            train_files=[str(water_version / "train" / "*")],
            eval_files=[str(water_version / "eval" / "*")],
            serving_model_dir=str(root / "Format-Serving"),
            model_run_dir=str(root / "model_run"),
            hyperparameters=json.loads((water_version / "manifest.json").read_text()),
            base_model=None,
            custom_config={"name": "flood", "config": settings.canonical_json(config)},
        )
    )
    return root
