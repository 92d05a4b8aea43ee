"""What is compared is comparable: runs that differ otherwise are refused, damaged ones are named."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hgsr_lite.__main__ import main
from hgsr_lite.study import Study, accuracy_at, prepared, read_table
from hgsr_lite.study.ends import find_ends, further_grids, next_amount
from hgsr_lite.study.job import Images
from hgsr_lite.study.recovery import recovery_parts
from hgsr_lite.study.report import differences, page, report
from hgsr_lite.study.runs import Run, RunFolder, run_key, short_hash
from hgsr_lite.study.tables import believed_rows, read_rows, with_paths
from hgsr_lite.study.verdicts import PATH, TUNED
from hgsr_lite.training.recipe import Recipe
from hgsr_lite.training.settings import Settings

STUDIES = Path(__file__).resolve().parents[2] / "studies"
NARROW = STUDIES / "digits_narrow.csv"


@pytest.fixture
def copied(tmp_path: Path) -> Study:
    """A study of the project with its tables and without run files."""
    for suffix in (".toml", ".csv", "_layers.csv"):
        shutil.copy(STUDIES / f"digits_resnet18{suffix}", tmp_path)
    return Study.read(tmp_path / "digits_resnet18.toml")


@pytest.mark.parametrize(
    ("column", "value"),
    [("width", 0.5), ("lr", 0.1), ("epochs", 2), ("finetune", 0), ("batch_size", 9), ("images limit", 7)],
)
def test_runs_with_another_budget_or_network_are_never_seeds_of_one_path(column, value):
    table = pd.read_csv(NARROW)
    table.loc[table["seed"] == 4, column] = value
    for ask in (prepared, lambda runs: page(runs, "A study")):
        with pytest.raises(ValueError, match=rf"differ in {column}: make a study's file of each"):
            ask(with_paths(table))


def test_a_dense_network_of_another_budget_is_no_yardstick():
    table = pd.read_csv(NARROW)
    table.loc[table["baseline"] == "dense", "batch_size"] = 4
    with pytest.raises(ValueError, match="differ in batch_size"):
        prepared(with_paths(table))


def test_fractions_and_strengths_are_not_amounts_of_one_path():
    table = pd.read_csv(NARROW)
    table.loc[(table["penalty"] == "gl") & (table["seed"] == 0), ["fraction", "strength"]] = [np.nan, 5.0]
    with pytest.raises(ValueError, match=r"differ in amounts: .*one for fractions, one for strengths"):
        prepared(with_paths(table))


@pytest.mark.parametrize("left", [0, 1])
def test_a_seed_that_diverged_all_along_a_path_does_not_flatter_the_others(left):
    table = read_table(NARROW)
    way = {"method": "hsq_gl12", "grouping": "neuron", "proximal": True}
    lost = table[(table[list(way)] == pd.Series(way)).all(axis=1) & (table["seed"] == 2)].index[left:]
    before = prepared(table)
    table.loc[lost, "diverged"] = True
    names = {"method": "hsq_gl12", "grouping": "neuron", "step": "proximal", "level": 0.5}
    for runs, known in ((before, True), (prepared(table), False)):
        found = accuracy_at(runs, "dead kernels", [0.5])
        row = found[(found[list(names)] == pd.Series(names)).all(axis=1)].iloc[0]
        assert pd.notna(row["mean"]) == known


def test_a_path_is_compared_with_the_cut_of_its_own_first_weights():
    table = read_table(NARROW)
    better = table.assign(start="he", **{TUNED[1]: table[TUNED[1]] + 0.1})
    both = prepared(pd.concat([table, better], ignore_index=True))
    alone = differences(prepared(table), "dead kernels", 0.5, "kernel")
    found = differences(both, "dead kernels", 0.5, "kernel")
    for start in ("pytorch", "he"):
        mine = found[found["start"] == start].set_index(list(PATH[:3]))["difference"]
        pd.testing.assert_series_equal(mine, alone.set_index(list(PATH[:3]))["difference"], atol=1e-12)
    assert len(found) == 2 * len(alone)


def test_two_groupings_of_a_penalty_are_not_twice_as_many_seeds():
    table = read_table(STUDIES / "distractors_noise.csv")
    more = table[table["penalty"].notna() & ~table["penalty"].isin(["l1", "l2"])].assign(grouping="neuron")
    with pytest.raises(ValueError, match="two groupings, or both kinds of step"):
        recovery_parts(prepared(pd.concat([table, more], ignore_index=True)))


def test_a_report_takes_no_row_of_other_settings(copied, capsys):
    rows = len(believed_rows(copied.table)[0])
    text = copied.path.read_text(encoding="utf-8")
    copied.path.write_text(text.replace("seed = [0, 1, 2]", "seed = [0, 1]"), encoding="utf-8")
    shorter = Study.read(copied.path)
    planned = len(shorter.grid.recipes)
    assert 0 < planned < rows
    assert f"\n{planned} runs (seed 0: " in report(shorter)
    said = f"not believed: digits_resnet18.csv, {rows - planned} rows: of other settings than"
    assert said in capsys.readouterr().err


def test_rows_that_no_run_file_holds_are_not_collected_away(copied):
    before = copied.table.read_text(encoding="utf-8")
    text = copied.path.read_text(encoding="utf-8")
    copied.path.write_text(text.replace("seed = [0, 1, 2]", "seed = [0, 1]"), encoding="utf-8")
    with pytest.raises(ValueError, match=r"62 runs of .*no run file holds them: .*move the table away"):
        Study.read(copied.path).collect()
    assert copied.table.read_text(encoding="utf-8") == before


def test_a_table_of_layers_that_is_gone_is_said(copied, capsys):
    copied.layers_table.unlink()
    copied.collect()
    assert f"runs have no rows in {copied.layers_table}" in capsys.readouterr().err


def test_a_run_that_stands_twice_with_different_outcomes_is_not_believed(copied):
    header, first, *rest = copied.table.read_text(encoding="utf-8").splitlines()
    headings, cells = csv.reader([header, first])
    cells[headings.index("seconds")] = "77.0"
    other = dict(zip(headings, cells, strict=True))
    other["seal"] = short_hash({k: v for k, v in other.items() if v and k != "seal"})[:12]
    with copied.table.open("w", encoding="utf-8", newline="") as file:
        file.write("\n".join([header, first, first, *rest, ""]))
        csv.writer(file).writerow(other.values())
    rows, damaged = believed_rows(copied.table)
    assert cells[0] not in rows
    assert len(rows) == len(rest)
    assert damaged[f"digits_resnet18.csv, run {cells[0]}"].startswith("stands there twice")


def test_a_study_may_not_bear_the_name_of_another_s_table_of_layers(tmp_path):
    (tmp_path / "digits_layers.toml").write_text("[[grid]]\nbaseline = 'dense'")
    with pytest.raises(ValueError, match=r"NAME_layers.csv is the table of layers of NAME.toml"):
        Study.read(tmp_path / "digits_layers.toml")


def test_great_seeds_do_not_become_each_other_s():
    keys = {run_key(Recipe(settings=Settings(seed=2**53 + more)), Images(), "abc") for more in (0, 1)}
    assert len(keys) == 2


@pytest.mark.parametrize(
    ("damage", "lost"),
    [
        (lambda lines: [lines[0], lines[1].replace(",", ',"', 1), *lines[2:]], 1),
        (lambda lines: [lines[0], "x" * 200_000, *lines[2:]], 1),
        (lambda lines: ["\ufeff" + lines[0], *lines[1:]], 0),
        (lambda lines: [line + "\r" for line in lines], 0),
    ],
)
def test_a_damaged_line_of_a_table_costs_that_line_alone(copied, damage, lost):
    whole, _ = read_rows(copied.table)
    lines = copied.table.read_text(encoding="utf-8").splitlines()
    copied.table.write_bytes("\n".join(damage(lines)).encode())
    rows, damaged = read_rows(copied.table)
    assert (len(whole) - len(rows), len(damaged)) == (lost, lost)


@pytest.mark.parametrize("do", ["status", "collect"])
def test_tables_that_were_swapped_are_named_row_by_row(copied, do, capsys):
    runs, layers = (path.read_text(encoding="utf-8") for path in (copied.table, copied.layers_table))
    copied.table.write_text(layers, encoding="utf-8")
    copied.layers_table.write_text(runs, encoding="utf-8")
    main(["study", do, str(copied.path)])
    said = "".join(capsys.readouterr())
    assert "no row of a layer" in said
    assert "no 'images name'" in said
    assert "Traceback" not in said


def test_a_table_that_is_no_text_is_named(copied):
    copied.table.write_bytes(copied.table.read_bytes() + b"\xe9\n")
    with pytest.raises(ValueError, match=r"digits_resnet18.csv: no text in UTF-8"):
        copied.status()


@pytest.mark.parametrize("text", ["[" * 100_000, '{"seal": "", "key": "k"}'])
def test_a_run_file_of_any_kind_is_named_and_the_rest_counts(tmp_path, text):
    folder = RunFolder(tmp_path)
    (tmp_path / "bad.json").write_text(text)
    assert folder.read() == {}
    assert list(folder.damaged) == ["bad.json"]
    assert not folder.holds("bad")


@pytest.mark.parametrize("part", ["ended", "metrics", "layers", "environment", "seconds"])
def test_a_sealed_run_file_without_a_part_is_no_run(part):
    record = {"ended": "finished", "metrics": {}, "layers": {}, "environment": {}, "seconds": 0.0}
    del record[part]
    with pytest.raises(ValueError, match=f"no {part}"):
        Run.from_json(Run(Recipe(), Images(), "abc", record).to_json())


def make_in_this_process(study: Study) -> None:
    study.folder.check_writable()
    for job in study.jobs(study.missing().values(), "cpu").values():
        study.folder.write(Run(job.recipe, job.images, job.fingerprint, job()))


SMALL = "[images]\nlimit = 100\n[shared]\nwidth = 0.25\nepochs = 1\n"
DENSE = "[[grid]]\nbaseline = 'dense'\n"


@pytest.mark.parametrize(
    "text",
    [
        f"{SMALL}finetune = 0\n{DENSE}[[grid]]\npenalty = 'gl'\nfraction = [1, 2]",
        f"{SMALL}finetune = 1\nseed = [0, 1, 2]\n{DENSE}",
        f"{SMALL}finetune = 1\nseed = [0, 1]\n{DENSE}[[grid]]\nbaseline = 'random'\nshare = [0.5, 0.7]",
        f"{SMALL}finetune = 1\nlr = 1e20\n{DENSE}[[grid]]\npenalty = 'gl'\nfraction = [1, 2]",
        f"{SMALL.replace('limit', 'distractors = 2'.ljust(15) + chr(10) + 'limit')}{DENSE}",
    ],
    ids=["no fine-tuning", "dense only", "no penalty", "all diverged", "distractors, dense only"],
)
@pytest.mark.trains
def test_every_study_that_can_be_made_has_a_page(tmp_path, text):
    (tmp_path / "small.toml").write_text(text)
    study = Study.read(tmp_path / "small.toml")
    make_in_this_process(study)
    study.collect()
    for command in (["report"], ["ends", "--dry-run"]):
        assert main(["study", *command, str(study.path)]) == 0
    assert (tmp_path / "small.md").read_text(encoding="utf-8").startswith("# small")


@pytest.mark.trains
def test_the_search_for_ends_writes_whole_numbers_that_a_run_file_holds(tmp_path):
    text = f"{SMALL}finetune = 1\n{DENSE}[[grid]]\npenalty = 'gl'\nfraction = "
    (tmp_path / "small.toml").write_text(text + "[1, 1000]")
    make_in_this_process(Study.read(tmp_path / "small.toml"))
    (tmp_path / "small.toml").write_text(text + "[1]")
    assert "fraction = [1000]" in further_grids(Study.read(tmp_path / "small.toml"))


def test_a_share_that_was_good_is_followed_by_one_nearer_to_all():
    assert next_amount(0.72, float("nan"), most=1) == 0.93
    assert next_amount(0.93, float("nan"), most=1) == 0.98


@pytest.mark.parametrize("given", ["-1", "0", "two"])
def test_workers_that_are_no_number_of_processes_are_refused_in_words(copied, capsys, given):
    with pytest.raises(SystemExit):
        main(["study", "run", str(copied.path), "--dry-run", "--workers", given])
    said = f"argument --workers: '{given}' must be a whole number of at least 1"
    assert said in capsys.readouterr().err


def test_a_study_whose_grids_are_one_list_cannot_be_added_to(tmp_path):
    (tmp_path / "small.toml").write_text("grid = [{baseline = 'dense'}]")
    with pytest.raises(ValueError, match=r"write each grid as a \[\[grid\]\] table"):
        find_ends(Study.read(tmp_path / "small.toml"))


def test_a_picture_is_linked_where_the_study_s_name_has_a_space(copied):
    for suffix in (".toml", ".csv"):
        shutil.copy(copied.path.with_suffix(suffix), copied.path.with_name(f"a study{suffix}"))
    assert "](a%20study_dead_kernels.png)" in report(Study.read(copied.path.with_name("a study.toml")))
