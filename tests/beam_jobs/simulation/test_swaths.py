"""Edges without data."""

import numpy as np

from beam_jobs.simulation.swaths import shared_margin_mask, swath_mask, track_lean


def test_edges_lean_with_the_orbit() -> None:
    for orbit_state, sign in (("ascending", 1), ("descending", -1)):
        masks = [
            swath_mask(np.random.default_rng(i), 200, orbit_state=orbit_state, edge_probability=1.0)
            for i in range(20)
        ]
        for mask in masks:
            # First valid column of each row where the west is cut, last valid one where
            # the east is.
            edge = mask.argmax(axis=1) if not mask[100, 0] else 199 - mask[:, ::-1].argmax(axis=1)
            inner = edge[(edge > 0) & (edge < 199)]
            slope = np.polyfit(np.arange(len(inner)), inner, 1)[0]
            assert np.sign(slope) == sign
            np.testing.assert_allclose(abs(slope), np.tan(np.radians(12.0)), atol=0.02)
            assert 0.03 <= 1 - mask[100].mean() <= 0.26
        assert {bool(mask[100, 0]) for mask in masks} == {True, False}
    assert track_lean("ascending") == -track_lean("descending")


def test_edge_probability_is_the_share_of_scenes_with_an_edge() -> None:
    masks = (
        swath_mask(np.random.default_rng(i), 64, orbit_state="ascending", edge_probability=0.3)
        for i in range(300)
    )
    cut = [not mask.all() for mask in masks]
    assert abs(np.mean(cut) - 0.3) < 0.08


def test_shared_margin_is_a_rectangle_of_at_most_a_tenth_a_side() -> None:
    for i in range(20):
        mask = shared_margin_mask(np.random.default_rng(i), 100)
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        assert mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        for low, high in ((rows[0], rows[-1]), (columns[0], columns[-1])):
            assert 0 <= low <= 10
            assert 89 <= high <= 99
