"""Baselines cut what they say, a table of runs holds every metric, and a choice looks at validation alone."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import hgsr_lite as hg
from hgsr_lite.figures import recovery_figure
from hgsr_lite.study import SPARSITY_METRICS, make_here, recipes_of
from hgsr_lite.study.baselines import held_zeros, zero_lowest_
from hgsr_lite.study.distractors import kept_channels, precision_and_recall
from hgsr_lite.training.recipe import UNITS

pytestmark = pytest.mark.trains

BUDGET = {"width": 0.1, "epochs": 2, "batch_size": 32}


@pytest.fixture(scope="module")
def digits() -> hg.Data:
    return hg.load_data("digits", device="cpu", limit=100)


@pytest.fixture
def network() -> nn.Module:
    return hg.build_model("digits_cnn", in_channels=2, num_classes=3, width=0.25, seed=0)


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("by", ["magnitude", "random"])
def test_pruning_takes_about_its_share_and_whole_units(network: nn.Module, unit: str, by: str):
    zero_lowest_(network, 0.5, unit, by)
    assert hg.sparsity(network).exact_zeros == pytest.approx(0.5, abs=0.06)
    for layer in hg.weight_layers(network):
        zero = layer.weight == 0
        over = {"weight": (), "kernel": (2, 3), "feature": (0, 2, 3), "neuron": (1, 2, 3)}[unit]
        assert not over or torch.equal(
            zero.all(over), zero[tuple(slice(1) if d in over else ... for d in ())].any(over)
        )
        assert not zero.all()


def test_magnitude_pruning_takes_the_smallest_of_a_layer():
    layer = nn.Conv2d(3, 4, 3)
    before = layer.weight.detach().clone()
    zero_lowest_(layer, 0.25)
    gone = layer.weight == 0
    assert before[gone].abs().max() < before[~gone].abs().min()


def test_random_pruning_does_not_follow_the_weights_it_was_seeded_with():
    network = hg.build_model("digits_cnn", in_channels=1, num_classes=10, seed=5)
    before = network.features.conv1.weight.detach().clone()
    zero_lowest_(network, 0.5, "weight", "random", seed=5)
    negative = (before[network.features.conv1.weight == 0] < 0).float().mean()
    assert 0.35 < negative < 0.65


def test_no_layer_is_emptied_however_much_is_pruned(network: nn.Module):
    zero_lowest_(network, 0.999, "feature")
    assert all(layer.weight.count_nonzero() for layer in hg.weight_layers(network))


def test_held_zeros_stay_zero_in_training_and_only_as_long_as_held(network: nn.Module, digits: hg.Data):
    network = hg.build_model("digits_cnn", in_channels=1, num_classes=10, width=0.1, seed=0)
    zero_lowest_(network, 0.6, "weight", "random")
    zeros = [layer.weight == 0 for layer in hg.weight_layers(network)]
    with held_zeros(network):
        hg.fit(network, digits, epochs=2, progress=False)
    assert all(
        torch.equal(layer.weight == 0, zero)
        for layer, zero in zip(hg.weight_layers(network), zeros, strict=True)
    )
    hg.fit(network, digits, epochs=1, progress=False)
    assert hg.sparsity(network).exact_zeros < 0.3


def test_every_method_gives_one_row_with_all_metrics(digits: hg.Data):
    cut = {"baseline": ["magnitude", "random"], "unit": "kernel", "share": 0.5}
    penalised = {"penalty": ["gl", "l1"], "fraction": 1.0}
    runs = recipes_of({**BUDGET, "finetune": 1}, penalised, {"baseline": "dense"}, cut)
    table = make_here(runs, digits, progress=False)
    assert table["method"].tolist() == ["gl", "l1", "dense", "magnitude", "random"]
    stages = ("", " after zeroing", " after removal", " after fine-tuning")
    accuracies = [f"{part} accuracy{stage}" for part in ("validation", "test") for stage in stages]
    shares = table[[*SPARSITY_METRICS, "parameters removed", *accuracies]]
    assert shares.notna().all(axis=None)
    assert shares.ge(0).all(axis=None)
    assert shares.le(1).all(axis=None)
    pruned = table[table["method"].isin(["magnitude", "random"])]
    assert pruned["below tolerance"].between(0.4, 0.6).all()
    assert pruned["amount"].eq(0.5).all()
    assert table["MACs left"].le(table["MACs"]).all()


def test_fine_tuning_keeps_what_was_removed_and_zeroed(digits: hg.Data):
    run = {"baseline": "magnitude", "unit": "neuron", "share": 0.7}
    before, after = (
        make_here(recipes_of({**BUDGET, "finetune": finetune}, run), digits, progress=False)
        for finetune in (0, 4)
    )
    same = ["test accuracy", "test accuracy after removal", "parameters left", "MACs left", "below tolerance"]
    assert before[same].equals(after[same])
    assert "test accuracy after fine-tuning" not in before
    assert after["parameters left"].item() < after["parameters"].item()


def test_kept_channels_are_read_from_the_largest_weight():
    layer = nn.Conv2d(4, 2, 3)
    layer.weight.data.zero_()
    layer.weight.data[1, 0, 2, 2] = -1.0
    layer.weight.data[:, 1] = 0.05
    layer.weight.data[0, 3] = 1e-4
    assert kept_channels(layer) == (0, 1, 3)
    assert kept_channels(layer, tolerance=1e-3) == (0, 1)
    assert kept_channels(layer, relative=0.1) == (0,)
    assert kept_channels(nn.Sequential(layer, nn.Conv2d(2, 2, 1)), "1") == (0, 1)


def test_precision_of_nothing_is_not_a_number():
    precision, recall = precision_and_recall((), (0, 1))
    assert math.isnan(precision)
    assert recall == 0


def test_a_dense_network_keeps_every_distractor(digits: hg.Data):
    first = {"penalty": "gl12", "fraction": 3.0, "layers": "features.conv1", "proximal": True}
    runs = recipes_of(BUDGET, {"baseline": "dense"}, first)
    table = make_here(runs, digits, distractors=3, kind="shuffled", progress=False)
    assert table.loc[0, "precision, below 1e-3"] == 0.25
    assert table.loc[0, "recall, below 1e-3"] == 1
    figure = recovery_figure(table)
    assert len(figure.axes) == 2
    assert [label.get_text() for label in figure.axes[1].get_xticklabels()] == ["3"]


@pytest.mark.parametrize("share", [-0.5, 1.5, math.nan])
def test_a_share_that_is_none_cuts_nothing(share, network):
    before = [parameter.clone() for parameter in network.parameters()]
    with pytest.raises(ValueError, match=r"outside 0\.\.1"):
        zero_lowest_(network, share)
    assert all(map(torch.equal, before, network.parameters()))


def test_a_computed_weight_is_refused_where_its_zeros_could_not_be_set_or_held():
    layer = nn.utils.parametrizations.weight_norm(nn.Conv2d(1, 2, 3))
    with pytest.raises(ValueError, match="nothing was cut: the weight of layer '' is computed"):
        zero_lowest_(layer, 0.5)
    with pytest.raises(ValueError, match="zeros cannot be held"), held_zeros(layer):
        pass
