"""What counts as empty: weights, kernels and channels, on layers whose zeros are known."""

from __future__ import annotations

import functools
import math
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from hgsr_lite import build_model, load_data, sparsity, weight_layers, zero_below_
from hgsr_lite import test_result as measured
from hgsr_lite.computed_weights import plain_copy


def layer_with(weight, **options):
    weight = torch.as_tensor(weight, dtype=torch.float64)
    layer = nn.Conv2d(weight.shape[1] * options.get("groups", 1), weight.shape[0], 1, bias=False, **options)
    layer.weight = nn.Parameter(weight.reshape(*weight.shape[:2], 1, -1))
    return layer


def test_the_five_figures_of_a_layer_counted_by_hand():
    layer = layer_with([[[3, -4], [0, 0]], [[1, 0], [2, -2]], [[0, 1e-4], [0, 0]]])
    report = sparsity(layer, tolerance=1e-3)
    counts = report.overall
    assert (counts.weights, counts.below_tolerance, counts.exact_zeros) == (12, 7, 6)
    assert (counts.kernels, counts.dead_kernels) == (6, 3)
    assert (counts.input_channels, counts.dead_input_channels) == (2, 0)
    assert (counts.output_channels, counts.dead_output_channels) == (3, 1)
    assert (report.below_tolerance, report.exact_zeros) == (7 / 12, 6 / 12)
    assert (report.dead_kernels, report.dead_inputs, report.dead_outputs) == (3 / 6, 0, 1 / 3)


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


def test_a_report_is_a_record_that_nothing_changes_afterwards():
    report = sparsity(layer_with([[[1.0]]]))
    for record, name in ((report, "tolerance"), (report.layers[0], "weights")):
        with pytest.raises(FrozenInstanceError):
            setattr(record, name, 7)


def test_only_what_was_not_zero_before_counts_as_changed():
    layer = layer_with([[[3, 0], [1e-4, -1e-5]]])
    assert zero_below_(layer) == 2
    assert zero_below_(layer) == 0


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


WAYS_TO_PLAIN = {
    torch.nn.utils.parametrizations.weight_norm: "remove_parametrizations",
    torch.nn.utils.parametrizations.spectral_norm: "remove_parametrizations",
    functools.partial(prune.random_unstructured, name="weight", amount=0.5): "prune.remove",
    torch.nn.utils.spectral_norm: "remove_spectral_norm",
}


@pytest.mark.parametrize(("make", "way"), WAYS_TO_PLAIN.items())
def test_a_computed_weight_is_counted_but_not_written_to(make, way):
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3))
    make(model[1])
    assert sparsity(model).overall.weights == 36 + 144
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=rf"layer '1' is computed from other parameters.*{way}"):
        zero_below_(model, 0.1)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_trained_networks_accuracy_after_zeroing_is_that_of_its_plain_twin():
    data = load_data("digits", device="cpu", limit=300)
    model = build_model("digits_cnn", in_channels=1, num_classes=10, seed=0)
    for layer in weight_layers(model):
        torch.nn.utils.parametrizations.weight_norm(layer.module)
    found, expected = (measured(twin, data, tolerance=0.05) for twin in (model, plain_copy(model)))
    assert found.below_tolerance == expected.below_tolerance > 0.1
    assert found.zeroed == expected.zeroed
    assert found.accuracy_after_zeroing == expected.accuracy_after_zeroing


@pytest.mark.parametrize(
    "tolerance", [np.float32(0.25), np.float64(0.25), np.array(0.25), torch.tensor(0.25)]
)
def test_a_tolerance_from_numpy_or_pytorch_is_a_number(tolerance):
    layer = layer_with([[[0.1, 0.5]]])
    assert sparsity(layer, tolerance).below_tolerance == 0.5
    assert zero_below_(layer, tolerance) == 1


@pytest.mark.parametrize("relative", [0.1, "yes", None])
def test_a_flag_that_is_no_flag_is_refused(relative):
    for function in (sparsity, zero_below_):
        with pytest.raises(TypeError, match="relative must be True or False"):
            function(nn.Conv2d(1, 1, 1), 1e-3, relative)


