"""What counts as empty: weights, kernels and channels, on layers whose zeros are known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from hgsr_lite import build_model, sparsity, zero_below_


def layer_with(weight, **options):
    weight = torch.as_tensor(weight, dtype=torch.float64)
    layer = nn.Conv2d(weight.shape[1] * options.get("groups", 1), weight.shape[0], 1, bias=False, **options)
    layer.weight = nn.Parameter(weight.reshape(*weight.shape[:2], 1, -1))
    return layer


def test_the_four_figures_of_a_layer_counted_by_hand():
    layer = layer_with([[[3, -4], [0, 0]], [[1, 0], [2, -2]], [[0, 1e-4], [0, 0]]])
    report = sparsity(layer, tolerance=1e-3)
    counts = report.overall
    assert (counts.weights, counts.below_tolerance, counts.exact_zeros) == (12, 7, 6)
    assert (counts.kernels, counts.dead_kernels) == (6, 3)
    assert (counts.input_channels, counts.dead_input_channels) == (2, 0)
    assert (counts.output_channels, counts.dead_output_channels) == (3, 1)
    assert (report.below_tolerance, report.exact_zeros) == (7 / 12, 6 / 12)
    assert (report.dead_kernels, report.dead_channels) == (3 / 6, 1 / 5)


def test_channels_of_a_grouped_convolution_are_those_of_its_own_groups():
    layer = layer_with([[[1.0]], [[0.0]], [[0.0]], [[0.0]]], groups=2)
    counts = sparsity(layer).overall
    assert (counts.input_channels, counts.dead_input_channels) == (2, 1)
    assert (counts.output_channels, counts.dead_output_channels) == (4, 3)


def test_a_relative_tolerance_does_not_see_the_scale_of_a_layer():
    weight = torch.randn(8, 4, 3, 3, dtype=torch.float64).flatten(2)
    for scale in (1.0, 1e-6):
        layer = layer_with(scale * weight)
        assert sparsity(layer, 0.1, relative=True).below_tolerance == pytest.approx(
            sparsity(layer_with(weight), 0.1, relative=True).below_tolerance
        )
    assert sparsity(layer_with(1e-6 * weight)).below_tolerance == 1.0


def test_an_empty_layer_counts_as_empty_at_every_tolerance():
    layer = layer_with(torch.zeros(2, 2, 1))
    for tolerance, relative in [(0.0, False), (1e-3, False), (1e-3, True)]:
        assert sparsity(layer, tolerance, relative).below_tolerance == 1.0


@pytest.mark.parametrize("relative", [False, True])
def test_zero_below_makes_the_share_below_tolerance_exact_and_touches_nothing_else(relative):
    model = build_model("digits_cnn", in_channels=1, num_classes=10, seed=0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    report = sparsity(model, 0.05, relative)
    changed = zero_below_(model, 0.05, relative)
    after = sparsity(model, 0.05, relative)
    assert changed == report.overall.below_tolerance == after.overall.exact_zeros > 0
    convolutions = {f"{layer.name}.weight" for layer in report.layers}
    for name, value in model.state_dict().items():
        kept = value != 0 if name in convolutions else torch.ones_like(value, dtype=torch.bool)
        assert torch.equal(value[kept], before[name][kept])


def test_the_report_reads_as_text_table_and_html():
    report = sparsity(build_model("digits_cnn", in_channels=1, num_classes=10, seed=0))
    frame = report.to_frame()
    assert list(frame.index) == [layer.name for layer in report.layers] + ["all"]
    assert frame.loc["all", "weights"] == frame["weights"].iloc[:-1].sum()
    assert "dead kernels" in str(report)
    assert "<table" in report._repr_html_()
    assert "0.001" in report._repr_html_()


@pytest.mark.parametrize("tolerance", [-1e-3, math.nan, math.inf, "1e-3"])
def test_an_impossible_tolerance_is_refused(tolerance):
    for function in (sparsity, zero_below_):
        with pytest.raises(ValueError, match="not a finite number >= 0"):
            function(nn.Conv2d(1, 1, 1), tolerance)


def test_weights_that_are_not_finite_are_refused_by_name():
    model = nn.Sequential(nn.Conv2d(1, 1, 1))
    model[0].weight.data.fill_(math.nan)
    with pytest.raises(ValueError, match="layer '0' holds NaN"):
        sparsity(model)
