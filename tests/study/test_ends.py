"""Each path's end is found by one rule, and what finds it becomes grids of the study's file."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hgsr_lite.study import command, ends
from hgsr_lite.study.command import add_arguments, carry_out
from hgsr_lite.study.ends import NEAR, further_grids, next_amount, path_ends, searched
from hgsr_lite.study.engine import Outcome
from hgsr_lite.study.runs import Run
from hgsr_lite.study.study import Study
from hgsr_lite.study.verdicts import TUNED
from hgsr_lite.training import Penalised, Recipe

TEXT = """
[images]
limit = 100
[shared]
width = 0.25
epochs = 1
finetune = 1
seed = [0, 1]
[[grid]]
baseline = "dense"
[[grid]]
penalty = ["gl", "hsq_gl12"]
grouping = ["feature", "neuron"]
fraction = [1, 4]
[[grid]]
penalty = "l1"
fraction = [2, 10]
proximal = true
warmup = 0.5
seed = [1, 2]
[[grid]]
baseline = "magnitude"
unit = "kernel"
share = [0.2, 0.5, 0.9]
"""
LIMITS = {"gl": 2.3, "hsq_gl12": 55.0, "l1": 0.9, "magnitude": 0.63}
"""The fraction at which each penalty's path ends in the runs made up here: in, above and below its grid."""


def study_of(folder: Path, text: str) -> Study:
    (folder / "small.toml").write_text(text)
    study = Study.read(folder / "small.toml")
    study.folder.check_writable()
    return study


def write(study: Study, recipe: Recipe) -> None:
    """The file of a run that keeps its accuracy up to a penalty's limit, and no further."""
    accuracy, method = 0.95 + 0.01 * (recipe.seed - 1), recipe.method
    amount = method and (method.fraction if isinstance(method, Penalised) else method.share)
    if method and amount > LIMITS[method.penalty if isinstance(method, Penalised) else method.by]:
        accuracy -= 0.05
    metrics = {TUNED[0]: accuracy, "parameters": 9, "parameters left": 9, "calibrated strength": 1.0}
    record = {"ended": "finished", "metrics": metrics, "layers": {}, "epochs": [], "seconds": 0.0}
    study.folder.write(Run(recipe, study.grid.images, study.fingerprint, {**record, "environment": {}}))


@pytest.fixture
def study(tmp_path: Path) -> Study:
    made = study_of(tmp_path, TEXT)
    for recipe in made.grid.recipes:
        write(made, recipe)
    return made


def search(study: Study) -> int:
    rounds = 0
    while wanted := ends._wanted(study):
        rounds += 1
        for recipe in wanted:
            write(study, recipe)
    return rounds


@given(st.floats(1e-4, 1e4), st.floats(1e-3, 1e3))
def test_bisection_closes_in_on_any_end_and_needs_few_amounts(end, begun):
    low, high, tries = (begun, math.nan, 0) if begun <= end else (math.nan, begun, 0)
    while (amount := next_amount(low, high)) is not None:
        assert not amount <= low, "no amount is tried twice"
        assert not amount >= high, "no amount is tried twice"
        low, high = (amount, high) if amount <= end else (low, amount)
        tries += 1
    assert low <= end < high <= NEAR * low
    assert tries <= 5 + abs(math.log(end / begun, 4))


def test_every_path_is_asked_alike_until_its_end_is_found(study):
    assert set(path_ends(searched(study))["found"]) == {"no"}
    search(study)
    found = path_ends(searched(study))
    assert len(found) == 6
    assert set(found["found"]) == {"yes"}
    for row in found.to_dict("records"):
        assert row["good up to"] <= LIMITS[row["method"]] < row["too much from"]
    assert search(study) == 0


def test_each_amount_is_made_with_the_seeds_of_its_path(study):
    search(study)
    table = searched(study)
    seeds = table[table["penalty"].notna()].groupby(["method", "grouping", "amount"])["seed"].agg(frozenset)
    assert set(seeds.drop("l1")) == {frozenset({0, 1})}
    assert set(seeds["l1"]) == {frozenset({1, 2})}


def test_what_was_found_becomes_grids_whose_runs_are_made(study, tmp_path):
    search(study)
    grids = further_grids(study)
    longer = study_of(tmp_path, TEXT + grids)
    assert longer.missing() == {}
    assert len(longer.grid.recipes) == len(searched(study)) > len(study.grid.recipes)
    assert further_grids(longer) == ""
    longer.collect()
    assert set(path_ends(longer.believed()[0])["found"]) == {"yes"}
    assert "warmup = 0.5" in grids
    assert "seed = [1, 2]" in grids
    assert "width" not in grids, "what all grids share is not said again"
    assert grids.startswith("\n"), "a file may lack its last line's end"


@pytest.mark.parametrize(
    "shared",
    [
        'grouping = ["feature", "neuron"]',
        "proximal = [false, true]",
        'layers = ["features.conv2"]',
        "warmup = 0.3",
    ],
)
def test_the_grids_plan_what_was_made_and_nothing_more(tmp_path, shared):
    text = TEXT.replace("seed = [0, 1]", f"seed = [0, 1]\n{shared}").replace(
        'grouping = ["feature", "neuron"]\nf', "f"
    )
    text = text.replace("proximal = true", 'grouping = "feature"\nproximal = true')
    study = study_of(tmp_path, text)
    for recipe in study.grid.recipes:
        write(study, recipe)
    search(study)
    longer = study_of(tmp_path, text + further_grids(study))
    assert set(longer.keys()) == set(searched(study)["key"])


