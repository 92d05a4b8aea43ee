"""Kernel maps of a run: what travels to the page is what the history holds."""

from __future__ import annotations

import pytest
import torch

from hgsr_lite.live import KernelMaps
from hgsr_lite.live.maps import norm_levels
from hgsr_lite.training import History

SCALE = {"smallest": 1e-4, "largest": 4.0}


@pytest.fixture
def history() -> History:
    norms = torch.stack([torch.full((4, 3), size) for size in (1.0, 0.1, 0.0)])
    return History(snapshots={"conv1": norms, "conv2": norms.flip(0)}, snapshot_epochs=[0, 5, 10])


def test_levels_come_back_as_the_norms_they_were_within_one_percent_of_a_decade(in_node):
    norms = torch.logspace(-4, 0.6, 200)
    levels = list(norm_levels(norms, **SCALE))
    body = "return given.levels.map((level) => live.normOf(level, given.scale));"
    back = in_node("charts.js", body, {"levels": levels, "scale": SCALE})
    step = (SCALE["largest"] / SCALE["smallest"]) ** (0.5 / 254)
    assert all(
        1 / step < ours / theirs < step * 1.001 for ours, theirs in zip(back, norms.tolist(), strict=True)
    )
    body = "return given.norms.map((norm) => live.levelOf(norm, given.scale));"
    assert in_node("charts.js", body, {"norms": norms.double().tolist(), "scale": SCALE}) == levels


def test_every_layer_lies_where_its_place_says(history: History):
    figure = KernelMaps(history)
    for place in figure.layers:
        size = place["outputs"] * place["inputs"]
        part = figure.levels[place["start"] : place["start"] + 3 * size]
        norms = history.snapshots[place["name"]]
        assert part == norm_levels(norms, **figure.scale)


def test_the_last_moment_of_the_middle_layer_is_shown_first(history: History):
    figure = KernelMaps(history)
    assert (figure.layer, figure.moment, figure.epochs[-1]) == ("conv2", 2, 10)
    assert figure.still().startswith(b"\x89PNG")


def test_an_unknown_layer_is_named_with_the_nearest(history: History):
    with pytest.raises(ValueError, match="did you mean 'conv1'"):
        KernelMaps(history, "cov1")


def test_a_history_without_snapshots_says_what_to_do():
    with pytest.raises(ValueError, match="train at least one epoch"):
        KernelMaps(History())
