import json
import math

import numpy as np

from models.scores import slices
from models.scores.patch_scores import select
from models.scores.score_document import make_document
from models.scores.summary import interval, summarize
from tests.data.networks import make_scores


def test_document_is_strict_json_of_every_score_and_slice_but_those_of_scenes():
    scores = make_scores.make_scores(3, num_patches=24)
    document = json.loads(json.dumps(make_document(scores, "test"), allow_nan=False))
    assert (document["split"], document["num_patches"], document["threshold"]) == ("test", 24, None)
    assert document["scores"] == summarize(scores)
    found = interval(scores, "pooled_iou/class2")
    assert document["intervals"]["pooled_iou/class2"] == [found.low, found.high]
    assert found.low < document["scores"]["pooled_iou/class2"] < found.high
    assert not [name for name in document["slices"] if name.startswith("scene=")]
    for dimension in set(slices.DIMENSIONS) - {"scene"}:
        sizes = [
            part["num_patches"]
            for name, part in document["slices"].items()
            if name.startswith(f"{dimension}=")
        ]
        assert sum(sizes) == 24, dimension
    ghana = summarize(select(scores, scores.event == "flood-a"))
    assert document["slices"]["event=flood-a"]["scores"] == ghana


def test_what_could_not_be_measured_is_null():
    scores = select(make_scores.make_scores(), np.arange(3, 4))
    assert math.isnan(summarize(scores)["mean_iou"])
    document = make_document(scores, "test")
    assert document["scores"]["mean_iou"] is None
    assert document["intervals"]["mean_iou"] == [None, None]
