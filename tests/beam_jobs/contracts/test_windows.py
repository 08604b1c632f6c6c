"""Windows: several spans as one data set, and the statistics of all their pixels."""

import dataclasses
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats

from beam_jobs.contracts import layout, manifest, set_aside, settings, windows
from beam_jobs.contracts.locations import DamagedFileError
from beam_jobs.contracts.manifest import BandStatistics, ShardEntry, SourceEntry, WindowEntry
from beam_jobs.contracts.set_aside import SetAside
from beam_jobs.contracts.windows import WindowConfig, WindowError

CONFIG = {
    "split": {"seed": 17},
    "shards": {"target_shard_mb": 128},
    "label": {"vector": {"path": "floods.geojson", "sha256": "a"}},
}


def band(values, name="VV") -> BandStatistics:
    p02, p50, p98 = np.percentile(values, [2, 50, 98])
    return BandStatistics(
        band=name,
        unit="dB",
        num_pixels=len(values),
        mean=float(np.mean(values)),
        std=float(np.std(values)),
        p02=float(p02),
        p50=float(p50),
        p98=float(p98),
    )


EMPTY = BandStatistics(band="VV", unit="dB", num_pixels=0, mean=0, std=0, p02=0, p50=0, p98=0)


def document(span: int, version: int = 1, *, config=None, **values) -> manifest.Manifest:
    """The manifest of a span whose counts are those of the span's number."""
    config = config or CONFIG
    numbers = {"train": 10 * span, "eval": span, "test": 2 * span}
    fields = {
        "num_examples": numbers,
        "num_pixels_per_class": {split: {"0": n, "1": 1} for split, n in numbers.items()},
        "num_rejected": {"cloudy": span, "in_earlier_span": 100},
        "num_held_out": {"bolivia": {"test": span}},
        "num_absent": {"s2": {"train": span, "test": 1}},
        "num_out_of_range": {"s1": {"VV": span}},
        "shards": {
            layout.shard_name(split, 0, 1): ShardEntry(num_examples=n, num_bytes=9, sha256="ab")
            for split, n in numbers.items()
        },
        "sources": (SourceEntry(sensor="s1", source="x", license="CC", num_pairs=span),),
        "s1_statistics": (band(np.arange(100.0) / span),),
    }
    return manifest.Manifest(
        kind="labels",
        span=span,
        version=version,
        patch_size_px=96,
        pixel_size_m=20.0,
        s1_bands=("VV",),
        s2_bands=(),
        s2_processing_level="L1C",
        label_schema="water",
        s2_statistics=(),
        config=config,
        config_sha256=settings.sha256(config),
        source_sha256=f"{span}" * 64,
        code_sha256="0" * 64,
        code_version="0.1.0",
        **{**fields, **values},
    )


def write(root, *documents):
    for one in documents:
        folder = layout.version_dir(root, one.span, one.version)
        folder.mkdir(parents=True)
        (folder / layout.MANIFEST_NAME).write_text(one.to_json())


def entry(one: manifest.Manifest, splits=layout.SPLITS) -> WindowEntry:
    return WindowEntry(span=one.span, version=one.version, sha256=one.sha256, splits=splits)


def test_the_newest_spans_train_and_all_spans_judge_by_their_newest_version(tmp_path):
    write(tmp_path, document(1), document(2), document(2, 2), document(4))
    found = windows.resolve(tmp_path, WindowConfig(last=2))
    assert [(one.span, one.version, one.splits) for one in found] == [
        (1, 1, ("eval", "test")),
        (2, 2, ("train", "eval", "test")),
        (4, 1, ("train", "eval", "test")),
    ]
    assert windows.describe(found) == "2/2, 4/1; eval and test of 1/1"
    everything = windows.resolve(tmp_path, WindowConfig())
    assert [one.splits for one in everything] == [layout.SPLITS] * 3
    assert windows.resolve(tmp_path, WindowConfig(last=9)) == everything
    assert windows.describe(everything, ".") == "1.1, 2.2, 4.1"
    assert windows.from_json(windows.to_json(found)) == found


def test_what_is_set_aside_is_left_out_until_it_is_put_back_or_built_again(tmp_path):
    def spans(**values):
        found = windows.resolve(tmp_path, WindowConfig(**values))
        return [(one.span, one.version, "train" in one.splits) for one in found]

    def refuse(span, version):
        set_aside.add(
            tmp_path, SetAside(span=span, version=version, at="2026-02-01", reasons=("x",))
        )

    write(tmp_path, document(1), document(2), document(3))
    refuse(2, 1)
    assert spans() == [(1, 1, True), (3, 1, True)]
    # It has no place among the newest, and judges nothing.
    assert spans(last=2) == [(1, 1, True), (3, 1, True)]
    assert spans(last=1) == [(1, 1, False), (3, 1, True)]
    # The scenes were repaired: the record is about the version before.
    write(tmp_path, document(2, 2))
    assert spans() == [(1, 1, True), (2, 2, True), (3, 1, True)]
    # A version that was good before its span got more scenes takes its place again.
    write(tmp_path, document(3, 2))
    refuse(3, 2)
    assert spans()[-1] == (3, 1, True)
    set_aside.put_back(tmp_path, [3], "2026-03-01")
    assert spans() == [(1, 1, True), (2, 2, True), (3, 2, True)]
    # A later refusal of the same version counts again.
    refuse(3, 2)
    assert spans()[-1] == (3, 1, True)


