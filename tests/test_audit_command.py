"""`make audit` must not report success when nothing was checked."""

import runpy
import subprocess
import sys

import pytest

from tests.data.runs.repository import REPOSITORY

SCRIPT = REPOSITORY / ".ci" / "audit.py"
AUDIT = runpy.run_path(str(SCRIPT))

CHECKED = {"name": "numpy", "version": "1.26.4", "vulns": []}
SKIPPED = {"name": "keras", "skip_reason": "Dependency not found on PyPI"}
VULNERABLE = {
    "name": "urllib3",
    "version": "1.26.20",
    "vulns": [{"id": "GHSA-1", "aliases": ["CVE-2025-50181"], "fix_versions": ["2.5.0"]}],
}
ACCEPTED = {
    "name": "pyarrow",
    "version": "10.0.1",
    "vulns": [{"id": "PYSEC-2023-238", "aliases": ["CVE-2023-47248"], "fix_versions": ["14.0.1"]}],
}


@pytest.mark.parametrize(
    ("packages", "code", "word"),
    [
        ([CHECKED, ACCEPTED], 0, "1 known and accepted"),
        ([CHECKED, VULNERABLE], 1, "CVE-2025-50181, GHSA-1; fixed in 2.5.0"),
        ([CHECKED, SKIPPED], 1, "not checked: keras"),
        ([SKIPPED, SKIPPED], 3, "no answer for any of 2 packages"),
        ([], 3, "not checked"),
    ],
)
def test_the_exit_code_tells_what_was_checked(packages, code, word):
    found, lines = AUDIT["verdict"]({"dependencies": packages})
    assert found == code
    assert word in "\n".join(lines)


@pytest.fixture
def pip_audit_that(tmp_path, monkeypatch):
    """Return a function that runs the script with a fake pip_audit module of this code."""

    def pip_audit_that(code: str) -> subprocess.CompletedProcess:
        (tmp_path / "pip_audit.py").write_text(code)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        command = [sys.executable, str(SCRIPT)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    return pip_audit_that


def test_a_crash_of_the_scanner_means_not_checked(pip_audit_that):
    done = pip_audit_that("import sys; sys.exit('ConnectionError: no route')")
    assert done.returncode == 3
    assert "not checked" in done.stderr
    assert "no route" in done.stderr


def test_the_report_decides_and_not_the_exit_code_of_the_scanner(pip_audit_that):
    done = pip_audit_that(
        'print(\'{"dependencies": [{"name": "a", "skip_reason": "unreachable"}]}\')'
    )
    assert done.returncode == 3
    assert done.stdout == ""
