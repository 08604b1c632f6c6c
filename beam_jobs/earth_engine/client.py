"""The one import of `ee`, made quiet; the other modules of this package take it from here.

Importing takes a second, so that what needs no Earth Engine (`requests.py`,
`errors.py`) stays clear of it.
"""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    # google.api_core tells at its first import that it will drop Python 3.10; nobody
    # who runs a job can act on it.
    warnings.filterwarnings("ignore", category=FutureWarning, module="google")
    import ee as ee
