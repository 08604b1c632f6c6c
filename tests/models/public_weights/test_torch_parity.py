"""Converted weights against PyTorch: files that it wrote, features that it computed.

PyTorch is not a dependency. TERRAPAIR_TORCH_PYTHON names a Python that has it; without
it these tests are skipped, and `test_resnet.py` and `test_files.py` check the same
against oracles of our own.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from beam_jobs.contracts.bands import S1_DEFAULT_BANDS, S2_L1C_BANDS
from models.encoders import SensorEncoder
from models.public_weights.resnet import load_resnet
from models.public_weights.state_dict import read_state_dict, select_resnet

PYTHON = os.environ.get("TERRAPAIR_TORCH_PYTHON") or (
    sys.executable if importlib.util.find_spec("torch") else None
)
BANDS = {"torch_resnet18": S1_DEFAULT_BANDS, "torch_resnet50": S2_L1C_BANDS}

pytestmark = pytest.mark.skipif(
    PYTHON is None, reason="no PyTorch: set TERRAPAIR_TORCH_PYTHON to a Python that has it"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("torch")
    script = Path(__file__).with_name("torch_reference.py")
    subprocess.run(
        [PYTHON, str(script), str(folder)],
        check=True,
        timeout=300,
        env={"PATH": os.environ["PATH"]},
    )
    return folder


@pytest.mark.parametrize(
    ("backbone", "file"),
    [
        ("torch_resnet18", "torch_resnet18.pth"),
        ("torch_resnet18", "torch_resnet18.safetensors"),
        ("torch_resnet50", "torch_resnet50.pth"),
        ("torch_resnet50", "torch_resnet50.safetensors"),
        ("torch_resnet50", "moco.pth"),
    ],
)
def test_every_level_equals_that_of_pytorch(folder, backbone, file, record_property):
    if not (folder / file).exists():
        pytest.skip("that Python has no safetensors")
    bands = BANDS[backbone]
    sensor = "s1" if len(bands) == 2 else "s2"
    zeros, ones = [0.0] * len(bands), [1.0] * len(bands)
    encoder = SensorEncoder(sensor=sensor, bands=bands, mean=zeros, std=ones, backbone=backbone)
    load_resnet(encoder, select_resnet(read_state_dict(folder / file), None)[1], bands)
    expected = np.load(folder / f"{backbone}.npz")
    got = encoder(expected["pixels"])
    for level in encoder.levels:
        difference = (
            np.abs(got[level].numpy() - expected[level]).max() / np.abs(expected[level]).max()
        )
        record_property(level, float(difference))
        print(f"{file} {level}: {difference:.1e}")
        assert got[level].shape == expected[level].shape
        assert difference < 1e-5


def test_old_format_of_pytorch_is_refused(folder):
    with pytest.raises(ValueError, match=r"old\.pth: must be a zip file of torch\.save"):
        read_state_dict(folder / "old.pth")
