"""A report says what its table holds, no more: it is made again from the table, and names what is missing."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pandas as pd
import pytest

from hgsr_lite.study.report import accuracy_at, page, prepared, report
from hgsr_lite.study.study import Study
from hgsr_lite.study.tables import believed_rows, read_rows, with_paths
from hgsr_lite.study.verdicts import TUNED, against_plain, choices
from tests.study.words import the

STUDIES = Path(__file__).resolve().parents[2] / "studies"


def run(method: str, amount: float, seed: int, removed: float, accuracy: float, **more) -> dict:
    is_penalty = method not in ("dense", "magnitude")
    names = {"penalty": method if is_penalty else None, "baseline": None if is_penalty else method}
    where = {"fraction": amount if is_penalty else None, "share": amount if method == "magnitude" else None}
    result = {
        "parameters": 100,
        "parameters left": 100 * (1 - removed),
        "MACs": 10,
        "MACs left": 10 - removed,
    }
    accuracies = {
        f"{part} accuracy {stage}": accuracy
        for part in ("validation", "test")
        for stage in ("after zeroing", "after fine-tuning")
    }
    rest = {"proximal": False, "start": "he", "seed": seed, "ended": "finished"}
    rest |= {"processor": "a processor", "device": "cpu, one thread", "torch": "2.0", "commit": "abc"}
    zeros = {"below tolerance": removed, "dead kernels": removed, "calibrated strength": 1.0, "l1_mix": 0.0}
    return {**names, **where, **result, **accuracies, **rest, **zeros, **more}


@pytest.fixture
def table() -> pd.DataFrame:
    rows = [run("dense", 0, seed, 0, 0.9) for seed in (0, 1, 2)]
    for seed in (0, 1, 2):
        rows += [run("magnitude", 0.4, seed, 0.4, 0.80), run("magnitude", 0.6, seed, 0.6, 0.60)]
        rows += [run("gl", 1, seed, 0.4, 0.90), run("gl", 2, seed, 0.6, 0.80)]
    rows.append(run("es", 1, 0, 0.5, 0.1, ended="diverged: epoch 1"))
    return with_paths(pd.DataFrame(rows))


def test_accuracy_is_read_along_the_path_at_equal_parameters(table):
    found = accuracy_at(prepared(table), "parameters removed", [0.5, 0.7])
    means = found.set_index(["method", "level"])["mean"]
    assert means["gl", 0.5] == pytest.approx(0.85)
    assert means["magnitude", 0.5] == pytest.approx(0.70)
    assert means[["gl", "magnitude"]].loc[:, 0.7].isna().all(), "beyond its last point a path says nothing"


def test_a_run_on_a_gpu_was_made_on_the_gpu_and_not_on_the_processor_beside_it(table):
    table.loc[0, ["processor", "device"]] = ["another processor", "a GPU"]
    assert "made on: a GPU (torch 2.0: 1), a processor (torch 2.0: 15). " in page(table, "A study")


def test_the_page_tells_versions_apart_and_counts_runs_whose_commit_is_not_their_code(table):
    table.loc[:2, "torch"], table.loc[3:4, "commit"] = "1.9", "abc+"
    assert (
        "made on: a processor (torch 1.9: 3), a processor (torch 2.0: 13), 2 with files changed since their "
        "commit (`+`). "
    ) in page(table, "A study")


def test_the_page_names_runs_seeds_and_what_diverged_and_leaves_the_diverged_out(table):
    text = page(table, "A study")
    assert "16 runs (seed 0: 6, seed 1: 5, seed 2: 5), 1 of them diverged" in text
    assert "| es |" not in text
    assert "85.0 ± 0.0" in text
    assert "| gl | feature | gradient | he | 0.150 |" in text
    assert "Not yet: the table holds no path" in text, "there are no cuts of kernels in this table"


def test_one_seed_says_nothing_about_luck(table):
    text = page(table[table["seed"] == 0], "A study")
    assert "One seed says nothing about luck" in text
    assert "85.0 (one seed)" in text
    assert "| he | 0.900 |  | 1 |" in text, "no interval, not one of nothing"
    assert choices(prepared(table[table["seed"] == 0]), "parameters removed")["±"].isna().all()
    assert "±" not in text.split("## Test accuracy")[1].split("## Area")[0].replace("| ± |", "")


def test_a_study_that_has_hardly_begun_has_a_page(table):
    text = page(table[:1], "A study")
    assert "No path reaches any of these levels yet" in text


def test_strengths_that_are_given_make_a_path_as_fractions_do():
    rows = [run("dense", 0, 0, 0, 0.9)]
    rows += [run("gl", None, 0, dead, right, strength=dead / 100) for dead, right in ((0.4, 0.9), (0.6, 0.8))]
    rows += [run("gl12", None, 0, 0.5, 0.9, strength=0.1)]
    runs = prepared(with_paths(pd.DataFrame(rows)))
    found = accuracy_at(runs, "dead kernels", [0.5]).set_index("method")["mean"]
    assert found.to_dict() == {"gl": pytest.approx(0.85)}, "one point is no path"
    assert choices(runs, "dead kernels").set_index("method")["amount"].to_dict() == {"gl": 0.004, "gl12": 0.1}
    assert "## On no path: a penalty mixed with l1\n\nNothing yet." in page(runs, "A study")


def test_a_penalty_mixed_with_l1_is_on_no_path_and_in_no_area(table):
    mixed = run("gl", None, 0, 0.9, 0.9, strength=1e-3) | {"l1_mix": 0.5, "MACs left": 0.1}
    more = pd.concat([table, with_paths(pd.DataFrame([mixed]))], ignore_index=True)
    before, after = (page(each, "A study").split("## On no path")[0] for each in (table, more))
    one_less = {"17 runs (seed 0: 7": "16 runs (seed 0: 6", "(torch 2.0: 17)": "(torch 2.0: 16)"}
    for counted, counted_before in one_less.items():
        after = after.replace(counted, counted_before)
    assert after == before
    assert "| gl | 0.500 | he |" in page(more, "A study").split("## On no path")[1]


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.toml")), ids=lambda path: path.stem)
def test_committed_tables_are_whole_and_their_pages_made_from_them(path):
    study = Study.read(path)
    if not study.table.exists():
        pytest.skip("no table yet")
    rows, damaged = read_rows(study.table)
    layers, damaged_layers = read_rows(study.layers_table)
    assert damaged == damaged_layers == {}
    assert {row["key"] for row in layers} <= {row["key"] for row in rows}
    assert len(believed_rows(study.table)[0]) == len(rows) > 0, "every row belongs to a run of this version"
    assert path.with_suffix(".md").read_text(encoding="utf-8") == report(study)


def test_a_report_names_a_row_that_was_edited_and_is_made_from_the_others(tmp_path, capsys):
    for name in ("digits_resnet18.toml", "digits_resnet18.csv"):
        shutil.copy(STUDIES / name, tmp_path)
    study = Study.read(tmp_path / "digits_resnet18.toml")
    header, dense, *others = study.table.read_text(encoding="utf-8").splitlines()
    key, *cells = dense.split(",")
    cells[header.split(",").index(TUNED[1]) - 1] = "7"
    study.table.write_text("\n".join([header, ",".join([key, *cells]), *others, ""]), encoding="utf-8")
    shown = report(study)
    said = f"not believed: digits_resnet18.csv, line 2, run {key}: changed or cut off after it was written; "
    assert said in capsys.readouterr().err
    study.table.write_text("\n".join([header, *others, ""]), encoding="utf-8")
    assert shown == report(study)
    assert f"{len(others)} runs (" in shown
    assert capsys.readouterr().err == ""


def test_a_table_in_which_no_row_is_believed_has_no_report_and_each_is_named(tmp_path):
    shutil.copy(STUDIES / "cifar10_seeds.toml", tmp_path)
    study = Study.read(tmp_path / "cifar10_seeds.toml")
    with pytest.raises(ValueError, match=r"cifar10_seeds.csv holds no run: study collect \S+$"):
        report(study)
    study.table.write_text("key,seal\n0123,4567\n", encoding="utf-8")
    with pytest.raises(
        ValueError, match=r"holds no run: .*\nnot believed: cifar10_seeds.csv, line 2, run 0123"
    ):
        report(study)


def test_only_amounts_within_the_loss_allowed_are_chosen_and_by_validation(table):
    table.loc[(table["method"] == "gl") & (table["amount"] == 1), TUNED[0]] = 0.895
    found = choices(prepared(table), "parameters removed")
    assert found["method"].tolist() == ["gl"]
    assert found["amount"].tolist() == [1]
    assert found["parameters removed"].tolist() == pytest.approx([0.4])
    assert choices(prepared(table), "parameters removed", loss_allowed=0.001).empty


def test_a_hierarchical_penalty_is_compared_with_its_plain_one_and_with_no_other(table):
    more = [run("hsqrt_gl", a, s, r, q) for s in (0, 1, 2) for a, r, q in ((1, 0.4, 0.95), (2, 0.6, 0.85))]
    more += [run("hsq_gl", 1, seed, 0.1, 0.95) for seed in (0, 1, 2)]
    more += [run("hsqrt_gl", 1, seed, 0.6, 0.9, grouping="neuron") for seed in (0, 1, 2)]
    found = against_plain(prepared(with_paths(pd.concat([table, pd.DataFrame(more)]))), "dead kernels", 0.5)
    row = the(found, method="hsqrt_gl")
    assert row["instead of"] == "gl"
    assert row["difference"] == pytest.approx(0.05)
    assert (row["reach"], row["plain's reach"]) == (3, 3)
    alone = the(found, method="hsq_gl")
    assert (alone["reach"], alone["plain's reach"]) == (0, 3)
    assert math.isnan(alone["difference"])
    assert len(found) == 2, "of neuron-wise gl, and of hsq_es, there are no runs: nothing is said of them"
