"""What `compact` leaves alone, refuses, and never touches."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from hgsr_lite.removal import compact, load_compact


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def images(channels=3, size=8):
    return torch.randn(2, channels, size, size)


def dead_in_both_directions():
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.BatchNorm2d(4)
    )
    net[0].weight.data[1] = 0
    net[3].weight.data[:, 2] = 0
    return net


def test_the_model_given_in_is_never_changed_and_its_settings_are_carried_over():
    net = dead_in_both_directions()
    net[1].eval()
    net[0].weight.requires_grad_(False)
    net(images()).sum().backward()
    before = copy.deepcopy(net)
    small, _ = compact(net, images(), repeats=1)
    for old, new in ((before, net), (net, before)):
        for (name, tensor), other in zip(old.state_dict().items(), new.state_dict().values(), strict=True):
            assert torch.equal(tensor, other), name
    assert net[3].weight.grad is not None
    assert [m.training for m in net.modules()] == [m.training for m in before.modules()]
    assert [m.training for m in small.modules()] == [m.training for m in before.modules()]
    assert not small[0].weight.requires_grad
    assert small[3].weight.requires_grad
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
    shared = {t.data_ptr() for t in net.state_dict().values()} & {
        t.data_ptr() for t in small.state_dict().values()
    }
    assert not shared, "the smaller model must not share memory with the original"


def test_the_same_zeros_give_the_same_smaller_network():
    net = dead_in_both_directions()
    first, second = (compact(net, images(), repeats=0)[0].state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_model_without_zeros_comes_back_as_it_is():
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3))
    small, report = compact(net, images(), repeats=0)
    assert report.exact == report.approximate == 0
    assert report.change["random"].absolute == 0
    assert str(small) == str(net)


class TwoOutputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 4, 1)

    def forward(self, x):
        features = self.first(x)
        return {"features": features, "scores": self.second(features)}


def test_channels_that_are_an_output_of_the_model_stay():
    net = TwoOutputs()
    net.second.weight.data[:, 2] = 0
    small, report = compact(net, images(), repeats=0)
    assert small.first.out_channels == 6
    assert "output" in report.fixed["first"]


class AroundTheInput(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 4, 1)

    def forward(self, x):
        return self.head(x + self.conv(x))


def test_channels_added_to_the_input_stay():
    net = AroundTheInput()
    net.head.weight.data[:, 1] = 0
    small, report = compact(net, images(), repeats=0)
    assert small.conv.out_channels == 3
    assert "input" in report.fixed["conv"]


class Twice(nn.Module):
    def __init__(self, shared):
        super().__init__()
        self.stem, self.one, self.head = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 2, 1)
        self.two = self.one if shared == "layer" else nn.Conv2d(4, 4, 1)
        if shared == "weight":
            self.two.weight = self.one.weight

    def forward(self, x):
        return self.head(self.two(self.one(self.stem(x))))


@pytest.mark.parametrize("shared", ["layer", "weight"])
def test_layers_that_are_used_twice_or_share_a_weight_stay_right(shared):
    net = Twice(shared)
    net.head.weight.data[:, 1] = 0
    net.one.weight.data[:, 2] = 0
    batch = images()
    small, _ = compact(net, batch, repeats=0)
    torch.testing.assert_close(small(batch), net(batch))


class Mixed(nn.Module):
    """Divides by the mean over the channels: a channel that no layer reads still counts."""

    def __init__(self, inputs=3):
        super().__init__()
        self.stem, self.head = nn.Conv2d(inputs, 4, 1), nn.Conv2d(4, 4, 1)

    def forward(self, x):
        x = self.stem(x)
        return self.head(x / x.square().mean(1, keepdim=True))


def test_channels_that_are_mixed_in_a_forward_stay_and_the_others_go():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), Mixed(4), nn.Conv2d(4, 2, 1))
    net[2].stem.weight.data[:, 1] = 0
    net[2].head.weight.data[:, 2] = 0
    batch = images()
    small, report = compact(net, batch, exact_only=True, repeats=0)
    assert (small[0].out_channels, small[2].stem.out_channels) == (3, 4)
    assert "mean may mix channels" in report.fixed["2.stem"]
    torch.testing.assert_close(small(batch), net(batch))


@pytest.mark.parametrize(
    "mixer",
    [nn.GroupNorm(2, 4), nn.Softmax(1), nn.PixelShuffle(2), nn.ChannelShuffle(2), nn.LocalResponseNorm(2)],
)
def test_operations_that_mix_channels_are_left_alone(mixer):
    outputs = 1 if isinstance(mixer, nn.PixelShuffle) else 4
    net = nn.Sequential(nn.Conv2d(3, 4, 1), mixer, nn.Conv2d(outputs, 2, 1)).eval()
    net[2].weight.data[:, 0] = 0
    batch = images()
    small, report = compact(net, batch, repeats=0)
    assert small[0].out_channels == 4
    assert report.fixed["0"]


class Swallowing(nn.Module):
    """A ReLU by comparison: it turns NaN into zero, so poison alone would call everything constant."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 2, 1)])

    def forward(self, x):
        first, second, third = self.layers
        x = first(x)
        return third(second(torch.where(x > 0, x, 0.0)))


