"""What the spool and the summary hold comes back equal, and pickles are never loaded."""

import io
import pickle
from collections import Counter
from dataclasses import fields, is_dataclass

import numpy as np
import pytest

from beam_jobs.build import spool, stored, writers
from beam_jobs.build.patches import Rejection
from beam_jobs.build.spool import CutResult, PatchRef
from beam_jobs.build.writers import Origin, Summary
from beam_jobs.contracts.manifest import ShardEntry
from beam_jobs.data_card.contents import Contents
from beam_jobs.data_card.statistics import NUM_BINS, BandSums
from beam_jobs.errors import DataError


def sums(seed: int) -> BandSums:
    rng = np.random.default_rng(seed)
    return BandSums(
        count=rng.integers(-9, 9, 2),
        total=rng.normal(size=2),
        total_squares=rng.normal(size=2) * 1e300,
        histogram=rng.integers(-5, 5, (2, NUM_BINS)),
    )


def ref(**changes) -> PatchRef:
    values = {
        "patch_id": "ab",
        "split": "train",
        "path": "s3://b/ü.data",
        "offset": 1 << 40,
        "num_bytes": 7,
        "pair": "cd",
        "lon": 0.1,
        "lat": float(np.float32(-0.3)),
        "s1_acquired_at": 5,
        "s2_acquired_at": -5,
        "quality": 1 / 3,
    }
    return PatchRef(**{**values, **changes})


CUT = CutResult(
    refs=[ref(), ref(gzip_bytes=3, lon=np.float32(0.1), quality=1)],
    rejections=[Rejection(kind="patches", id="x", reason="cloudy", detail="0.5", is_error=True)],
    band_sums={"s2": sums(0)},
    num_pixels_per_class=Counter({("train", 1): -3, ("eval", 0): 1 << 50}),
)
SUMMARY = Summary(
    band_sums={"s1": sums(1), "s2": sums(2)},
    num_pixels_per_class=Counter({("test", 2): 4}),
    num_rejected=Counter(cloudy=2),
    num_bad_scenes=1,
    first_error='a "b"\n',
    shards={"train/a": ShardEntry(num_examples=1, num_bytes=2, sha256="c")},
    contents=Contents(
        num_examples=Counter(train=1),
        num_held_out=Counter({("a", "test"): 2}),
        blocks={"train": ["a", "b"]},
        acquired_at={"s1": [1, 2]},
        cells=Counter({(3, 4): 5}),
        gaps=Counter({-2: 6}),
        bands={"s1": np.arange(6).reshape(2, 3)},
    ),
    num_pairs=Counter({Origin(sensor="s1", source="a", license="b"): 7}),
)


def assert_same(found, expected):
    """As ==, which arrays do not have."""
    assert type(found) is type(expected) or isinstance(expected, np.generic)
    if isinstance(expected, np.ndarray):
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
    elif is_dataclass(expected):
        for field in fields(expected):
            assert_same(getattr(found, field.name), getattr(expected, field.name))
    elif isinstance(expected, dict):
        assert list(found) == list(expected)
        for key, value in expected.items():
            assert_same(found[key], value)
    else:
        assert found == expected


@pytest.mark.parametrize("value", [CUT, SUMMARY, CutResult(), Summary()])
def test_a_value_comes_back_equal(value):
    content = stored.pack(value)
    assert_same(stored.unpack(type(value), content), value)
    # Everything in it is a plain array.
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        assert all(file[name].dtype != object for name in file.files)


class Harmful:
    """Unpickling it runs code."""

    def __reduce__(self):
        return exec, ("raise SystemError('the pickle ran')",)


def harmful_array() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, document=np.array([Harmful()], object))
    return buffer.getvalue()


OTHERS = {
    "pickle": pickle.dumps(Harmful()),
    "array of objects": harmful_array(),
    "cut short": stored.pack(CUT)[:-30],
    "flipped byte": stored.pack(CUT)[:200] + b"\x55" + stored.pack(CUT)[201:],
    "other value": stored.pack(ref()),
    "empty": b"",
}


def test_no_value_is_pickled():
    with pytest.raises(TypeError, match="NumPy would pickle it"):
        stored.pack(CutResult(band_sums={"s1": np.array([Harmful()], object)}))


@pytest.mark.parametrize("name", OTHERS)
def test_a_spool_file_of_another_format_is_made_again(name, tmp_path, build_config, caplog):
    writer = spool.Writer(str(tmp_path), "task", build_config)
    writer.finish()
    (index,) = tmp_path.glob("*.index")
    assert spool.load(str(tmp_path), "task") == CutResult()

    index.write_bytes(OTHERS[name])
    assert spool.load(str(tmp_path), "task") is None
    (line,) = caplog.messages
    assert line.startswith(f"{index}: is made again: must be an NPZ of a CutResult: ")
    assert "\n" not in line


@pytest.mark.parametrize("name", OTHERS)
def test_a_summary_of_another_format_is_refused(name, tmp_path):
    (tmp_path / writers.SUMMARY_NAME).write_bytes(OTHERS[name])
    with pytest.raises(DataError, match="must be an NPZ of a Summary") as refused:
        writers.read_summary(str(tmp_path))
    assert "\n" not in str(refused.value)