def test_a_weight_of_exactly_the_tolerance_is_not_below_it():
    layer = layer_with([[[0.25, -0.25, 0.125, 1.0]]])
    assert sparsity(layer, 0.25).overall.below_tolerance == 1
    assert zero_below_(layer, 0.25) == 1


def test_a_relative_tolerance_is_in_units_of_the_root_mean_square():
    # Mean size 3.5, root mean square 4.2: 4 lies between them.
    layer = layer_with([[[1.0, -1.0, 4.0, -8.0, 4.0, 3.0]]])
    rms = math.sqrt((1 + 1 + 16 + 64 + 16 + 9) / 6)
    assert 3.5 < 4.0 < rms
    assert sparsity(layer, 1.0, relative=True).overall.below_tolerance == 5


def test_a_layers_name_is_escaped_in_the_table():
    model = nn.ModuleDict({"<script>": nn.Conv2d(1, 1, 1)})
    assert "<script>" not in sparsity(model)._repr_html_()


def test_the_report_says_what_was_counted_and_in_which_unit():
    layer = layer_with([[[3, -4], [0, 0]], [[1, 0], [2, -2]], [[0, 1e-4], [0, 0]]])
    absolute, relative = sparsity(nn.Sequential(layer)), sparsity(nn.Sequential(layer), 0.5, relative=True)
    assert str(absolute).splitlines() == [
        "sparsity at tolerance 0.001",
        "     weights below tolerance exact zeros dead kernels dead inputs dead outputs",
        "0         12           58.3%       50.0%        50.0%        0.0%        33.3%",
        "all       12           58.3%       50.0%        50.0%        0.0%        33.3%",
    ]
    assert str(relative).startswith("sparsity at tolerance 0.5 x the layer's root mean square\n")
    assert (absolute.relative, relative.relative) == (False, True)


def test_layers_are_chosen_by_name_for_counting_too():
    model = nn.Sequential(nn.Conv2d(1, 4, 1), nn.Conv2d(4, 8, 1), nn.Linear(3, 3))
    assert [layer.name for layer in sparsity(model, include=["1", "2"]).layers] == ["1", "2"]
    assert [layer.name for layer in sparsity(model, exclude=["1"]).layers] == ["0"]


def test_the_root_mean_square_of_half_precision_weights_is_taken_wide():
    """In float16 the square of 300 is infinite, and everything would lie below it."""
    layer = layer_with([[[300.0, 400.0, 1.0]]]).half()
    assert sparsity(layer, 0.1, relative=True).overall.below_tolerance == 1


def test_a_network_with_a_nan_is_refused_and_nothing_is_set_to_zero():
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1))
    model[0].weight.data.fill_(1e-9)
    model[1].weight.data.fill_(math.nan)
    with pytest.raises(ValueError, match="NaN"):
        zero_below_(model)
    assert model[0].weight.item() > 0


def test_unless_told_otherwise_the_tolerance_is_the_authors_and_absolute():
    # 1.5e-3 and 5e-4 lie on either side of 1e-3; relative to the root mean square, 100, both were far below.
    layer = layer_with([[[1.5e-3, 5e-4, 100.0, -200.0]]])
    assert sparsity(layer).overall.below_tolerance == 1
    tiny = layer_with([[[5e-4, 1e-3]]])  # and here relative to theirs, 8e-4, none would be below
    assert sparsity(tiny).overall.below_tolerance == 1
    assert zero_below_(tiny) == 1
    assert zero_below_(layer) == 1


def test_shares_tell_dead_inputs_from_dead_outputs():
    layer = layer_with([[[1], [0], [0], [2]], [[0], [0], [0], [0]], [[3], [0], [0], [4]]])
    assert sparsity(layer).overall.shares() == {
        "below tolerance": 8 / 12,
        "exact zeros": 8 / 12,
        "dead kernels": 8 / 12,
        "dead inputs": 2 / 4,
        "dead outputs": 1 / 3,
    }
