"""Puts tests/data on the path, so that every test can `import make_shards`, and keeps all processes on Keras 3."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "data"))
# Before any import of TFX, which would choose Keras 2 for this process and its children.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "0")
