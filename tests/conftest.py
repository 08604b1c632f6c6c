"""Puts tests/data on the path, so that every test can `import make_shards`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "data"))
