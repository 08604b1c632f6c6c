"""Import every module of terrapair, and what its functions import.

The build of the image runs this program, after packages were left out.
"""

import ast
import importlib
import inspect
import pkgutil
from collections.abc import Iterator

OPTIONAL = {"openvino"}
"""Packages that terrapair uses where somebody has installed them."""


def imports(source: str) -> Iterator[str]:
    """Yield the modules that a source imports, also within functions."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def main() -> None:
    """Import all.

    Raises:
        ImportError: a package is missing.
    """
    for package in ("beam_jobs", "models", "components", "pipeline"):
        root = importlib.import_module(package)
        for module in pkgutil.walk_packages(root.__path__, f"{package}."):
            # These are programs.
            if module.name.endswith(".__main__"):
                continue
            source = inspect.getsource(importlib.import_module(module.name))
            for name in set(imports(source)) - OPTIONAL:
                importlib.import_module(name)
    # If one of its imports fails, TFMA prints a line and goes on without its names.
    analysis = importlib.import_module("tensorflow_model_analysis")
    if not hasattr(analysis, "default_eval_shared_model"):
        raise ImportError("tensorflow_model_analysis lacks a package: see the line it printed")


if __name__ == "__main__":
    main()
