"""The only import of `ee`, without its warnings.

The import takes a second, so `requests` and `errors` do not need it.
"""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    # At its first import, google.api_core warns that it will drop an old Python
    # version. Nobody who runs a job can act on that.
    warnings.filterwarnings("ignore", category=FutureWarning, module="google")
    import ee

__all__ = ["ee"]