def test_a_window_of_nothing_but_refused_spans_names_both_cures(tmp_path):
    write(tmp_path, document(4))
    set_aside.add(tmp_path, SetAside(span=4, version=1, at="2026-02-01", reasons=("x",)))
    with pytest.raises(WindowError, match=r"every span is set aside.*accept_spans=\[4\]"):
        windows.resolve(tmp_path, WindowConfig())


def test_records_go_with_their_span_and_damage_is_one_line(tmp_path):
    write(tmp_path, document(1), document(2))
    for span in (1, 2):
        set_aside.add(tmp_path, SetAside(span=span, version=1, at="a", reasons=("x",)))
    shutil.rmtree(tmp_path / "span-2" / "version-1")
    assert [one.name for one in set_aside.read(tmp_path)] == ["1.1"]
    (tmp_path / "span-1" / "set-aside-1.json").write_text("{")
    with pytest.raises(DamagedFileError, match=r"set-aside-1.json: .*remove the file"):
        windows.resolve(tmp_path, WindowConfig())


def test_versions_of_the_same_scenes_are_found_in_another_data_set(tmp_path):
    pairs, flood = tmp_path / "pairs", tmp_path / "flood"
    write(pairs, document(3))
    write(flood, document(1), document(2), document(5))

    def scenes(root, span, *names):
        path = layout.version_dir(root, span, 1) / layout.SCENES_NAME
        path.write_text("".join(f"{name}\n" for name in sorted(names)))

    scenes(pairs, 3, "a", "c", "d")
    scenes(flood, 1, "b", "e")
    scenes(flood, 5, "d", "z")
    # Version 2.1 has no list: an early release built it.
    assert set_aside.of_same_scenes(layout.version_dir(pairs, 3, 1), flood) == [(5, 1)]


def test_counts_are_those_of_the_splits_that_are_taken():
    one, two, three = document(1), document(2), document(3)
    window = [entry(one, windows.JUDGED), entry(two), entry(three)]
    merged = windows.merge(window, [one, two, three])
    assert merged.num_examples == {"train": 50, "eval": 6, "test": 12}
    assert merged.num_pixels_per_class["train"] == {"0": 50, "1": 2}
    assert merged.num_pixels_per_class["test"] == {"0": 12, "1": 3}
    # The scenes of earlier spans are not missing: they are a part of the window.
    assert merged.num_rejected == {"cloudy": 5}
    assert merged.num_held_out == {"bolivia": {"test": 6}}
    assert merged.num_absent == {"s2": {"test": 3, "train": 5}}
    assert merged.num_out_of_range == {"s1": {"VV": 5}}
    assert merged.sources == (SourceEntry(sensor="s1", source="x", license="CC", num_pairs=5),)
    assert (merged.span, merged.version, merged.window) == (3, 1, tuple(window))
    assert sorted(merged.shards) == [
        f"span-{span}/version-1/{split}/part-00000-of-00001.tfrecord.gz"
        for span, split in [(1, "eval"), (1, "test")]
        + [(span, split) for span in (2, 3) for split in ("eval", "test", "train")]
    ]
    # The reader checks the counts against the shards, and the seal.
    assert manifest.from_json(merged.to_json()) == merged
    # Another version of an earlier span is other data.
    other = dataclasses.replace(two, num_rejected={"cloudy": 3})
    others = [window[0], entry(other), window[2]]
    assert windows.merge(others, [one, other, three]).sha256 != merged.sha256


def test_one_span_alone_has_its_own_manifest_and_hash():
    one = document(1)
    assert windows.merge([entry(one)], [one]) is one
    assert windows.entries_of(one) == (entry(one),)
    # Cards of older models hold the hash of a manifest without the field.
    assert "window" not in one.to_json()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"split": {"seed": 18}}, "split.seed 17 and 18: use a new root"),
        ({"patch": {"size_px": 64}}, "patch None and {'size_px': 64}"),
        ({"label": {"vector": {"path": "fires.geojson", "sha256": "a"}}}, "label.vector.path"),
    ],
)
def test_spans_of_other_settings_are_refused_with_the_setting(changed, message):
    one, two = document(1), document(2, config={**CONFIG, **changed})
    with pytest.raises(WindowError, match="span 1, version 1 and span 2, version 1 cannot") as e:
        windows.merge([entry(one), entry(two)], [one, two])
    assert message in str(e.value)


