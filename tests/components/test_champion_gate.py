"""ChampionGate: a champion that cannot be compared, and a first model without thresholds."""

import dataclasses
import json

import pytest

from beam_jobs.contracts import layout, manifest
from components.champion_gate import Candidate, decide
from models.gate import champion as champion_lib
from models.gate.config import GateConfig
from models.publishing.publication import Approval, publish
from models.scores.score_file import write_scores
from tests.data.networks import make_scores, make_segmenter

BANDS = {"s1": ("VV", "VH")}


@pytest.fixture
def candidate(water_version, tmp_path):
    """A new model of the bands VV and VH; its folder holds a text in place of the graph."""
    read = manifest.read(water_version)
    model = tmp_path / "candidate"
    model.mkdir()
    (model / "saved_model.pb").write_text("new graph")
    make_segmenter.write_card(model, BANDS)
    scores = dataclasses.replace(make_scores.make_scores(), class_names=("dry", "water"))
    write_scores(tmp_path / "scores.npz", scores)
    return Candidate(
        model_dir=str(model),
        scores_file=str(tmp_path / "scores.npz"),
        test=champion_lib.TestSplit(
            manifest=read,
            files=[str(path) for path in layout.shard_paths(water_version, "test")],
            data_root=str(water_version.parents[1]),
        ),
        reached=True,
        has_thresholds=True,
        batch_size=4,
    )


@pytest.fixture
def serve(tmp_path):
    """Return a function that puts a model with this card in service."""

    def serve(bands=BANDS, **card):
        folder = tmp_path / "champion"
        folder.mkdir()
        (folder / "saved_model.pb").write_text("graph in service")
        make_segmenter.write_card(folder, bands, **card)
        publish(str(folder), str(tmp_path / "serving"), Approval(reason="first"))
        return str(tmp_path / "serving" / "1")

    return serve


@pytest.mark.parametrize(
    ("bands", "card", "why"),
    [
        ({"s1": ("VV",)}, {}, "has the bands {'s1': ['VV']}, the new model {'s1': ['VV', 'VH']}"),
        (BANDS, {"class_names": ["dry", "water", "ice"]}, "; gone: ice"),
        (BANDS, {"pixel_size_m": 20.0}, "pixel size in metres 20.0, the new model 10.0"),
        # It has no Keras model, so it cannot be run any more.
        (BANDS, {}, "cannot be scored: "),
    ],
)
def test_a_champion_that_cannot_be_compared_stays_unless_that_is_accepted(
    candidate, serve, tmp_path, bands, card, why
):
    champion = serve(bands, **card)
    served = str(tmp_path / "serving")
    found = decide(candidate, served, GateConfig())
    assert (found.outcome, found.champion, found.comparisons) == ("refused", champion, ())
    (reason,) = found.reasons
    assert reason.startswith(f"it cannot be compared with the model in service: {champion}: ")
    assert why in reason
    assert "gate.accept_incomparable=true" in reason

    accepted = GateConfig(accept_incomparable=True)
    blessed = decide(candidate, served, accepted)
    assert blessed.outcome == "blessed"
    assert why in blessed.notes[0]
    # Then only the thresholds judge, so there must be some, and it must reach them.
    without = dataclasses.replace(candidate, has_thresholds=False)
    assert "has no thresholds" in decide(without, served, accepted).reasons[0]
    missed = dataclasses.replace(candidate, reached=False)
    assert decide(missed, served, accepted).reasons == ("it misses a threshold of the task",)


def test_a_first_model_needs_thresholds(candidate, tmp_path):
    served = str(tmp_path / "serving")
    first = decide(candidate, served, GateConfig())
    assert (first.outcome, first.champion) == ("blessed", "")
    without = dataclasses.replace(candidate, has_thresholds=False)
    refused = decide(without, served, GateConfig())
    assert refused.outcome == "refused"
    assert "set min_mean_iou or min_iou" in refused.reasons[0]
    assert json.loads(refused.to_json())["outcome"] == "refused"


def test_the_model_in_service_is_not_published_again(candidate, tmp_path):
    served = str(tmp_path / "serving")
    publish(candidate.model_dir, served, Approval(reason="first"))
    assert decide(candidate, served, GateConfig()).outcome == "in_service"
