"""A run file and a table row are believed whole or not at all, and belong to one run of one kind only."""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from hgsr_lite.study.command import add_arguments, carry_out
from hgsr_lite.study.engine import Outcome
from hgsr_lite.study.grid import Grid
from hgsr_lite.study.job import Images, environment
from hgsr_lite.study.runs import Claims, Run, RunFolder, run_key
from hgsr_lite.study.study import Study
from hgsr_lite.study.tables import read_rows, read_table, rows_of, write_table
from hgsr_lite.training.recipe import Penalised, Recipe
from hgsr_lite.training.settings import Settings

STUDIES = Path(__file__).resolve().parents[2] / "studies"
IMAGES = Images(limit=100)
RECIPES = tuple(
    Recipe(method=Penalised("gl", fraction=fraction), settings=Settings(seed=seed))
    for seed in (0, 1)
    for fraction in (0.0464158883, 1 / 3, 2.0)
)


def made(recipe: Recipe, number: int = 0, fingerprint: str = "abc") -> Run:
    """A run as it would be made, with figures of full precision."""
    metrics = {"validation accuracy": 1 / (3 + number), "dead kernels": math.nan if number == 1 else 0.1}
    counts = {"weights": 288, "dead_kernels": number, "input_channels": 1, "dead_input_channels": 0}
    layers = {"features.conv1": {**counts, "output_channels": 32, "dead_output_channels": number}}
    record = {"ended": "finished", "metrics": metrics, "layers": layers, "epochs": [], "seconds": 0.1}
    return Run(recipe, IMAGES, fingerprint, {**record, "environment": {"torch": "2"}})


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    found = RunFolder(tmp_path / "runs")
    found.check_writable()
    for number, recipe in enumerate(RECIPES):
        found.write(made(recipe, number))
    return found


@pytest.fixture
def study(tmp_path: Path, folder: RunFolder) -> Study:
    made_here = Study(tmp_path / "study.toml", Grid("", IMAGES, RECIPES), folder.path)
    made_here.__dict__["fingerprint"] = "abc"
    return made_here


def test_every_number_comes_back_as_it_was_and_no_run_is_missed(folder, study):
    runs = folder.read()
    assert {run.recipe for run in runs.values()} == set(RECIPES)
    table = study.collect()
    assert table["fraction"].tolist() == [recipe.method.fraction for recipe in RECIPES]
    assert table["validation accuracy"].tolist() == [1 / (3 + number) for number in range(6)]
    shutil.rmtree(folder.path)
    assert study.missing() == {}
    assert study.status().done == 6


@pytest.mark.parametrize(
    "other",
    [
        {"recipe": replace(RECIPES[0], network="alexnet")},
        {"recipe": replace(RECIPES[0], width=0.5)},
        {"recipe": replace(RECIPES[0], settings=Settings(epochs=11))},
        {"recipe": replace(RECIPES[0], finetune=1)},
        {"recipe": replace(RECIPES[0], start="he")},
        {"images": Images(limit=200)},
        {"images": Images(limit=100, distractors=3)},
        {"fingerprint": "other pixels"},
    ],
    ids=["network", "width", "epochs", "finetune", "start", "limit", "distractors", "pixels"],
)
def test_whatever_decides_the_outcome_makes_another_run(other):
    given = {"recipe": RECIPES[0], "images": IMAGES, "fingerprint": "abc"}
    assert run_key(**given) != run_key(**{**given, **other})


def test_runs_of_other_images_count_for_nothing(study):
    study.__dict__["fingerprint"] = "other pixels"
    assert len(study.missing()) == 6
    assert study.status().foreign == 6
    with pytest.raises(ValueError, match=r"no run of study.toml is there yet"):
        study.collect()


