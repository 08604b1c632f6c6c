"""The rules of the layout, checked on the files themselves."""

import ast
import re
import sys
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.data.runs.repository import REPOSITORY

PACKAGES = ("beam_jobs", "models", "components", "pipeline")
MODULES = sorted(path for package in PACKAGES for path in (REPOSITORY / package).rglob("*.py"))


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def _imported(path: Path) -> frozenset[str]:
    """Dotted names that a module imports."""
    return frozenset(name for node in ast.walk(_tree(path)) for name in _names_of(node))


def _names_of(node: ast.AST) -> set[str]:
    """Dotted names that a statement imports."""
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    if isinstance(node, ast.ImportFrom) and node.module:
        return {f"{node.module}.{alias.name}" for alias in node.names}
    return set()


PUBLISHED = REPOSITORY / "models" / "published"
READING_SCENES = {PUBLISHED / f"{name}.py" for name in ("arrays", "inference", "loading", "scenes")}
"""Modules of models that call what reads and predicts scenes; see ADR 29."""


def test_models_know_of_the_jobs_only_their_contracts():
    for path in {*(REPOSITORY / "models").rglob("*.py")} - READING_SCENES:
        jobs = {name for name in _imported(path) if name.startswith("beam_jobs")}
        assert all(name.startswith("beam_jobs.contracts") for name in jobs), path


def test_loaded_models_read_scenes_without_beam_and_keras():
    seen, third_party, rest = set(), set(), [PUBLISHED / "loading.py"]
    while rest:
        path = rest.pop()
        if path in seen:
            continue
        seen.add(path)
        # Imports inside functions are for catalogs on object stores.
        for node in _tree(path).body:
            for name in _names_of(node):
                rest += [found for found in _files_of(name) if found in MODULES]
                third_party.add(name.partition(".")[0])
    assert {one.stem for one in seen} >= {"parts", "segmenters", "readers", "blending"}
    assert {"rasterio", "tensorflow"} <= third_party
    assert not third_party & {"apache_beam", "tfx", "keras", "keras_cv", "kfp"}


def _files_of(name: str) -> list[Path]:
    """The files that a dotted name may stand for: a module, or a value of one."""
    found = (REPOSITORY / Path(*parts) for parts in (name.split("."), name.split(".")[:-1]))
    return [path.with_suffix(".py") for path in found]


def test_contracts_are_a_leaf():
    for path in (REPOSITORY / "beam_jobs" / "contracts").rglob("*.py"):
        ours = {name for name in _imported(path) if name.split(".")[0] in PACKAGES}
        assert all(name.startswith("beam_jobs.contracts") for name in ours), path


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_every_module_says_what_it_is_for(path):
    assert ast.get_docstring(_tree(path))


def test_package_inits_hold_a_docstring_only():
    for path in MODULES:
        # The door for notebooks is the only other one; see ADR 29.
        if path.name == "__init__.py" and path.parent != PUBLISHED:
            assert [type(node) for node in _tree(path).body] == [ast.Expr], path


def test_no_module_is_a_drawer():
    drawers = {"util", "utils", "common", "helpers", "misc"}
    assert not [path for path in MODULES if path.stem in drawers]


def test_no_assert_outside_tests():
    found = [
        f"{path}:{node.lineno}"
        for path in MODULES
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.Assert)
    ]
    assert not found


def test_only_readers_and_writers_of_rasters_import_rasterio():
    allowed = {
        "grids",
        "readers",
        "windows",
        "label_rasters",
        "label_vectors",
        "inspection",
        "resampling",
        "samples",
        "items",
        "export",
        "pixels",
        "rasters",
        "land_cover",
        "patch_files",
        "geotiff",
        "raster",
        "gdal",
        "open_files",
        "opening",
        "placed",
        "ee_tfrecord",
        "mixer",
        "zarr_store",
        "sources",
        "floods",
        "maps",
        "outlines",
        "parts",
        "pictures",
        "polygons",
        "writing",
    }
    found = {
        path.stem
        for path in MODULES
        if re.search(r"^(import|from) rasterio", path.read_text(), re.MULTILINE)
    }
    assert found <= allowed


