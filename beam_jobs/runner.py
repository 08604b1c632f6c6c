"""The Beam runner of this machine, for the builds here and for the Beam jobs that TFX starts."""

from __future__ import annotations

LOCAL_RUNNER = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"
"""The direct runner by its own name: the alias DirectRunner first tries one that it downloads (docs/adr/0004)."""


def local_arguments(num_workers: int) -> list[str]:
    """Beam arguments for `num_workers` processes; one stays in the caller's process."""
    mode = "in_memory" if num_workers == 1 else "multi_processing"
    return [f"--runner={LOCAL_RUNNER}", f"--direct_running_mode={mode}", f"--direct_num_workers={num_workers}"]