def damage_cut(text: str) -> str:
    return text[: len(text) // 2]


def damage_number(text: str) -> str:
    return text.replace('"dead kernels": 0.1', '"dead kernels": 0.2')


def damage_recipe(text: str) -> str:
    return text.replace('"seed": 1', '"seed": 2')


def damage_all(text: str) -> str:
    return ""


@pytest.mark.parametrize("damage", [damage_cut, damage_number, damage_recipe, damage_all])
def test_a_damaged_file_is_named_and_made_again_and_the_rest_is_kept(study, damage):
    key = next(reversed(study.keys()))
    file = study.folder.path / f"{key}.json"
    file.write_text(damage(file.read_text()))
    progress = study.status()
    assert list(progress.damaged) == [file.name]
    assert file.name in str(progress)
    assert progress.done == 5
    assert list(study.missing()) == [key]
    assert not study.folder.holds(key)
    study.folder.write(made(study.keys()[key], 5))
    assert study.status().done == 6


def test_a_run_file_under_another_name_or_of_other_rules_is_not_believed(study, monkeypatch):
    file = study.folder.path / f"{next(iter(study.keys()))}.json"
    file.rename(file.with_name("00000000000000000000.json"))
    ((name, why),) = study.status().damaged.items()
    assert name == "00000000000000000000.json"
    assert why.startswith("renamed: its name is not its key; study run makes the run anew")
    monkeypatch.setattr("hgsr_lite.study.runs.OUTCOME", 2)
    assert study.status().done == 0


def edit_cell(rows: list[list[str]]) -> None:
    rows[2][rows[0].index("validation accuracy")] = "0.99"


def edit_swap_headings(rows: list[list[str]]) -> None:
    one, other = rows[0].index("validation accuracy"), rows[0].index("dead kernels")
    rows[0][one], rows[0][other] = rows[0][other], rows[0][one]


def edit_cut_row(rows: list[list[str]]) -> None:
    del rows[-1][-4:]


def edit_glue(rows: list[list[str]]) -> None:
    rows[-2][-4:] = rows.pop()


def edit_by_hand(table: Path, edit: Callable[[list[list[str]]], None]) -> None:
    with table.open(newline="") as file:
        rows = list(csv.reader(file))
    edit(rows)
    with table.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


@pytest.mark.parametrize(
    ("edit", "kept"), [(edit_cell, 5), (edit_swap_headings, 0), (edit_cut_row, 5), (edit_glue, 4)]
)
def test_an_edited_or_cut_row_of_the_table_is_named_and_left_out(study, edit, kept):
    study.collect()
    edit_by_hand(study.table, edit)
    shutil.rmtree(study.folder.path)
    assert study.status().done == kept
    assert study.status().damaged
    assert len(study.missing()) == 6 - kept


@pytest.fixture
def command(study: Study, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], int]:
    """`study WHAT` on the study above, with a driver that makes nothing."""
    monkeypatch.setattr("hgsr_lite.study.study.dask_executor", lambda *_: nullcontext((None, 1)))
    monkeypatch.setattr("hgsr_lite.study.study.make_all", lambda *_: Outcome())
    monkeypatch.setattr(Study, "read", lambda *_: study)
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return lambda what: carry_out(parser.parse_args([what, str(study.path)]))


@pytest.mark.parametrize("what", ["status", "run", "collect"])
def test_each_command_names_a_row_and_a_file_that_are_damaged_and_how_to_mend_them(
    study, command, what, capsys
):
    study.collect()
    edit_by_hand(study.table, edit_cell)
    edited, cut = list(study.keys())[1:3]
    (study.folder.path / f"{edited}.json").unlink()
    (study.folder.path / f"{cut}.json").write_text("{")
    assert command(what) == 0
    said = "".join(capsys.readouterr())
    wrong = "changed or cut off after it was written"
    mend = "take the table back as it was, or call study run, then study collect"
    assert f"not believed: study.csv, line 3, run {edited}: {wrong}; {mend}" in said
    assert f"not believed: {cut}.json: no whole run file; study run makes the run anew" in said
    assert study.status().done == 5


@pytest.mark.parametrize("what", ["status", "collect"])
def test_a_row_of_the_table_of_layers_that_is_damaged_is_named(study, command, what, capsys):
    study.collect()
    edit_by_hand(study.layers_table, lambda rows: rows[2].__setitem__(rows[0].index("weights"), "7"))
    assert command(what) == 0
    key = list(study.keys())[1]
    said = f"not believed: study_layers.csv, line 3, run {key}: changed or cut off after it was written; "
    assert said in "".join(capsys.readouterr())


def test_a_damaged_row_is_written_anew_from_its_run_file_and_then_nothing_is_said(study, command, capsys):
    study.collect()
    whole = study.table.read_bytes()
    edit_by_hand(study.table, edit_cell)
    assert command("collect") == 0
    assert study.table.read_bytes() == whole
    assert "not believed" in capsys.readouterr().err
    assert command("collect") == 0
    assert "not believed" not in capsys.readouterr().err


@pytest.mark.parametrize("what", ["status", "run"])
def test_runs_made_with_other_versions_or_on_another_device_are_counted_in_one_line(
    study, command, what, capsys
):
    here = environment(torch.device("cpu"))
    places = [here, {**here, "device": "a GPU"}, {**here, "torch": "1.0.0", "python": "3.6"}]
    places += [
        {**here, "commit": "another"},
        {**here, "processor": "another one"},
        {**here, "device": "a GPU"},
    ]
    for number, (recipe, place) in enumerate(zip(RECIPES, places, strict=True)):
        run = made(recipe, number)
        run.record["environment"] = place
        study.folder.write(run)
    assert command(what) == 0
    (said,) = [line for line in "".join(capsys.readouterr()).splitlines() if "than here" in line]
    assert said == (
        "4 runs were made with other versions or on another device than here: 2 with a GPU; "
        "1 with python 3.6, torch 1.0.0; 1 with another one"
    )


