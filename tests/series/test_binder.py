"""What Binder installs: a CPU build at the tested versions, and of it nothing less than a page needs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
BINDER = REPOSITORY / "binder"
PACKAGES = ["matplotlib", "numba", "numpy", "pandas", "scipy", "sklearn", "statsmodels", "sympy", "torch"]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Binder's scripts run on Linux")


def test_pytorch_comes_without_cuda_at_the_versions_that_were_tested(tmp_path):
    """postBuild is run as it stands; a stand-in for Python writes down how it was called."""
    calls = tmp_path / "calls"
    python = tmp_path / "python"
    show = 'for file; do case "$file" in /dev/fd/*) cat "$file" >>"$CALLS";; esac; done'
    answer = 'if [ "$1" = -c ]; then echo "$SITE"; fi'
    python.write_text(f'#!/bin/bash\necho "$*" >>"$CALLS"\n{show}\n{answer}\n')
    python.chmod(0o755)
    site = installed_packages(tmp_path / "site")
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "CALLS": str(calls), "SITE": str(site)}
    subprocess.run(["bash", "binder/postBuild"], cwd=REPOSITORY, env=environment, check=True)
    first, *pins, rest, own, _, _, last = calls.read_text().splitlines()
    assert "--no-deps --index-url https://download.pytorch.org/whl/cpu" in first
    tested = (REPOSITORY / "constraints.txt").read_text()
    assert pins == re.findall(r"^torch(?:vision)?==.+$", tested, re.M)
    assert "--constraint constraints.txt" in rest
    assert "--no-deps --editable ." in own
    assert last == "-m hgsr_lite warm"
    assert not (site / "pandas" / "tests").exists()


def test_tests_and_headers_of_other_packages_go_and_what_runs_stays(tmp_path):
    site = installed_packages(tmp_path)
    stays = [
        "torch/testing/a.py",
        "torch/bin/torch_shm_manager",
        "jedi/stubs/test/a.pyi",
        "scipy/linalg/a.py",
    ]
    goes = [
        "torch/test/a",
        "torch/bin/protoc",
        "torch/bin/upgraders/a",
        "torch/include/a.h",
        "scipy/linalg/tests/a.py",
        "scipy/linalg/tests/tests/a.py",
    ]
    for name in stays + goes:
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).touch()
    subprocess.run(["bash", BINDER / "slim", site], check=True)
    assert [name for name in stays + goes if (site / name).exists()] == stays


def test_a_pytorch_that_brings_no_programs_is_no_fault(tmp_path):
    subprocess.run(["bash", BINDER / "slim", installed_packages(tmp_path)], check=True)


def installed_packages(folder: Path) -> Path:
    """A folder with every package that is made smaller."""
    for name in PACKAGES:
        (folder / name / "tests").mkdir(parents=True)
    return folder
