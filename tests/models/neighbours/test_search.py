"""Search against a plain loop, and what is said of each answer against hand-made indexes."""

import numpy as np
import pytest

from models.health import retrieval
from models.neighbours import search as search_lib
from models.neighbours.search import (
    FarPlaceError,
    Query,
    default_max_km,
    draw_patches,
    find_patch,
    search,
)
from tests.data.networks import make_index
from tests.data.networks.make_embeddings import unit


@pytest.fixture(params=[4, 1 << 16], autouse=True)
def pieces(request, monkeypatch):
    """Every search in pieces and whole."""
    monkeypatch.setattr(search_lib, "_KEYS_AT_A_TIME", request.param)


def loop_nearest(queries, keys, k, hidden=None):
    rows, cosines = [], []
    for number, query in enumerate(queries):
        scored = [(-float(np.dot(query, key)), row) for row, key in enumerate(keys)]
        scored = sorted(item for item in scored if hidden is None or item[1] != hidden[number])[:k]
        rows.append([row for _, row in scored])
        cosines.append([-cosine for cosine, _ in scored])
    return rows, cosines


@pytest.mark.parametrize(("num_keys", "k"), [(1, 1), (3, 5), (4, 2), (50, 7), (49, 49)])
def test_nearest_is_what_a_plain_loop_finds(num_keys, k):
    rng = np.random.default_rng(num_keys)
    queries, keys = (unit(rng.normal(size=(size, 6))) for size in (5, num_keys))
    rows, cosines = search_lib.nearest(queries, keys, k)
    expected_rows, expected_cosines = loop_nearest(queries, keys, k)
    assert rows.tolist() == expected_rows
    np.testing.assert_allclose(cosines, expected_cosines, atol=1e-6)


@pytest.mark.parametrize("num_keys", [1, 2, 30])
def test_a_hidden_key_is_not_found(num_keys):
    rng = np.random.default_rng(num_keys)
    keys = unit(rng.normal(size=(num_keys, 6)))
    hidden = rng.integers(num_keys, size=5)
    rows, _ = search_lib.nearest(keys[hidden], keys, 3, hidden)
    assert rows.tolist() == loop_nearest(keys[hidden], keys, 3, hidden)[0]


def test_keys_may_lie_on_disk(tmp_path):
    keys = make_index.make_embeddings(30)["s1"]
    np.save(tmp_path / "keys.npy", keys)
    mapped = np.load(tmp_path / "keys.npy", mmap_mode="r")
    for ours, expected in zip(
        search_lib.nearest(keys[:4], mapped, 3), search_lib.nearest(keys[:4], keys, 3), strict=True
    ):
        np.testing.assert_array_equal(ours, expected)


def test_of_equals_the_first_is_found():
    # Exact in float32, in whatever order they are summed.
    keys = np.zeros((10, 4), np.float32)
    keys[:, 0] = 0.5
    keys[[2, 7], 1] = 0.5
    rows, cosines = search_lib.nearest(np.array([[0.5, 0.5, 0.0, 0.0]], np.float32), keys, 4)
    assert rows.tolist() == [[2, 7, 0, 1]]
    assert cosines.tolist() == [[0.5, 0.5, 0.25, 0.25]]


@pytest.mark.parametrize(("query_sensor", "answer_sensor"), [("s1", "s2"), ("s2", "s1")])
def test_in_a_perfect_index_each_partner_comes_first(query_sensor, answer_sensor):
    index = make_index.make_index(make_index.make_embeddings(25, noise=0))
    results = search(index, range(25), query_sensor=query_sensor, answer_sensor=answer_sensor, k=3)
    for row, found in enumerate(results):
        assert found.row == found.answers[0].row == row
        assert [answer.is_partner for answer in found.answers] == [True, False, False]
        assert [answer.rank for answer in found.answers] == [1, 2, 3]
        assert found.partner.rank == 1
        assert found.partner.similarity == pytest.approx(1.0)


def test_partners_rank_as_recall_counts_them():
    embeddings = make_index.make_embeddings(40, noise=1.0)
    rows = [7, *range(40)]
    results = search(
        make_index.make_index(embeddings), rows, query_sensor="s2", answer_sensor="s1", k=40
    )
    ranks = retrieval.rank_partners(embeddings["s2"], embeddings["s1"])
    assert [found.partner.rank for found in results] == (ranks.num_better[rows] + 1).tolist()
    assert len({found.partner.rank for found in results}) > 1
    for found in results:
        (among_all,) = [answer for answer in found.answers if answer.is_partner]
        assert among_all.rank == found.partner.rank
        assert among_all.similarity == pytest.approx(found.partner.similarity, abs=1e-6)


def test_partners_in_a_collapsed_index_stand_last():
    rows = np.repeat(make_index.make_embeddings(1)["s1"], 12, axis=0)
    (found,) = search(
        make_index.make_index({"s1": rows, "s2": rows}),
        [4],
        query_sensor="s1",
        answer_sensor="s2",
        k=2,
    )
    assert found.partner.rank == 12


