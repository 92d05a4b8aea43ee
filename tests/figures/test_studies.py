"""A path is drawn through the means over seeds, with their intervals."""

from __future__ import annotations

import itertools

import matplotlib as mpl
import pandas as pd
import pytest

from hgsr_lite import figures

mpl.use("Agg")


def test_a_path_joins_seeds_to_a_mean_with_its_interval():
    table = pd.DataFrame(
        {
            "method": ["gl"] * 4,
            "amount": [0.1, 0.1, 0.2, 0.2],
            "validation accuracy after zeroing": [0.9, 0.92, 0.8, 0.8],
            "dead kernels": [0.1, 0.3, 0.5, 0.5],
        }
    )
    axes = figures.answer_figure({"gl": table}, "dead kernels", "It falls").axes[0]
    points = axes.lines[0].get_xydata()
    assert points[0].tolist() == pytest.approx([20.0, 91.0])
    (bars,) = axes.containers[0].lines[2]
    heights = [abs(segment[1][1] - segment[0][1]) / 2 for segment in bars.get_segments()]
    # Two values 0.02 apart: standard error 0.01, t(0.975, 1 degree of freedom) = 12.706.
    assert heights == pytest.approx([12.706, 0.0], abs=1e-3)


def runs(accuracies):
    column = "validation accuracy after zeroing"
    return pd.DataFrame({"amount": [1, 2], "dead kernels": [0.2, 0.6], column: accuracies})


def test_a_point_below_the_panel_leaves_no_interval_in_it():
    two_seeds = pd.concat([runs([0.99, 0.5]), runs([0.97, 0.52])])
    axes = figures.answer_figure({"gl": two_seeds}, "dead kernels", "It falls", floor=0.9).axes[0]
    (bars,) = axes.containers[0].lines[2]
    assert [low < high for (_, low), (_, high) in bars.get_segments()] == [True, False]


def test_one_question_has_at_most_three_lines_each_named_at_its_end_and_the_answer_as_title():
    lines = {"gl": runs([0.99, 0.9]), "l1": runs([0.99, 0.91]), "random": runs([0.98, 0.5])}
    axes = figures.answer_figure(lines, "dead kernels", "They are level").axes[0]
    assert {text.get_text() for text in axes.texts} == set(lines)
    heights = sorted(text.get_position()[1] for text in axes.texts)
    assert all(high - low > 0.05 for low, high in itertools.pairwise(heights))
    assert axes.get_title(loc="left") == "They are level"
    with pytest.raises(ValueError, match="at most 3"):
        figures.answer_figure({**lines, "one more": runs([0.9, 0.8])}, "dead kernels", "Too much")
