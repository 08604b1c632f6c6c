"""Where the repository is, for tests that start processes in it or read its files."""

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
