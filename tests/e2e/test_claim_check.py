"""Run claim-check with all arms: it writes a page, and does no job twice.

The images have other sizes, bands and units than the simulator's.
"""

import json
import math

import pytest
import yaml

from beam_jobs.contracts import manifest
from pipeline.claim_check import claim
from tests.data.runs.run_pipeline import run_pipeline_here
from tests.data.scenes import make_eight_bit

# It trains 44 models for two steps each, and publishes none.
pytestmark = pytest.mark.usefixtures("eager_steps")

ARMS = ("multimodal", "simclr", "shuffled", "random", "scratch")
NUM_SEEDS = 3
BATCH_SIZE = 4
# Neither the simulator's size nor that of the shipped configs.
SIZE_PX = 96


def make_config(root, catalog):
    encoder = {"backbone": "small", "embedding_dim": 8, "norm": "group"}
    return {
        "name": "other-images",
        "root": str(root),
        "catalogs": [{"layout": "stac", "path": str(catalog)}],
        "pairs": {
            "patch": {
                "size_px": SIZE_PX,
                "s1_bands": ["VV"],
                "s2_bands": list(make_eight_bit.OPTICAL_BANDS),
            },
            "quality": {"max_cloud_fraction": 1.0},
            # An interval needs test patches of five blocks.
            "split": {"block_size_km": 0.01 * SIZE_PX},
        },
        "pretrain": {
            "encoder": encoder,
            "num_steps": 2,
            "global_batch_size": BATCH_SIZE,
            "num_eval_batches": 1,
        },
        "tasks": [
            {
                "name": "flood",
                "label": {"schema": "water", "label_from": "s1"},
                "segment": {
                    "sensors": ["s1"],
                    "label_schema": "water",
                    "encoder": encoder,
                    "num_steps": 2,
                    "global_batch_size": BATCH_SIZE,
                },
            }
        ],
        "claim": {
            "primary": {"task": "flood", "inputs": "s1", "fraction": 0.5},
            "fractions": [0.5],
            "arms": list(ARMS),
            "settings": [{}, {"strength": 2.0}],
            "num_seeds": NUM_SEEDS,
            # In this process, which has imported TensorFlow.
            "num_processes": 1,
            "num_resamples": 50,
        },
    }


@pytest.fixture(scope="module")
def config_path(tmp_path_factory):
    root = tmp_path_factory.mktemp("claim")
    catalog = make_eight_bit.make_eight_bit(
        root / "scenes", ("train", "train", "eval", "test", "test"), size_px=2 * SIZE_PX
    )
    path = root / "claim.yaml"
    path.write_text(yaml.safe_dump(make_config(root / "run", catalog)))
    return path


@pytest.fixture(scope="module")
def checked(config_path):
    """What a first check printed."""
    ended = run_pipeline_here("claim-check", "--config", str(config_path))
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.fixture
def folder(checked, config_path):
    return config_path.parent / "run" / "claim"


@pytest.fixture
def document(folder):
    return json.loads((folder / claim.CLAIM_FILE).read_text())


@pytest.mark.e2e
@pytest.mark.timeout(1200)
def test_patches_have_the_bands_and_the_size_of_the_images(checked, config_path):
    for name in ("pairs", "flood"):
        version = next((config_path.parent / "run" / "data" / name).glob("span-*/version-*"))
        built = manifest.read(version)
        assert (built.s1_bands, built.s2_bands) == (("VV",), make_eight_bit.OPTICAL_BANDS)
        assert built.patch_size_px == SIZE_PX
        assert all(built.num_examples[split] for split in ("train", "eval", "test"))
    assert "DO NOT TRUST" not in checked


@pytest.mark.e2e
def test_the_document_compares_all_arms_with_each_other_and_with_chance(document):
    (cell,) = document["cells"]
    assert set(cell["arms"]) == set(ARMS)
    for scores in cell["arms"].values():
        assert len(scores["mean_iou_by_seed"]) == NUM_SEEDS
        assert 0 <= scores["mean_iou"] <= 1
    assert set(cell["over"]) == set(ARMS) - {"multimodal"}
    assert cell["difference"] == cell["over"]["simclr"]
    # Two steps teach nothing, so no arm is above a constant answer.
    assert document["primary"]["verdict"] == "cannot decide"
    assert document["primary"]["unit"] == "block"
    assert document["unscored_classes"] == {"flood": []}
    # Two steps teach nothing, so the loss of shuffled pairs is still that of guessing.
    controls = {control["name"]: control for control in document["controls"]}
    assert controls["shuffled loss"]["chance"] == pytest.approx(math.log(BATCH_SIZE))
    assert set(controls) == {
        "shuffled loss",
        "shuffled over random",
        *(f"permuted labels, {arm}" for arm in ARMS),
    }


@pytest.mark.e2e
def test_equal_encoders_are_trained_once_and_trials_publish_no_model(folder):
    # Multimodal has no augmented views, so its two settings are one encoder.
    encoders = sorted(path.name.rsplit("-", 1)[0] for path in (folder / "encoders").iterdir())
    expected = [
        f"{objective}-seed{seed}"
        for objective in ("multimodal", "none", "shuffled", "simclr_s1")
        for seed in range(NUM_SEEDS)
    ]
    assert encoders == sorted([*expected, "simclr_s1-seed0"])
    # Settings and thresholds come from eval. One trial of a setting is not chosen. No
    # SavedModel is exported.
    for split in ("eval", "test"):
        assert len(list(folder.glob(f"trials/*/*/{split}.npz"))) == 2 * NUM_SEEDS * len(ARMS) + 1
    assert not list(folder.glob("**/saved_model.pb"))


@pytest.mark.e2e
def test_the_page_shows_the_verdict_and_a_second_check_does_no_job_again(
    checked, config_path, folder, document
):
    page = (folder / claim.PAGE_FILE).read_text()
    assert document["primary"]["verdict"] in page
    assert "<svg" in page
    assert (folder / "curves.png").stat().st_size > 5_000
    assert f"Page: {folder / claim.PAGE_FILE}" in checked.replace("\n", "")

    results = {path: path.stat().st_mtime_ns for path in folder.glob("*/**/result.json")}
    assert len(results) == 4 * NUM_SEEDS + 1 + 2 * NUM_SEEDS * len(ARMS) + 1
    again = run_pipeline_here("claim-check", "--config", str(config_path))
    assert again.returncode == 0, again.stderr
    assert again.stdout == checked
    assert json.loads((folder / claim.CLAIM_FILE).read_text()) == document
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*/**/result.json")} == results
