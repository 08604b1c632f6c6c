"""The one import of `ee`, made quiet; the other modules of this package take it from here.

Importing takes a second, so that what needs no Earth Engine (`requests.py`,
`errors.py`) stays clear of it.
"""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    # google.api_core warns at its first import about the end of life of this Python.
    warnings.filterwarnings("ignore", category=FutureWarning, module="google")
    import ee

__all__ = ["ee"]
