"""TFMA metrics of label maps: IoU of one class and mean IoU, sliced by any feature.

Features `label`, `height`, `width` and the model's output `label` -> one shared
confusion matrix per slice -> `mean_iou`, `pooled_iou/<class>` and
`num_pixels/<class>`. The EvalConfig names the metric classes, and TFMA imports them.
The formulas are in `models/metrics.py`.
"""

from __future__ import annotations

import abc
from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
import numpy as np
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.metrics import metric_types, metric_util

from beam_jobs.contracts.labels import IGNORE
from models import metrics

PREDICTION_KEY = "label"
"""Output of a segmenter that holds class ids [H, W]."""
MATRIX_NAME = "_confusion_matrix"
"""TFMA leaves names that start with an underscore out of its results.

The matrix is only an intermediate value.
"""


class ConfusionMatrixPreprocessor(metric_types.Preprocessor):
    """Turn the extracts of one patch into counts int64 [K, K].

    Slicing then moves K*K numbers instead of pixels.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__(name=f"confusion_matrix_{num_classes}")
        self._num_classes = num_classes

    def process(self, extracts: dict[str, Any]) -> Iterator[np.ndarray]:
        """Yield the counts of one patch.

        Raises:
            ValueError: truth and prediction differ in size, or an id is out of range.
        """
        features = extracts[tfma.FEATURES_KEY]
        height, width = (int(np.asarray(features[name]).ravel()[0]) for name in ("height", "width"))
        # dtype object: NumPy's bytes type drops trailing zero bytes, and these are
        # pixels of class 0.
        stored = np.asarray(features["label"], dtype=object).ravel()[0]
        truth = np.frombuffer(stored, np.uint8)
        if truth.size != height * width:
            raise ValueError(
                f"label holds {truth.size} values, not height x width = {height} x {width}"
            )
        prediction = np.asarray(extracts[tfma.PREDICTIONS_KEY][PREDICTION_KEY])
        # reshape removes a leading axis of 1 that batching may have left.
        yield metrics.confusion_matrix(
            truth.reshape(height, width), prediction.reshape(height, width), self._num_classes
        )


class ConfusionMatrixCombiner(beam.CombineFn):
    """Add up the [K, K] counts of a slice."""

    def __init__(self, key: metric_types.MetricKey, num_classes: int) -> None:
        self._key = key
        self._num_classes = num_classes

    def create_accumulator(self) -> np.ndarray:
        """Return zero counts."""
        return np.zeros((self._num_classes, self._num_classes), np.int64)

    def add_input(self, accumulator: np.ndarray, element: np.ndarray) -> np.ndarray:
        """Add the counts of one patch."""
        return accumulator + element

    def merge_accumulators(self, accumulators: Iterable[np.ndarray]) -> np.ndarray:
        """Add up partial counts."""
        return np.sum(list(accumulators), axis=0)

    def extract_output(self, accumulator: np.ndarray) -> dict[metric_types.MetricKey, np.ndarray]:
        """Return the counts under the key that the metrics look up."""
        return {self._key: accumulator}


def _matrix(num_classes: int, model_name: str, output_name: str) -> metric_types.MetricComputation:
    # The key is the same for all metrics of a model, so TFMA computes the matrix once.
    key = metric_types.MetricKey(
        name=f"{MATRIX_NAME}_{num_classes}_ignore_{IGNORE}",
        model_name=model_name,
        output_name=output_name,
    )
    return metric_types.MetricComputation(
        keys=[key],
        preprocessors=[ConfusionMatrixPreprocessor(num_classes)],
        combiner=ConfusionMatrixCombiner(key, num_classes),
    )


class MeanIoU(tfma.metrics.Metric):
    """Mean IoU over the classes in truth or prediction, 0-1; NaN without a pixel."""

    def __init__(self, num_classes: int, name: str = "mean_iou", code: str = "") -> None:
        """Describe the metric.

        Args:
            num_classes: K.
            name: key of the value in the results.
            code: hash of the code; it only changes the Evaluator's cache key.
        """
        super().__init__(
            metric_util.merge_per_key_computations(self._computations),
            num_classes=num_classes,
            name=name,
            code=code,
        )

    def _computations(
        self, num_classes: int, name: str, code: str, model_name: str = "", output_name: str = ""
    ) -> metric_types.MetricComputations:
        matrix = _matrix(num_classes, model_name, output_name)
        key = metric_types.MetricKey(name=name, model_name=model_name, output_name=output_name)

        def result(
            values: dict[metric_types.MetricKey, Any],
        ) -> dict[metric_types.MetricKey, float]:
            return {key: float(metrics.mean_iou(values[matrix.keys[0]]))}

        return [matrix, metric_types.DerivedMetricComputation(keys=[key], result=result)]


class _OfOneClass(tfma.metrics.Metric, abc.ABC):
    """A figure of one class, from the confusion matrix of a slice."""

    def __init__(self, num_classes: int, class_id: int, name: str, code: str = "") -> None:
        """Describe the metric.

        Args:
            num_classes: K.
            class_id: the class, 0..K-1.
            name: key of the value in the results, such as `pooled_iou/<class>`.
            code: hash of the code; it only changes the Evaluator's cache key.
        """
        if not 0 <= class_id < num_classes:
            raise ValueError(f"class_id must be 0..{num_classes - 1}, got {class_id}")
        super().__init__(
            metric_util.merge_per_key_computations(self._computations),
            num_classes=num_classes,
            class_id=class_id,
            name=name,
            code=code,
        )

    @staticmethod
    @abc.abstractmethod
    def figure(counts: np.ndarray, class_id: int) -> float:
        """Return the figure of a class from counts [K, K], rows truth."""

    def _computations(
        self,
        num_classes: int,
        class_id: int,
        name: str,
        code: str,
        model_name: str = "",
        output_name: str = "",
    ) -> metric_types.MetricComputations:
        matrix = _matrix(num_classes, model_name, output_name)
        key = metric_types.MetricKey(name=name, model_name=model_name, output_name=output_name)
        figure = self.figure

        def result(
            values: dict[metric_types.MetricKey, Any],
        ) -> dict[metric_types.MetricKey, float]:
            return {key: figure(values[matrix.keys[0]], class_id)}

        return [matrix, metric_types.DerivedMetricComputation(keys=[key], result=result)]


class IoU(_OfOneClass):
    """IoU of one class over the pooled pixels, 0-1.

    NaN when the class occurs neither in truth nor in prediction.
    """

    @staticmethod
    def figure(counts: np.ndarray, class_id: int) -> float:
        """Return the IoU of a class."""
        return float(metrics.iou_per_class(counts)[class_id])


class NumPixels(_OfOneClass):
    """Number of pixels that the truth gives to one class.

    A class without a pixel has no score, so no threshold of a score can refuse a model
    that never finds it. A threshold of this metric does.
    """

    @staticmethod
    def figure(counts: np.ndarray, class_id: int) -> float:
        """Return the number of true pixels of a class."""
        return float(counts[class_id].sum())
