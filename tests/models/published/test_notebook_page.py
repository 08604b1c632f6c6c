"""The page for notebooks: its blocks run in order, in a process like that of a notebook."""

import os
import re
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import rasterio

from beam_jobs.contracts.bands import S1_DEFAULT_BANDS
from tests.data.networks import make_embedder, make_segmenter
from tests.data.runs.repository import REPOSITORY
from tests.data.scenes import make_rasters

PAGE = REPOSITORY / "docs" / "howto" / "notebook.md"
# None in place of a module makes its import fail.
BEFORE = """
import sys
for name in ("apache_beam", "tfx", "keras_cv"):
    sys.modules[name] = None
"""
AFTER = """
from keras.saving import get_custom_objects
assert not [name for name in get_custom_objects() if name.startswith("terrapair")]
assert maps._repr_html_().count("<img") == 1
assert patches.label.shape == (2, 64, 64)
"""


@pytest.mark.e2e
def test_the_blocks_of_the_page_run_without_beam_tfx_and_our_classes(tmp_path):
    serving = tmp_path / "runs" / "demo" / "serving"
    bands = {"s1": S1_DEFAULT_BANDS}
    make_segmenter.publish(serving / "flood" / "3", bands)
    make_embedder.publish(serving / "encoder" / "1", {**bands, "s2": ("B4", "B8")})
    pixels = make_rasters.backscatter(150, 96)
    pixels[:, :, :40] -= 8.0
    pixels[:, :30, :20] = np.nan
    make_rasters.write_geotiff(tmp_path / "scene.tif", pixels, descriptions=S1_DEFAULT_BANDS)
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 6
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", "\n".join([BEFORE, *blocks, AFTER])],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, textwrap.shorten(ran.stderr[-2000:], 2000)
    with rasterio.open(tmp_path / "water.tif") as file:
        label, transform = file.read(1), file.transform
    water = make_segmenter.water({"s1": np.moveaxis(pixels, 0, -1)})
    valid = np.isfinite(pixels).all(0)
    np.testing.assert_array_equal(label[valid], (water > 0.6)[valid])
    assert (label[~valid] == 255).all()
    assert transform == make_rasters.north_up()
    hectares = (label == 1).sum() * 0.01
    assert f"{hectares:.1f} ha of water" in ran.stdout
    assert "(2,) (3, 2, 2) (38, 24, 2)" in ran.stdout
