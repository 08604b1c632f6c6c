"""Split lists of SEN12MS and DFC2020.

Input: lists of scenes (ROIs1158_spring/s1_63) or of patches
(ROIs1158_spring_s2_124_p100.tif). Output: the split of a patch.

Source: https://github.com/schmitt-muc/SEN12MS (splits): SEN12MS_holdOutScenes.txt and
test_list.txt are the test split, ValidationScenes.txt and val_list.txt choose among the
rest, patches in no list are for training.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from beam_jobs.errors import DataError

_SPLIT_OF_NAME = (("holdout", "test"), ("test", "test"), ("val", "eval"), ("train", "train"))
_SCENE = re.compile(r"(ROIs\d+_[a-z]+)/(?:s1|s2|lc)_(\d+)")
_PATCH = re.compile(r"(ROIs\d+_[a-z]+)_(?:s1|s2|lc|dfc)_(\d+)_p(\d+)(?:\.tif)?")
SEN12MS_LISTS = ("*oldOut*.txt", "*Scenes.txt", "*_list.txt", "*_list.pkl")

Splits = Mapping[str, str]
"""Scene ("ROIs1158_spring_63") or patch ("ROIs1158_spring_63_30") -> split."""


def read(folder: Path, given: Sequence[Path] = (), names: Sequence[str] = SEN12MS_LISTS) -> Splits:
    """Return the splits of the given lists, or of the lists in the folder.

    Args:
        folder: searched for lists, like its sub-folder `splits`.
        given: lists; if empty, those in the folder are used.
        names: patterns of the names of lists.

    Raises:
        DataError: a list is missing, is a pickle, holds a line that is neither scene
            nor patch, or two lists disagree.
    """
    paths = list(given) or _found(folder, names)
    splits: dict[str, str] = {}
    for path in paths:
        split = next((split for word, split in _SPLIT_OF_NAME if word in path.name.lower()), None)
        if split is None:
            raise DataError(
                f"{path}: its name must say which split it lists: holdOut, test, val or train",
                "bad_item",
            )
        for name in _lines(path):
            if splits.setdefault(name, split) != split:
                raise DataError(
                    f"{path}: lists {name} for {split}, another list for {splits[name]}", "bad_item"
                )
    return splits


def split_of(item_id: str, splits: Splits) -> str:
    """Return the split of a patch: its own, or its scene's, or "train".

    Args:
        item_id: of the patch, for example ROIs1158_spring_s1_63_p30.
        splits: as `read` returns them.

    Raises:
        DataError: the id is not one of a patch.
    """
    return listed_split(item_id, splits) or "train"


def listed_split(item_id: str, splits: Splits) -> str | None:
    """Return the split of a patch as `split_of`, or None if it is in no list."""
    match = _PATCH.fullmatch(item_id)
    if match is None:
        raise DataError(f"{item_id}: no patch of SEN12MS or DFC2020 is named so", "bad_item")
    scene = f"{match[1]}_{match[2]}"
    return splits.get(f"{scene}_{match[3]}") or splits.get(scene)


def _found(folder: Path, names: Sequence[str]) -> list[Path]:
    """Return the lists in the folder or its `splits`; text goes before a pickle."""
    paths = {
        path for part in (folder, folder / "splits") for name in names for path in part.glob(name)
    }
    texts = {path.stem for path in paths if path.suffix != ".pkl"}
    return sorted(path for path in paths if path.suffix != ".pkl" or path.stem not in texts)


def _lines(path: Path) -> list[str]:
    """Return the scenes and patches of a list, whatever the ending of its name."""
    try:
        lines = path.read_text(encoding="ascii").split()
    except UnicodeDecodeError:
        lines = ["not text"]
    except OSError as error:
        raise DataError(
            f"{path}: cannot read the split list: {error.strerror}", "missing_file"
        ) from error
    matches = [_SCENE.fullmatch(line) or _PATCH.fullmatch(line) for line in lines]
    bad = next((line for line, match in zip(lines, matches, strict=True) if match is None), None)
    if bad is not None and path.suffix == ".pkl":
        raise DataError(
            f"{path}: a pickle can run code and is not read; use the .txt list of the data set, "
            "or write its names to one, one a line, where you trust the file",
            "bad_item",
        )
    if bad is not None:
        raise DataError(
            f"{path}: must list scenes (ROIs1158_spring/s1_63) or patches, got {bad!r}", "bad_item"
        )
    return ["_".join(match.groups()) for match in matches if match]
