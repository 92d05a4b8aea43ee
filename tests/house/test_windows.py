"""Nothing in the package needs what only POSIX systems have. Windows is not at hand: it is pretended."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hgsr_lite.study import job

REPOSITORY = Path(__file__).resolve().parents[2]
EVERY_MODULE = """
import importlib, pkgutil
import hgsr_lite
for module in pkgutil.walk_packages(hgsr_lite.__path__, "hgsr_lite."):
    if module.name != "hgsr_lite.fast.gpu.one_launch":  # for Triton, which is asked for before it is imported
        importlib.import_module(module.name)
"""
A_TRAINING = """
import hgsr_lite as hg
data = hg.load_data("digits", device="cpu", limit=200)
model = hg.build_model("digits_cnn", in_channels=1, num_classes=10, seed=0)
hg.fit(model, data, hg.Regularizer(model, strength=1e-4), proximal=True, epochs=1, checkpoint="state.pt")
print(hg.compact(model, data.test.images[:8])[1])
"""


def on_windows(
    arguments: list[str], folder: Path, house: Path = REPOSITORY
) -> subprocess.CompletedProcess[bytes]:
    """Call Python where each process, kernels too, takes the package's system for Windows."""
    (folder / "sitecustomize.py").write_text("from tests.lanes.windows import pretend\npretend()\n")
    path = os.pathsep.join(map(str, [folder, house, REPOSITORY]))
    # The encoding is that of a console's output, sent to a file.
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONIOENCODING": "cp1252", "TQDM_DISABLE": "1"}
    return subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, capture_output=True)


@pytest.mark.trains
@pytest.mark.parametrize("code", [EVERY_MODULE, A_TRAINING], ids=["every module is imported", "it trains"])
def test_the_package_asks_for_nothing_that_windows_lacks(tmp_path, code):
    told = on_windows(["-c", code], tmp_path)
    assert told.returncode == 0, told.stderr.decode("cp1252")


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("import fcntl", "No module named 'fcntl'"),
        ("from os import fork", "cannot import name 'fork'"),
        ("import signal; signal.SIGKILL", "has no attribute 'SIGKILL'"),
        ("import triton.language", "No module named 'triton.language'"),
    ],
)
def test_a_line_that_asks_for_more_would_be_noticed(tmp_path, line, complaint):
    package = tmp_path / "house" / "hgsr_lite"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(f"{line}\n")
    told = on_windows(["-c", "import hgsr_lite"], tmp_path, tmp_path / "house")
    assert told.returncode != 0
    assert complaint in told.stderr.decode("cp1252")


@pytest.mark.slow
@pytest.mark.notebook
def test_a_notebook_runs_by_the_command_that_needs_no_make(tmp_path):
    notebooks = REPOSITORY / "notebooks"
    build = tmp_path / "build"
    command = ["-m", "hgsr_lite", "run", "01", "--fast", f"--notebooks={notebooks}", f"--build={build}"]
    told = on_windows(command, tmp_path)
    assert told.returncode == 0, told.stderr.decode("cp1252")
    assert (build / "run" / "01_groups_in_a_weight.ipynb").exists()


def test_a_system_that_tells_nothing_of_its_processor_in_a_file_is_asked_in_another_way(monkeypatch):
    def missing(path: Path, *_: object) -> str:
        raise FileNotFoundError(path)

    job._processor.cache_clear()
    monkeypatch.setattr(job.Path, "read_text", missing)
    try:
        assert job._processor()
    finally:
        job._processor.cache_clear()


def test_every_file_can_be_checked_out_there():
    listed = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    files = listed.stdout.splitlines()
    assert not [name for name in files if set(name) & set('<>:"|?*\\') or len(name) > 150]
    assert len({name.lower() for name in files}) == len(files)
