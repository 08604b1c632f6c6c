"""Ranking: scores that need no threshold.

Input: `PatchScores.probability_counts`, summed over patches. Output: average precision
per class. NumPy only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from models import metrics
from models.scores.patch_scores import FloatArray


def average_precision(probability_counts: npt.NDArray[Any]) -> FloatArray:
    """Return the average precision per class, float64 [...], 0-1.

    It is the mean precision over all thresholds, weighted by the recall that each
    threshold adds. A model whose probabilities carry no information has the share of
    pixels that have the class. Pixels of one bin count as equally probable.

    Args:
        probability_counts: number of pixels by truth (other class, this class) and bin
            of the class's probability [..., 2, B], ascending.

    Returns:
        NaN where no pixel has the class.

    Source: scikit-learn, `sklearn.metrics.average_precision_score`, definition.
    """
    counts = np.asarray(probability_counts, np.float64)
    # From the most probable bin downwards.
    hits = counts[..., 1, ::-1]
    found = np.cumsum(counts[..., ::-1], axis=-1)
    precision = metrics.ratio(found[..., 1, :], found.sum(axis=-2))
    weighted = np.where(hits > 0, hits * np.nan_to_num(precision), 0.0)
    return metrics.ratio(weighted.sum(axis=-1), hits.sum(axis=-1))
