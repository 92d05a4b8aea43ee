"""Choosing channels: each strategy where the right choice is known, then the penalty's choice on digits."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from hgsr_lite.data import Data, load_data
from hgsr_lite.models import build_model
from hgsr_lite.regularizer import Regularizer
from hgsr_lite.removal.cost import parameters
from hgsr_lite.removal.pruning import prune, silence_
from hgsr_lite.removal.ranking import STRATEGIES, Candidates, LossRise, Norm, Random, Tolerance
from hgsr_lite.training.loop import fit
from hgsr_lite.training.measurement import accuracy
from hgsr_lite.training.state import TrainingState
from hgsr_lite.zeros import sparsity

pytestmark = pytest.mark.trains


@pytest.fixture(scope="module")
def digits() -> Data:
    return load_data("digits", device="cpu")


@pytest.fixture(scope="module")
def trained(digits) -> nn.Module:
    """A small network that reads most digits rightly, with channel 0 of its first layer unread."""
    model = build_model("digits_cnn", in_channels=1, num_classes=10, width=0.5, seed=0)
    fit(model, digits, epochs=4, seed=0, progress=False)
    readers = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    readers[1].weight.data[:, 0] = 0
    return model


def first_layers(model):
    return [module for module in model.modules() if isinstance(module, nn.Conv2d)][:2]


@pytest.mark.parametrize("how", ["norm", LossRise(32), "random"], ids=str)
def test_every_strategy_takes_the_asked_share_and_leaves_the_model_alone(how, digits, trained):
    before = copy.deepcopy(trained.state_dict())
    small, report = prune(trained, digits, how, 0.5, repeats=0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in trained.state_dict().items())
    outputs = report.removal.to_frame().iloc[:-1]
    share = 1 - outputs.outputs_after.sum() / outputs.outputs_before.sum()
    assert share == pytest.approx(0.5, abs=0.02)
    assert parameters(small) == report.stages.parameters["after removal"] < parameters(trained)
    assert (outputs.outputs_after >= 1).all()


@pytest.mark.parametrize("how", ["norm", LossRise(64)], ids=str)
def test_a_channel_that_nothing_reads_is_chosen_first(how, digits, trained):
    total = sum(m.out_channels for m in trained.modules() if isinstance(m, nn.Conv2d))
    small, _ = prune(trained, digits, how, 1 / total, repeats=0)
    before, after = first_layers(trained)[0].weight, first_layers(small)[0].weight
    assert len(after) == len(before) - 1
    if how == "norm":
        assert torch.equal(after, before[1:])


def test_a_norm_is_taken_over_the_columns_or_over_the_rows(digits):
    model = build_model("digits_cnn", in_channels=1, num_classes=10, width=0.5, seed=0)
    first, second = first_layers(model)
    first.weight.data[3] *= 1e-4
    second.weight.data[:, 5] *= 1e-4
    total = sum(m.out_channels for m in model.modules() if isinstance(m, nn.Conv2d))
    for grouping, unread in (("feature", 5), ("neuron", 3)):
        small, _ = prune(model, digits, Norm(grouping), 1 / total, repeats=0)
        kept = torch.cat([first.weight[:unread], first.weight[unread + 1 :]])
        assert torch.equal(first_layers(small)[0].weight, kept), grouping


def test_a_relative_norm_does_not_see_how_large_a_layer_is_as_a_whole(digits, trained):
    model = copy.deepcopy(trained)
    first_layers(model)[1].weight.data *= 1e-3

    def kept(relative):
        _, report = prune(model, digits, Norm(relative=relative), 0.3, repeats=0)
        return report.removal.to_frame().outputs_after

    assert kept(False)["features.conv1"] == 1, "its columns lie in the layer that was made small"
    assert kept(True)["features.conv1"] > 1


def test_by_tolerance_small_weights_go_and_nothing_else(digits, trained):
    model = copy.deepcopy(trained)
    first_layers(model)[1].weight.data[:, 2] = 1e-5
    small, report = prune(model, digits, Tolerance(1e-3), repeats=0)
    assert first_layers(small)[0].out_channels == first_layers(model)[0].out_channels - 2
    assert report.removal.exact >= 2


def test_the_extremes_take_nothing_and_all_but_one_channel_a_layer(digits, trained):
    model = copy.deepcopy(trained)
    first_layers(model)[1].weight.data[:, 0] = 0.01
    everything, _ = prune(model, digits, "norm", 1.0, repeats=0)
    assert [m.out_channels for m in everything.modules() if isinstance(m, nn.Conv2d)] == [1, 1, 1]
    nothing, report = prune(model, digits, "norm", 0, repeats=0)
    assert parameters(nothing) == parameters(model)
    assert report.removal.exact == 0


def test_random_is_the_same_for_a_seed_and_another_for_another(digits, trained):
    states = [prune(trained, digits, Random(seed), 0.4, repeats=0)[0].state_dict() for seed in (1, 1, 2)]
    first, again, other = ([tensor.tolist() for tensor in state.values()] for state in states)
    assert first == again
    assert first != other


def test_a_number_of_parameters_is_met_as_nearly_as_whole_channels_allow(digits, trained):
    one_channel = 9 * 16 + 9 * 32 + 2 + 7  # of the middle layer, the dearest: its rows, columns and norm
    for how in (Norm(), Random(3)):
        for target in (2000, 8000):
            left = parameters(prune(trained, digits, how, to_parameters=target, repeats=0)[0])
            assert abs(left - target) <= one_channel / 2, (how, target)


def test_fine_tuning_is_fit_on_what_was_left_and_the_table_says_how_each_stage_does(digits, trained):
    budget = {"epochs": 1, "lr": 0.05, "batch_size": 32, "seed": 0, "progress": False}
    left, _ = prune(trained, digits, "norm", 0.5, repeats=0)
    small, report = prune(trained, digits, "norm", 0.5, finetune=budget, repeats=0)
    said = [accuracy(network, digits.validation) for network in (trained, left)]
    fit(left, digits, **budget)
    said.append(accuracy(left, digits.validation))
    assert report.to_frame()["validation accuracy"].tolist() == said
    torch.testing.assert_close(small.state_dict(), left.state_dict())
    assert report.test_accuracy == accuracy(left, digits.test)


def test_the_table_holds_every_stage_and_the_costs_of_each(digits, trained):
    budget = {"epochs": 1, "lr": 0.05, "batch_size": 32, "seed": 0, "progress": False}
    small, report = prune(trained, digits, "norm", 0.5, finetune=budget, repeats=2)
    table = report.to_frame()
    assert list(table.index) == ["before", "after removal", "after fine-tuning"]
    assert table.parameters["after fine-tuning"] == table.parameters["after removal"] == parameters(small)
    assert (table["milliseconds per batch"] > 0).all()
    assert set(sparsity(small).overall.shares()) <= set(table.columns)
    assert f"test accuracy of the result {report.test_accuracy:.1%}" in str(report)
    assert report._repr_html_().count("<table") == 1


def test_silencing_reaches_the_right_columns_of_grouped_and_transposed_layers():
    for layer in (nn.Conv2d(4, 4, 1, groups=2), nn.ConvTranspose2d(4, 4, 2, 2), nn.Linear(4, 4)):
        net = nn.Sequential(layer).eval()
        image = torch.randn(1, 4) if isinstance(layer, nn.Linear) else torch.randn(1, 4, 3, 3)
        silenced = image.clone()
        silenced[:, [1, 2]] = 0
        expected = net(silenced)
        silence_(net, {"0": torch.tensor([1, 2])})
        torch.testing.assert_close(net(image), expected)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"how": "norn", "amount": 0.5}, r"unknown way of choosing 'norn'.*did you mean 'norm'"),
        ({"how": "norm", "amount": 1.5}, r"amount 1\.5 is outside 0\.\.1"),
        ({"how": "norm", "amount": -0.1}, r"amount -0\.1 is outside 0\.\.1"),
        ({"how": Norm, "amount": 0.5}, "unknown way of choosing .*Norm"),
        ({"how": "norm", "amount": float("nan")}, r"amount nan is outside 0\.\.1"),
        ({"how": "norm"}, "needs either amount .* or to_parameters"),
        ({"how": "norm", "amount": 0.5, "to_parameters": 100}, "needs either amount"),
        ({"how": "tolerance", "amount": 0.5}, "takes no amount"),
        ({"finetune": {"epoch": 1}}, "unknown argument of fit 'epoch'.*did you mean 'epochs'"),
        ({"finetune": {"lr": -1}}, "lr -1 must be a finite number"),
        ({"finetune": {"epochs": 0}}, "epochs must be a whole number of at least 1"),
        ({"how": "random", "to_parameters": 0}, "to_parameters must be a whole number of at least 1, not 0"),
    ],
)
def test_impossible_requests_are_refused_in_words_before_any_work(
    arguments, words, digits, trained, monkeypatch
):
    monkeypatch.delattr("hgsr_lite.removal.pruning.compact")
    with pytest.raises(ValueError, match=words):
        prune(trained, digits, **arguments)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: LossRise(images=0), ValueError, "images must be a whole number of at least 1, not 0"),
        (lambda: Norm("neurone"), ValueError, "did you mean 'neuron'"),
        (lambda: Norm("neuron", "yes"), TypeError, "relative must be True or False"),
        (lambda: Tolerance(-1), ValueError, "tolerance -1 is not a finite number >= 0"),
    ],
)
def test_a_way_of_choosing_checks_its_numbers_when_it_is_made(make, error, words):
    with pytest.raises(error, match=words):
        make()


@pytest.mark.parametrize(
    ("short", "way"),
    [("norm", Norm("feature")), ("loss", LossRise(256, seed=0)), ("random", Random(0))],
)
def test_a_short_name_stands_for_the_way_without_numbers(short, way, digits, trained):
    (one, said), (other, _) = (prune(trained, digits, how, 0.4, repeats=0) for how in (short, way))
    assert said.how == way
    assert str(way) in str(said)
    assert {k: v.tolist() for k, v in one.state_dict().items()} == {
        k: v.tolist() for k, v in other.state_dict().items()
    }


class First:
    """A way of choosing of a reader's own: the first channels go first."""

    def scores(self, candidates: Candidates):
        return [torch.arange(channels.size, dtype=torch.float64) for channels in candidates.sets]


