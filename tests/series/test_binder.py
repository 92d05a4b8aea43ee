"""What Binder installs: a CPU build at the tested versions, and of it nothing less than a page needs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
BINDER = REPOSITORY / "binder"
TESTED = REPOSITORY / "constraints.txt"
PACKAGES = ["matplotlib", "numba", "numpy", "pandas", "scipy", "sklearn", "statsmodels", "sympy", "torch"]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Binder's scripts run on Linux")


def post_build(folder: Path, installed: str = "numpy==2.3.5") -> subprocess.CompletedProcess:
    """Run postBuild as it stands; a stand-in for Python writes down how it was called."""
    python = folder / "python"
    show = 'for file; do case "$file" in /dev/fd/*) cat "$file" >>"$CALLS";; esac; done'
    answer = 'case "$*" in -c*) echo "$SITE";; *"pip list"*) echo "$INSTALLED";; esac'
    python.write_text(f'#!/bin/bash\necho "$*" >>"$CALLS"\n{show}\n{answer}\n')
    python.chmod(0o755)
    site = installed_packages(folder / "site")
    environment = {"PATH": f"{folder}:/usr/bin:/bin", "CALLS": str(folder / "calls"), "SITE": str(site)}
    environment["INSTALLED"] = installed
    return subprocess.run(
        ["bash", "binder/postBuild"], cwd=REPOSITORY, env=environment, capture_output=True, text=True
    )


def test_pytorch_comes_without_cuda_at_the_versions_that_were_tested(tmp_path):
    assert post_build(tmp_path).returncode == 0
    first, *pins, rest, own, _, _, last = (tmp_path / "calls").read_text().splitlines()
    assert "--no-deps --index-url https://download.pytorch.org/whl/cpu" in first
    assert pins == re.findall(r"^torch(?:vision)?==.+$", TESTED.read_text(), re.M)
    assert "--constraint binder/constraints.txt" in rest
    assert "--no-deps --editable ." in own
    assert last == "-m hgsr_lite warm"
    assert not (tmp_path / "site" / "pandas" / "tests").exists()


def test_the_constraints_are_the_tested_set_without_cuda():
    """The command that constraints.txt names makes the file that is committed."""
    tested, committed = TESTED.read_text(), (BINDER / "constraints.txt").read_text()
    (command,) = re.findall(r"^# (grep .*) >binder/constraints\.txt$", tested, re.M)
    assert subprocess.check_output(command, shell=True, cwd=REPOSITORY, text=True) == committed
    left_out = ("#", "cuda", "nvidia", "triton")
    assert committed.splitlines() == [pin for pin in tested.splitlines() if not pin.startswith(left_out)]


@pytest.mark.parametrize("package", ["cuda-bindings==13.5.0", "nvidia-cublas==13.4.1.3", "triton==3.9.0"])
def test_a_cuda_package_stops_the_build(tmp_path, package):
    built = post_build(tmp_path, installed=package)
    assert built.returncode == 1
    assert "A CUDA package was installed" in built.stderr
    assert package in built.stdout


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
