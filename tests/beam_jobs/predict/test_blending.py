"""Windows join without a seam; the oracle is one pass over the whole mirrored scene."""

import itertools
import threading
import tracemalloc
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from beam_jobs.predict.blending import Area, Source, Windows, blend
from beam_jobs.predict.windows import Lattice, mirrored

STRIDE = 4
LATTICE = Lattice(size_px=32, margin_px=8, blend_px=4)


def scene(height, width, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(height, width, 2)).astype(np.float32)
    values[rng.random((height, width)) < 0.1] = np.nan
    return values


def model(pixels):
    """Two channels -> three "probabilities" that look 8 pixels far, on a grid of stride 4."""
    values = np.nan_to_num(pixels["s1"], nan=0.0)
    near = ndimage.uniform_filter(values, (0, 9, 9, 0), mode="constant")
    # The mean of each cell of the stride, as a model with pooling has it.
    batch, height, width, _ = near.shape
    cells = near[..., 0].reshape(batch, height // STRIDE, STRIDE, width // STRIDE, STRIDE)
    coarse = cells.mean((2, 4)).repeat(STRIDE, 1).repeat(STRIDE, 2)
    return np.stack([near[..., 0], near[..., 1], coarse], -1).astype(np.float32)


def windows_of(height, width, lattice=LATTICE):
    return Windows(rows=lattice.windows(height, STRIDE), cols=lattice.windows(width, STRIDE))


def predict(values, area=None, max_batch_px=3 * 32 * 32, lattice=LATTICE):
    height, width, _ = values.shape
    source = Source(read=lambda rows, cols: {"s1": values[rows, cols]}, model=model, num_classes=3)
    whole = Area(rows=slice(0, height), cols=slice(0, width))
    return list(blend(source, windows_of(height, width, lattice), area or whole, max_batch_px))


def joined(blocks, name="probabilities"):
    """The pixels of blocks, which must lie side by side in rows, without gaps."""
    rows = itertools.groupby(blocks, lambda block: (block.area.rows.start, block.area.rows.stop))
    found, at_row = [], blocks[0].area.rows.start
    for (first, last), in_row in rows:
        in_row = list(in_row)
        assert first == at_row
        cols = [block.area.cols for block in in_row]
        assert all(one.stop == other.start for one, other in itertools.pairwise(cols))
        found.append(np.concatenate([getattr(block, name) for block in in_row], axis=1))
        at_row = last
    return np.concatenate(found)


def whole_pass(values):
    """The model on the whole scene, mirrored by a margin at its borders."""
    height, width, _ = values.shape
    sizes = [-(-(n + 16) // STRIDE) * STRIDE for n in (height, width)]
    index = np.ix_(mirrored(-8, sizes[0], height), mirrored(-8, sizes[1], width))
    found = model({"s1": values[index][np.newaxis]})[0, 8 : 8 + height, 8 : 8 + width]
    return np.where(np.isfinite(values).all(-1)[..., np.newaxis], found, 0.0)


@given(height=st.integers(1, 75), width=st.integers(1, 75), seed=st.integers(0, 9))
def test_windows_give_what_one_pass_gives(height, width, seed):
    values = scene(height, width, seed)
    blocks = predict(values)
    np.testing.assert_allclose(joined(blocks), whole_pass(values), atol=1e-5)
    np.testing.assert_array_equal(joined(blocks, "valid"), np.isfinite(values).all(-1))


@given(
    length=st.integers(1, 400), size=st.sampled_from([24, 32, 64]), blend_px=st.sampled_from([0, 4])
)
def test_shares_of_a_pixel_add_up_to_one_and_windows_fit_the_stride(length, size, blend_px):
    lattice = Lattice(size_px=size, margin_px=4, blend_px=blend_px)
    lattice.check(STRIDE)
    windows = lattice.windows(length, STRIDE)
    total = np.zeros(length)
    for window in windows:
        assert window.first % STRIDE == window.size % STRIDE == 0
        assert window.size <= size
        assert window.core - window.first == lattice.margin_px
        beyond = window.first + window.size - window.end
        assert lattice.margin_px <= beyond < lattice.margin_px + STRIDE
        total[window.core : window.end] += window.weights
    np.testing.assert_allclose(total, 1.0, atol=1e-6)


@settings(max_examples=20)
@given(
    height=st.integers(20, 120),
    width=st.integers(20, 120),
    part=st.sampled_from([1, 20, 45]),
    batch=st.sampled_from([1, 5 * 32 * 32]),
)
def test_parts_of_a_scene_have_the_values_of_the_whole(height, width, part, batch):
    values = scene(height, width)
    whole = joined(predict(values))
    rows, cols = LATTICE.cuts(height, part), LATTICE.cuts(width, part)
    assert (rows[0], rows[-1], cols[0], cols[-1]) == (0, height, 0, width)
    for top, bottom in itertools.pairwise(rows):
        for left, right in itertools.pairwise(cols):
            area = Area(rows=slice(top, bottom), cols=slice(left, right))
            found = joined(predict(values, area, batch))
            np.testing.assert_allclose(found, whole[top:bottom, left:right], atol=1e-6)


@given(
    length=st.integers(1, 400),
    part=st.integers(1, 150),
    blend_px=st.sampled_from([0, 4]),
)
def test_a_cut_costs_the_shared_pixels_and_two_margins(length, part, blend_px):
    lattice = Lattice(size_px=32, margin_px=8, blend_px=blend_px)
    windows = lattice.windows(length, STRIDE)
    cuts = lattice.cuts(length, part)
    assert (cuts[0], cuts[-1]) == (0, length)
    seen = 0
    for first, last in itertools.pairwise(cuts):
        within = [found for w in windows if (found := w.within(slice(first, last)))]
        assert all(w.first % STRIDE == w.size % STRIDE == 0 for w in within)
        assert all(w.inside.start >= 8 and w.size - w.inside.stop >= 8 for w in within)
        total = np.zeros(last - first)
        for w in within:
            total[w.core - first : w.end - first] += w.weights
        np.testing.assert_allclose(total, 1.0, atol=1e-6)
        seen += sum(w.size for w in within)
    whole = sum(w.size for w in windows)
    assert seen <= whole + (len(cuts) - 2) * (16 if blend_px else 0)
    # Parts are of about the wanted length, and about as long as each other.
    num_windows = [round((b - a) / lattice.step_px) for a, b in itertools.pairwise(cuts)]
    assert max(num_windows) - min(num_windows) <= 2
    assert max(b - a for a, b in itertools.pairwise(cuts)) <= 1.5 * (part + lattice.step_px) + 8


def test_windows_without_data_are_not_shown_to_the_model():
    values = scene(100, 100)
    values[:, 30:] = np.nan
    seen = []

    def watched(pixels):
        seen.append(pixels["s1"].shape)
        return model(pixels)

    source = Source(
        read=lambda rows, cols: {"s1": values[rows, cols]}, model=watched, num_classes=3
    )
    whole = Area(rows=slice(0, 100), cols=slice(0, 100))
    blocks = list(blend(source, windows_of(100, 100), whole, 10**9))
    windows = LATTICE.windows(100, STRIDE)
    assert sum(shape[0] for shape in seen) == len(windows) * sum(w.core < 30 for w in windows)
    np.testing.assert_allclose(joined(blocks), whole_pass(values), atol=1e-5)


@pytest.mark.parametrize("max_batch_px", [1, 32 * 100])
def test_one_thread_reads_each_row_of_windows_without_reading_columns_twice(max_batch_px):
    values = scene(75, 200)
    spans, threads = [], set()

    @contextmanager
    def reading():
        threads.add(threading.get_ident())
        yield
        threads.add(threading.get_ident())
        spans.append("closed")

    def read(rows, cols):
        threads.add(threading.get_ident())
        spans.append((rows.start, cols.start, cols.stop))
        return {"s1": values[rows, cols]}

    source = Source(read=read, model=model, num_classes=3, reading=reading)
    whole = Area(rows=slice(0, 75), cols=slice(0, 200))
    blocks = list(blend(source, windows_of(75, 200), whole, max_batch_px))
    np.testing.assert_array_equal(joined(blocks), joined(predict(values)))
    assert spans.pop() == "closed"
    assert threads - {threading.get_ident()} == threads
    assert len(threads) == 1
    for _, of_row in itertools.groupby(spans, lambda span: span[0]):
        cols = [(first, last) for _, first, last in of_row]
        assert (cols[0][0], cols[-1][1]) == (0, 200)
        assert all(one[1] == other[0] for one, other in itertools.pairwise(cols))
        # A quarter of a batch at once, because a reader needs several times that memory.
        assert max(last - first for first, last in cols) <= max(32, max_batch_px / 24) / 4


@pytest.mark.parametrize("num_valid_cols", [10**9, 90])
@pytest.mark.parametrize(("height", "width"), [(200, 4000), (1600, 800)])
def test_memory_does_not_grow_with_the_scene(height, width, num_valid_cols):
    lattice = Lattice(size_px=128, margin_px=8, blend_px=4)
    # Windows at the end wait for others of their size.
    max_batch_px = 2 * 128 * 128

    def peak(height, width):
        def read(rows, cols):
            row, col = np.ogrid[rows, cols]
            found = np.stack([np.sin(row + col), np.cos(row - col)], -1).astype(np.float32)
            # If only some columns have data, those of the first rows of windows.
            num_rows = 100 if num_valid_cols < width else height
            found[(row >= num_rows) | (col >= num_valid_cols)] = np.nan
            return {"s1": found}

        source = Source(read=read, model=model, num_classes=3)
        area = Area(rows=slice(0, height), cols=slice(0, width))
        tracemalloc.start()
        num_valid = 0
        for block in blend(source, windows_of(height, width, lattice), area, max_batch_px):
            num_valid += int(block.valid.sum())
        assert num_valid == (height * width if num_valid_cols > width else 100 * num_valid_cols)
        try:
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(height, width) < 1.5 * peak(200, 800)


def test_a_pixel_with_one_of_two_sensors_has_data():
    s1, s2 = scene(40, 40, 1), scene(40, 40, 2)
    source = Source(
        read=lambda rows, cols: {"s1": s1[rows, cols], "s2": s2[rows, cols]},
        model=model,
        num_classes=3,
    )
    whole = Area(rows=slice(0, 40), cols=slice(0, 40))
    valid = joined(list(blend(source, windows_of(40, 40), whole, 1)), "valid")
    np.testing.assert_array_equal(valid, (np.isfinite(s1) | np.isfinite(s2)).all(-1))


@pytest.mark.parametrize(
    ("lattice", "message"),
    [
        (Lattice(size_px=30, margin_px=8, blend_px=4), "size_px must be a multiple .* 4, got 30"),
        (Lattice(size_px=32, margin_px=-4, blend_px=4), "margin_px must be a multiple"),
        (Lattice(size_px=32, margin_px=16, blend_px=0), "larger than 2 \\* margin_px, got 32"),
        (Lattice(size_px=32, margin_px=8, blend_px=12), "at least 2 \\* margin_px \\+ 2"),
    ],
)
def test_windows_that_do_not_fit_are_refused(lattice, message):
    with pytest.raises(ValueError, match=message):
        lattice.check(STRIDE)


def test_a_scene_is_mirrored_without_repeating_its_border():
    np.testing.assert_array_equal(mirrored(-3, 10, 4), [3, 2, 1, 0, 1, 2, 3, 2, 1, 0])
    np.testing.assert_array_equal(mirrored(-2, 3, 1), [0, 0, 0])
