"""The settings of a run, as verbs get them.

Options of the command line and the environment -> RunConfig, and where its metadata
are.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from beam_jobs.terminal.options import config_option
from pipeline.config import RunConfig, load_run_config, load_text
from pipeline.metadata_store import Place, find_place

CONFIGS_DIR = Path(__file__).parent / "configs"
"""The shipped configs."""
run_config_option = config_option(
    "the settings of the run, or a shipped one by name, e.g. demo", True
)


def find_config(path: str) -> str:
    """Return the file of a shipped config that is given by its name, else the path."""
    shipped = CONFIGS_DIR / f"{path}.yaml"
    is_name = "/" not in path and not Path(path).exists()
    return str(shipped) if is_name and shipped.is_file() else path


def load(config_path: str, overrides: tuple[str, ...]) -> RunConfig:
    """Return the settings of a run; relative roots become absolute.

    Args:
        config_path: a file, the name of a shipped one, or the JSON text that `compile`
            writes into the first task.
        overrides: as the option --set gives them.

    Raises:
        SettingsError: a setting is wrong.
    """
    if config_path.startswith("{"):
        config = load_text(config_path, "--config", overrides, os.environ)
    else:
        config = load_run_config(find_config(config_path), overrides, os.environ)
    # ML Metadata remembers paths: relative ones would point elsewhere when the next run
    # starts from another folder.
    if "://" not in config.root:
        config = dataclasses.replace(config, root=str(Path(config.root).resolve()))
    if config.local_root:
        config = dataclasses.replace(config, local_root=str(Path(config.local_root).resolve()))
    return config


def find_metadata(config: RunConfig) -> Place:
    """Return where the metadata of a run are.

    Raises:
        SettingsError: the password is not set.
    """
    return find_place(config.metadata, config.metadata_path, os.environ)