def test_a_way_of_choosing_of_ones_own_is_as_good_as_the_packages(digits, trained):
    small, report = prune(trained, digits, First(), 0.5, repeats=0)
    before, after = first_layers(trained)[0].weight, first_layers(small)[0].weight
    assert 0 < len(after) < len(before)
    assert torch.equal(after, before[len(before) - len(after) :])
    assert "&lt;" in report._repr_html_(), "a name with angle brackets is no mark-up"


def pressing_ctrl_c_after(calls: int, function):
    """The function, interrupted at this call of it."""
    count = iter(range(calls))

    def interrupted(*arguments, **options):
        if next(count, None) is None:
            raise KeyboardInterrupt
        return function(*arguments, **options)

    return interrupted


def test_ctrl_c_in_a_long_choice_ends_it_and_leaves_the_model_alone(digits, trained, monkeypatch):
    before = copy.deepcopy(trained.state_dict())
    ranked = "hgsr_lite.removal.ranking.cross_entropy"
    monkeypatch.setattr(ranked, pressing_ctrl_c_after(5, nn.functional.cross_entropy))
    with pytest.raises(KeyboardInterrupt):
        prune(trained, digits, "loss", 0.5, repeats=0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in trained.state_dict().items())
    assert not any(module._forward_pre_hooks for module in trained.modules())