@pytest.mark.parametrize(
    "changed",
    [
        {"shards": {"target_shard_mb": 64}},
        {"label": {"vector": {"path": "floods.geojson", "sha256": "b"}}},
    ],
)
def test_the_size_of_shards_and_new_polygons_may_differ(changed):
    one, two = document(1), document(2, config={**CONFIG, **changed})
    assert windows.merge([entry(one), entry(two)], [one, two]).config == two.config


def test_a_version_that_was_built_anew_is_refused(tmp_path):
    one, two = document(1), document(2)
    write(tmp_path, one, two)
    window = windows.resolve(tmp_path, WindowConfig())
    assert windows.read(tmp_path, window).num_examples["train"] == 30
    path = layout.version_dir(tmp_path, 1, 1) / layout.MANIFEST_NAME
    path.write_text(dataclasses.replace(one, num_rejected={}).to_json())
    with pytest.raises(WindowError, match=r"span-1/version-1: was built anew while it was in use"):
        windows.read(tmp_path, window)


def test_a_folder_without_versions_and_a_window_of_nothing_are_refused(tmp_path):
    with pytest.raises(WindowError, match="holds no version of any span: build one first"):
        windows.resolve(tmp_path, WindowConfig())
    with pytest.raises(ValueError, match="last must be at least 1, got 0"):
        WindowConfig(last=0)


def test_a_card_names_its_window_or_its_one_version_or_nothing():
    one, two = document(1), document(2)
    window = (entry(one, windows.JUDGED), entry(two))
    card = {"data_window": settings.to_dict(window), "data_span": 2, "data_version": 1}
    assert windows.of_card(card) == window
    single = {"data_span": 2, "data_version": 1, "data_manifest_sha256": two.sha256}
    assert windows.of_card(single) == (entry(two),)
    assert windows.of_card({"data_span": None, "data_manifest_sha256": None}) == ()


SAMPLES = st.lists(
    st.lists(st.floats(-40.0, 40.0), min_size=1, max_size=30), min_size=1, max_size=4
)


@given(SAMPLES)
def test_mean_and_deviation_are_those_of_all_pixels_and_percentiles_between_the_spans(samples):
    parts = [band(np.array(values)) for values in samples]
    merged = windows.merged_statistics([EMPTY, *parts])
    pooled = np.concatenate(samples)
    assert merged.num_pixels == len(pooled)
    assert merged.mean == pytest.approx(pooled.mean(), abs=2e-6)
    assert merged.std == pytest.approx(pooled.std(), abs=2e-6)
    for name in ("p02", "p50", "p98"):
        known = [getattr(part, name) for part in parts]
        assert min(known) - 1e-4 <= getattr(merged, name) <= max(known) + 1e-4
    assert merged.p02 <= merged.p50 <= merged.p98


def normal(mean, std, num_pixels):
    return BandStatistics(
        band="VV",
        unit="dB",
        num_pixels=num_pixels,
        mean=mean,
        std=std,
        **{
            name: float(stats.norm.ppf(share, mean, std))
            for name, share in (("p02", 0.02), ("p50", 0.5), ("p98", 0.98))
        },
    )


def test_percentiles_of_normal_spans_are_those_of_their_mixture():
    spans = [(-18.0, 3.0, 700), (-9.0, 1.5, 300)]
    merged = windows.merged_statistics([normal(*one) for one in spans])
    for name, share in (("p02", 0.02), ("p50", 0.5), ("p98", 0.98)):
        exact = optimize.brentq(
            lambda x, share=share: sum(n * stats.norm.cdf(x, m, s) for m, s, n in spans) / 1000
            - share,
            -40.0,
            10.0,
        )
        assert getattr(merged, name) == pytest.approx(exact, abs=1e-4)


def test_equal_spans_keep_their_percentiles_and_skewed_ones_come_close():
    rng = np.random.default_rng(3)
    dark = rng.gamma(2.0, 0.05, 20_000)
    assert windows.merged_statistics([band(dark)] * 3) == dataclasses.replace(
        band(dark),
        num_pixels=60_000,
        **{name: round(getattr(band(dark), name), 6) for name in ("mean", "std")},
        **{name: round(getattr(band(dark), name), 4) for name in ("p02", "p50", "p98")},
    )
    light = rng.gamma(4.0, 0.05, 5_000)
    merged = windows.merged_statistics([band(dark), band(light)])
    exact = band(np.concatenate([dark, light]))
    # Within 4 % of the range between the outer percentiles.
    reach = 0.04 * (exact.p98 - exact.p02)
    for name in ("p02", "p50", "p98"):
        assert getattr(merged, name) == pytest.approx(getattr(exact, name), abs=reach)


def test_a_sensor_without_any_scene_stays_without_pixels():
    assert windows.merged_statistics([EMPTY, EMPTY]) == EMPTY
    only = band(np.arange(10.0))
    assert windows.merged_statistics([EMPTY, only]) == only
