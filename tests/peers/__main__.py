"""Check what is published against programs of others, which are installed apart.

Arguments are names of checks; without any, all of `CHECKS` run. Each prints one JSON
line. The docstring of each check says what it needs. Exit code 1: a check failed, or
lacks what it needs; the others run all the same. Exit code 2: no check has that name.
"""

import json
import subprocess
import sys

from tests.peers import api_server, cron_dates, kserve_rest, openvino_numbers

CHECKS = {
    "kubernetes": api_server.check,
    "kserve": kserve_rest.check,
    "openvino": openvino_numbers.check,
    "cron": cron_dates.check,
}


def main(names: list[str]) -> int:
    """Run the checks with these names, or all, and return the exit code."""
    if unknown := set(names) - set(CHECKS):
        known = ", ".join(CHECKS)
        print(f"error: no check {', '.join(sorted(unknown))}; there are {known}", file=sys.stderr)
        return 2
    exit_code = 0
    for name in names or CHECKS:
        try:
            print(json.dumps({"check": name, **CHECKS[name]()}), flush=True)
        except (RuntimeError, ValueError, OSError, subprocess.SubprocessError) as error:
            print(f"error: {name}: {error}", file=sys.stderr, flush=True)
            exit_code = 1
    return exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
