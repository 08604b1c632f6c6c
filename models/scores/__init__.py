"""Scores of a segmenter: what it got right, in each patch of a split, and in summary.

- `patch_scores.py`: counts per patch that can be summed; read this first.
- `counting.py`, `scoring.py`: counts of one patch, and of a whole split.
- `calibration.py`: reliability of probabilities, and the best threshold.
- `ranking.py`: average precision, which needs no threshold.
- `units.py`: which patches an interval draws as a whole.
- `slices.py`: patches by event, orbit, cloud cover and the like.
- `summary.py`: scores by name, with intervals.
- `score_file.py`, `score_document.py`: scores as a NumPy file and as JSON values.

Training, `components` and the report import it. Only `scoring.py` needs TensorFlow.
"""
