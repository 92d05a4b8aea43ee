"""The figure of a study's paths shows the study's own means, intervals and counts."""

from __future__ import annotations

import json

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from scipy import stats

from hgsr_lite.figures import COLORS
from hgsr_lite.live import Paths
from hgsr_lite.study import read_table

STRONG = "penalty == 'gl12' and grouping == 'feature' and proximal and fraction == 60"


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return read_table("studies/digits.csv")


@pytest.fixture(scope="module")
def layers() -> pd.DataFrame:
    return pd.read_csv("studies/digits_layers.csv")


@pytest.fixture(scope="module")
def figure(table: pd.DataFrame, layers: pd.DataFrame) -> Paths:
    return Paths(table, layers, "gl12, feature, proximal")


def last_point(figure: Paths) -> dict:
    return next(path for path in figure.paths if path["name"] == figure.left)["points"][-1]


def test_every_path_of_the_study_is_there_from_weak_to_strong(figure: Paths, table: pd.DataFrame):
    assert len(figure.paths) == 40  # nine penalties in two groupings, l1 and l2 in one, both kinds of step
    for path in figure.paths:
        key, grouping, step = path["name"].split(", ")
        runs = table[(table["penalty"] == key) & (table["proximal"] == (step == "proximal"))]
        runs = runs[(runs["grouping"] == grouping) & runs["fraction"].notna()]
        diverged = runs.loc[runs["diverged"], "fraction"]
        shown = runs.loc[~runs["fraction"].isin(diverged), "fraction"]
        assert [point["fraction"] for point in path["points"]] == sorted(shown.unique())
    assert table["diverged"].any(), "no amount at which a seed diverged is a point"


def test_accuracies_are_means_over_seeds_with_students_interval(figure: Paths, table: pd.DataFrame):
    found = table.query(STRONG)["validation accuracy after fine-tuning"]
    shown = last_point(figure)["accuracy"]["fine-tuning"]
    low, high = stats.t.interval(0.95, len(found) - 1, found.mean(), stats.sem(found))
    assert shown["mean"] == pytest.approx(found.mean(), abs=1e-5)
    assert shown["±"] == pytest.approx((high - low) / 2, rel=1e-3)
    assert shown["seeds"] == len(found) == 5


def test_what_is_removed_and_each_layers_counts_are_means_of_the_runs(
    figure: Paths, table: pd.DataFrame, layers: pd.DataFrame
):
    runs, point = table.query(STRONG), last_point(figure)
    assert point["parameters removed"] == pytest.approx(
        1 - (runs["parameters left"] / 14458).mean(), rel=1e-4
    )
    ours = layers[layers["key"].isin(runs["key"])].groupby("layer", sort=False)["dead_kernels"].mean()
    assert {layer["layer"]: layer["dead_kernels"] for layer in point["layers"]} == ours.round(5).to_dict()


def test_a_point_that_a_seed_is_missing_from_has_no_mean_and_is_still_json(
    table: pd.DataFrame, layers: pd.DataFrame
):
    cut = table.copy()
    cut.loc[cut.query(STRONG).index[0], "validation accuracy after fine-tuning"] = float("nan")
    figure = Paths(cut, layers, "gl12, feature, proximal")
    assert last_point(figure)["accuracy"]["fine-tuning"]["mean"] is None
    json.dumps(figure.paths, allow_nan=False)
    assert figure.still().startswith(b"\x89PNG")


def test_an_unknown_path_is_named_with_the_nearest(table: pd.DataFrame, layers: pd.DataFrame):
    with pytest.raises(ValueError, match="did you mean 'gl12, feature, proximal'"):
        Paths(table, layers, "gl12, feature, proxima")


def test_a_table_without_paths_says_what_is_missing(table: pd.DataFrame, layers: pd.DataFrame):
    with pytest.raises(ValueError, match="a study needs penalties at several fractions"):
        Paths(table[table["baseline"].notna()], layers)


def test_the_still_picture_is_in_per_cent_and_in_the_house_s_colours(figure: Paths):
    axes = figure.picture().axes[0]
    plt.close("all")
    lines = [container.lines[0] for container in axes.containers]
    assert [line.get_color() for line in lines] == [*COLORS[:2]]
    points = next(path for path in figure.paths if path["name"] == figure.left)["points"]
    assert lines[0].get_xdata().max() == pytest.approx(100 * max(p["dead kernels"] for p in points))
    assert axes.get_xlim() == (0, 100)
