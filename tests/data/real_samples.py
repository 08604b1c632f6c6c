"""Real sample files: TERRAPAIR_SAMPLES names a folder with `terramind`, `bigearthnet`, `ee_geotiff` and `ee_tfrecord`."""

import os
from pathlib import Path

import pytest

SAMPLES = Path(os.environ.get("TERRAPAIR_SAMPLES", "no-samples"))
needs_samples = pytest.mark.skipif(
    not SAMPLES.is_dir(), reason="TERRAPAIR_SAMPLES names no folder of real sample files"
)
