"""Random streams and smooth fields."""

import numpy as np

from beam_jobs.simulation.fields import fractal_field, smooth_field, stream


def test_stream_depends_on_seed_purpose_and_keys_and_on_nothing_else() -> None:
    draws = {
        key: stream(*key).random()  # type: ignore[arg-type]
        for key in [(0, "a", 1), (1, "a", 1), (0, "b", 1), (0, "a", 2), (0, "a", 1, 0)]
    }
    assert len(set(draws.values())) == len(draws)
    assert stream(0, "a", 1).random() == draws[0, "a", 1]


def test_smooth_field_has_unit_variance_and_the_scale_asked_for() -> None:
    fields = np.stack([smooth_field(stream(0, "t", i), 101, 7.0) for i in range(60)])
    assert abs(fields.mean()) < 0.05
    assert abs(fields.std() - 1.0) < 0.05

    def correlation(lag: int) -> float:
        return float(np.corrcoef(fields[:, :, :-lag].ravel(), fields[:, :, lag:].ravel())[0, 1])

    # Cubic B-splines: neighbours are nearly alike, and nothing is left beyond the
    # support of four nodes.
    assert correlation(1) > 0.95
    assert abs(correlation(40)) < 0.1


def test_smooth_field_has_no_kinks() -> None:
    field = smooth_field(stream(3, "t"), 200, 20.0)
    assert np.abs(np.diff(field, 2, axis=0)).max() < 0.05
    assert np.abs(np.diff(field, 2, axis=1)).max() < 0.05


def test_fractal_field_keeps_unit_variance_and_roughens_with_persistence() -> None:
    def fields(persistence: float) -> np.ndarray:
        return np.stack(
            [
                fractal_field(stream(0, "t", i), 64, 16.0, num_octaves=4, persistence=persistence)
                for i in range(60)
            ]
        )

    smooth, rough = fields(0.2), fields(0.9)
    assert abs(smooth.std() - 1) < 0.06
    assert abs(rough.std() - 1) < 0.06
    assert np.diff(rough, axis=1).std() > 2 * np.diff(smooth, axis=1).std()


def test_smooth_fields_keep_their_precision() -> None:
    # Scenes that were simulated before must stay the same to the last bit.
    assert smooth_field(stream(0, "t"), 20, 4.0).dtype == np.float64