def test_within_one_sensor_the_query_is_not_its_own_answer():
    index = make_index.make_index(make_index.make_embeddings(10))
    results = search(index, [3, 8], query_sensor="s1", answer_sensor="s1", k=10)
    for found in results:
        assert sorted(answer.row for answer in found.answers) == [
            row for row in range(10) if row != found.row
        ]
        assert found.partner is None
        assert not any(answer.is_partner for answer in found.answers)


def test_distance_and_date_gap_are_from_the_query_to_the_answer():
    places = [(179.5, 0.0), (-179.5, 0.0), (179.5, 60.0)]
    patches = [
        make_index.make_patch(
            number,
            lon=lon,
            lat=lat,
            s1_acquired_at=86_400 * (number + 10),
            s2_acquired_at=43_200 * number,
        )
        for number, (lon, lat) in enumerate(places)
    ]
    index = make_index.make_index(make_index.make_embeddings(3), patches)
    (found,) = search(index, [0], query_sensor="s1", answer_sensor="s2", k=3)
    answers = sorted(found.answers, key=lambda answer: answer.row)
    # One degree of the equator, and sixty of a meridian.
    assert [answer.distance_km for answer in answers] == pytest.approx(
        [0.0, 111.195, 6671.7], abs=0.01
    )
    assert [answer.gap_days for answer in answers] == pytest.approx([-10.0, -9.5, -9.0])
    (back,) = search(index, [0], query_sensor="s2", answer_sensor="s1", k=3)
    assert sorted(answer.gap_days for answer in back.answers) == pytest.approx([10.0, 11.0, 12.0])


def test_a_patch_is_found_by_its_id_or_by_a_place():
    patches = [
        make_index.make_patch(number, lon=lon) for number, lon in enumerate([10.0, -179.9, 175.0])
    ]
    patches = [patch._replace(lat=20.0) for patch in patches]
    assert find_patch(patches, "patch-002", 0.0) == Query(row=2, place_km=None)
    assert find_patch(patches, "179.9,20", 1e5).row == 1
    assert find_patch(patches, " 40 , -80 ", 1e5).row == 0


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (
            "patch-9",
            "patch 'patch-9': must be a patch_id of the index's 4 patches, or lon,lat in degrees",
        ),
        ("10,north", "patch '10,north': must be a patch_id, or lon,lat in degrees"),
        ("1,2,3", "patch '1,2,3': must be a patch_id, or lon,lat in degrees"),
        ("45,181", "patch '45,181': lon must be -180 to 180 and lat -90 to 90"),
        ("nan,1", "patch 'nan,1': lon must be -180 to 180 and lat -90 to 90"),
    ],
)
def test_a_text_that_names_no_patch_is_refused_in_one_line(wanted, message):
    with pytest.raises(ValueError, match=message) as caught:
        find_patch([make_index.make_patch(number) for number in range(4)], wanted, 5.0)
    assert str(caught.value) == message


def test_patches_are_drawn_once_each_by_seed():
    drawn = draw_patches(50, 20, seed=1)
    assert len(set(drawn)) == 20
    assert drawn == draw_patches(50, 20, seed=1) != draw_patches(50, 20, seed=2)
    assert sorted(draw_patches(5, 20, seed=1)) == [0, 1, 2, 3, 4]


# A degree of latitude is 111.195 km on the sphere of radius 6371.0088 km.
DEGREE_KM = 111.195


def test_a_place_gets_its_nearest_patch_with_the_distance():
    patches = [make_index.make_patch(number, lon=10.0, lat=45.0 + number) for number in range(3)]
    found = find_patch(patches, "10,46.03", 5.0)
    assert found.row == 1
    assert found.place_km == pytest.approx(0.03 * DEGREE_KM, rel=1e-4)


def test_a_place_beyond_the_limit_is_refused_with_distance_and_extent():
    patches = [make_index.make_patch(number, lon=10.0, lat=45.0 + number) for number in range(3)]
    with pytest.raises(FarPlaceError) as caught:
        find_patch(patches, "10,48", 5.0)
    assert caught.value.exit_code == 3
    assert str(caught.value) == (
        "10,48: the index has no patch within 5.0 km (--max-km): the nearest is 111.2 km away, "
        "patch-002 at lon 10.000, lat 47.000; its 3 patches lie in lon 10.000 to 10.000, "
        "lat 45.000 to 47.000"
    )
    # The limit itself is near enough, and what is a little less is not.
    distance = find_patch(patches, "10,48", 200.0).place_km
    assert find_patch(patches, "10,48", distance).row == 2
    with pytest.raises(FarPlaceError):
        find_patch(patches, "10,48", distance - 0.01)


def test_the_extent_of_patches_on_both_sides_of_180_degrees_is_the_short_way():
    patches = [
        make_index.make_patch(number, lon=lon, lat=0.0)
        for number, lon in enumerate((179.5, -179.0, 178.0))
    ]
    with pytest.raises(FarPlaceError, match=r"lon 178.000 to -179.000 \(across 180\), lat 0.000"):
        find_patch(patches, "0,0", 5.0)
    assert find_patch(patches, "-179.99,0", 60.0).row == 0


def test_the_limit_follows_the_size_of_a_patch():
    assert default_max_km(0.96) == pytest.approx(4.8)
    assert default_max_km(0.32) == pytest.approx(1.6)
    assert default_max_km(None) == pytest.approx(5.0)
