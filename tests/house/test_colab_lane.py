"""The lane of Colab's versions takes a Python that starts, and begins each time without the package."""

from __future__ import annotations

import os
import sys
import venv
from pathlib import Path

import pytest

from tests.lanes import colab


def executable(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


@pytest.mark.skipif(sys.platform == "win32", reason="the lane runs where Colab's versions do")
def test_a_name_on_the_path_that_does_not_start_is_passed_over(tmp_path, monkeypatch):
    executable(tmp_path / "python3.13", "#!/bin/sh\necho 'command not found' >&2\nexit 127\n")
    executable(tmp_path / "python3.12", f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    monkeypatch.setenv("PATH", os.pathsep.join([str(tmp_path), os.environ["PATH"]]))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert colab.newest_python(["python3.13", "python3.12"]) == str(tmp_path / "python3.12")
    with pytest.raises(SystemExit, match=r"none of python3\.13 starts here: name one by --python PATH"):
        colab.newest_python(["python3.13"])


@pytest.mark.skipif(sys.platform == "win32", reason="the lane runs where Colab's versions do")
def test_a_python_that_the_version_manager_holds_and_did_not_choose_is_taken(tmp_path, monkeypatch):
    executable(tmp_path / "python3.13", "#!/bin/sh\necho 'command not found' >&2\nexit 127\n")
    kept = tmp_path / ".pyenv" / "versions" / "3.13.0" / "bin" / "python3.13"
    kept.parent.mkdir(parents=True)
    executable(kept, f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    executable(tmp_path / "python3.12", f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    monkeypatch.setenv("PATH", os.pathsep.join([str(tmp_path), os.environ["PATH"]]))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert colab.newest_python(["python3.13", "python3.12"]) == str(kept)


@pytest.mark.skipif(sys.platform == "win32", reason="the lane runs where Colab's versions do")
def test_a_second_run_begins_without_what_the_first_compiled(tmp_path):
    venv.create(tmp_path, with_pip=True)
    (site,) = tmp_path.glob("lib/python*/site-packages")
    loops = site / "hgsr_lite" / "fast" / "__pycache__"
    loops.mkdir(parents=True)
    (loops / "walk.nbi").touch()
    colab.remove_package(tmp_path)
    assert not (site / "hgsr_lite").exists()


def test_whatever_pip_a_python_brings_the_lane_has_one_that_takes_an_address_on_the_disk(
    tmp_path, monkeypatch
):
    called = []
    monkeypatch.setattr(colab.subprocess, "run", lambda command, check: called.append(command))
    colab.build_environment(tmp_path, sys.executable)
    installs = [" ".join(map(str, command)) for command in called if "install" in command]
    assert "--upgrade pip>=24.1" in installs[0]
    assert "torch==" in installs[1]