def test_only_one_module_computes_intervals():
    # Quantiles of resamples or of a distribution, and draws with replacement. The data
    # jobs take quantiles of pixels and compute no interval.
    names = {
        *("quantile", "percentile", "nanquantile", "nanpercentile"),
        *("multinomial", "ndtr", "ndtri", "stdtr", "stdtrit", "standard_t"),
    }

    def computes(node: ast.AST) -> bool:
        if isinstance(node, ast.Attribute):
            return node.attr in names
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            drawn_once = any(
                word.arg == "replace" and isinstance(word.value, ast.Constant)
                for word in node.keywords
            )
            return node.func.attr == "choice" and not drawn_once
        return isinstance(node, ast.Constant) and node.value in (1.96, 1.645, 2.576)

    paths = [path for path in MODULES if path.relative_to(REPOSITORY).parts[0] != "beam_jobs"]
    found = {
        path
        for path in paths
        if any(map(computes, ast.walk(_tree(path))))
        or any(name.startswith(("scipy.stats", "statsmodels")) for name in _imported(path))
        or any(name.rpartition(".")[2] in names for name in _imported(path))
    }
    assert found == {REPOSITORY / "models" / "intervals.py"}


def test_only_the_earth_engine_package_imports_its_client():
    importers = {
        path for path in MODULES if any(name.split(".")[0] == "ee" for name in _imported(path))
    }
    assert importers == {REPOSITORY / "beam_jobs" / "earth_engine" / "client.py"}
    through_it = {
        path.parent.name
        for path in MODULES
        if "beam_jobs.earth_engine.client.ee" in _imported(path)
    }
    assert through_it == {"earth_engine"}


def test_every_direct_dependency_is_pinned_and_has_a_reason():
    text = (REPOSITORY / "pyproject.toml").read_text()
    section = text[text.index("dependencies = [") : text.index("[dependency-groups]")]
    lines = [line.strip() for line in section.splitlines() if line.strip().startswith('"')]
    assert len(lines) > 15
    for line in lines:
        assert re.fullmatch(r'"[\w\-\[\],]+==[\w.]+",\s+# \S.*', line), line


def test_every_third_party_import_is_a_direct_dependency():
    text = (REPOSITORY / "pyproject.toml").read_text()
    declared = {
        name.lower().replace("-", "_")
        for name in re.findall(r'^\s*"([\w\-]+)(?:\[[\w,]+\])?==', text, re.MULTILINE)
    }
    # Distributions whose import name differs.
    declared |= {"yaml", "PIL", "absl", "tensorflow_serving", "ee", "google", "grpc"}
    # Only where it is installed, in a process of its own: models/published/second_reader.py.
    declared |= {"openvino"}
    imported = {name.split(".")[0] for path in MODULES for name in _imported(path)}
    assert imported - sys.stdlib_module_names - set(PACKAGES) <= declared


def test_lock_holds_every_direct_dependency_at_its_pin():
    text = (REPOSITORY / "pyproject.toml").read_text()
    section = text[text.index("dependencies = [") : text.index("[dependency-groups]")]
    locked = dict(
        re.findall(
            r"^([\w\-]+)==([\w.]+)", (REPOSITORY / "requirements.txt").read_text(), re.MULTILINE
        )
    )
    for name, version in re.findall(r'"([\w\-]+)(?:\[[\w,]+\])?==([\w.]+)"', section):
        assert locked[name.lower()] == version, name


def test_code_version_is_that_of_the_project():
    from beam_jobs.contracts.manifest import CODE_VERSION

    assert f'version = "{CODE_VERSION}"' in (REPOSITORY / "pyproject.toml").read_text()


def test_tests_have_one_package_file():
    folder = REPOSITORY / "tests"
    assert list(folder.rglob("__init__.py")) == [folder / "__init__.py"]


def test_no_modules_import_each_other_in_a_circle():
    names = {".".join(path.relative_to(REPOSITORY).with_suffix("").parts): path for path in MODULES}
    graph = {}
    for name, path in names.items():
        # `from a.b import c` may name the module a.b.c or a value of the module a.b.
        # Imports inside functions and under TYPE_CHECKING count too.
        found = _imported(path)
        found |= {imported.rpartition(".")[0] for imported in found}
        graph[name] = found & names.keys() - {name}
    assert "beam_jobs.contracts.bands" in graph["beam_jobs.contracts.records"]
    list(TopologicalSorter(graph).static_order())  # Raises CycleError with the circle.
