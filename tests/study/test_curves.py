"""A study's pictures show numbers of its table: the paths chosen, the levels reached, the intervals."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from hgsr_lite.__main__ import main
from hgsr_lite.figures import curves_figure, draw_pictures, numbers_of
from hgsr_lite.study import (
    CURVES,
    RECOVERY,
    Study,
    accuracy_at,
    choices,
    curves,
    dense_accuracy,
    is_baseline,
    picture_of,
    prepared,
    read_table,
    seeds_that_found,
)

STUDIES = Path(__file__).resolve().parents[2] / "studies"
WITH_TABLES = [path for path in sorted(STUDIES.glob("*.toml")) if path.with_suffix(".csv").exists()]
DISTRACTORS = [path for path in WITH_TABLES if path.stem.startswith("distractors")]
PRUNED = [path for path in WITH_TABLES if path not in DISTRACTORS]


@pytest.fixture(scope="module")
def digits() -> pd.DataFrame:
    return prepared(read_table(STUDIES / "digits.csv"))


@pytest.mark.parametrize("path", PRUNED, ids=lambda path: path.stem)
def test_committed_pictures_are_of_the_table_as_it_is_and_the_page_shows_them(path):
    runs = prepared(read_table(path.with_suffix(".csv")))
    page = path.with_suffix(".md").read_text(encoding="utf-8")
    for gain in CURVES:
        expected, place = curves(runs, gain), path.with_name(picture_of(path.stem, gain))
        assert place.exists() == bool(expected)
        assert (f"]({place.name})" in page) == bool(expected)
        if expected:
            shown = json.loads(Image.open(place).text["Description"])
            wanted = json.loads(numbers_of(expected))
            assert shown.keys() == wanted.keys()
            for name, rows in wanted.items():
                assert np.array(shown[name], float) == pytest.approx(
                    np.array(rows, float), abs=2e-6, nan_ok=True
                ), name


@pytest.mark.parametrize("path", DISTRACTORS, ids=lambda path: path.stem)
def test_a_study_with_distractors_shows_what_was_found(path):
    runs = prepared(read_table(path.with_suffix(".csv")))
    place = path.with_name(picture_of(path.stem, RECOVERY))
    assert Image.open(place).text["Description"] == seeds_that_found(runs, "below 1e-3").to_json()
    assert f"]({place.name})" in path.with_suffix(".md").read_text(encoding="utf-8")


INFINITE = ("hsqrt_gl", "hsqrt_gl12", "gl12")
MORE_BELOW_A_TENTH = {
    "noise": {("hsqrt_es", 100): 3, ("l1", 100): 2, ("gl", 30): 2},
    "shuffled": {("gl", 100): 2},
}
"""In how many seeds the words say that others find the channel, where a channel is small below a tenth."""


def test_what_the_words_say_about_distractors_stands_in_the_tables():
    always = {"noise": {"hsqrt_gl", "hsqrt_gl12", "gl12"}, "shuffled": {"hsqrt_gl", "hsqrt_gl12"}}
    for kind, methods in always.items():
        runs = prepared(read_table(STUDIES / f"distractors_{kind}.csv"))
        assert (len(runs), runs["seed"].nunique()) == (168, 3)
        found = seeds_that_found(runs[runs["method"] != "dense"], "below 1e-3")
        assert set(found.index[found[30] == 3]) == methods
        assert found.loc["gl12", 30] == (3 if kind == "noise" else 2)
        assert found.drop(columns=30).to_numpy().max() == 1
        assert runs["recall, below 1e-3"].min() == 1
        lost = runs[runs["recall, below a tenth"] < 1][["method", "amount", "seed"]].values.tolist()
        assert lost == ([["hsqrt_gl", 100, 0]] if kind == "shuffled" else []), (
            "what the words call a single run"
        )
        other = seeds_that_found(runs[runs["method"] != "dense"], "below a tenth").stack()
        more = other[(other > 1) & (found.stack() < 2)].to_dict()
        assert more == MORE_BELOW_A_TENTH[kind]
        assert other[other > 1].to_dict() == more | {(name, 30): found.loc[name, 30] for name in INFINITE}
    words = " ".join((STUDIES / "README.md").read_text(encoding="utf-8").split())
    assert "for noise `hsqrt_es` in every seed and `l1` in two at 100, `gl` in two at 30; for other" in words
    assert "other images `gl` in two at 100." in words


def test_the_truth_counts_as_found_where_precision_and_recall_are_both_one():
    rows = [("gl", 3, 1, 1), ("gl", 3, 0.5, 1), ("gl", 10, 1, 1), ("gl", 10, 1, 1), ("es", 3, 1, 0)]
    names = ["method", "amount", "precision, below 1e-3", "recall, below 1e-3"]
    found = seeds_that_found(pd.DataFrame(rows, columns=names), "below 1e-3")
    assert (found.loc["gl", 3], found.loc["gl", 10], found.loc["es", 3]) == (1, 2, 0)


def test_no_picture_without_a_study():
    names = {picture_of(path.stem, gain) for path in WITH_TABLES for gain in (*CURVES, RECOVERY)}
    assert {path.name for path in STUDIES.glob("*.png")} <= names


@pytest.mark.parametrize("gain", CURVES)
def test_penalties_that_get_furthest_stand_beside_both_controls_and_the_authors_choice(digits, gain):
    shown = curves(digits, gain)
    controls = [name for name in shown if is_baseline(name)]
    unit = {"parameters removed": "input channels", "dead kernels": "kernels"}[gain]
    assert controls == [f"cut {unit} by size", f"cut {unit} at random"]
    penalties = [name.split(",")[0] for name in shown if not is_baseline(name)]
    assert 3 <= len(penalties) <= 4
    assert len(set(penalties)) == len(penalties)
    assert "hsq_gl12" in penalties


def test_the_authors_choice_is_shown_where_it_loses_more_than_is_bearable_too():
    runs = prepared(read_table(STUDIES / "cifar10_strengths.csv"))
    assert "hsq_gl12" not in set(choices(runs, "dead kernels", most=9)["method"])
    shown = curves(runs, "dead kernels")["hsq_gl12, neuron-wise, gradient"]
    assert shown["level"].iloc[-1] >= 0.8


def test_a_curve_has_the_numbers_of_the_page(digits):
    rows = curves(digits, "dead kernels")["cut kernels by size"].set_index("level")
    table = accuracy_at(digits, "dead kernels", [0.8])
    place = (table["method"] == "magnitude") & (table["grouping"] == "kernel")
    assert rows.loc[0.8, "mean"] == pytest.approx(table[place]["mean"].item())
    assert rows.loc[0.8, "±"] == pytest.approx(table[place]["±"].item())
    assert rows.index.min() == 0.1, "the mildest cut is a tenth: left of it nothing was measured"


def test_the_figure_draws_those_numbers_with_their_interval(digits):
    shown = curves(digits, "parameters removed")
    figure = curves_figure(shown, "parameters removed", dense_accuracy(digits))
    axes = figure.axes[0]
    lines = {line.get_label(): line for line in axes.get_lines()}
    assert lines.keys() == {*shown, "dense, the same budget"}
    for (name, rows), band in zip(shown.items(), axes.collections, strict=True):
        assert lines[name].get_xydata()[:, 1] == pytest.approx(100 * rows["mean"].to_numpy())
        ends = band.get_paths()[0].get_extents()
        assert ends.ymax == pytest.approx((100 * (rows["mean"] + rows["±"])).max())
        assert ends.ymin == pytest.approx((100 * (rows["mean"] - rows["±"])).min())
        assert (lines[name].get_linestyle() == "--") == is_baseline(name)
    assert lines["dense, the same budget"].get_ydata()[0] == pytest.approx(100 * dense_accuracy(digits))
    plt.close(figure)


def test_one_seed_has_a_line_and_no_band(digits):
    shown = curves(digits[digits["seed"] == 0], "dead kernels")
    assert all(rows["±"].isna().all() for rows in shown.values())
    figure = curves_figure(shown, "dead kernels", 0.98)
    assert not figure.axes[0].collections
    plt.close(figure)


def test_the_command_writes_the_page_and_its_pictures(tmp_path, capsys):
    for name in ("digits.toml", "digits.csv"):
        (tmp_path / name).write_bytes((STUDIES / name).read_bytes())
    assert main(["study", "report", str(tmp_path / "digits.toml")]) == 0
    said = [Path(line).name for line in capsys.readouterr().out.splitlines()]
    assert said == ["digits.md", "digits_parameters_removed.png", "digits_dead_kernels.png"]
    assert (tmp_path / "digits.md").read_bytes() == (STUDIES / "digits.md").read_bytes()


def test_where_no_path_reaches_a_level_there_is_no_picture(tmp_path):
    for name in ("digits.toml", "digits.csv"):
        (tmp_path / name).write_bytes((STUDIES / name).read_bytes())
    table = pd.read_csv(tmp_path / "digits.csv", dtype=str)
    table[table["baseline"] == "dense"].to_csv(tmp_path / "digits.csv", index=False)
    assert draw_pictures(Study.read(tmp_path / "digits.toml")) == []
