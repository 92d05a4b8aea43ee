"""For every exercise of the series: the solution passes, the stub is not yet done, usual mistakes are met.

The exercises are read from the notebooks themselves, so a new one is tested as soon as it is written.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import itertools
import re
from pathlib import Path

import matplotlib as mpl
import nbformat
import pytest

from hgsr_lite.series import checks

mpl.use("Agg")

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
SERIES = sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
GRADES = {"warm-up", "practice", "challenge"}


def code_cells(path, tag=None):
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    return [cell for cell in cells if tag is None or tag in cell.metadata.get("tags", [])]


def exercises(path):
    """Pairs of a stub's source and the name of the check in the next code cell."""
    cells = code_cells(path)
    found = []
    for cell, following in itertools.pairwise(cells):
        if "exercise" in cell.metadata.get("tags", []):
            found.append((cell.source, re.search(r"^(check_\w+)\(", following.source, re.M)[1]))
    return found


EXERCISES = [(path, stub, check) for path in SERIES for stub, check in exercises(path)]
by_check = pytest.mark.parametrize(
    ("path", "stub", "check"), EXERCISES, ids=[check for _, _, check in EXERCISES]
)


def wrong_answers():
    found = {}
    for path in sorted(Path(__file__).parent.glob("wrong_*.py")):
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        found.update(module.WRONG)
    return found


WRONG = wrong_answers()


def run(source, namespace):
    """What a cell prints, run in a namespace that the cells before it have filled."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(source, "<cell>", "exec"), namespace)
    return said.getvalue()


def test_there_are_at_least_24_exercises_in_three_grades_and_no_check_is_used_twice():
    names = [check for _, _, check in EXERCISES]
    assert len(set(names)) == len(names) >= 24
    texts = "\n".join(path.read_text() for path in SERIES)
    grades = re.findall(r"### Exercise \d+\.\d+ · ([\w-]+)", texts)
    assert len(grades) == len(names)
    assert set(grades) == GRADES


def test_every_check_of_the_package_belongs_to_an_exercise_and_has_wrong_answers():
    offered = {name for name in vars(checks) if name.startswith("check_")}
    assert offered == {check for _, _, check in EXERCISES} == set(WRONG)


@by_check
def test_an_untouched_stub_is_reported_as_not_yet_done(path, stub, check, capsys):
    namespace = {}
    for cell in code_cells(path, "setup"):
        exec(compile(cell.source, "<setup>", "exec"), namespace)
    exec(compile(stub, "<stub>", "exec"), namespace)
    stub_name = re.search(r"^def (\w+)", stub, re.M)[1]
    capsys.readouterr()
    assert getattr(checks, check)(namespace[stub_name]) is False
    assert "not yet done" in capsys.readouterr().out


@pytest.mark.parametrize("path", SERIES, ids=lambda path: path.stem)
def test_every_solution_passes_its_check(path):
    solutions = NOTEBOOKS / "solutions" / path.name
    assert len(code_cells(solutions, "solution")) == len(exercises(path))
    namespace, passed = {}, set()
    for cell in code_cells(solutions):
        said = run(cell.source, namespace)
        checked = re.findall(r"^(check_\w+)\(", cell.source, re.M)
        assert len(re.findall(r": right\.$", said, re.M)) == len(checked), said
        passed |= set(checked)
    assert passed == {check for _, check in exercises(path)}


@pytest.mark.parametrize("check", sorted(WRONG))
def test_usual_mistakes_are_caught_with_the_hint_that_fits(check, capsys):
    answers = WRONG[check]
    assert len(answers) >= 2
    for answer, hint in answers:
        assert getattr(checks, check)(answer) is False, answer.__name__
        said = capsys.readouterr().out
        assert hint.lower() in said.lower(), (answer.__name__, said)
