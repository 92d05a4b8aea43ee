"""The still picture of the penalties shows what the package computes, and refuses what cannot be read."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from hgsr_lite import PENALTIES, Penalty
from hgsr_lite.live.penalties import LARGEST_SCALE, STILL_KEYS, Penalties, explorer_figure
from hgsr_lite.table import PENALTY_FAMILIES

LAYER = torch.tensor([[[3.0, -4.0], [0.0, 0.0]], [[1.0, 0.0], [2.0, -2.0]], [[0.0, 0.0], [0.0, 0.0]]])
NINE = [key for keys in PENALTY_FAMILIES.values() for key in keys]


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


def panels(figure) -> dict:
    return {axes.get_title(): axes for axes in figure.axes}


def test_the_families_hold_the_nine_group_penalties_once():
    assert sorted(NINE) == sorted(set(PENALTIES) - {"l1", "l2"})


@pytest.mark.parametrize("grouping", ["feature", "neuron"])
def test_every_force_is_shown_as_the_package_gives_it(grouping):
    scaled = LAYER.clone()
    scaled[1, 1] *= 0.5
    shown = panels(explorer_figure(LAYER, (1, 1), 0.5, grouping, NINE))
    for key in NINE:
        now = [text.get_text().split("\n")[0].split(" → ")[-1] for text in shown[key].texts]
        numbers = [float(number.replace(",", "")) for number in now]
        assert numbers == pytest.approx(Penalty(key, grouping).force(scaled).flatten().tolist(), rel=0.06)


def test_the_colour_tells_how_many_times_as_strong_a_force_is():
    axes = panels(explorer_figure(torch.ones(3, 2, 4), (0, 0), 3.0, keys=["es"]))["es"]
    image = axes.images[0].get_array()
    assert image[:, 0].tolist() == pytest.approx([torch.tensor(20 / 12).log2().item()] * 3)
    assert image[:, 1].tolist() == [0, 0, 0]
    assert [text.get_text() for text in axes.texts] == ["24 → 40\n▲", "24"] * 3


def test_every_curve_passes_through_one_at_scale_one():
    shown = panels(explorer_figure(LAYER, (0, 0), 2.0))
    lines = [line for line in shown["the penalty"].lines if len(line.get_xdata()) > 2]
    assert len(lines) == len(STILL_KEYS)
    for line in lines:
        at_one = dict(zip(line.get_xdata().round(6), line.get_ydata(), strict=True))[1.0]
        assert at_one == pytest.approx(1)


@pytest.mark.parametrize("scale", [0.0, 1.0, LARGEST_SCALE])
@pytest.mark.parametrize("weight", [LAYER, torch.zeros(2, 2, 3)], ids=["live", "all zero"])
@pytest.mark.filterwarnings("error")
def test_zero_kernels_and_zero_layers_are_drawn_without_a_warning(weight, scale):
    explorer_figure(weight, (0, 0), scale).canvas.draw()


def test_the_weight_handed_in_is_left_alone():
    weight = LAYER.clone().requires_grad_()
    Penalties(weight)
    assert torch.equal(weight.detach(), LAYER)
    assert weight.grad is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Penalties(torch.zeros(8, 8, 3, 3)), "8 x 8 kernels are too many to read"),
        (lambda: Penalties(torch.zeros(4)), "no kernels"),
        (lambda: explorer_figure(LAYER, (3, 0), 1.0), r"no kernel \(3, 0\): the layer has 3 x 2"),
        (lambda: explorer_figure(LAYER, (0, 0), 1.0, "featur"), "did you mean 'feature'"),
    ],
)
def test_what_cannot_be_shown_is_refused_in_plain_words(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_no_curve_runs_below_the_legend():
    figure = explorer_figure(torch.tensor([[[3.0, -4.0]], [[1.0, 0.5]]]), (0, 0), 2.0, "feature")
    figure.canvas.draw()
    for axes in figure.axes:
        legend = axes.get_legend()
        if legend is not None:
            bottom = legend.get_window_extent().transformed(axes.transData.inverted()).y0
            highest = max(np.nanmax(line.get_ydata()) for line in axes.lines if len(line.get_xdata()) > 2)
            assert highest < bottom
