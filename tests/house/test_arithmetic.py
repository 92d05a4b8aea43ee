"""`make test-arithmetic` reaches all that trains, in settings that differ, and tells how it went."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lanes import arithmetic

REPOSITORY = Path(__file__).resolve().parents[2]
TESTS = sorted((REPOSITORY / "tests").glob("*/test_*.py"))
MARKED = "mark.trains"
NOT_OF_THE_PROCESSOR = {
    "test_cuda": "a GPU's arithmetic",
    "test_first_use": "which loops are compiled, not what they compute",
    "test_skeleton": "reads notebooks",
}


@pytest.mark.parametrize("path", TESTS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_file_of_tests_that_trains_has_marked_tests(path):
    source = path.read_text("utf-8")
    if arithmetic.TRAINS.search(source) and path.stem not in NOT_OF_THE_PROCESSOR:
        assert MARKED in source, f"mark what trains in {path.name} with @pytest.mark.trains"


def test_every_two_values_of_two_variables_meet_in_a_setting():
    for one, other in itertools.combinations(range(len(arithmetic.NAMES)), 2):
        values = [{setting[place] for setting in arithmetic.SETTINGS.values()} for place in (one, other)]
        met = {(setting[one], setting[other]) for setting in arithmetic.SETTINGS.values()}
        assert met == set(itertools.product(*values))


def test_the_settings_reach_the_processes_and_a_failure_in_one_is_the_commands(tmp_path):
    """Through the command itself: a test that passes in one setting only."""
    (tmp_path / "test_luck.py").write_text(
        "import json, os, pathlib, pytest, torch\n"
        "@pytest.mark.trains\n"
        "def test_luck():\n"
        "    told = pathlib.Path(__file__).with_name(os.environ['ATEN_CPU_CAPABILITY'] + '.json')\n"
        "    capability = torch.backends.cpu.get_cpu_capability()\n"
        "    told.write_text(json.dumps([torch.get_num_threads(), capability]))\n"
        "    assert torch.get_num_threads() == 1\n"
        "def test_not_chosen():\n"
        "    assert False\n"
    )
    options = ["-q", "-p", "no:cacheprovider", "-c", str(REPOSITORY / "pyproject.toml"), str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "hgsr_lite", "test-arithmetic", "wide", "mixed", *options],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 1, done.stdout
    wide, mixed = done.stdout.rstrip().splitlines()[-2:]
    assert wide.split()[:2] == ["wide", "passed"]
    assert mixed.split()[:2] == ["mixed", "FAILED"]
    found = {path.stem: json.loads(path.read_text()) for path in tmp_path.glob("*.json")}
    assert {name: threads for name, (threads, _) in found.items()} == {"avx2": 1, "default": 2}
    assert found["default"][1] == "DEFAULT"
