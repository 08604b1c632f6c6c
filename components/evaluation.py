"""Evaluation: TFMA's Evaluator with IoU metrics, slices by orbit and thresholds.

Task settings -> EvalConfig -> Evaluator component over the test split. Its blessing
decides whether the Pusher publishes the model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import tensorflow_model_analysis as tfma
from tfx.dsl.components.base.base_component import BaseComponent

from beam_jobs.contracts import layout
from beam_jobs.contracts.fingerprint import source_fingerprint
from beam_jobs.contracts.labels import LabelSchema
from components.shard_readers import ShardEvaluator

SIGNATURE = "serve_examples"
"""Signature of a published segmenter that takes serialized tf.Examples."""
METRICS_MODULE = "components.iou_metrics"
NUM_PIXELS = "num_pixels"
"""First part of the names of the metrics that count the pixels of a class."""
SLICE_FEATURES = ("orbit_state",)
EVALUATION_SOURCES = ("components/evaluation.py", "components/iou_metrics.py", "models/metrics.py")


def create_eval_config(
    schema: LabelSchema,
    min_mean_iou: float,
    min_iou: Mapping[str, float],
    needed_classes: Sequence[str] | None = None,
) -> tfma.EvalConfig:
    """Return the EvalConfig of one task.

    Args:
        schema: classes of the task; each gets a metric `pooled_iou/<class>`.
        min_mean_iou: lower bound of `mean_iou` over the whole split, 0-1.
        min_iou: class name -> lower bound of its pooled IoU, 0-1.
        needed_classes: classes that must have a pixel in the split, or the model is
            refused: it was never tested on them. None = all.

    Raises:
        ValueError: `min_iou` names a class that the schema does not have.
    """
    unknown = sorted(set(min_iou) - set(schema.class_names))
    if unknown:
        raise ValueError(
            f"min_iou: {unknown} are no classes of {schema.name!r}: use "
            f"{', '.join(schema.class_names)}"
        )
    metrics = [
        _metric("MeanIoU", {"num_classes": schema.num_classes, "name": "mean_iou"}, min_mean_iou)
    ]
    for class_id, class_name in enumerate(schema.class_names):
        config = {
            "num_classes": schema.num_classes,
            "class_id": class_id,
            "name": f"pooled_iou/{class_name}",
        }
        metrics.append(_metric("IoU", config, min_iou.get(class_name)))
        if needed_classes is None or class_name in needed_classes:
            config = {**config, "name": f"{NUM_PIXELS}/{class_name}"}
            metrics.append(_metric("NumPixels", config, 1.0))
    return tfma.EvalConfig(
        # No label_key: the truth is a raw bytes feature that only our metric can read.
        # TFMA does not know Keras 3 exports, so the model is loaded as a plain
        # SavedModel.
        model_specs=[tfma.ModelSpec(signature_name=SIGNATURE, model_type=tfma.TF_GENERIC)],
        slicing_specs=[
            tfma.SlicingSpec(),
            *(tfma.SlicingSpec(feature_keys=[name]) for name in SLICE_FEATURES),
        ],
        metrics_specs=[tfma.MetricsSpec(metrics=metrics)],
    )


def create_evaluator(
    name: str,
    examples: BaseComponent,
    model: BaseComponent,
    eval_config: tfma.EvalConfig,
    splits: Sequence[str] = ("test",),
) -> BaseComponent:
    """Return the Evaluator of one task's model.

    Args:
        name: the task's name, suffix of the component id.
        examples: ImportExampleGen of the task.
        model: segment Trainer of the task.
        eval_config: result of `create_eval_config`.
        splits: splits to evaluate; never `train`.

    Raises:
        ValueError: no split, an unknown split, or `train`.
    """
    allowed = set(layout.SPLITS) - {"train"}
    if not splits or not set(splits) <= allowed:
        raise ValueError(f"splits to evaluate must be among {sorted(allowed)}, got {tuple(splits)}")
    return ShardEvaluator(
        examples=examples.outputs["examples"],
        model=model.outputs["model"],
        eval_config=with_code_fingerprint(eval_config),
        example_splits=list(splits),
    ).with_id(f"Evaluator-{name}")


def with_code_fingerprint(eval_config: tfma.EvalConfig) -> tfma.EvalConfig:
    """Return a copy whose metrics carry a hash of the metric code.

    TFX's cache then runs the Evaluator again when that code changes. The Evaluator has
    no custom_config, but the metrics' own config is part of the cache key.
    """
    result = tfma.EvalConfig()
    result.CopyFrom(eval_config)
    fingerprint = source_fingerprint(EVALUATION_SOURCES)
    for spec in result.metrics_specs:
        for metric in spec.metrics:
            metric.config = json.dumps(
                {**json.loads(metric.config), "code": fingerprint}, sort_keys=True
            )
    return result


def _metric(
    class_name: str, config: dict[str, object], lower_bound: float | None
) -> tfma.MetricConfig:
    metric = tfma.MetricConfig(
        class_name=class_name, module=METRICS_MODULE, config=json.dumps(config, sort_keys=True)
    )
    if lower_bound is not None:
        bound = tfma.GenericValueThreshold(lower_bound={"value": lower_bound})
        # Only on the overall slice: a plain `threshold` would apply to each orbit slice
        # too.
        metric.per_slice_thresholds.append(
            tfma.PerSliceMetricThreshold(
                slicing_specs=[tfma.SlicingSpec()],
                threshold=tfma.MetricThreshold(value_threshold=bound),
            )
        )
    return metric
