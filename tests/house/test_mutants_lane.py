"""The lane that puts faults into files: makes them, shows them to tests, tells what was not noticed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.lanes import mutants
from tests.lanes.faults import changed_functions, faults_of

SOURCE = '''\
"""A file to try it on: 1 + 1 in words is no code."""

LIMIT = 3


class Box:
    @property
    def size(self) -> int:
        return self._size + 1

    @size.setter
    def size(self, size: int) -> None:
        self._size = size - 1


def fits(box: Box | None, limit: int = 7) -> bool:
    return box is not None and box.size <= limit


def unknown() -> int:
    return 40 + 2 * 1


def is_big(number: int) -> bool:
    return number > LIMIT
'''
TESTS = """\
from hgsr_lite.toy import Box, fits, is_big


def test_size():
    box = Box()
    box.size = 5
    assert (box._size, box.size) == (4, 5)


def test_fits():
    box = Box()
    box.size = 7
    assert fits(box)
    assert not fits(None)


def test_is_big():
    assert is_big(4)
    assert not is_big(3)
"""
DRIVER = """\
import os, sys, time
from pathlib import Path
from tests.lanes import mutants

mutants.ROOT = Path.cwd()
mutants.ROOMS = (mutants.Room(("toy",), ("checks",)),)
mutants.FILES = ("toy",)
mutants.OWN += ("checks", "test_toy")
mutants.equivalent = lambda name: {("return 40 + 2 * 1", "return 40 + 2 / 1"): "whole"}
status = mutants.main(["toy"])
for trial in (lambda: os._exit(3), lambda: time.sleep(60), lambda: "", lambda: "test_size", lambda: None):
    verdict = mutants.judge(None, trial, 2.0)
    print(verdict.kind, "-", verdict.by)
sys.exit(status)
"""


@pytest.mark.parametrize("room", mutants.ROOMS, ids=lambda room: room.files[0])
def test_each_file_is_tried_with_tests_that_there_are(room):
    assert all((mutants.ROOT / "hgsr_lite" / f"{name}.py").is_file() for name in room.files)
    assert all((mutants.ROOT / test).exists() for test in room.tests)


def test_every_fault_listed_as_equivalent_is_one_of_a_file_that_is_tried():
    for name in mutants.FILES:
        listed = mutants.equivalent(name)
        faults = faults_of((mutants.ROOT / "hgsr_lite" / f"{name}.py").read_text()) if listed else []
        assert listed.keys() <= {(fault.before, fault.after) for fault in faults}
        assert all(listed.values())
    assert {each["file"] for each in mutants.entries()} <= set(mutants.FILES)


def test_faults_are_changes_of_code_and_not_of_words_or_annotations():
    made = {(fault.before, fault.after) for fault in faults_of(SOURCE)}
    assert ("LIMIT = 3", "LIMIT = 4") in made
    assert ("return self._size + 1", "return self._size - 1") in made
    assert ("return number > LIMIT", "return number >= LIMIT") in made
    assert ("@property", "") in made
    assert not any("words" in before or "Box &" in after for before, after in made)


def test_a_change_within_functions_is_told_from_one_that_acts_on_import(tmp_path):
    (path := tmp_path / "toy.py").write_text(SOURCE)
    (setter,) = changed_functions(path, SOURCE.replace("size - 1", "size - 2"))
    assert setter == ("Box.size", 11)
    for before, after in [("LIMIT = 3", "LIMIT = 4"), ("int = 7", "int = 8"), ("    @property\n", "")]:
        assert changed_functions(path, SOURCE.replace(before, after)) is None


@pytest.mark.skipif(sys.platform == "win32", reason="the lane forks")
def test_the_lane_tells_what_no_test_notices_and_a_lost_process_is_no_verdict(tmp_path):
    for name, text in {
        "hgsr_lite/__init__.py": "", "hgsr_lite/toy.py": SOURCE, "checks/test_toy.py": TESTS, "run.py": DRIVER
    }.items():  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(mutants.ROOT)])}
    done = subprocess.run(
        [sys.executable, "run.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr
    head, *told = filter(None, done.stdout.splitlines())
    count = len(faults_of(SOURCE))
    survivors = [line.strip() for line in told if line.strip().startswith("+")]
    assert survivors == [
        "+ def fits(box: Box | None, limit: int = 8) -> bool:",
        *(f"+ return {after}" for after in ("40 - 2 * 1", "41 + 2 * 1", "39 + 2 * 1", "40 + 3 * 1")),
        *(f"+ return {after}" for after in ("40 + 1 * 1", "40 + 2 * 2", "40 + 2 * 0")),
    ]
    assert head.startswith(
        f"toy: noticed {count - 9} of {count}, 1 equivalent (listed), 8 survived, 0 without"
    )
    assert told[-5:] == [
        "no verdict - it ended without an answer",
        "no verdict - still running after 2 s",
        "survived - ",
        "noticed - test_size",
        "noticed - the import",
    ]


def test_a_file_that_is_none_of_ours_is_refused(capsys):
    assert mutants.main(["zeroes"]) == 2
    assert "no file zeroes: choose of groups, table, proximal" in capsys.readouterr().err