def test_nothing_is_said_of_other_places_where_all_runs_were_made_here(study):
    for number, recipe in enumerate(RECIPES):
        run = made(recipe, number)
        run.record["environment"] = environment(torch.device("cpu"))
        study.folder.write(run)
    assert str(study.status()) == "6 of 6 runs, 0 of them diverged"


def test_runs_of_other_settings_are_counted_and_nothing_is_said_of_versions_that_no_key_holds(study):
    study.folder.write(made(replace(RECIPES[0], width=0.5)))
    assert "1 runs of other settings or images lie beside them" in str(study.status()).splitlines()


def test_a_last_row_cut_in_mid_number_is_not_believed(study):
    study.collect()
    study.table.write_text(study.table.read_text()[:-3])
    shutil.rmtree(study.folder.path)
    assert study.status().done == 5


@pytest.mark.parametrize("name", ["digits", "cifar10_seeds"])
def test_a_table_that_is_read_and_written_back_is_the_same_file(tmp_path, name):
    """Its empty cells are not read: neither the columns' order nor a column may hang on them."""
    committed = STUDIES / f"{name}.csv"
    copy = tmp_path / committed.name
    copy.write_bytes(committed.read_bytes())
    write_table(copy, read_rows(copy)[0])
    assert copy.read_bytes() == committed.read_bytes()


def test_columns_in_another_order_are_the_same_table(study):
    study.collect()
    table = pd.read_csv(study.table, dtype=str, keep_default_na=False)
    table[sorted(table.columns)].to_csv(study.table, index=False)
    shutil.rmtree(study.folder.path)
    assert study.status().done == 6


def test_runs_with_other_metrics_keep_theirs_under_their_own_headings(tmp_path):
    one, other = made(RECIPES[0]), made(RECIPES[1], 2)
    other.record["metrics"] = {"kept": 3, **other.record["metrics"]}
    write_table(tmp_path / "table.csv", rows_of([one, other]))
    believed, damaged = read_rows(tmp_path / "table.csv")
    assert damaged == {}
    table = read_table(tmp_path / "table.csv")
    assert table["kept"].isna().tolist() == [True, False]
    assert [row["key"] for row in believed] == [one.key, other.key]


def test_the_table_grows_from_files_and_from_itself(study):
    study.collect()
    keys = list(study.keys())
    for key in keys[:3]:
        (study.folder.path / f"{key}.json").unlink()
    assert len(study.collect()) == 6
    layers = pd.read_csv(study.layers_table)
    assert layers["key"].tolist() == keys


def test_two_drivers_never_claim_the_same_run_and_a_dead_ones_claims_are_free(folder):
    code = (
        "import sys, time; from pathlib import Path; from filelock import FileLock;"
        f"lock = FileLock(Path({str(folder.path / '.claims' / 'mine')!r}), timeout=0); lock.acquire();"
        "print('held', flush=True);"
        "time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline().strip() == "held"
        with folder.claims() as claims:
            assert not claims.take("mine")
            assert claims.take("another")
            other.kill()
            other.wait()
            assert claims.take("mine")
        assert list((folder.path / ".claims").iterdir()) == []
    finally:
        other.kill()


def test_a_place_that_cannot_be_written_is_refused_before_anything_is_trained(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"cannot be written .*give another folder, --runs"):
        RunFolder(tmp_path / "file" / "runs").check_writable()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's device that is always full")
def test_a_full_disk_leaves_the_old_file_or_none(folder, monkeypatch):
    before = {file.name: file.read_text() for file in folder.path.glob("*.json")}
    sync = os.fsync

    def full(descriptor: int) -> None:
        with open("/dev/full", "w") as device:
            device.write("x")
            device.flush()
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    for run in (made(RECIPES[0], 9), made(replace(RECIPES[0], width=0.5))):
        with pytest.raises(OSError, match="No space left"):
            folder.write(run)
    assert {file.name: file.read_text() for file in folder.path.iterdir() if file.is_file()} == before


def test_a_file_is_readable_by_a_stranger(folder):
    body = json.loads(next(folder.path.glob("*.json")).read_text())
    assert {"key", "recipe", "images", "fingerprint", "metrics", "layers", "epochs", "ended", "seal"} <= set(
        body
    )


def test_a_folder_holds_what_it_was_given_and_can_be_checked_again(folder):
    folder.check_writable()
    run = made(RECIPES[0])
    assert folder.holds(run.key)
    other = made(RECIPES[0], fingerprint="xyz")
    assert not folder.holds(other.key)
    shutil.copy(folder.path / f"{run.key}.json", folder.path / f"{other.key}.json")
    assert not folder.holds(other.key), "a file under another name is no run of that name"


def test_a_claim_of_another_driver_is_seen_at_once(folder):
    theirs, ours = (Claims(folder.path / ".claims") for _ in range(2))
    keys = [f"run {number}" for number in range(5)]
    assert all(theirs.take(key) for key in keys)
    started = time.perf_counter()
    assert not any(ours.take(key) for key in keys)
    assert time.perf_counter() - started < 3
