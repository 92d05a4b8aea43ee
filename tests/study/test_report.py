"""A report says what its table holds, no more: it is made again from the table, and names what is missing."""

from __future__ import annotations

import math
import re
import shutil
import tomllib
from pathlib import Path

import pandas as pd
import pytest
from scipy.stats import ttest_1samp, ttest_ind
from statsmodels.stats.multitest import multipletests

from hgsr_lite.models import MODELS
from hgsr_lite.study.analysis import at_levels, summary
from hgsr_lite.study.ends import NEAR, path_ends
from hgsr_lite.study.intervals import confidence_half_width
from hgsr_lite.study.report import PATH, accuracy_at, differences, page, prepared, report
from hgsr_lite.study.study import Study
from hgsr_lite.study.tables import believed_rows, read_rows, read_table, with_paths
from hgsr_lite.study.verdicts import (
    GOALS,
    LOSS_ALLOWED,
    QUESTIONS,
    TUNED,
    against_plain,
    choices,
    on_paths,
)

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


def percent(row: pd.Series, value: str = "mean", half: str = "±") -> str:
    return f"{100 * abs(row[value]):.1f} ± {100 * row[half]:.1f}"


def the(table: pd.DataFrame, **names) -> pd.Series:
    """The one row of these names."""
    found = table[(table[list(names)] == pd.Series(names)).all(axis=1)]
    assert len(found) == 1
    return found.iloc[0]


FEATURE = {"grouping": "feature", "step": "proximal"}
NEURON = {"grouping": "neuron", "step": "proximal"}
BY_CHANNEL = {"grouping": "feature", "step": "cut"}
BY_FEATURE = {"grouping": "feature", "step": "gradient"}
BY_NEURON = {"grouping": "neuron", "step": "gradient"}


def numbers_of_the_digits(runs: pd.DataFrame) -> set[str]:
    """What the words about the digits may say."""
    dense = accuracy_of_dense(runs)
    removed = accuracy_at(runs, "parameters removed", [0.5, 0.75])
    half, most = (removed[removed["level"] == level] for level in (0.5, 0.75))
    furthest = {goal: choices(runs, goal) for goal in GOALS}
    by_size = differences(runs, "parameters removed", 0.5, "feature")
    kernels = differences(runs, "dead kernels", 0.8, "kernel")
    quarter = against_plain(runs, "parameters removed", 0.25)
    plain = against_plain(runs, "parameters removed", 0.5)
    plain_kernels = against_plain(runs, "dead kernels", 0.5)
    small, dead = furthest["parameters removed"], furthest["dead kernels"]
    rows = [
        the(half, method="hsqrt_gl", **FEATURE),
        the(half, method="hsqrt_gl", **NEURON),
        the(half, method="random", **BY_CHANNEL),
        the(half, method="magnitude", **BY_CHANNEL),
        the(most, method="magnitude", **BY_CHANNEL),
        the(most, method="random", **BY_CHANNEL),
        best_cut(most),
        best_penalty(most),
    ]
    shares = [(small, "gl12", FEATURE), (small, "hsqrt_gl", FEATURE), (small, "hsqrt_gl12", FEATURE)]
    shares += [(dead, "hsq_gl12", NEURON), (small, "random", {"grouping": "neuron", "step": "cut"})]
    gradient = {"grouping": "neuron", "step": "gradient"}
    shares += [(small, "hsq_gl12", gradient), (dead, "hsq_gl12", gradient)]
    said = {percent(dense), *map(percent, rows)}
    for table, method, where in shares:
        goal = next(name for name in GOALS if name in table)
        row = the(table, method=method, **where)
        said |= {percent(row, goal, "± "), percent(row, "test accuracy")}
    said.add(percent(the(furthest["below tolerance"], method="magnitude"), "test accuracy"))
    at_8 = runs[(runs["method"] == "hsq_gl12") & (runs["amount"] == 8)]
    small_weights = summary(at_8, "below tolerance", ["grouping", "step"])
    said.add(percent(the(small_weights, **gradient)))
    said.add(percent(the(furthest["below tolerance"], method="hsq_gl12", **NEURON), "below tolerance", "± "))
    compared = [
        the(kernels, method="hsq_gl12", **FEATURE),
        the(kernels, method="hsq_gl12", **NEURON),
        the(by_size, method="gl12", **FEATURE),
        the(by_size, method="hsqrt_gl", **FEATURE),
        the(plain, method="hsqrt_gl", **FEATURE),
        the(quarter, method="hsqrt_gl", **FEATURE),
        the(plain_kernels, method="hsqrt_gl", **FEATURE),
        the(quarter, method="hsq_gl12", **FEATURE),
    ]
    assert len(kernels) == 13, "what the words call the rows of that table"
    group_lasso = the(plain, method="hsqrt_gl", **FEATURE)
    assert (group_lasso["reach"], group_lasso["plain's reach"]) == (5, 3), "what the words call three of five"
    signs = [row["difference"] > 0 for row in compared]
    assert signs == [True] * 7 + [False], "what the words call above and below"
    alike = the(plain_kernels, method="hsq_gl12", **FEATURE)
    said |= {percent(alike, "difference"), f"{alike['p (Holm)']:.3f}"}
    least_work = runs[(runs["method"] == "magnitude") & (runs["unit"] == "feature") & (runs["share"] == 0.3)]
    for what in ("parameters removed", TUNED[1]):
        said.add(percent(summary(least_work, what, ["method"]).iloc[0]))
    return (
        said
        | window_of(runs)
        | {part for row in compared for part in (percent(row, "difference"), f"{row['p (Holm)']:.3f}")}
    )


def window_of(runs: pd.DataFrame) -> set[str]:
    """What the words say of single fractions: how much goes between "nothing" and "too much"."""
    where = runs[(runs["step"] == "proximal") & (runs["grouping"] == "feature")]
    gone = summary(where, "parameters removed", ["method", "amount"]).set_index(["method", "amount"])
    left = summary(where, TUNED[1], ["method", "amount"]).set_index(["method", "amount"])
    assert gone.loc[("gl12", 5), "mean"] == 0
    shown = [gone.loc[key] for key in (("gl12", 7), ("gl12", 15), ("hsqrt_gl", 4))]
    return {percent(row) for row in [*shown, left.loc[("gl12", 15)]]}


def accuracy_of_dense(runs: pd.DataFrame) -> pd.Series:
    return summary(runs[runs["method"] == "dense"], TUNED[1], ["start"]).iloc[0]


def best_cut(found: pd.DataFrame) -> pd.Series:
    cuts = found[found["step"] == "cut"].dropna(subset="mean")
    return cuts.loc[cuts["mean"].idxmax()]


def best_penalty(found: pd.DataFrame) -> pd.Series:
    penalties = found[found["step"] != "cut"].dropna(subset="mean")
    return penalties.loc[penalties["mean"].idxmax()]


def test_every_number_in_the_words_about_the_digits_is_the_tables_and_none_is_missing():
    table = read_table(STUDIES / "digits.csv")
    runs = prepared(table)
    text = (STUDIES / "README.md").read_text(encoding="utf-8")
    words = " ".join(text.partition("## What the digits say")[2].partition("\n## ")[0].split())
    said = set(re.findall(r"\d+\.\d ± \d+\.\d|(?<=p )0\.\d{3}", words))
    assert said == numbers_of_the_digits(runs)
    diverged = table[table["diverged"]]
    assert f"All {len(table):,} runs are made: five seeds; {len(diverged)} diverged, `hsq_es`" in words
    assert set(zip(diverged["method"], diverged["proximal"], strict=True)) == {("hsq_es", False)}
    assert f"gradient steps at {diverged['amount'].min():,.0f} and more" in words
    assert table.groupby("seed").size().tolist() == [453] * 5


def test_the_recall_question_about_two_leads_has_the_tables_numbers():
    kernels = differences(prepared(read_table(STUDIES / "digits.csv")), "dead kernels", 0.8, "kernel")
    (first, p), (second, q) = [
        (percent(row, "difference"), f"{row['p (Holm)']:.3f}")
        for row in (the(kernels, method="hsq_gl12", **where) for where in (FEATURE, NEURON))
    ]
    asked = (STUDIES.parent / "hgsr_lite" / "series" / "recall.toml").read_text(encoding="utf-8")
    assert f"feature-wise is ahead by {first} points (p {p}), neuron-wise by {second} (p {q})." in asked


