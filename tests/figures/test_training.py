"""Figures carry their labels, share one scale and draw what they are given."""

from __future__ import annotations

import copy

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest
import torch
from torch import nn

import hgsr_lite as hg
from hgsr_lite import figures

pytestmark = pytest.mark.trains

mpl.use("Agg")


@pytest.fixture(scope="module")
def run():
    data = hg.load_data("digits", device="cpu", limit=100)
    model = hg.build_model("digits_cnn", in_channels=1, num_classes=10, seed=0)
    reg = hg.Regularizer(model, "hsq_gl12", strength=1e-4)
    return model, hg.fit(model, data, reg, epochs=3, progress=False)


def test_maps_side_by_side_share_one_scale_and_show_rows_as_outputs(run):
    before, after = torch.rand(6, 4) + 0.1, torch.rand(6, 4) * 1e-3
    figure = figures.kernel_map({"before": before, "after": after})
    images = [axes.images[0] for axes in figure.axes[:2]]
    assert images[0].get_clim() == images[1].get_clim()
    assert images[0].get_array().shape == (6, 4)
    assert [figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()] == ["input channel", "output channel"]


def test_exact_zeros_are_told_apart_from_small_kernels():
    figure = figures.kernel_map(torch.tensor([[0.0, 1e-9], [0.5, 1.0]]))
    drawn = figure.axes[0].images[0].get_array()
    assert drawn.mask.tolist() == [[True, False], [False, False]]


def test_an_empty_layer_can_be_drawn():
    figures.kernel_map(torch.zeros(3, 2))


def test_one_line_is_drawn_for_each_group(run):
    model, history = run
    layer = hg.weight_layers(model)[-1]
    outputs, inputs = layer.weight.shape[:2]
    for grouping, channels in [("feature", inputs), ("neuron", outputs)]:
        axes = figures.groups_over_epochs(history, layer.name, grouping).axes[0]
        assert len(axes.lines) == channels
        assert axes.get_yscale() == "log"


def test_epochs_are_marked_by_whole_numbers(run):
    model, history = run
    layer = hg.weight_layers(model)[-1].name
    bottom = figures.training_curves({"one": history}).axes[1]
    for axes in (bottom, figures.groups_over_epochs(history, layer).axes[0]):
        assert all(float(tick).is_integer() for tick in axes.get_xticks())


def test_curves_have_one_line_a_run_in_two_panels_named_at_its_end_and_no_legend_over_it(run):
    figure = figures.training_curves({"one": run[1], "two": run[1]})
    assert [len(axes.lines) for axes in figure.axes] == [2, 2]
    assert [text.get_text() for text in figure.axes[1].texts] == ["one", "two"]
    assert not any(axes.get_legend() for axes in figure.axes)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda run: figures.kernel_map(torch.zeros(3)), "give \\(output, input channels\\)"),
        (lambda run: figures.model_kernel_maps({"a": run[0]}, "nowhere"), "unknown layer 'nowhere'"),
        (lambda run: figures.groups_over_epochs(run[1], "nowhere"), "unknown layer 'nowhere'"),
    ],
)
def test_what_cannot_be_drawn_is_said(run, call, message):
    with pytest.raises(ValueError, match=message):
        call(run)


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def test_all_maps_have_one_scale_and_the_mark_of_dead_kernels_on_their_colour_bar(run):
    model, _ = run
    layer = hg.weight_layers(model)[-1].name
    drawn = [
        figures.kernel_map(torch.rand(3, 2)),
        figures.kernel_map(torch.rand(3, 2) * 1e-6),
        figures.model_kernel_maps({"net": model}, layer),
    ]
    assert len({figure.axes[0].images[0].get_clim() for figure in drawn}) == 1
    for figure in drawn:
        bar = figure.axes[-1]
        assert "dead" in [text.get_text() for text in bar.texts]
        assert any(line.get_ydata()[0] == pytest.approx(9e-3) for line in bar.lines)


def test_an_exact_zero_looks_like_no_colour_of_the_scale():
    figure = figures.kernel_map(torch.tensor([[0.0, 1e-9], [0.5, 1.0]]))
    axes = figure.axes[0]
    assert axes.patch.get_hatch()
    assert axes.images[0].cmap.get_bad()[3] == 0
    assert axes.patch.get_facecolor()[:3] == (1, 1, 1)


def test_one_image_through_two_networks_marks_what_nobody_reads_and_what_is_constant(run):
    model, _ = run
    dead = copy.deepcopy(model)
    dead.features.conv2.weight.data[0] = 0
    dead.features.conv3.weight.data[:, 1] = 0
    image = torch.rand(1, 8, 8)
    figure = figures.through_the_layers(
        {"as it is": model, "dead": dead}, image, {"second": "features.relu2"}, {"second": "features.conv3"}
    )
    marks = {axes.get_ylabel() or "maps": axes.patches for axes in figure.axes}
    hatched = [patch for patch in figure.axes[3].patches if patch.get_hatch()]
    framed = [patch for patch in figure.axes[3].patches if not patch.get_fill()]
    assert len(hatched) == 1
    assert len(framed) >= 1
    assert not [patch for patch in figure.axes[1].patches if patch.get_hatch()]
    assert "as it is" in marks
    maps = figures.feature_maps(dead, image, {"second": "features.relu2"})["second"]
    assert maps[0].max() - maps[0].min() < 1e-6


@pytest.mark.parametrize(
    "reader", [nn.Conv2d(8, 8, 1, groups=8), nn.Conv2d(8, 6, 1, groups=2), nn.ConvTranspose2d(8, 2, 1)]
)
def test_channels_that_a_grouped_or_transposed_reader_ignores_are_hatched_in_their_place(reader):
    groups, outputs = reader.groups, reader.out_channels // reader.groups
    alive = torch.ones(8, dtype=torch.bool)
    alive[[1, 6]] = False
    if reader.transposed:
        reader.weight.data.fill_(1.0)[~alive] = 0
    else:
        columns = alive.view(groups, 1, 8 // groups).expand(-1, outputs, -1).reshape(-1, 8 // groups, 1, 1)
        reader.weight.data.copy_(columns)
    model = nn.Sequential(nn.Conv2d(1, 8, 3), reader)
    figure = figures.through_the_layers({"net": model}, torch.rand(1, 9, 9), {"first": "0"}, {"first": "1"})
    size = 9 - 2 + 1  # a map and the gap behind it
    hatched = [patch.get_x() for patch in figure.axes[1].patches if patch.get_hatch()]
    assert hatched == [1 * size - 0.5, 6 * size - 0.5]
    plt.close(figure)
