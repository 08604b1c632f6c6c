"""`python -m pipeline` and the script `terrapair`: the program with all verbs."""

from __future__ import annotations

from beam_jobs.__main__ import main, run

__all__ = ["main", "run"]

if __name__ == "__main__":
    main()
