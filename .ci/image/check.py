"""Import every module of terrapair: the image must have all that they need.

The build of the image runs it, after packages were left out.
"""

import importlib
import pkgutil

import tensorflow_model_analysis

for package in ("beam_jobs", "models", "components", "pipeline"):
    root = importlib.import_module(package)
    for module in pkgutil.walk_packages(root.__path__, f"{package}."):
        # These are programs.
        if not module.name.endswith(".__main__"):
            importlib.import_module(module.name)
# If one of its imports fails, TFMA prints a line and goes on without its names.
if not hasattr(tensorflow_model_analysis, "default_eval_shared_model"):
    raise ImportError("tensorflow_model_analysis lacks a package: see the line that it printed")
