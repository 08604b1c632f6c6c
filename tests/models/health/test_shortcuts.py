import numpy as np
import pytest

from models.health import linear_probe, shortcuts
from tests.data.networks import make_embeddings


def by_name(split):
    return {(item.nuisance, item.sensor): item for item in shortcuts.find_shortcuts(split)}


def test_clean_embeddings_know_no_nuisance():
    found = by_name(make_embeddings.make_split())
    assert set(found) == {
        ("orbit_state", "s1"),
        ("latitude", "s1"),
        ("nodata_edge", "s1"),
        ("latitude", "s2"),
        ("nodata_edge", "s2"),
    }
    for item in found.values():
        assert not item.skipped
        assert item.strength < 0.2, item
        assert item.score.chance == (0.5 if item.nuisance == "orbit_state" else 0.0)


def planted_values(split, nuisance):
    if nuisance == "orbit_state":
        return (split.orbit_state == "ascending").astype(float)
    return split.lat if nuisance == "latitude" else split.valid_fraction["s1"]


@pytest.mark.parametrize("nuisance", ["orbit_state", "latitude", "nodata_edge"])
def test_planted_nuisance_is_found_in_that_sensor_and_nowhere_else(nuisance):
    split = make_embeddings.make_split()
    found = by_name(make_embeddings.plant(split, "s1", planted_values(split, nuisance)))
    others = {key: item for key, item in found.items() if key != (nuisance, "s1")}
    assert found[nuisance, "s1"].strength > 0.5
    assert all(item.strength < 0.3 for item in others.values())


def test_planted_nuisance_with_shuffled_truth_is_at_chance():
    split = make_embeddings.make_split()
    planted = make_embeddings.plant(split, "s1", planted_values(split, "orbit_state"))
    rng = np.random.default_rng(0)
    shuffled = make_embeddings.replace(planted, orbit_state=rng.permutation(split.orbit_state))
    item = by_name(shuffled)["orbit_state", "s1"]
    assert item.score.score == pytest.approx(0.5, abs=0.12)
    assert item.strength == 0.0


def test_embedding_that_only_separates_blocks_is_no_shortcut():
    # A fingerprint of each block: with neighbours in the train folds it would give
    # latitude away.
    split = make_embeddings.make_split(num_blocks=16)
    codes = np.random.default_rng(1).normal(size=(16, make_embeddings.EMBEDDING_DIM))
    block = np.array([int(name[1:]) for name in split.block])
    rows = make_embeddings.unit(
        codes[block] + 0.01 * np.random.default_rng(2).normal(size=(160, 16))
    )
    fingerprinted = make_embeddings.replace(split, embeddings={**split.embeddings, "s1": rows})
    assert by_name(fingerprinted)["latitude", "s1"].strength < 0.3
    leaky = linear_probe.cross_validate_values(rows, split.lat, np.arange(160) % 5)
    assert leaky.score > 0.9


def test_what_does_not_vary_or_cannot_be_held_out_is_skipped_with_its_reason():
    split = make_embeddings.make_split()
    ones = np.ones(len(split), np.float32)
    flat = by_name(
        make_embeddings.replace(
            split,
            orbit_state=np.where(np.arange(160) < 3, "unknown", "ascending"),
            lat=45.0 * ones,
            valid_fraction={"s1": ones, "s2": ones},
        )
    )
    assert flat["orbit_state", "s1"].skipped == "one orbit state only"
    assert flat["latitude", "s2"].skipped == "within 1 degree"
    assert flat["nodata_edge", "s1"].skipped == "no-data edges do not vary"
    one_block = by_name(
        make_embeddings.replace(
            split, orbit_state=np.where(split.block == "b3", "descending", "ascending")
        )
    )
    assert "too few blocks" in one_block["orbit_state", "s1"].skipped
    few = by_name(make_embeddings.make_split(num_patches=12, num_blocks=6))
    assert "12 patches, at least 20" in few["orbit_state", "s1"].skipped
    near = by_name(make_embeddings.make_split(num_blocks=2))
    assert "2 blocks, at least 3" in near["nodata_edge", "s2"].skipped
    assert all(
        item.score is None and item.strength == 0.0 for item in (*few.values(), *near.values())
    )


def test_folds_keep_blocks_whole_and_are_about_equal():
    blocks = np.repeat(np.arange(9), [40, 10, 10, 10, 10, 5, 5, 5, 5])
    folds = linear_probe.spatial_folds(blocks, num_folds=3)
    assert all(len(set(folds[blocks == block])) == 1 for block in range(9))
    assert sorted(np.bincount(folds)) == [30, 30, 40]
    with pytest.raises(ValueError, match="at least 2, got 1"):
        linear_probe.spatial_folds(np.zeros(5))