def test_a_search_that_was_interrupted_ends_where_it_would_have_ended(study, tmp_path):
    (tmp_path / "other").mkdir()
    other = study_of(tmp_path / "other", TEXT)
    for recipe in other.grid.recipes:
        write(other, recipe)
    half = [recipe for recipe in ends._wanted(other) if recipe.seed == 1]
    for recipe in half:
        write(other, recipe)
    assert path_ends(searched(other)).equals(path_ends(searched(study))), (
        "an amount counts with all its seeds"
    )
    assert set(ends._wanted(other)) == set(ends._wanted(study)) - set(half)
    search(study)
    search(other)
    assert path_ends(searched(other)).equals(path_ends(searched(study)))
    assert further_grids(other) == further_grids(study)


def test_runs_of_seeds_that_are_not_the_path_s_change_nothing(study):
    before = searched(study)
    for recipe in study.grid.recipes:
        write(study, Recipe.from_fields({**recipe.fields(), "seed": 9}))
    assert searched(study).equals(before)
    assert further_grids(study) == ""


def test_an_amount_is_bearable_on_the_mean_of_its_seeds_and_not_where_one_diverged(study):
    table = searched(study)
    gl = (table["method"] == "gl") & (table["grouping"] == "feature")
    lost = table[TUNED[0]].copy()
    lost[gl & (table["amount"] == 4) & (table["seed"] == 0)] += 0.09

    def end(changed) -> float:
        found = path_ends(changed).set_index(["method", "grouping"])
        return found.loc[("gl", "feature"), "good up to"]

    assert end(table) == 1
    assert end(table.assign(**{TUNED[0]: lost})) == 4  # 0.05 below dense and 0.04 above
    diverged = gl & (table["amount"] == 1) & (table["seed"] == 0)
    assert math.isnan(end(table.assign(diverged=diverged)))


def test_the_greatest_bearable_amount_counts_where_a_path_comes_back(study):
    table = searched(study)
    l1 = table["method"] == "l1"
    assert path_ends(table)[lambda t: t["method"] == "l1"].iloc[0]["too much from"] == 2
    back = table[TUNED[0]].where(~(l1 & (table["amount"] == 10)), 1.0)
    row = path_ends(table.assign(**{TUNED[0]: back})).set_index("method").loc["l1"]
    assert row["good up to"] == 10
    assert math.isnan(row["too much from"])


def test_a_path_without_an_end_is_left_at_some_time_and_said(tmp_path, monkeypatch):
    monkeypatch.setitem(LIMITS, "gl", math.inf)
    study = study_of(tmp_path, TEXT)
    for recipe in study.grid.recipes:
        write(study, recipe)
    search(study)
    found = path_ends(searched(study)).set_index("method").loc["gl"]
    assert set(found["found"]) == {"no"}
    assert found["good up to"].between(4 * 200, 4 * ends.WIDEST).all()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda text: text.replace("fraction = [1, 4]", "fraction = [1, 4, 5]"),
            r"8 runs are missing.*study run",
        ),
        (lambda text: text.replace('baseline = "dense"', 'penalty = "es"\nfraction = 1'), "no dense run"),
        (lambda text: text.replace('baseline = "dense"', 'baseline = "dense"\nstart = "he"'), "no dense run"),
        (lambda text: text.replace('"dense"', '"dense"\nepochs = [1, 2]'), "or several kinds"),
        (
            lambda text: text.replace("fraction = [1, 4]", "fraction = [1, 4]\nlr = [0.1, 0.2]"),
            "differ in more",
        ),
    ],
)
def test_a_study_that_has_no_ends_to_find_says_why(study, tmp_path, change, said, monkeypatch):
    changed = study_of(tmp_path, change(TEXT))
    if "missing" not in said:
        monkeypatch.setattr(Study, "missing", lambda self: {})
    with pytest.raises(ValueError, match=said):
        searched(changed)


def test_runs_of_another_budget_in_the_folder_are_on_no_path(study):
    before = len(searched(study))
    given = study.grid.recipes[-1].fields()
    given |= {"baseline": None, "unit": None, "share": None, "penalty": "l1", "fraction": 5.0}
    for changed in ({"epochs": 2}, {"l1_mix": 0.5}, {"lr": 0.5}):
        write(study, Recipe.from_fields({**given, **changed}))
    assert len(searched(study)) == before


def test_a_table_without_a_dense_network_of_that_start_has_no_ends(study):
    table = searched(study)
    ends_there = path_ends(table[table["method"] != "dense"])
    assert ends_there[["good up to", "too much from"]].isna().all(axis=None)


def test_nothing_is_printed_for_the_file_where_a_run_failed(study, monkeypatch, capsys):
    monkeypatch.setattr(command, "find_ends", lambda *_: Outcome(failed={"gl": "RuntimeError: no"}))
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert carry_out(parser.parse_args(["ends", str(study.path)])) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert "not made: gl: RuntimeError: no" in told.err


@pytest.mark.trains
def test_the_command_finds_the_ends_and_prints_grids_that_complete_the_study(tmp_path, capsys):
    text = TEXT.replace('["gl", "hsq_gl12"]', '["gl"]').replace('["feature", "neuron"]', '"feature"')
    study = study_of(tmp_path, text)
    parser = argparse.ArgumentParser()
    add_arguments(parser)

    def study_command(*words: str) -> str:
        assert carry_out(parser.parse_args([words[0], str(study.path), "--workers", "2", *words[1:]])) == 0
        return capsys.readouterr().out

    study_command("run")
    made = len(study.folder.read())
    assert study_command("ends", "--dry-run") == ""
    assert len(study.folder.read()) == made
    grids = study_command("ends")
    assert len(study.folder.read()) > made
    assert study_command("ends") == grids, "asked again it trains nothing and prints the same"
    study.path.write_text(text + grids)
    assert Study.read(study.path).missing() == {}