def test_an_operation_that_swallows_nan_does_not_pass_for_a_constant():
    net = Swallowing()
    small, report = compact(net, images(), repeats=0)
    assert report.exact == report.approximate == 0
    assert str(small) == str(net)


class OutOfReach(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x):
        return torch.from_numpy(self.conv(x).detach().numpy())


def test_what_leaves_pytorch_is_left_alone():
    net = nn.Sequential(OutOfReach(), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 2, 1))
    net[1].weight.data[:, 1] = 0
    net[2].weight.data[:, 3] = 0
    batch = images()
    small, report = compact(net, batch, repeats=0)
    assert (small[0].conv.out_channels, small[1].in_channels, small[1].out_channels) == (4, 4, 3)
    assert report.fixed["0.conv"] == "no layer reads it"
    torch.testing.assert_close(small(batch), net(batch))


@pytest.mark.parametrize(
    ("example", "error", "words"),
    [
        (torch.ones(2, 5, 8, 8), ValueError, r"does not take an example of shape \(2, 5, 8, 8\)"),
        (torch.ones(2, 3, 1, 1), ValueError, r"does not take an example of shape \(2, 3, 1, 1\)"),
        (torch.ones(0, 3, 8, 8), ValueError, "is no batch"),
        (torch.ones(3), ValueError, "is no batch"),
        (torch.ones(2, 3, 8, 8, dtype=torch.uint8), TypeError, "not torch.uint8"),
        ([[1.0]], TypeError, "not list"),
        (torch.ones(2, 3, 8, 8, device="meta"), ValueError, "is on cpu, the example on meta"),
    ],
)
def test_a_wrong_example_is_refused_in_words(example, error, words):
    with pytest.raises(error, match=words):
        compact(dead_in_both_directions(), example, repeats=0)


@pytest.mark.parametrize("at", ["0.weight", "0.bias", "1.running_var"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_numbers_that_are_not_finite_are_refused_by_name(at, value):
    net = dead_in_both_directions()
    net.state_dict()[at].view(-1)[0] = value
    with pytest.raises(ValueError, match=f"{at} holds NaN or infinite"):
        compact(net, images(), repeats=0)


def test_a_weight_that_is_computed_is_refused_with_the_way_out():
    for wrap in (
        parametrizations.weight_norm,
        lambda m: prune.random_unstructured(m, "weight", 0.5),
    ):
        with pytest.raises(ValueError, match=r"weight of layer '0' is computed.*remove"):
            compact(nn.Sequential(wrap(nn.Conv2d(3, 4, 1)), nn.Conv2d(4, 2, 1)), images(), repeats=0)


def test_a_layer_that_the_forward_never_runs_is_told_from_one_that_nobody_reads():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)
            self.spare, self.unread = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
            self.first.weight.data[0] = self.spare.weight.data[0] = self.unread.weight.data[0] = 0

        def forward(self, x):
            h = self.first(x).relu()
            self.unread(h)
            return self.last(h)

    small, report = compact(Net(), images(), repeats=0)
    assert report.fixed["spare"] == "the forward did not run it on the example"
    assert report.fixed["unread"] == "no layer reads it"
    assert (small.first.out_channels, small.spare.in_channels, small.unread.in_channels) == (3, 4, 3)


def test_no_model_is_refused():
    with pytest.raises(TypeError, match=r"must be a torch\.nn\.Module, not 'model\.pt'"):
        compact("model.pt", images())


def test_a_state_of_another_network_is_refused():
    net = dead_in_both_directions()
    state = compact(net, images(), repeats=0)[0].state_dict()
    del state["1.running_mean"]
    with pytest.raises(ValueError, match=r"does not fit a cut Sequential: .*1\.running_mean"):
        load_compact(net, state)


def test_reports_read_well_as_text_as_table_and_as_html():
    _, report = compact(dead_in_both_directions(), images(), repeats=2)
    text, frame, html = str(report), report.to_frame(), report._repr_html_()
    assert "2 output channels removed exactly, 0 approximately" in text
    assert "largest change of output: example" in text
    assert list(frame.outputs_after) == [4, 4]
    assert report.costs().loc["parameters", "times less"] > 1
    assert html.count("<table") == 2
    assert all(word in html for word in itertools.chain(frame.columns, report.costs().index))