def bisected(name: str) -> list[dict]:
    """The grids that the search for the ends has added to a study of the digits."""
    text = (STUDIES / f"{name}.toml").read_text(encoding="utf-8").partition("# The end of each path")[2]
    return tomllib.loads(text.partition("\n")[2])["grid"]


def before_and_after(name: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A table of the digits without what the search for the ends has added, and with it."""
    columns = ["penalty", "grouping", "proximal", "fraction", "baseline", "unit", "share"]
    points = {
        (
            grid.get("penalty"),
            grid.get("grouping", "feature") if "penalty" in grid else None,
            grid.get("proximal", False),
            amount if "fraction" in grid else None,
            grid.get("baseline"),
            grid.get("unit"),
            amount if "share" in grid else None,
        )
        for grid in bisected(name)
        for amount in grid.get("fraction", grid.get("share"))
    }
    table = pd.read_csv(STUDIES / f"{name}.csv")
    found = table[columns].astype(object).where(table[columns].notna(), None)
    added = [tuple(row) in points for row in found.itertuples(index=False)]
    assert sum(added) == len(points) * table["seed"].nunique()
    by_hand = with_paths(table[[not each for each in added]])
    return prepared(by_hand), prepared(with_paths(table))


def test_what_is_said_of_where_the_paths_of_the_digits_end_is_the_tables():
    table = read_table(STUDIES / "digits.csv")
    found = path_ends(table)
    text = " ".join((STUDIES / "README.md").read_text(encoding="utf-8").split())
    words = text.partition("**Where the paths end.**")[2].partition("**How exact")[0]
    assert f"bisected all {len(found)} paths" in words
    assert set(found["found"]) == {"yes"}
    assert f"a factor of {NEAR:g} apart" in words
    assert "Each path has eight to ten fractions, a cut eleven to thirteen shares" in text
    tried = found.groupby(found["step"] == "cut")["amounts"].agg(["min", "max"])
    assert tried.to_numpy().tolist() == [[8, 10], [11, 13]]
    fractions, shares = (
        sum(len(grid.get(name, ())) for grid in bisected("digits")) for name in ("fraction", "share")
    )
    assert f"{fractions} fractions and {shares} shares more" in words
    ends = found.pivot_table("good up to", ["method", "grouping"], "step")
    times = (ends["proximal"] / ends["gradient"]).dropna()
    assert f"{times.min():.1f} to {times.max():.1f} times the fraction of gradient steps" in words
    assert f"(median of the {len(times)} pairs: {times.median():.1f})" in words
    by_hand, all_of_them = before_and_after("digits")
    star = [
        the(choices(runs, "dead kernels"), method="hsq_gl12", **NEURON) for runs in (by_hand, all_of_them)
    ]
    assert f"`hsq_gl12` gets furthest at {star[1]['amount']:g}, not at {star[0]['amount']:g}" in words
    for goal in GOALS:
        before, after = (choices(runs, goal).iloc[0] for runs in (by_hand, all_of_them))
        assert before[list(PATH)].equals(after[list(PATH)]), "first stayed first"
    before, after = (choices(runs, "dead kernels") for runs in (by_hand, all_of_them))
    assert "hsqrt_gl12" not in set(before["method"].iloc[:3])
    third = after.iloc[2]
    assert (third["method"], third["grouping"], third["amount"]) == ("hsqrt_gl12", "feature", 8.4)
    half = [against_plain(runs, "parameters removed", 0.5) for runs in (by_hand, all_of_them)]
    p = [the(pairs, method="hsqrt_gl", **FEATURE)["p (Holm)"] for pairs in half]
    assert "at half of the parameters, from {:.3f} to {:.3f}".format(*p) in words
    assert p[0] < 0.05 < p[1]


def test_which_comparisons_at_other_widths_the_search_for_ends_has_turned_is_the_tables():
    words = " ".join((STUDIES / "README.md").read_text(encoding="utf-8").split())
    asked = {
        "digits_wide": lambda runs: the(
            differences(runs, "parameters removed", 0.75, "feature"), method="hsqrt_gl", **FEATURE
        ),
        "digits_resnet18": lambda runs: the(
            against_plain(runs, "dead kernels", 0.5), method="hsq_gl12", **FEATURE
        ),
        "digits_narrow": lambda runs: the(
            against_plain(runs, "dead kernels", 0.5), method="hsq_gl12", **FEATURE
        ),
    }
    for name, ask in asked.items():
        p = [ask(runs)["p (Holm)"] for runs in before_and_after(name)]
        assert "from {:.3f} to {:.3f})".format(*p) in words
        assert (p[0] < 0.05) != (p[1] < 0.05)
        assert set(path_ends(read_table(STUDIES / f"{name}.csv"))["found"]) == {"yes"}
    narrow = asked["digits_narrow"](prepared(read_table(STUDIES / "digits_narrow.csv")))
    assert (narrow["reach"], narrow["plain's reach"]) == (5, 5)
    assert f"it is {percent(narrow, 'difference')} points ahead (p {narrow['p (Holm)']:.3f})" in words
    wide = prepared(read_table(STUDIES / "digits_wide.csv"))
    half, most = (
        the(against_plain(wide, "parameters removed", level), method="hsqrt_gl", **FEATURE)
        for level in (0.5, 0.75)
    )
    assert (
        f"{percent(half, 'difference')} points below (p {half['p (Holm)']:.3f}), at three quarters " in words
    )
    assert f"three quarters {percent(most, 'difference')} below (p {most['p (Holm)']:.3f})" in words


def test_what_the_ends_cost_on_the_test_part_is_the_tables():
    lost = {}
    for name in SAME_PATHS[:3]:
        table = read_table(STUDIES / f"{name}.csv")
        ends = path_ends(table)
        ends = ends[ends["step"] != "cut"]
        runs = prepared(table)
        means = runs.groupby([*PATH, "amount"])[TUNED[1]].mean()
        at_ends = [means[(*row[:4], row[5])] for row in ends.itertuples(index=False)]
        lost[name] = 100 * (accuracy_of_dense(runs)["mean"] - sum(at_ends) / len(at_ends))
    words = " ".join((STUDIES / "README.md").read_text(encoding="utf-8").split())
    narrow, half, wide = lost.values()
    said = (
        f"in the mean {half:.1f} points below dense at half width, {narrow:.1f} at a quarter and {wide:.1f}"
    )
    assert said in words


def test_what_is_said_of_the_runs_that_were_made_again_is_the_tables():
    words = " ".join((STUDIES / "README.md").read_text(encoding="utf-8").split())
    again, first = (read_table(STUDIES / f"{name}.csv") for name in ("digits_again", "digits"))
    pairs = again.merge(first, on="key", suffixes=("", " before"))
    assert len(pairs) == len(again) == 50
    assert set(pairs["processor"]) != set(pairs["processor before"])
    moved = 100 * (pairs[TUNED[0]] - pairs[f"{TUNED[0]} before"]).abs()
    means = (
        100
        * (pairs[TUNED[0]] - pairs[f"{TUNED[0]} before"]).groupby([pairs["method"], pairs["amount"]]).mean()
    )
    assert (
        f"{(moved == 0).sum()} have the very same validation accuracy, one is {moved.max():.1f} points off"
        in words
    )
    assert f"five seeds move by at most {means.abs().max():.1f}" in words
    by_hand, _ = before_and_after("digits")
    makers = first.groupby(first["key"].isin(by_hand["key"]))["processor"].agg(set)
    assert [len(each) for each in makers] == [1, 1], (
        "the bisected runs come from one, the others from another"
    )


def test_what_the_words_say_without_a_number_holds_too():
    runs = prepared(read_table(STUDIES / "digits.csv"))
    where = {"instead of": "es", **FEATURE}
    kernels = against_plain(runs, "dead kernels", 0.5)
    for method in ("hsqrt_es", "hsq_es"):
        row = the(kernels, method=method, **where)
        assert (row["reach"], row["plain's reach"]) == (0, 5)
    given = runs[runs["penalty"].notna() & runs["fraction"].isna()]
    assert len(given) == 10
    assert given["parameters removed"].max() == 0
    first = choices(runs, "parameters removed").iloc[:3]
    assert dict(zip(first["method"], first["amount"], strict=True)) == {
        "gl12": 10,
        "hsqrt_gl": 7,
        "hsqrt_gl12": 7,
    }
    text = " ".join((STUDIES / "README.md").read_text(encoding="utf-8").split())
    tens, dense = (
        runs[
            (runs["method"] == "gl12")
            & (runs["amount"] == 10)
            & (runs[list(FEATURE)] == pd.Series(FEATURE)).all(axis=1)
        ],
        runs[runs["method"] == "dense"],
    )
    before, after = (
        [f"{100 * rows[what].mean():.1f}" for rows in (tens, dense)]
        for what in ("validation accuracy after zeroing", TUNED[0])
    )
    assert f"has {before[0]} % on the validation part after zeroing (dense {before[1]})" in text
    assert f"after fine-tuning {after[0]} (dense {after[1]})" in text
    gradient = the(choices(runs, "dead kernels"), method="hsq_gl12", grouping="neuron", step="gradient")
    proximal = the(choices(runs, "dead kernels"), method="hsq_gl12", **NEURON)
    assert (proximal["amount"], gradient["amount"]) == (190, 8)


def said_of_cifar10(start: str, end: str) -> str:
    """The words between two headings of the part about CIFAR-10."""
    text = (STUDIES / "README.md").read_text(encoding="utf-8")
    words = text.partition("## What CIFAR-10 says so far")[2].partition("\n## ")[0]
    return " ".join(words.partition(start)[2].partition(end)[0].split())


def notebook(name: str) -> str:
    return (STUDIES.parent / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8")


def test_how_much_of_cifar10_is_made_is_the_tables():
    table = read_table(STUDIES / "cifar10_alexnet.csv")
    recipes = Study.read(STUDIES / "cifar10_alexnet.toml").grid.recipes
    words = said_of_cifar10("\n", "**Three seeds**")
    by_seed = table.groupby("seed").size()
    assert len(table) == len(recipes)
    assert words.startswith(f"All {len(table)} runs")
    assert f"{by_seed[0]} with seed 0, {by_seed[1]} with seed 1, {by_seed[2]} with seed 2" in words
    late = table[table["seed"].eq(2) & table["proximal"] & table["device"].str.startswith("cpu")]
    assert f"{len(late)} with proximal steps on seed 2 come from a CPU" in words


def test_what_three_seeds_of_cifar10_say_is_the_tables():
    runs = prepared(read_table(STUDIES / "cifar10_alexnet.csv"))
    later = prepared(read_table(STUDIES / "cifar10_strengths.csv"))
    words = said_of_cifar10("**Three seeds**", "- **A mild push")
    dense = accuracy_of_dense(runs[runs["start"] == "he"])
    eighty, fifty = (accuracy_at(runs, "dead kernels", [level]) for level in (0.8, 0.5))
    quarter, half = (accuracy_at(runs, "parameters removed", [level]) for level in (0.25, 0.5))
    of_penalties = best_penalty(quarter)
    star = the(eighty, method="hsq_gl12", **BY_NEURON)
    level = [
        the(fifty, method="hsq_gl", **BY_NEURON),
        the(fifty, method="hsq_gl12", **BY_NEURON),
        the(fifty, method="magnitude", grouping="kernel"),
        the(fifty, method="l1", **BY_FEATURE),
    ]
    rows = [
        dense,
        star,
        the(eighty, method="hsq_gl12", **BY_FEATURE),
        the(eighty, method="hsq_gl12", **NEURON),
        the(eighty, method="hsq_gl12", **FEATURE),
        the(eighty, method="l1", **BY_FEATURE),
        the(eighty, method="gl12", **BY_FEATURE),
        the(eighty, method="magnitude", grouping="kernel"),
        the(eighty, method="hsqrt_gl12", **BY_NEURON),
        the(eighty, method="hsqrt_gl", **BY_FEATURE),
        *level,
        of_penalties,
        the(accuracy_at(later, "parameters removed", [0.25]), method="random", grouping="neuron"),
        the(half, method="hsqrt_gl", **BY_NEURON),
        the(half, method="gl12", **BY_NEURON),
        the(half, method="random", grouping="neuron"),
        the(half, method="magnitude", grouping="neuron"),
    ]
    by_kernel = differences(runs, "dead kernels", 0.8, "kernel")
    lead = the(by_kernel, method="hsq_gl12", **BY_NEURON)
    apart = the(differences(runs, "parameters removed", 0.5, "neuron"), method="hsqrt_gl", **BY_NEURON)
    said = {percent(row) for row in rows} | {percent(row, "difference") for row in (lead, apart)}
    assert set(re.findall(r"\d+\.\d ± \d+\.\d", words)) == said
    hierarchy = min(against_plain(runs, *question)["p (Holm)"].min() for question in QUESTIONS)
    luck = [lead["p (Holm)"], apart["p"], hierarchy]
    assert re.findall(r"(?<=p )0\.\d{3}", words) == [f"{p:.3f}" for p in luck]
    assert f"all {len(by_kernel)} rows of the page's table" in words
    complete = eighty[eighty["seeds"] == 3].sort_values("mean", ascending=False)
    assert complete["method"].tolist()[:4] == ["hsq_gl12"] * 4, "highest of all that get there"
    assert "hsq_gl12" not in complete["method"].tolist()[4:]
    for row in level:
        assert abs(row["mean"] - dense["mean"]) < 0.01
    paths = on_paths(runs)
    for method in ("hsqrt_gl12", "hsqrt_gl"):
        rival = along(paths, 0.8, method, "neuron", "gradient")
        assert rival[1] > along(paths, 0.8, "hsq_gl12", "neuron", "gradient")[1], "on seed 1 both are ahead"
        mildest = paths[(paths["method"] == method) & (paths["fraction"] == 0.01) & (paths["seed"] == 0)]
        assert mildest["dead kernels"].min() > 0.91
    milder = paths[(paths["unit"] == "neuron") & (paths["share"] == 0.5)]["parameters removed"]
    assert f"takes {100 * milder.min():.0f} to {100 * milder.max():.0f} % of them" in words


def test_what_is_said_of_proximal_steps_on_cifar10_is_the_table_s():
    words = said_of_cifar10("**A mild push takes", "**Seed 0 alone**")
    runs = prepared(read_table(STUDIES / "cifar10_alexnet.csv"))
    paths = on_paths(runs[runs["start"] == "he"])
    dead = 100 * paths.pivot_table("dead kernels", ["method", "grouping", "seed"], ["step", "fraction"])
    mild = [
        (dead["proximal", 10 * gentle] - dead["gradient", gentle]).dropna().abs() for gentle in (0.01, 0.03)
    ]
    means, most = ("{:.1f} and {:.1f}".format(*map(of, mild)) for of in (pd.Series.mean, pd.Series.max))
    assert len(mild[0]) == len(mild[1])
    assert f"by {means} points in the mean of {len(mild[0])} pairs, by {most} at" in words
    jumps = dead.loc["hsqrt_gl12", "neuron", 0]
    gradient = f"{jumps['gradient', 0.1]:.1f} % dead at 0.1 and {jumps['gradient', 0.3]:.1f} % at 0.3"
    proximal = f"{jumps['proximal', 1]:.1f} and {jumps['proximal', 3]:.1f} %"
    assert f"{gradient}, with proximal steps at 1 and 3 {proximal}" in words
    ways = {level: between_ways(paths, level) for level in (0.5, 0.8)}
    half, eighty = ways.values()
    assert f"lies {-half.min():.1f} points below to {half.max():.1f} above the same" in words
    assert f"where 80 % are {-eighty.min():.1f} below to {eighty.max():.1f} above" in words
    assert eighty.idxmax() == ("gl", "neuron", 0)
    low = "`{}`, {}-wise, seed {}, and neuron-wise, seed 0".format(*eighty.idxmin())
    assert low in words
    behind = -eighty.loc["l1", "feature"]
    half_width = confidence_half_width(pd.Series([behind.std()]), pd.Series([3]))[0]
    luck = (
        f"by {behind.mean():.1f} ± {half_width:.1f} points (p {ttest_1samp(behind, 0).pvalue:.3f} by itself)"
    )
    assert luck in words
    assert (behind > 0).all()
    assert len(behind) == 3
    told = {
        path
        for path, apart in eighty.groupby(["method", "grouping"])
        if len(apart) == 3 and ttest_1samp(apart, 0).pvalue < 0.05
    }
    assert told == {("l1", "feature")}, "which way is better these runs do not say, l1 apart"


def between_ways(paths: pd.DataFrame, level: float) -> pd.Series:
    """By path and seed: a path's accuracy with proximal steps, less that with gradient steps, in points."""
    found = at_levels(paths, [level], gain="dead kernels", chosen_by=TUNED[0], reported=TUNED[1], path=PATH)
    ways = found.pivot_table(TUNED[1], ["method", "grouping", "seed"], "step", dropna=False)
    return 100 * (ways["proximal"] - ways["gradient"]).dropna()


def test_what_is_said_of_seed_0_of_cifar10_is_the_table_s():
    runs = prepared(read_table(STUDIES / "cifar10_alexnet.csv"))
    runs = runs[runs["seed"] == 0]
    words = said_of_cifar10("**Seed 0 alone**", "**At equal shares")
    first, second = (choices(runs, "dead kernels").iloc[place] for place in (0, 1))
    where = [(row["method"], row["grouping"], row["step"]) for row in (first, second)]
    assert where == [("hsq_gl12", "neuron", "gradient"), ("hsq_gl12", "feature", "proximal")]
    cut = the(runs, method="magnitude", unit="kernel", share=0.8)
    released = runs[runs["l1_mix"] == 0.5].set_index("start")
    dense = the(runs, method="dense", start="he")
    proximal = runs[runs["step"] == "proximal"]
    tenth = [
        the(proximal, method=m, grouping="feature", fraction=0.1)[TUNED[1]] for m in ("gl12", "hsqrt_gl")
    ]
    assert f"are down to {100 * tenth[0]:.1f} and {100 * tenth[1]:.1f}" in words
    shares = [dense[TUNED[1]], cut["dead kernels"], cut[TUNED[1]], *tenth]
    shares += [row[what] for row in (first, second) for what in ("dead kernels", "test accuracy")]
    shares += [choices(runs, "parameters removed").iloc[0]["parameters removed"]]
    shares += [*released[TUNED[1]], released["dead kernels"]["he"]]
    on_three = choices(prepared(read_table(STUDIES / "cifar10_alexnet.csv")), "dead kernels")
    wide = [on_three.iloc[place] for place in (0, 1)]
    assert [(row["method"], row["grouping"], row["step"], row["seeds"]) for row in wide] == [
        ("hsq_gl12", "feature", "gradient", 3),
        ("hsq_gl12", "neuron", "gradient", 3),
    ]
    shares += [row[what] for row in wide for what in ("dead kernels", "± ")]
    shares += [on_three.iloc[-1]["dead kernels"]]
    said = {f"{100 * share:.1f}" for share in shares} | {"0.1", "0.3"}
    assert set(re.findall(r"\d+\.\d(?!\d)", words)) == said
    alone = runs[runs["fraction"].notna() & (runs["start"] == "he")]
    alone = alone[~(alone["l1_mix"] > 0)]
    assert set(alone.groupby(["step", "fraction"]).size()) == {20}, "penalties and groupings"
    bearable = alone[alone[TUNED[0]] >= dense[TUNED[0]] - LOSS_ALLOWED]
    borne = bearable.groupby(["step", "fraction"]).size()
    gradient, steps = borne["gradient"], borne["proximal"]
    counts = f"Of the 20 penalties and groupings with gradient steps {gradient[0.01]} lose at most a point"
    assert f"{counts} (validation) at fraction 0.01, {gradient[0.03]} at 0.03, at 0.1 and 0.3" in words
    counts = ", ".join(f"{steps[fraction]} at {fraction:g}" for fraction in (0.1, 0.3, 1, 3))
    assert f"with proximal steps {counts}, none at 10" in words
    assert 10 not in steps
    harder = bearable[(bearable["step"] == "gradient") & (bearable["fraction"] >= 0.1)]
    assert set(harder["fraction"]) == {0.1, 0.3}
    assert set(harder["method"]) == {"hsq_es"}
    assert harder["dead kernels"].max() == 0, "which kills no kernel"
    assert "`hsq_gl12` bears 0.03 here, 8 on the digits" in words
    star = bearable[(bearable["method"] == "hsq_gl12") & (bearable["step"] == "gradient")]
    digits = choices(prepared(read_table(STUDIES / "digits.csv")), "dead kernels")
    assert star["fraction"].max() == 0.03
    assert the(digits, method="hsq_gl12", grouping="neuron", step="gradient")["amount"] == 8


def along(runs: pd.DataFrame, level: float, *path: str, gain: str = "dead kernels") -> pd.Series:
    """Accuracy by seed where a path (method, grouping, step) has this share, of dead kernels or another."""
    names = ["method", "grouping", "step"]
    mine = runs[(runs[names] == pd.Series(path, names)).all(axis=1)]
    found = at_levels(mine, [level], gain=gain, chosen_by=TUNED[0], reported=TUNED[1], path=PATH)
    return found.set_index("seed")[TUNED[1]]


def at_equal_shares(
    study: str, heading: str, next_heading: str, ways: dict[str, tuple[str, str, str]], seeds: list[str]
) -> tuple[pd.DataFrame, str]:
    """Where 80 % of the kernels are dead: the accuracies by seed, found to be those said; and the words."""
    runs = prepared(read_table(STUDIES / f"{study}.csv"))
    runs = runs[runs["start"] == "he"]
    text = (STUDIES / "README.md").read_text(encoding="utf-8")
    words = text.partition(heading)[2].partition(next_heading)[0]
    found = pd.DataFrame({name: along(on_paths(runs), 0.7995, *way) for name, way in ways.items()})
    found.insert(0, "dense", runs[runs["method"] == "dense"].set_index("seed")[TUNED[1]])
    rows = re.findall(r"^\| (\d) \| (.+) \|$", words, flags=re.MULTILINE)
    assert [seed for seed, _ in rows] == seeds
    for seed, said in rows:
        assert said.split(" | ") == [f"{100 * number:.1f}" for number in found.loc[int(seed)]]
    return found, " ".join(words.split())


WAYS_ON_CIFAR10 = {
    "cut": ("magnitude", "kernel", "cut"),
    "l1": ("l1", "feature", "gradient"),
    "gl12": ("gl12", "feature", "gradient"),
    "feature-wise": ("hsq_gl12", "feature", "gradient"),
    "penalty": ("hsq_gl12", "neuron", "gradient"),
}


def leads(found: pd.DataFrame) -> dict[str, str]:
    """The penalty's lead over each rival, in points and paired, as it is written."""
    apart = found[["cut", "l1", "gl12"]].rsub(found["penalty"], axis=0)
    assert (apart > 0).all(axis=None)
    half = pd.Series(confidence_half_width(apart.std(), apart.count()), apart.columns)
    corrected = multipletests([ttest_1samp(apart[name], 0).pvalue for name in apart], method="holm")[1]
    return {
        name: f"{100 * apart[name].mean():.1f} ± {100 * half[name]:.1f} points (p {p:.3f})"
        for name, p in zip(apart, corrected, strict=True)
    }


def test_what_cifar10_says_at_equal_shares_of_dead_kernels_is_read_along_the_paths():
    found, words = at_equal_shares(
        "cifar10_alexnet", "**At equal shares", "**Does the lead", WAYS_ON_CIFAR10, ["0", "1", "2"]
    )
    for said in leads(found).values():
        assert said in words, said
    table = prepared(read_table(STUDIES / "cifar10_alexnet.csv"))
    paths = on_paths(table[table["start"] == "he"])
    assert "read at 79.95 %" in words
    cuts = paths[(paths["method"] == "magnitude") & (paths["unit"] == "kernel") & (paths["share"] == 0.8)]
    assert cuts["dead kernels"].between(0.7995, 0.8, inclusive="left").all(), "which the cut just reaches"
    other = along(paths, 0.7995, "gl12", "neuron", "gradient")
    each = [f"{100 * other[seed]:.1f}" for seed in (0, 1, 2)]
    assert f"`gl12`, neuron-wise, has {each[0]}, {each[1]} and {each[2]}" in words
    assert (other < found["gl12"]).all()
    assert (found["feature-wise"] < found["penalty"]).all(), "each in its better grouping"
    mildest = the(
        table[table["step"] == "gradient"], method="gl12", grouping="feature", fraction=0.01, seed=0
    )
    assert f"on seed 0 it has none below {100 * mildest['dead kernels']:.1f} %" in words
    table = table[table["step"] != "proximal"]
    is_cpu = table["device"].str.startswith("cpu")
    made = {(seed, cpu): int(count) for (seed, cpu), count in table.groupby(["seed", is_cpu]).size().items()}
    by_gpu, by_cpu = ([made[seed, cpu] for seed in (1, 2)] for cpu in (False, True))
    machines = f"{by_gpu[0]} and {by_gpu[1]} from an H200, {by_cpu[0]} and {by_cpu[1]} from a CPU"
    assert machines in words
    played = table[table["commit"] == "5da3b91cb0"].groupby("seed").size()
    assert played.to_dict() == {1: 68, 2: by_gpu[1]}
    assert f"of the {by_gpu[0]}, 68, and all {by_gpu[1]} were made with passes" in words


def test_what_new_seeds_say_of_the_lead_is_the_table_s():
    ways = {name: way for name, way in WAYS_ON_CIFAR10.items() if name != "feature-wise"}
    found, words = at_equal_shares(
        "cifar10_strengths", "**Does the lead hold", "**A larger network", ways, ["3", "4", "5"]
    )
    for name, said in leads(found).items():
        assert f"of {'the cut' if name == 'cut' else f'`{name}`'} by {said}" in words, said
    lost = found["dense"] - found["penalty"]
    half = confidence_half_width(pd.Series([lost.std()]), pd.Series([3]))[0]
    assert f"costs {100 * lost.mean():.1f} ± {100 * half:.1f} points against dense" in words
    study = Study.read(STUDIES / "cifar10_strengths.toml")
    assert len(read_table(study.table)) == len(study.grid.recipes) == 51
    assert "the first of its 51 runs" in words
    page = notebook("09_at_paper_scale")
    points, luck = zip(
        *(said.rstrip(")").split(" points (p ") for said in leads(found).values()), strict=True
    )
    below = f"ahead, at {100 * lost.mean():.1f} ± {100 * half:.1f} points below dense"
    assert f"| {'; '.join(points)} | {'; '.join(luck)} | {below} (" in page


def on_cifar10(network: str, start: str, end: str) -> tuple[pd.DataFrame, str]:
    """The runs of a study, and the words about it, which say how many there are."""
    study = Study.read(STUDIES / f"cifar10_{network}.toml")
    runs = prepared(read_table(study.table))
    words = said_of_cifar10(start, end)
    made, planned = len(runs), len(study.grid.recipes)
    assert (f"all {made} runs" if made == planned else f"{made} of {planned} runs") in words
    assert f"{int(runs['parameters'].iloc[0]):,} parameters" in words
    return runs, words


def test_what_is_said_of_vgg11_on_cifar10_is_the_tables():
    runs, words = on_cifar10("vgg11", "**A larger network**", "**ResNet18**")
    narrow = read_table(STUDIES / "cifar10_alexnet.csv")["parameters"].iloc[0]
    assert round(runs["parameters"].iloc[0] / narrow) == 10, "ten times AlexNet's parameters"
    dense = runs[runs["method"] == "dense"].set_index("seed")[TUNED[1]]
    ways = {name: way for name, way in WAYS_ON_CIFAR10.items() if name != "gl12"}
    rows = re.findall(r"\| (\d\d)\.0 % \| (\d) \| ((?:[\d.]+(?: \| )?){5}) \|", words)
    assert [(share, seed) for share, seed, _ in rows] == [("80", "0"), ("80", "1"), ("90", "0"), ("90", "1")]
    paths = on_paths(runs)
    for share, seed, said in rows:
        level = int(share) / 100 - 0.0005
        found = [along(paths, level, *way)[int(seed)] for way in ways.values()]
        assert said.split(" | ") == [f"{100 * number:.1f}" for number in (dense[int(seed)], *found)]
    row = the(differences(runs, "dead kernels", 0.8, "kernel"), method="hsq_gl12", **BY_NEURON)
    page = notebook("09_at_paper_scale")
    assert row["difference"] < 0
    assert f"{percent(row, 'difference')} points below the cut (p {row['p']:.3f} by itself" in words
    assert f"| −{percent(row, 'difference')} | {row['p']:.3f} |" in page
    star = paths[(paths["method"] == "hsq_gl12") & (paths["grouping"] == "neuron")]
    dead = star.set_index(["seed", "fraction"])["dead kernels"].mul(100)
    lines = [f"{dead[seed, 0.1] - dead[seed, 0.03]:.0f}" for seed in (0, 1)]
    assert f"on lines {lines[0]} and {lines[1]} points long" in words
    is_cut = (runs["method"] == "magnitude") & (runs["unit"] == "kernel") & (runs["share"] == 0.8)
    cut = runs[is_cut].set_index("seed")
    whole = runs[runs["method"] == "dense"].set_index("seed")
    lost = [[f"{100 * (whole[of] - cut[of])[seed]:.1f}" for seed in (0, 1)] for of in reversed(TUNED)]
    (test_0, test_1), (validation_0, validation_1) = lost
    costs = f"costs {test_0} and {test_1} points on the test part, {validation_0} and {validation_1} on"
    assert costs in words
    furthest = choices(runs, "dead kernels").iloc[0]
    assert (furthest["method"], furthest["grouping"], furthest["amount"]) == ("hsq_gl", "neuron", 0.1)
    squared = paths[(paths["method"] == "hsq_gl") & (paths["grouping"] == "neuron")]
    squared = squared.set_index(["fraction", "seed"])[["dead kernels", TUNED[1]]].mul(100).round(1)
    (dead_0, at_0), (dead_1, at_1) = (squared.loc[(0.1, seed)] for seed in (0, 1))
    assert f"0.10 it has {dead_0} and {dead_1} % of the kernels dead at {at_0} and {at_1}" in words
    (dead_0, at_0), (dead_1, at_1) = (squared.loc[(0.03, seed)] for seed in (0, 1))
    assert f"it has {at_0} and {at_1}, better than dense, with {dead_0} and {dead_1} % dead" in words
    mild = paths[(paths["method"] == "magnitude") & (paths["unit"] == "neuron") & (paths["share"] == 0.5)]
    mild = mild.set_index("seed")[["parameters removed", TUNED[1]]].mul(100).round(1)
    (gone_0, left_0), (gone_1, left_1) = (mild.loc[seed] for seed in (0, 1))
    assert f"takes {gone_0} and {gone_1} % of them and leaves {left_0} and {left_1}" in words
    plain = paths[(paths["method"] == "gl12") & (paths["grouping"] == "feature")]
    plain = plain.set_index(["fraction", "seed"])[["parameters removed", TUNED[1]]].mul(100).round(1)
    for fraction, between in ((0.01, " gone"), (0.03, "")):
        (gone_0, left_0), (gone_1, left_1) = (plain.loc[(fraction, seed)] for seed in (0, 1))
        assert f"{gone_0} and {gone_1} %{between} at {left_0} and {left_1}" in words
    assert differences(runs, "parameters removed", 0.5, "neuron")["p (Holm)"].min() > 0.05


def test_what_is_said_of_resnet18_on_cifar10_is_the_tables():
    runs, words = on_cifar10("resnet18", "**ResNet18**", "**One fraction")
    dense = runs[runs["method"] == "dense"].set_index("seed")[TUNED[1]]
    found = choices(runs, "dead kernels")
    found = found[found["seeds"] == 2]
    where = [(row["method"], row["grouping"], row["amount"]) for _, row in found.iterrows()]
    assert where[:3] == [("hsq_gl12", "neuron", 3), ("hsq_gl12", "feature", 10), ("gl12", "feature", 0.3)]
    assert found["dead kernels"].iloc[0] - found["dead kernels"].iloc[2] < found["± "].iloc[2]

    def of(method: str, grouping: str, amount: float) -> pd.DataFrame:
        path = (runs["method"] == method) & (runs["grouping"] == grouping) & (runs["amount"] == amount)
        return runs[path].set_index("seed")

    def both(rows: pd.DataFrame, of: str) -> str:
        return "{:.1f} and {:.1f}".format(*(100 * rows[of].loc[[0, 1]]))

    star, plain, harder = (of(*row) for row in (where[0], where[2], ("gl12", "feature", 1)))
    kernels, channels = of("magnitude", "kernel", 0.8), of("magnitude", "feature", 0.5)
    assert f"dense: {both(dense.to_frame(TUNED[1]), TUNED[1])} on the test part" in words
    for rows, dead in ((star, "has {} % of the kernels dead"), (plain, "has {} % dead")):
        assert dead.format(both(rows, "dead kernels")) in words
        assert f"{both(rows, 'parameters removed')} %" in words
        assert f"at {both(rows, TUNED[1])}" in words
        assert (rows[TUNED[1]] > dense).all(), "more than dense"
    assert (harder["dead kernels"] < plain["dead kernels"]).all(), "no more dead"
    assert f"has no more dead at 1, and {both(harder, TUNED[1])}" in words
    ten, thirty = (of("hsq_gl12", "neuron", amount) for amount in (10, 30))
    assert f"{both(ten, 'dead kernels')} % dead at 10 ({both(ten, TUNED[1])})" in words
    assert f"parameters gone, {both(thirty, 'parameters removed')} %." in words
    assert (thirty["dead kernels"] - ten["dead kernels"]).abs().max() < 0.01, "as many dead"
    assert (thirty["parameters removed"] < 0.6 * ten["parameters removed"]).all()
    paths = on_paths(runs)
    for row, name in ((star, "`hsq_gl12`, neuron-wise, has {}"), (plain, "`gl12`, feature-wise, {}")):
        where = (row["method"].iloc[0], row["grouping"].iloc[0], "gradient")
        read = along(paths, 0.745, *where).to_frame("at the cut's share")
        assert name.format(both(read, "at the cut's share")) in words
        assert (read["at the cut's share"] > kernels[TUNED[1]]).all(), "ahead of the cut, on both seeds"
    assert f"the cut {both(kernels, TUNED[1])}. At 80.0 %" in words
    paired = [along(paths, 0.8, *way) for way in (WAYS_ON_CIFAR10["penalty"], WAYS_ON_CIFAR10["cut"])]
    first, second = (both(way.to_frame(TUNED[1]), TUNED[1]) for way in paired)
    assert f"`hsq_gl12` has {first}, the cut {second}: not told apart. No penalty" in words
    assert (paired[0] > paired[1]).tolist() == [False, True], "not told apart"
    assert kernels["dead kernels"].round(3).isin([0.745, 0.746]).all()
    further = of("magnitude", "kernel", 0.9)
    for what in ("dead kernels", "parameters removed", TUNED[1]):
        assert both(further, what) in words
    by_penalty = paths.loc[paths["step"] != "cut", "dead kernels"]
    assert by_penalty.max() < further["dead kernels"].min(), "no penalty goes as far"
    assert f"takes {both(channels, 'parameters removed')} % of the parameters leaves" in words
    assert f"leaves {both(channels, TUNED[1])}." in words
    made = runs[runs["fraction"].notna()].groupby(["seed", "method"])["fraction"].agg(set)
    others = {"hsqrt_gl", "hsqrt_gl12", "hsqrt_es", "es", "hsq_es", "l2"}
    assert set(made[0][list(others)].map(frozenset)) == {frozenset({0.1, 0.3, 1})}
    assert made[1].equals(made[0]), "eleven penalties on two seeds"
    rooted = of("hsqrt_gl", "feature", 0.1)
    assert (
        f"{both(rooted, 'parameters removed')} % of the parameters gone, at {both(rooted, TUNED[1])};"
        in words
    )
    lasso = paths[paths["method"] == "gl"].sort_values("parameters removed").iloc[-1]
    assert paths.loc[paths["method"] == "gl", "fraction"].nunique() == 6
    at_most = f"more than {100 * lasso['parameters removed']:.1f} %, and there it is down to"
    assert f"{at_most} {100 * lasso[TUNED[1]]:.1f}." in words
    mild = of("hsq_gl", "neuron", 3)
    assert f"with {both(mild, 'dead kernels')} % dead, reaches {both(mild, TUNED[1])}" in words
    page = notebook("09_at_paper_scale")
    read = along(paths, 0.745, "hsq_gl12", "neuron", "gradient").to_frame(TUNED[1])
    assert f"74.5 % dead | {both(read, TUNED[1])} against {both(kernels, TUNED[1])} |" in page
    ends = [100 * pd.concat([star, plain])[what] for what in ("dead kernels", "parameters removed")]
    dead, gone = (f"{each.min():.0f} to {each.max():.0f} %" for each in ends)
    page = notebook("08_a_smaller_network")
    assert f"had {dead} of the kernels dead, {gone} of the parameters gone, above dense" in page


def test_what_is_said_of_mnist_is_the_tables():
    study = Study.read(STUDIES / "mnist_alexnet.toml")
    runs = prepared(read_table(study.table))
    text = (STUDIES / "README.md").read_text(encoding="utf-8")
    words = " ".join(text.partition("## What MNIST says")[2].partition("\n## ")[0].split())
    assert len(runs) == len(study.grid.recipes)
    assert words.startswith(f"All {len(runs)} runs of")
    assert set(zip(runs["epochs"], runs["finetune"], strict=True)) == {(8, 2)}
    on_cpu = runs["device"].str.startswith("cpu")
    assert f"{(~on_cpu).sum()} come from an H200, {on_cpu.sum()}, all of them of seed 0" in words
    assert set(runs.loc[on_cpu, "seed"]) == {0}
    kernels, removed = choices(runs, "dead kernels", most=5), choices(runs, "parameters removed")
    assert [(row["method"], row["grouping"]) for _, row in kernels.iterrows()] == [
        ("hsqrt_gl", "feature"),
        ("hsq_gl", "neuron"),
        ("hsqrt_gl12", "feature"),
        ("hsq_gl12", "feature"),
        ("gl12", "neuron"),
        ("magnitude", "kernel"),
    ]
    first, fifth = kernels.iloc[0], kernels.iloc[4]
    assert first["dead kernels"] - first["± "] < fifth["dead kernels"], "their order may be luck"
    penalty, cut = removed.iloc[0], removed.iloc[-1]
    assert (cut["method"], cut["grouping"]) == ("magnitude", "neuron"), "output channels by size"
    assert (penalty["method"], penalty["grouping"], penalty["amount"]) == ("gl12", "neuron", 0.03)
    assert differences(runs, "parameters removed", 0.5, "neuron")["p (Holm)"][:5].min() > 0.05
    eighty = accuracy_at(runs, "dead kernels", [0.8])
    star = the(eighty, method="hsq_gl12", **BY_NEURON)
    assert eighty["mean"].max() == star["mean"]
    by_kernel = differences(runs, "dead kernels", 0.8, "kernel")
    lead = the(by_kernel, method="hsq_gl12", **BY_NEURON)
    paths = on_paths(runs)
    apart = along(paths, 0.8, "hsq_gl12", "neuron", "gradient") - along(
        paths, 0.8, "magnitude", "kernel", "cut"
    )
    assert (apart > 0).all(), "in every seed"
    luck = f"(p {lead['p']:.3f} by itself, {lead['p (Holm)']:.3f} after Holm over the {len(by_kernel)} rows"
    assert luck in words
    hierarchy = pd.concat([against_plain(runs, *question) for question in QUESTIONS])
    behind = hierarchy.sort_values("p (Holm)").iloc[0]
    assert (behind["method"], behind["instead of"], behind["grouping"]) == ("hsqrt_es", "es", "neuron")
    assert behind["difference"] < 0
    rest = hierarchy["p (Holm)"].drop_duplicates().nsmallest(2).iloc[1]
    assert f"(p {behind['p (Holm)']:.3f}); otherwise" in words
    assert f"(p {rest:.3f} at best" in words
    rows = [percent(row, goal, "± ") for _, row in kernels.iterrows() for goal in ("dead kernels",)]
    said = {*rows, *(percent(row, "test accuracy") for _, row in kernels.iterrows())}
    said |= {percent(row, "parameters removed", "± ") for row in (cut, penalty)}
    said |= {percent(row, "test accuracy") for row in (cut, penalty)}
    said |= {percent(star), percent(the(eighty, method="magnitude", grouping="kernel"))}
    said |= {percent(accuracy_of_dense(runs)), percent(lead, "difference"), percent(behind, "difference")}
    assert set(re.findall(r"\d+\.\d ± \d+\.\d", words)) == {part.lstrip("−-") for part in said}
    page = notebook("09_at_paper_scale")
    assert f"| {percent(lead, 'difference')} | {lead['p (Holm)']:.3f} | may be luck |" in page
    alone = choices(runs[runs["seed"] == 0], "dead kernels").iloc[0]
    assert alone["method"] == "hsq_gl12"
    assert f"with {100 * alone['dead kernels']:.1f} % of them dead" in words


def test_what_is_said_of_three_seeds_of_cifar10_is_the_table_s():
    table = read_table(STUDIES / "cifar10_seeds.csv")
    assert len(table) == len(Study.read(STUDIES / "cifar10_seeds.toml").grid.recipes) == 9
    text = (STUDIES / "README.md").read_text(encoding="utf-8")
    words = text.partition("**One fraction is not")[2].partition("**One recipe")[0]
    rows = re.findall(r"^\| (\d) \| (.+) \|$", words, flags=re.MULTILINE)
    worst = []
    for seed, said in rows:
        runs = table[table["seed"] == int(seed)]
        dense, cut = (runs[runs["baseline"] == which].iloc[0] for which in ("dense", "magnitude"))
        penalty = the(runs, penalty="hsq_gl12")
        shares = [dense[TUNED[1]], cut[TUNED[1]], penalty[TUNED[1]], penalty["dead kernels"]]
        wanted = [f"{100 * share:.1f}" for share in shares]
        strength = f"{penalty['calibrated strength']:.1e}".replace("e-0", "e-")
        assert said.replace(" %", "").split(" | ") == [*wanted, strength]
        assert cut["dead kernels"] == pytest.approx(0.8, abs=5e-4)
        worst.append(dense[TUNED[1]] - penalty[TUNED[1]])
    assert [seed for seed, _ in rows] == ["0", "1", "2"]
    assert f"at most {100 * max(worst):.1f} points below dense in every seed" in words


def test_one_recipe_made_by_two_machines_is_what_the_words_say_of_their_noise():
    names = ("cifar10_alexnet", "cifar10_seeds")
    first, second = (read_table(STUDIES / f"{name}.csv").set_index("key") for name in names)
    both = first.index.intersection(second.index)
    first, second = first.loc[both], second.loc[both]
    twice = first["device"] != second["device"]
    assert set(first.loc[twice, "seed"]) == {1}
    assert set(zip(first["python"][twice], first["torch"][twice], strict=True)) == {(3.12, "2.11.0")}
    assert set(zip(second["python"][twice], second["torch"][twice], strict=True)) == {(3.11, "2.15.0")}
    text = (STUDIES / "README.md").read_text(encoding="utf-8")
    words = " ".join(text.partition("**One recipe is not")[2].partition("\n## ")[0].split())

    def pair(method: str, column: str) -> str:
        key = first.index[twice & (first["method"] == method)].item()
        return f"{100 * first.loc[key, column]:.1f} and {100 * second.loc[key, column]:.1f}"

    assert f"Dense: {pair('dense', TUNED[1])}; the penalty: {pair('hsq_gl12', TUNED[1])}, with " in words
    assert f"with {pair('hsq_gl12', 'dead kernels')} % of the kernels dead" in words
    mixed = [
        path.stem
        for path in sorted(STUDIES.glob("*.csv"))
        if not path.stem.endswith("_layers") and read_table(path)["torch"].nunique() > 1
    ]
    assert "both tables mix the two, as those of VGG11, ResNet18 and MNIST do" in words
    assert mixed == sorted([*names, "cifar10_resnet18", "cifar10_vgg11", "mnist_alexnet"])


def test_what_is_said_of_what_is_planned_is_what_the_files_plan():
    words = " ".join((STUDIES / "README.md").read_text(encoding="utf-8").split())
    plans = pd.DataFrame(
        [recipe.fields() for recipe in Study.read(STUDIES / "cifar10_alexnet.toml").grid.recipes]
    )
    paths = plans[plans["fraction"].notna()]
    first, rest = paths[paths["seed"] == 0], paths[paths["seed"] > 0]
    assert set(first.groupby("proximal")["fraction"].nunique()) == {5}
    assert rest.groupby(["seed", "proximal"])["fraction"].nunique().to_dict() == {
        (1, False): 4, (1, True): 5, (2, False): 4, (2, True): 5,
    }  # fmt: skip
    assert set(paths.groupby(["seed", "proximal"])["penalty"].nunique()) == {11}
    assert set(plans.loc[plans["baseline"] == "random", "seed"]) == {0, 1, 2}
    assert (
        "proximal steps at five strengths, gradient steps at five on seed 0 and at four on the others"
        in words
    )
    for network, penalties in (("resnet18", 11), ("vgg11", 5)):
        planned = Study.read(STUDIES / f"cifar10_{network}.toml").grid.recipes
        assert len({recipe.fields().get("penalty") for recipe in planned} - {None}) == penalties
    starts = {name: spec.start for name, spec in MODELS.items()}
    assert starts == {"digits_cnn": "pytorch", "alexnet": "he", "vgg11": "he", "resnet18": "he"}
    assert "`digits_cnn` starts from PyTorch's initial weights, the other networks from He's" in words


def test_the_table_of_studies_names_every_file_with_the_number_of_runs_it_plans():
    text = (STUDIES / "README.md").read_text(encoding="utf-8")
    said: dict[str, str] = {}
    for row in re.findall(r"^\| \[`\w+\.toml`\].+", text, flags=re.MULTILINE):
        names = re.findall(r"\]\((\w+\.toml)\)", row)
        counts = row.split(" | ")[2].replace(" each", "")
        said |= dict(
            zip(names, re.findall(r"[\d,]*\d", counts.replace(", ", " ")) * len(names), strict=False)
        )
    planned = {path.name: f"{len(Study.read(path).grid.recipes):,}" for path in STUDIES.glob("*.toml")}
    full = {name: count for name, count in planned.items() if name.startswith("cifar10_full_")}
    assert said == {name: planned[name] for name in planned.keys() - full.keys()}


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


SAME_PATHS = ("digits_narrow", "digits", "digits_wide", "digits_resnet18")
"""The studies that take the same paths on one set of images."""
CUT_IN_WORDS = {
    "kernel": "kernels",
    "feature": "input channels",
    "neuron": "output channels",
    "magnitude": "by size",
    "random": "at random",
}


def furthest_in_words(runs: pd.DataFrame, goal: str) -> list[str]:
    """The penalty and the cut that get furthest towards a goal, as the table of networks writes them."""
    found = choices(runs, goal)
    cells = []
    for row in (found.iloc[0], found.iloc[-1]):
        which = f"`{row['method']}`, {row['grouping']}-wise"
        if row["step"] == "cut":
            which = f"{CUT_IN_WORDS[row['grouping']]} {CUT_IN_WORDS[row['method']]}"
        cells.append(f"{percent(row, goal, '± ')} ({which}; {percent(row, 'test accuracy')})")
    return cells


def test_the_table_of_networks_is_the_tables():
    text = (STUDIES / "README.md").read_text(encoding="utf-8")
    for name in SAME_PATHS:
        runs = prepared(read_table(STUDIES / f"{name}.csv"))
        runs = runs[runs["step"] != "gradient"]
        assert len(runs["parameters"].unique()) == 1
        cells = [f"{runs['parameters'].iloc[0]:,.0f}", percent(accuracy_of_dense(runs))]
        cells += furthest_in_words(runs, "dead kernels") + furthest_in_words(runs, "parameters removed")
        assert " | ".join(cells) in text, " | ".join(cells)


def test_what_is_said_of_the_number_of_channels_is_the_tables():
    words = (STUDIES / "README.md").read_text(encoding="utf-8")
    words = words.partition("## What the number of channels changes")[2].partition("\n## ")[0]
    words = " ".join(words.split())
    tables = [prepared(read_table(STUDIES / f"{name}.csv")) for name in SAME_PATHS[:3]]
    for runs in tables:
        runs = runs[runs["step"] != "gradient"]
        assert choices(runs, "dead kernels").iloc[0]["method"] == "hsq_gl12"
        assert choices(runs, "parameters removed").iloc[0]["method"] == "gl12"
    tried = [set(runs.loc[runs["step"] == "proximal", "method"]) for runs in tables]
    assert len(set.intersection(*tried)) == 5, "the five penalties tried at all three widths"
    narrow = choices(tables[0], "parameters removed").iloc[0]
    assert accuracy_of_dense(tables[0])["mean"] - narrow["test accuracy"] == pytest.approx(0.03, abs=0.005)
    at_kernels = [against_plain(runs, "dead kernels", 0.8) for runs in tables]
    at_parameters = [against_plain(runs, "parameters removed", 0.5) for runs in tables]
    kernels = [the(found, method="hsq_gl12", **FEATURE) for found in at_kernels]
    assert [row["reach"] for row in kernels] == [5, 5, 5]
    assert [row["plain's reach"] for row in kernels] == [0, 2, 5], "in none, in two of five, in all"
    luck = f"may be luck (p {kernels[2]['p (Holm)']:.3f})"
    assert f"{percent(kernels[2], 'difference')} points, {luck}" in words
    by_size = [differences(runs, "dead kernels", 0.8, "kernel") for runs in tables]
    ahead = [the(found, method="hsq_gl12", **NEURON) for found in by_size]
    assert all(row["difference"] > 0 for row in ahead)
    first, second, third = (percent(row, "difference") for row in ahead)
    assert f"{first} points above cutting kernels by size at a quarter of the width" in words
    assert f"{second} at half, {third} at the full width" in words
    assert "(p " + ", ".join(f"{row['p (Holm)']:.3f}" for row in ahead) + ": of these only the first" in words
    assert [row["p (Holm)"] < 0.05 for row in ahead] == [True, False, False]
    behind = the(by_size[0], method="hsq_gl12", **FEATURE)
    assert behind["difference"] < 0
    of_width = f"points *below* it at a quarter of the width (p {behind['p (Holm)']:.3f})"
    assert f"{percent(behind, 'difference')} {of_width}" in words
    assert behind["p (Holm)"] < 0.05
    half = [the(against_plain(runs, "dead kernels", 0.5), method="hsq_gl12", **NEURON) for runs in tables]
    assert max(row["plain's reach"] for row in half) <= 2, "not in most seeds"
    assert {row["reach"] for row in half} == {5}
    below = [the(found, method="hsq_gl12", **FEATURE) for found in at_parameters]
    assert all(row["difference"] < -row["±"] for row in below)
    first, second, third = (percent(row, "difference") for row in below)
    assert f"{first}, {second} and {third} points *below*" in words
    group_lasso = [the(found, method="hsqrt_gl", **FEATURE) for found in at_parameters]
    assert [(row["reach"], row["plain's reach"]) for row in group_lasso] == [(4, 0), (5, 3), (5, 5)]
    assert group_lasso[2]["difference"] > 0
    assert f"{percent(group_lasso[2], 'difference')} points below" in words


def test_no_two_leads_at_different_widths_are_told_apart_as_the_words_say():
    words = " ".join((STUDIES / "README.md").read_text(encoding="utf-8").split())
    tables = [prepared(read_table(STUDIES / f"{name}.csv")) for name in SAME_PATHS[:3]]
    cut, most = ("magnitude", "kernel", "cut"), "parameters removed"
    kernels = {
        unit: [along(runs, 0.8, "hsq_gl12", unit, "proximal") - along(runs, 0.8, *cut) for runs in tables]
        for unit in ("neuron", "feature")
    }
    lost = [
        along(runs, 0.5, "gl12", "feature", "proximal", gain=most)
        - along(runs, 0.5, "hsq_gl12", "feature", "proximal", gain=most)
        for runs in tables
    ]
    apart = [
        [
            ttest_ind(leads[one], leads[other], equal_var=False).pvalue
            for one, other in ((0, 1), (0, 2), (1, 2))
        ]
        for leads in (kernels["neuron"], kernels["feature"], lost)
    ]
    least = [f"{multipletests(three, method='holm')[1].min():.3f}" for three in apart]
    every = multipletests([p for three in apart for p in three], method="holm")[1].min()
    assert f"the neuron-wise leads are not told apart, p {least[0]} at best" in words
    assert f"some are, {least[1]} and {least[2]} at best, but over all nine none is, {every:.3f}." in words
    assert float(least[0]) > 0.05
    assert max(map(float, least[1:])) < 0.05 < every


def test_what_is_said_of_cuts_of_channels_and_of_narrower_networks_is_the_tables():
    words = (STUDIES / "README.md").read_text(encoding="utf-8")
    words = words.partition("## What the number of channels changes")[2].partition("\n## ")[0]
    words = " ".join(words.split())
    tables = [prepared(read_table(STUDIES / f"{name}.csv")) for name in SAME_PATHS[:3]]
    by_size = [differences(runs, "parameters removed", 0.5, "feature") for runs in tables]
    plain = [the(found, method="gl12", **FEATURE) for found in by_size]
    assert [row["difference"] > 0 for row in plain] == [True, True, False]
    first, second, third = (percent(row, "difference") for row in plain)
    assert f"is {first} and {second} points above cutting input channels by size" in words
    assert f"and {third} *below* at the full width" in words
    ahead = [the(found, method="hsqrt_gl", **FEATURE) for found in by_size]
    assert all(row["difference"] > 0 for row in ahead)
    first, second, third = (percent(row, "difference") for row in ahead)
    assert f"`hsqrt_gl` {first}, {second} and {third} above" in words
    assert min(row["p (Holm)"] for row in [*plain, *ahead]) > 0.05
    wide = accuracy_at(tables[2], "parameters removed", [0.75])
    best = best_cut(wide)
    assert (best["method"], best["grouping"]) == ("random", "neuron")
    assert f"it has {percent(the(wide, method='hsqrt_gl', **FEATURE))} at the full width" in words
    assert f"output channels at random with {percent(best)}" in words
    further = the(differences(tables[2], "parameters removed", 0.75, "feature"), method="hsqrt_gl", **FEATURE)
    of_size = f"{percent(further, 'difference')} points above that cut (p {further['p (Holm)']:.3f})"
    assert of_size in words
    assert further["difference"] > 0
    paths = [("hsqrt_gl", "feature", "proximal"), ("random", "neuron", "cut")]
    first, second = (along(tables[2], 0.75, *path, gain="parameters removed") for path in paths)
    apart = first - second
    half = confidence_half_width(pd.Series([apart.std()]), pd.Series([apart.count()]))[0]
    assert f"and {100 * apart.mean():.1f} ± {100 * half:.1f} above the one highest on test" in words
    assert 0 < apart.mean() < half, "which may be luck"
    assert further["p (Holm)"] > 0.05, "and so may the other"
    furthest = the(choices(tables[2], "parameters removed"), method="hsqrt_gl", **FEATURE)
    gone, left = percent(furthest, "parameters removed", "± "), percent(furthest, "test accuracy")
    assert f"it has {gone} of the parameters gone at {left}" in words
    kernels = the(differences(tables[2], "dead kernels", 0.8, "kernel"), method="hsq_gl12", **FEATURE)
    assert (
        f"is {percent(kernels, 'difference')} points above cutting by size (p {kernels['p (Holm)']:.3f})"
        in words
    )
    for runs, narrower in ((tables[2], tables[1]), (tables[1], tables[0])):
        thinned = runs[(runs["method"] == "gl12") & (runs["amount"] == 10) & (runs["step"] == "proximal")]
        thinned = thinned[thinned["grouping"] == "feature"]
        left = percent(summary(thinned, TUNED[1], ["method"]).iloc[0])
        assert f"{thinned['parameters left'].mean():,.0f} of the" in words
        dense = percent(accuracy_of_dense(narrower))
        assert f"at {left}, where the dense" in words
        assert f"has {narrower['parameters'].iloc[0]:,.0f} and {dense}" in words


def test_on_the_structure_there_is_no_verdict_as_the_words_say():
    runs = prepared(read_table(STUDIES / "digits_resnet18.csv"))
    kernels = choices(runs, "dead kernels")
    assert kernels.iloc[0]["method"] == "hsq_gl12"
    assert kernels.iloc[-1]["dead kernels"] > kernels.iloc[0]["dead kernels"]
    words = " ".join((STUDIES / "README.md").read_text(encoding="utf-8").split())
    ahead = the(against_plain(runs, "dead kernels", 0.5), method="hsq_gl12", **FEATURE)
    assert f"{percent(ahead, 'difference')} points above `gl12` (p {ahead['p (Holm)']:.3f}; one comp" in words
    assert ahead["difference"] > 0
    assert ahead["p (Holm)"] > 0.05, "may be luck"
    assert len(against_plain(runs, "dead kernels", 0.5)) == 1, "one comparison, as the words say"
    assert runs.loc[runs["step"] != "cut", "method"].nunique() == 3, "the three penalties tried"
    gone = choices(runs, "parameters removed")
    gone = gone[gone["step"] != "cut"]
    assert (gone["parameters removed"] <= gone["± "]).all(), "told from none"
