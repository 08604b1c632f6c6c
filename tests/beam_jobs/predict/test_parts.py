"""Parts: each block of a file is written once, and whole."""

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from beam_jobs.predict import parts
from beam_jobs.predict.blending import Area, Block

ROWS_PER_BLOCK = 32


def cuts(most):
    """Where windows begin and end along an axis, from a first pixel that is not 0."""
    sizes = st.lists(st.integers(1, most), min_size=1, max_size=6)
    return st.tuples(st.integers(0, 90), sizes).map(
        lambda found: list(itertools.accumulate(found[1], initial=found[0]))
    )


@given(rows=cuts(70), cols=cuts(20))
def test_pieces_of_rows_become_rows_of_whole_blocks(rows, cols):
    height, width = rows[-1] - rows[0], cols[-1] - cols[0]
    wanted = np.arange(2 * height * width).reshape(2, height, width)
    pieces = []
    for row, col in itertools.product(itertools.pairwise(rows), itertools.pairwise(cols)):
        area = Area(rows=slice(*row), cols=slice(*col))
        shape = (row[1] - row[0], col[1] - col[0])
        block = Block(
            area=area,
            probabilities=np.zeros((*shape, 2), np.float32),
            valid=np.ones(shape, np.bool_),
        )
        of_rows = wanted[:, row[0] - rows[0] : row[1] - rows[0]]
        pieces.append((block, of_rows[:, :, col[0] - cols[0] : col[1] - cols[0]]))

    found = list(parts.whole_rows(pieces))

    start = rows[0]
    for first, pixels in found:
        assert first == start
        assert (first - rows[0]) % ROWS_PER_BLOCK == 0
        assert pixels.shape[2] == width
        start += pixels.shape[1]
    assert all(pixels.shape[1] % ROWS_PER_BLOCK == 0 for _, pixels in found[:-1])
    np.testing.assert_array_equal(np.concatenate([pixels for _, pixels in found], axis=1), wanted)
