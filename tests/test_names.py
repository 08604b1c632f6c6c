"""Names of modules and pages in docstrings, comments and docs: each must exist in the tree."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.data.runs.repository import REPOSITORY

PACKAGES = ("beam_jobs", "models", "components", "pipeline")
ROOTS = (*PACKAGES, "tests")
MODULES = sorted(path for root in ROOTS for path in (REPOSITORY / root).rglob("*.py"))
PAGES = sorted(
    [
        *(REPOSITORY / "docs").rglob("*.md"),
        *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    ]
)
FILES = {path.relative_to(REPOSITORY).as_posix() for path in MODULES}
FOREIGN = {
    "setup.py",  # what Beam jobs elsewhere need
    "util/misc.py",  # of Copernicus-FM
}
"""Modules that texts name and that are not ours."""


def _texts(path: Path) -> Iterator[tuple[int, str]]:
    """Line number and text of each docstring and comment of a module, or of a whole page."""
    source = path.read_text()
    if path.suffix == ".md":
        yield from enumerate(source.splitlines(), 1)
        return
    for node in ast.walk(ast.parse(source)):
        # Docstrings of modules, classes and functions, and those under a field or a constant.
        value = node.value if isinstance(node, ast.Expr) else None
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            yield node.lineno, value.value
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def _wrong_names(text: str) -> list[str]:
    """The names of modules, folders and pages in `text` that do not exist."""
    wrong = _wrong_pages(text)
    for code in re.findall(r"`([^`\n]+)`", text):
        wrong += [
            name
            for name in re.findall(r"(?<![\w./*{}\-])[\w/\-]+\.py\b", code)
            if not _is_file(name)
        ]
        # A path without an ending: a folder, or a module.
        path = re.fullmatch(rf"((?:{'|'.join(ROOTS)})(?:/[\w\-]+)+)/?", code)
        if path and not _is_path(path.group(1)):
            wrong.append(code)
        wrong += [
            name
            for name in re.findall(rf"(?<![\w./\-])(?:{'|'.join(ROOTS)})(?:\.[A-Za-z_]\w*)+", code)
            if not name.endswith((".py", ".md", ".yaml", ".pb", ".json")) and not _is_dotted(name)
        ]
    return wrong


def _wrong_pages(text: str) -> list[str]:
    pages = re.findall(r"\bdocs/[\w/\-]+\.md\b", text)
    return [page for page in pages if not (REPOSITORY / page).is_file()]


def _is_file(name: str) -> bool:
    return name in FOREIGN or any(file == name or file.endswith(f"/{name}") for file in FILES)


def _is_path(path: str) -> bool:
    return (REPOSITORY / path).exists() or (REPOSITORY / f"{path}.py").is_file()


def _is_dotted(name: str) -> bool:
    """Whether `name` is a package, a module, or a name that a module defines."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        base = "/".join(parts[:length])
        rest = parts[length:]
        if (REPOSITORY / base).is_dir():
            return not rest
        if f"{base}.py" in FILES:
            return not rest or rest[0] in _defined(REPOSITORY / f"{base}.py")
    return False


def _defined(module: Path) -> set[str]:
    """The names at the top level of a module."""
    names = set()
    for node in ast.parse(module.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
        elif isinstance(node, ast.ImportFrom | ast.Import):
            names |= {alias.asname or alias.name for alias in node.names}
    return names


@pytest.mark.parametrize("root", [*ROOTS, "pages"])
def test_every_named_module_exists(root):
    files = (
        PAGES if root == "pages" else [m for m in MODULES if m.is_relative_to(REPOSITORY / root)]
    )
    found = [
        f"{path.relative_to(REPOSITORY)}:{line}: {name}"
        for path in files
        # The test of names names some that do not exist.
        if path != Path(__file__)
        for line, text in _texts(path)
        for name in _wrong_names(text)
    ]
    assert not found, "names that do not exist:\n" + "\n".join(found)


def test_every_page_that_code_names_exists():
    # Error messages and help texts name pages, too.
    found = [
        f"{path.relative_to(REPOSITORY)}: {page}"
        for path in MODULES
        if path != Path(__file__)
        for page in _wrong_pages(path.read_text())
    ]
    assert not found


def test_a_stale_name_is_found():
    assert _wrong_names("see `gone.py` and `beam_jobs/gone/`") == ["gone.py", "beam_jobs/gone/"]
    assert _wrong_names("`models.gone`, `models.losses.gone`") == [
        "models.gone",
        "models.losses.gone",
    ]
    assert _wrong_names("docs/gone.md explains it") == ["docs/gone.md"]


def test_names_that_exist_are_not_found():
    text = "`bands.py`, `contracts/bands.py`, `models/scores`, `tests/conftest.py`, docs/index.md"
    assert _wrong_names(text) == []
    assert _wrong_names("`beam_jobs.contracts.bands.Sensor`, `python -m pipeline run`") == []
    assert (
        _wrong_names("`items.ndjson`, `pipeline/configs/demo.yaml`, `tests/data/make_*.py`") == []
    )
