"""Find real sample files, for tests that are skipped without them.

TERRAPAIR_SAMPLES names a folder with the sub-folders `terramind`, `bigearthnet`,
`ee_geotiff` and `ee_tfrecord`.
"""

import os
from pathlib import Path

import pytest

SAMPLES = Path(os.environ.get("TERRAPAIR_SAMPLES", "no-samples"))
needs_samples = pytest.mark.skipif(
    not SAMPLES.is_dir(), reason="TERRAPAIR_SAMPLES names no folder of real sample files"
)
