"""`python -m beam_jobs`: the program `terrapair`, run from a checkout."""

from __future__ import annotations

from typing import NoReturn

from beam_jobs.terminal import prerequisites


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code; see `beam_jobs/terminal/program.py`."""
    prerequisites.check_python()
    # Only now: an unsupported Python cannot import what the program needs.
    from beam_jobs.terminal import program

    return program.run(arguments)


def main() -> NoReturn:
    """Run the command line of this process and end the process with the exit code."""
    prerequisites.check_python()
    from beam_jobs.terminal import program

    program.main()


if __name__ == "__main__":
    main()
