"""The house: the order of the rooms is a contract, a wrong import breaks it; importing is cheap."""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
HEAVY = (
    "torch",
    "torchvision",
    "numpy",
    "pandas",
    "scipy",
    "sklearn",
    "matplotlib",
    "numba",
    "papermill",
    "triton",
)


def street_holds(folder: Path) -> subprocess.CompletedProcess[str]:
    linter = Path(sys.executable).with_name("lint-imports")
    return subprocess.run([linter, "--no-cache"], cwd=folder, capture_output=True, text=True)


@pytest.fixture
def copied_house(tmp_path: Path) -> Path:
    shutil.copytree(REPOSITORY / "hgsr_lite", tmp_path / "hgsr_lite")
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_contract_holds_for_the_house_as_it_stands(copied_house):
    told = street_holds(copied_house)
    assert told.returncode == 0, told.stdout


@pytest.mark.parametrize(
    ("room", "wrong"),
    [
        ("groups.py", "hgsr_lite.penalties"),  # back up the street
        ("training/settings_of_a_stranger.py", "hgsr_lite.study"),
        ("live/settings_of_a_stranger.py", "hgsr_lite.series.run"),  # neighbours
    ],
)
def test_a_wrong_import_breaks_the_contract(copied_house, room, wrong):
    with (copied_house / "hgsr_lite" / room).open("a") as module:
        module.write(f"\n\ndef late() -> None:\n    import {wrong}\n")
    told = street_holds(copied_house)
    assert told.returncode != 0
    assert wrong in told.stdout


def test_a_room_that_the_contract_does_not_name_is_noticed(copied_house):
    (copied_house / "hgsr_lite" / "utils.py").write_text('"""Whatever."""\n')
    assert "utils" in street_holds(copied_house).stdout


def modules_after(statement: str) -> set[str]:
    told = subprocess.run(
        [sys.executable, "-c", f"{statement}; import sys; print(*sys.modules)"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    return set(told.stdout.split())


def loaded_after(statement: str) -> set[str]:
    return {name.split(".")[0] for name in modules_after(statement)}


def test_a_bare_import_loads_nothing_heavy():
    loaded = loaded_after("import hgsr_lite")
    assert loaded.isdisjoint(HEAVY)
    assert loaded - loaded_after("pass") - sys.stdlib_module_names == {"hgsr_lite", "lazy_loader"}


def test_a_penalty_on_a_model_costs_torch_alone():
    beyond_torch = set(HEAVY) - loaded_after("import torch")
    assert loaded_after("import hgsr_lite as hg; hg.Penalty; hg.Regularizer").isdisjoint(beyond_torch)


def test_every_public_name_can_be_had():
    statement = "import hgsr_lite as hg; [getattr(hg, name) for name in hg.__all__]"
    assert "torchvision" in loaded_after(statement)


@pytest.mark.parametrize(
    "room", sorted(path.parent.name for path in (REPOSITORY / "hgsr_lite").glob("*/__init__.py"))
)
def test_no_file_of_a_room_bears_the_name_of_what_the_room_hands_on(room):
    handed_on = set(importlib.import_module(f"hgsr_lite.{room}").__all__)
    assert handed_on.isdisjoint(path.stem for path in (REPOSITORY / "hgsr_lite" / room).rglob("*.py"))


def test_a_page_of_the_series_does_not_hold_statistics_that_it_does_not_use():
    """They are 60 MB of every open notebook; `scipy.special` has the one quantile that intervals need."""
    page = "import hgsr_lite as hg, hgsr_lite.figures, hgsr_lite.series.checks; hg.load_data('digits')"
    assert modules_after(page).isdisjoint({"scipy.stats", "sklearn", "statsmodels"})
