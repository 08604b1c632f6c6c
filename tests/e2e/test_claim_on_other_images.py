"""Run claim-check on images with other sizes, bands and units than the simulator's."""

import json

import make_eight_bit
import pytest
import yaml
from run_pipeline import run_pipeline_here

from beam_jobs.contracts import manifest

NUM_SEEDS = 3


def make_config(root, catalog):
    encoder = {"backbone": "small", "embedding_dim": 16, "norm": "group"}
    return {
        "name": "other-images",
        "root": str(root),
        "catalogs": [{"layout": "stac", "path": str(catalog)}],
        "pairs": {
            "patch": {
                "size_px": 256,
                "s1_bands": ["VV"],
                "s2_bands": list(make_eight_bit.OPTICAL_BANDS),
            }
        },
        "pretrain": {
            "encoder": encoder,
            "num_steps": 2,
            "global_batch_size": 2,
            "num_eval_batches": 1,
        },
        "tasks": [
            {
                "name": "landcover",
                "label": {
                    "schema": "dynamic_world",
                    "label_from": "s2",
                    "min_labeled_fraction": 0.1,
                    # The simulator has six of the nine classes.
                    "required_classes": ["water", "trees", "grass", "crops", "built", "bare"],
                },
                "quality": {"max_cloud_fraction": 1.0},
                "segment": {
                    "sensors": ["s1", "s2"],
                    "label_schema": "dynamic_world",
                    "encoder": encoder,
                    "num_steps": 2,
                    "global_batch_size": 2,
                },
            }
        ],
        "claim": {
            "primary": {
                "task": "landcover",
                "inputs": "s1+s2",
                "regime": "linear",
                "fraction": 1.0,
            },
            "inputs": ["s1+s2"],
            "fractions": [1.0],
            "arms": ["multimodal", "simclr"],
            "settings": [{}],
            "num_seeds": NUM_SEEDS,
            # A second process would import TensorFlow a second time.
            "num_processes": 1,
            "num_resamples": 50,
        },
    }


@pytest.mark.e2e
@pytest.mark.timeout(1200)
def test_one_radar_band_three_optical_ones_8_bit_and_256_px(tmp_path):
    catalog = make_eight_bit.make_eight_bit(
        # One test place has four blocks, and an interval needs five.
        tmp_path / "scenes",
        ("train", "train", "eval", "test", "test"),
        size_px=512,
    )
    config = tmp_path / "claim.yaml"
    config.write_text(yaml.safe_dump(make_config(tmp_path / "run", catalog)))
    ended = run_pipeline_here("claim-check", "--config", str(config))
    assert ended.returncode == 0, ended.stderr
    built = manifest.read(next((tmp_path / "run/data/pairs").glob("span-*/version-*")))
    assert (built.s1_bands, built.s2_bands, built.patch_size_px) == (
        ("VV",),
        make_eight_bit.OPTICAL_BANDS,
        256,
    )
    assert all(built.num_examples[split] for split in ("train", "eval", "test"))
    document = json.loads((tmp_path / "run/claim/claim.json").read_text())
    (cell,) = document["cells"]
    assert all(len(arm["mean_iou_by_seed"]) == NUM_SEEDS for arm in cell["arms"].values())
    assert "DO NOT TRUST" not in ended.stdout
