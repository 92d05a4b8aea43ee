"""Compiling is explained once, and done beforehand where somebody asks for it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from hgsr_lite.fast import first_use
from hgsr_lite.fast.first_use import explained


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(first_use, "AFTER", 0.05)
    monkeypatch.setattr(first_use, "_said", threading.Event())


def test_a_long_first_call_is_explained_once_a_process(capsys):
    for function in (explained(time.sleep), explained(time.sleep)):
        for _ in range(2):
            function(0.5)
    assert capsys.readouterr().err.count("compiles its loops") == 1


def test_a_quick_first_call_and_a_long_later_one_say_nothing(capsys):
    sleep = explained(time.sleep)
    sleep(0)
    sleep(0.3)
    assert capsys.readouterr().err == ""


def test_where_outputs_are_compared_nothing_is_said(capsys, monkeypatch):
    monkeypatch.setenv(first_use.QUIET, "1")
    explained(time.sleep)(0.3)
    assert capsys.readouterr().err == ""


def test_an_error_passes_through(capsys):
    with pytest.raises(ZeroDivisionError):
        explained(lambda: 1 / 0)()
    time.sleep(0.2)
    assert capsys.readouterr().err == ""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_after_warming_a_reader_waits_for_no_compiler(tmp_path):
    """Numba's cache is filled by `warm`: training and skipping in another process find every loop in it.

    On two threads, as a reader's machine has them (`fit` then trains on one), and with the package alone.
    """
    names = ("matplotlib", "nbformat", "IPython", "ipywidgets", "papermill", "psutil", "dask", "distributed")
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({names}))\n")
    path = os.pathsep.join(map(str, [tmp_path, Path(__file__).parents[2]]))
    environment = {"NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": path, "PATH": ""}
    environment |= {"HOME": str(tmp_path), "OMP_NUM_THREADS": "2", "TQDM_DISABLE": "1"}
    subprocess.run([sys.executable, "-m", "hgsr_lite", "warm"], env=environment, check=True)
    compiled = sorted(path.name for path in tmp_path.rglob("*.nbc"))
    assert compiled
    train = (
        "import hgsr_lite as hg\n"
        "data = hg.load_data('digits', device='cpu', limit=200)\n"
        "model = hg.build_model('digits_cnn', in_channels=1, num_classes=10, seed=0)\n"
        "for options in ({}, {'proximal': True}, {'augment': True}):\n"
        "    hg.fit(model, data, hg.Regularizer(model, strength=1e-4), epochs=1, **options)\n"
        "for layer in (model.features.conv2, model.features.conv3):\n"
        "    layer.weight.data[:, 2:] = 0\n"
        "small, _ = hg.skip_dead_kernels(model, data.train.images[:16])\n"
        "small(data.train.images[:64])\n"
    )
    subprocess.run([sys.executable, "-c", train], env=environment, check=True)
    assert sorted(path.name for path in tmp_path.rglob("*.nbc")) == compiled
