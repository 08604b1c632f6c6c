"""Look for known vulnerabilities of the locked packages.

`make audit` runs it. pip-audit prints "No known vulnerabilities found" and ends with 0
even when its service answered for no package. This script reads pip-audit's JSON report
instead, and counts a package without an answer as not checked.

Exit codes: 0 every package was checked and nothing new is known; 1 a vulnerability was
found, or some packages were not checked; 3 nothing was checked, because the service
could not be reached.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements.txt"

ACCEPTED: Mapping[str, str] = {
    "CVE-2023-47248": "pyarrow 10.0.1, which tfx-bsl needs; pyarrow-hotfix is in the lock",
    "CVE-2023-24816": "ipython 7.34, which tfx brings; Windows only, and nothing here starts it",
}
"""Known vulnerabilities that we accept, by CVE, each with the reason."""


def verdict(report: Mapping[str, Any]) -> tuple[int, list[str]]:
    """Return the exit code for a report of `pip-audit --format json`, and why.

    The second value is the lines to print.
    """
    packages: Sequence[Mapping[str, Any]] = report["dependencies"]
    skipped = [package for package in packages if "skip_reason" in package]
    if len(skipped) == len(packages):
        reason = f", the first because: {skipped[0]['skip_reason']}" if skipped else ""
        return 3, [f"not checked: no answer for any of {len(packages)} packages{reason}"]
    lines = [f"not checked: {package['name']}: {package['skip_reason']}" for package in skipped]
    num_accepted = 0
    for package in packages:
        for found in package.get("vulns", ()):
            names = {found["id"], *found.get("aliases", ())}
            if names & set(ACCEPTED):
                num_accepted += 1
                continue
            fixed = ", ".join(found.get("fix_versions", ())) or "no release yet"
            label = f"{package['name']} {package['version']}"
            lines.append(f"{label}: {', '.join(sorted(names))}; fixed in {fixed}")
    if lines:
        return 1, lines
    return 0, [
        f"{len(packages)} packages checked: nothing new is known, {num_accepted} known and accepted"
    ]


def main() -> int:
    """Run pip-audit over the lock, print the verdict and return the exit code."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(LOCK), "--require-hashes"]
    command += ["--disable-pip", "--format", "json", "--progress-spinner", "off"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        code, lines = verdict(json.loads(done.stdout))
    except json.JSONDecodeError:
        said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        code, lines = 3, [f"not checked: pip-audit gave no report and said: {said}"]
    print("\n".join(lines), file=sys.stdout if code == 0 else sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
