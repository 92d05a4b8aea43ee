"""Training goes on after a removal: the optimizer's state and the penalty come along, channel by channel."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torchvision.models.resnet import BasicBlock

from hgsr_lite.models import build_model
from hgsr_lite.regularizer import Regularizer
from hgsr_lite.removal import compact

pytestmark = pytest.mark.trains

OPTIMIZERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9, weight_decay=1e-3),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=0.01, eps=1e-3, amsgrad=True),
}


def dead_network() -> nn.Sequential:
    """A network whose first layer has two channels that nothing reads and that are zero throughout.

    In double precision, and with an Adam that adds 1e-3 to the size it divides by: the bias before a batch
    norm has a gradient that is all rounding, another one on every processor, and divided by its own size it
    would be a step like any other.
    """
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Flatten(), nn.Linear(16, 2)
    ).double()
    for tensor in (*net[0].parameters(), *net[1].parameters()):
        tensor.data[[1, 5]] = 0
    net[3].weight.data[:, [1, 5]] = 0
    return net


def train(net, optimizer, steps, regularizer=None):
    generator = torch.Generator().manual_seed(steps)
    for _ in range(steps):
        images = torch.randn(16, 3, 6, 6, generator=generator, dtype=torch.float64)
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(images), torch.arange(16) % 2).backward()
        if regularizer is not None:
            regularizer.add_gradient_()
        optimizer.step()


def cut(net):
    return compact(net, torch.randn(2, 3, 6, 6, dtype=torch.float64), exact_only=True, repeats=0)


def assert_same_numbers(net, small, report):
    """Every number of the smaller network is the one that stood in its place in the original."""
    full = dict(net.named_parameters())
    for name, parameter in small.named_parameters():
        expected = full[name].detach().flatten()[report.places[name].flatten()].view(parameter.shape)
        torch.testing.assert_close(parameter.detach(), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=list(OPTIMIZERS))
def test_training_goes_on_as_if_nothing_had_been_removed(make):
    net = dead_network()
    optimizer, regularizer = make(net.parameters()), Regularizer(net, "gl", strength=0.01)
    train(net, optimizer, 5, regularizer)
    small, report = cut(net)
    assert small[0].out_channels == 6
    moved = copy.deepcopy((optimizer.state_dict(), net))
    carried = make(moved[1].parameters())
    carried.load_state_dict(moved[0])
    report.carry_(carried, moved[1], small)
    train(net, optimizer, 5, regularizer)
    train(small, carried, 5, regularizer.on(small))
    assert_same_numbers(net, small, report)


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=list(OPTIMIZERS))
def test_the_next_step_is_right_where_a_channel_is_only_unread(make):
    torch.manual_seed(1)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Flatten(), nn.Linear(16, 2))
    net.double()
    optimizer = make(net.parameters())
    train(net, optimizer, 3)
    net[2].weight.data[:, [0, 4]] = 0
    small, report = cut(net)
    again = copy.deepcopy((net, optimizer))
    report.carry_(optimizer, net, small)
    train(small, optimizer, 1)
    net, optimizer = again
    optimizer = make(net.parameters())
    optimizer.load_state_dict(again[1].state_dict())
    train(net, optimizer, 1)
    assert_same_numbers(net, small, report)


def test_the_state_is_cut_to_the_channels_that_are_left_and_the_groups_stay():
    net = dead_network()
    groups = [{"params": net[0].parameters(), "lr": 0.1}, {"params": net[1:].parameters(), "lr": 0.01}]
    optimizer = torch.optim.SGD(groups, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    train(net, optimizer, 2)
    before = {name: optimizer.state[p]["momentum_buffer"].clone() for name, p in net.named_parameters()}
    small, report = cut(net)
    report.carry_(optimizer, net, small)
    kept = [0, 2, 3, 4, 6, 7]
    assert report.kept["0"].outputs == report.kept["3"].inputs == kept
    assert report.kept["0"].inputs == [0, 1, 2]
    momentum = {name: optimizer.state[p]["momentum_buffer"] for name, p in small.named_parameters()}
    assert torch.equal(momentum["0.weight"], before["0.weight"][kept])
    assert torch.equal(momentum["3.weight"], before["3.weight"][:, kept])
    assert torch.equal(momentum["1.bias"], before["1.bias"][kept])
    scheduler.step()
    assert [group["lr"] for group in optimizer.param_groups] == [0.05, 0.005]
    assert [p.shape for p in optimizer.param_groups[0]["params"]] == [(6, 3, 3, 3), (6,)]
    train(small, optimizer, 1)


def test_without_it_the_optimizer_trains_the_original_only():
    net = dead_network()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    small, _ = cut(net)
    before = copy.deepcopy(small.state_dict())
    nn.functional.cross_entropy(
        small.eval()(torch.randn(4, 3, 6, 6, dtype=torch.float64)), torch.arange(4) % 2
    ).backward()
    optimizer.step()
    assert all(torch.equal(tensor, before[name]) for name, tensor in small.state_dict().items())


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 6, 3, groups=2),
        nn.ConvTranspose2d(4, 6, 3),
        nn.Conv2d(4, 4, 3, groups=4),
        nn.Linear(4, 6),
    ],
    ids=["grouped", "transposed", "depthwise", "linear"],
)
def test_kept_channels_are_right_for_every_kind_of_layer(layer):
    class Chain(nn.Module):
        def __init__(self):
            super().__init__()
            linear = isinstance(layer, nn.Linear)
            self.first = nn.Linear(3, 4) if linear else nn.Conv2d(3, 4, 1)
            self.middle = copy.deepcopy(layer)
            made = layer.out_features if linear else layer.out_channels
            self.last = nn.Linear(made, 2) if linear else nn.Conv2d(made, 2, 1)

        def forward(self, x):
            return self.last(self.middle(self.first(x).relu()).relu())

    torch.manual_seed(0)
    net = Chain().eval()
    net.last.weight.data[:, [1, 3]] = 0
    example = torch.randn(2, 3) if isinstance(layer, nn.Linear) else torch.randn(2, 3, 5, 5)
    small, report = compact(net, example, exact_only=True, repeats=0)
    made = net.last.weight.shape[1]
    left = [channel for channel in range(made) if channel not in (1, 3)]
    assert report.kept["middle"].outputs == report.kept["last"].inputs == left
    assert report.kept["first"].outputs == report.kept["middle"].inputs
    assert torch.equal(small.last.weight, net.last.weight[:, left])
    if isinstance(layer, nn.Conv2d) and layer.groups == 4:
        assert report.kept["first"].outputs == left


def test_a_bias_that_the_removal_made_is_trained_too():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1, bias=False), nn.Flatten())
    net[0].weight.data[1] = 0
    net[0].bias.data[1] = 0.7
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    net(torch.randn(2, 3, 4, 4)).sum().backward()
    optimizer.step()
    net[0].weight.data[1] = 0
    small, report = compact(net, torch.randn(2, 3, 4, 4), repeats=0)
    assert small[2].bias is not None
    report.carry_(optimizer, net, small)
    assert {*optimizer.param_groups[0]["params"]} == {*small.parameters()}
    before = small[2].bias.detach().clone()
    small(torch.randn(2, 3, 4, 4)).sum().backward()
    optimizer.step()
    assert not torch.equal(small[2].bias, before)


def test_another_models_parameters_stay_with_the_optimizer():
    net, other = dead_network(), nn.Linear(2, 2)
    optimizer = torch.optim.Adam([*net.parameters(), *other.parameters()], lr=0.01)
    train(net, optimizer, 1)
    small, report = cut(net)
    report.carry_(optimizer, net, small)
    assert {*other.parameters(), *small.parameters()} == {*optimizer.param_groups[0]["params"]}
    assert len(optimizer.param_groups[0]["params"]) == len(list(net.parameters())) + 2


def test_a_residual_network_of_torchvision_goes_on_too():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), BasicBlock(8, 8), nn.Flatten(), nn.Linear(128, 2))
    net.double()
    net[1].conv2.weight.data[:, [2, 3]] = 0
    net[1].conv1.weight.data[[2, 3]] = 0
    for tensor in (net[1].bn1.weight, net[1].bn1.bias):
        tensor.data[[2, 3]] = 0
    optimizer = OPTIMIZERS["sgd"](net.parameters())
    train(net, optimizer, 2)
    small, report = compact(net, torch.randn(2, 3, 6, 6, dtype=torch.float64), exact_only=True, repeats=0)
    assert small[1].conv1.out_channels == 6
    pair = copy.deepcopy(net), optimizer.state_dict()
    optimizer = OPTIMIZERS["sgd"](pair[0].parameters())
    optimizer.load_state_dict(pair[1])
    reference = OPTIMIZERS["sgd"](net.parameters())
    reference.load_state_dict(copy.deepcopy(pair[1]))
    report.carry_(optimizer, pair[0], small)
    train(small, optimizer, 3)
    train(net, reference, 3)
    assert_same_numbers(net, small, report)


def lbfgs(net):
    optimizer = torch.optim.LBFGS(net.parameters())
    images = torch.randn(4, 3, 6, 6, dtype=torch.float64)

    def closure():
        optimizer.zero_grad()
        loss = net(images).square().mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    return optimizer


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda net, small: torch.optim.SGD(small.parameters(), lr=0.1), "trains no parameter of this model"),
        (lambda net, small: lbfgs(net), "LBFGS keeps .* make a new optimizer"),
    ],
)
def test_what_cannot_be_carried_is_refused_and_nothing_changes(make, words):
    net = dead_network()
    small, report = cut(net)
    optimizer = make(net, small)
    before = [*optimizer.param_groups[0]["params"]], dict(optimizer.state)
    with pytest.raises(ValueError, match=words):
        report.carry_(optimizer, net, small)
    assert all(a is b for a, b in zip(before[0], optimizer.param_groups[0]["params"], strict=True))
    assert before[1].keys() == dict(optimizer.state).keys()


def test_a_report_of_another_removal_is_refused():
    net = dead_network()
    _, report = cut(net)
    other = build_model("digits_cnn", in_channels=1, num_classes=10, seed=0)
    with pytest.raises(ValueError, match=r"this report is of other networks: "):
        report.carry_(torch.optim.SGD(other.parameters(), lr=0.1), other, other)
    with pytest.raises(
        ValueError, match=r"0\.weight would have the shape \(6, 3, 3, 3\), but has \(8, 3, 3, 3\)"
    ):
        report.carry_(torch.optim.SGD(net.parameters(), lr=0.1), net, net)
