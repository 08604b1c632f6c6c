"""Check what is published against programs of others, which are installed apart.

Arguments are names of checks; without any, all of `CHECKS` run. Each prints one JSON
line, and one that fails raises. The docstring of each check says what it needs.
"""

import json
import sys

from tests.peers import api_server, cron_dates, kserve_rest, openvino_numbers

CHECKS = {
    "kubernetes": api_server.check,
    "kserve": kserve_rest.check,
    "openvino": openvino_numbers.check,
    "cron": cron_dates.check,
}

if __name__ == "__main__":
    for name in sys.argv[1:] or CHECKS:
        print(json.dumps({"check": name, **CHECKS[name]()}), flush=True)