def test_ctrl_c_in_fine_tuning_gives_what_there_is_and_says_so(digits, trained, monkeypatch):
    step = "hgsr_lite.training.state.TrainingState.step"
    monkeypatch.setattr(step, pressing_ctrl_c_after(3, TrainingState.step))
    small, report = prune(trained, digits, "norm", 0.5, finetune={"epochs": 1}, repeats=0, progress=False)
    assert report.interrupted
    assert "fine-tuning was interrupted" in str(report)
    assert parameters(small) == report.stages.parameters["after fine-tuning"]


def test_a_long_choice_shows_how_far_it_is_and_a_short_one_nothing(digits, trained, monkeypatch, capsys):
    monkeypatch.setattr("hgsr_lite.removal.trials._SHOWN_AFTER", 600.0)  # a busy machine takes its time
    prune(trained, digits, LossRise(32), 0.5, repeats=0)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("hgsr_lite.removal.trials._SHOWN_AFTER", 0.0)
    prune(trained, digits, LossRise(32), 0.5, repeats=0)
    shown = capsys.readouterr().err
    total = sum(module.out_channels for module in trained.modules() if isinstance(module, nn.Conv2d))
    assert "channels silenced" in shown
    assert f"/{total}" in shown
    prune(trained, digits, LossRise(32), 0.5, repeats=0, progress=False)
    assert capsys.readouterr().err == ""


def test_a_model_with_nan_weights_is_refused_before_any_choice(digits, trained):
    broken = copy.deepcopy(trained)
    first_layers(broken)[0].weight.data[0] = torch.nan
    for how in STRATEGIES:
        with pytest.raises(ValueError, match="holds NaN"):
            prune(broken, digits, how, None if how == "tolerance" else 0.5)


@pytest.mark.slow
def test_the_penaltys_choice_beats_the_random_control_at_equal_parameters(digits):
    """Five seeds; the control takes random channels out of the very same networks, ten draws each."""
    gains = []
    for seed in range(5):
        model = build_model("digits_cnn", in_channels=1, num_classes=10, seed=seed)
        penalty = Regularizer(model, "hsq_gl12", grouping="feature", warmup=0.3)
        penalty.calibrate_(digits.train.images[:1000], digits.train.labels[:1000], fraction=10)
        fit(model, digits, penalty, epochs=15, seed=seed, progress=False)
        small, chosen = prune(model, digits, "tolerance", repeats=0)
        left = parameters(small)
        assert left < 0.8 * parameters(model)
        drawn = [
            prune(model, digits, Random(10 * seed + draw), to_parameters=left, repeats=0)[1]
            for draw in range(10)
        ]
        counts = [report.stages.parameters["after removal"] for report in drawn]
        assert counts == pytest.approx([left] * 10, rel=0.05)
        accuracies = torch.tensor([report.test_accuracy for report in drawn])
        gains.append(chosen.test_accuracy - float(accuracies.quantile(0.975)))
    gains = torch.tensor(gains)
    assert gains.mean() - 2.776 * gains.std() / 5**0.5 > 0, "95 % interval of the mean of five (Student)"


def test_scores_that_are_not_a_number_are_refused_before_anything_is_chosen(digits, trained):
    class Nothing:
        def scores(self, candidates):
            return [torch.full((channels.size,), torch.nan) for channels in candidates.sets]

    with pytest.raises(ValueError, match="NaN, which have no order"):
        prune(trained, digits, Nothing(), 0.5, repeats=0)
