"""Damage files: what disks, networks and hands do to them."""

from pathlib import Path


def flip(path: str | Path, position: int = -200) -> str:
    """Flip one bit of one byte; positions count as in a list."""
    content = bytearray(Path(path).read_bytes())
    content[position] ^= 0x10
    Path(path).write_bytes(content)
    return str(path)


def cut(path: str | Path, num_left: int | None = None) -> str:
    """Keep the first half of a file, or `num_left` bytes."""
    content = Path(path).read_bytes()
    Path(path).write_bytes(content[: len(content) // 2 if num_left is None else num_left])
    return str(path)


def replace_by_folder(path: str | Path) -> str:
    """Put an empty folder in place of a file."""
    Path(path).unlink()
    Path(path).mkdir()
    return str(path)
