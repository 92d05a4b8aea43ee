"""What networks that nobody here wrote do in a forward, each in a few lines: cut rightly, or left alone with
the true reason, in a time that can be waited for."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F

import hgsr_lite as hg
from hgsr_lite.removal import compact, trials
from hgsr_lite.removal.compaction import compare


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def images(size=8):
    return torch.randn(2, 3, size, size, dtype=torch.float64)


class Net(nn.Module):
    """Three convolutions, with an operation of somebody's between the second and the third."""

    def __init__(self, reads=8, makes=8):
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3)
        self.second = nn.Conv2d(6, makes, 1)
        self.third = nn.Conv2d(reads, 4, 1)
        self.first.weight.data[2] = 0
        self.second.weight.data[:, 2] = 0
        self.third.weight.data[:, [1, 5] if reads == 8 else [1]] = 0

    def forward(self, x):
        return self.third(self.between(self.second(self.first(x).relu())))


class Dropout(Net):
    """Drops out by the function, so that it happens in its training branch."""

    def between(self, h):
        return F.dropout(h, 0.5, self.training)


class ChannelDropout(Net):
    """Drops whole channels out: the draws, one number a plane, lie in a tensor made for them."""

    def between(self, h):
        return F.dropout2d(h, 0.5, self.training)


class NearestNeighbours(Net):
    """HRNet's way up: each pixel repeated, which PyTorch does by an index of its own."""

    def between(self, h):
        return F.interpolate(h, scale_factor=2, mode="nearest")


class IndexedPixels(Net):
    """Every other pixel, by an index that no image changes."""

    def between(self, h):
        rows = torch.arange(0, h.shape[2], 2)
        return h[:, :, rows[:, None], rows]


class SelectiveKernels(Net):
    """Two paths, stacked, weighed by a softmax over the paths and summed."""

    def __init__(self):
        super().__init__(reads=4)
        self.weigh = nn.Conv2d(4, 8, 1)
        for at in (1, 5):
            self.second.weight.data[at] = 0
            self.second.bias.data[at] = 0
        self.weigh.weight.data[:, 1] = 0

    def between(self, h):
        paths = torch.stack(h.chunk(2, 1), 1)
        weights = self.weigh(paths.sum(1).mean((2, 3), keepdim=True))
        return (paths * weights.view(len(h), 2, -1, 1, 1).softmax(1)).sum(1)


class UnitLength(Net):
    """Each channel's plane divided by its length."""

    def between(self, h):
        return F.normalize(h.flatten(2), dim=2).view_as(h)


CUT = [Dropout, ChannelDropout, NearestNeighbours, IndexedPixels, SelectiveKernels, UnitLength]


@pytest.mark.parametrize("network", CUT)
def test_what_keeps_channels_apart_is_cut(network):
    net = network().double()
    small, report = compact(net, images(), exact_only=True, repeats=0)
    assert small.first.out_channels == 5
    assert small.third.in_channels < net.third.in_channels
    assert compare(net.eval(), small.eval(), images(12)).relative < 1e-10
    assert not [why for name, why in report.fixed.items() if name != "third"]


class Sorted(Net):
    """Mixes its channels."""

    def between(self, h):
        return h.sort(1).values


class Detector(Net):
    """Lists the places where something was found, as every detector does."""

    def between(self, h):
        return h

    def forward(self, x):
        found = super().forward(x)
        return found[found > 0.1]


class Standardised(Net):
    """Computes a weight each time, as networks without normalisation do."""

    def forward(self, x):
        weight = self.third.weight
        weight = weight / weight.std((1, 2, 3), keepdim=True)
        return F.conv2d(self.second(self.first(x).relu()), weight)


class FindsNothing(Net):
    """A detector that finds nothing, so that layers behind the search read an empty tensor."""

    def between(self, h):
        return h

    def forward(self, x):
        found = super().forward(x)
        boxes = found.flatten(1)[found.flatten(1).amax(1) > 1e9]
        return found, torch.cat([boxes, boxes.sort(1).values])


@pytest.mark.parametrize(
    ("network", "layer", "why"),
    [
        (Standardised, "second", "a convolution's weight is computed in the forward"),
        (FindsNothing, "first", "the forward takes numbers out of its images, and may branch on them"),
        (Sorted, "second", "sort may mix channels"),
        (Detector, "first", "the forward takes numbers out of its images, and may branch on them"),
    ],
)
def test_what_is_left_alone_is_left_alone_for_its_true_reason(network, layer, why):
    net = network().double()
    small, report = compact(net, images(), exact_only=True, repeats=0)
    assert report.fixed[layer] == why
    assert compare(net.eval(), small.eval(), images()).relative < 1e-10


class Chain(nn.Module):
    """Sixteen blocks; every other one holds the number of its channels in its forward."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(3 if at == 0 else 4, 4, 1) for at in range(17))
        for layer in self.layers[1:]:
            layer.weight.data[:, 1] = 0

    def forward(self, x):
        for at, layer in enumerate(self.layers):
            x = layer(x)
            x = torch.cat(x.split([2, 2], 1), 1) if at % 2 and at < 16 else x
        return x


def test_culprits_are_found_in_trials_on_the_example_and_not_on_every_case(monkeypatch):
    looked_at = []
    fault = trials.Proof.fault

    def counted(self, smaller, exact, cases):
        looked_at.append(len(list(cases)))
        return fault(self, smaller, exact, cases)

    monkeypatch.setattr(trials.Proof, "fault", counted)
    net = Chain().double()
    small, report = compact(net, images(), exact_only=True, repeats=0)
    kept = {name for name, why in report.fixed.items() if "its forward fails" in why}
    assert kept == {f"layers.{at}" for at in range(1, 16, 2)}
    assert all(small.layers[at].out_channels == 3 for at in range(0, 16, 2))
    assert sum(number > 1 for number in looked_at) <= 4
    assert len(looked_at) <= 8 * 2 * 4  # each culprit among sixteen takes four halvings, two trials each


def test_long_work_shows_what_it_tries_on_stderr_and_none_of_it_if_told_so(monkeypatch, capsys):
    monkeypatch.setattr("hgsr_lite.removal.trials._SHOWN_AFTER", 0.0)
    compact(Chain(), images().float(), repeats=0)
    shown = capsys.readouterr()
    assert "removals tried" in shown.err
    assert not shown.out
    compact(Chain(), images().float(), repeats=0, progress=False)
    assert not capsys.readouterr().err


def test_a_stopped_removal_leaves_the_model_as_it_was(monkeypatch):
    net = Chain()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(trials.Proof, "fault", stop)
    with pytest.raises(KeyboardInterrupt):
        compact(net, images().float(), repeats=0)
    after = net.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert net.training


def test_a_pooling_called_downsample_does_not_stop_the_default_regularizer():
    net = timm.create_model("dla34")
    regularizer = hg.Regularizer(net)
    convolutions = [name for name, module in net.named_modules() if isinstance(module, nn.Conv2d)]
    assert [layer.name for layer in regularizer.layers] == convolutions


class ByList(Net):
    """Picks channels by a list, which PyTorch makes a tensor of where nobody sees it."""

    def between(self, h):
        return h[:, [0, 1, 2, 3, 4, 5, 6, 7]]


class ByValue(Net):
    """Puts the brightest channel first: another image, another order."""

    def between(self, h):
        return h[:, h.mean((0, 2, 3)).argsort().tolist()]


class ByBuffer(Net):
    """Picks channels by numbers that the network keeps."""

    def __init__(self):
        super().__init__()
        self.register_buffer("order", torch.arange(8))

    def between(self, h):
        return h[:, self.order]


class FixedSize(Net):
    """Adds zeros of a size that is written down."""

    def between(self, h):
        return h + h.new_zeros(1, 8, 1, 1)


@pytest.mark.parametrize(
    ("network", "why"),
    [
        (ByList, "an index picks from them that may follow from the images"),
        (ByValue, "an index picks from them that may follow from the images"),
        (ByBuffer, "without some of them its forward fails: index 6 is out of bounds"),
        (FixedSize, "without some of them its forward fails: The size of tensor"),
    ],
)
def test_channels_that_are_called_by_their_number_stay_for_that_reason_and_others_go(network, why):
    net = network().double()
    small, report = compact(net, images(), exact_only=True, repeats=0)
    assert small.first.out_channels == 5
    assert small.second.out_channels == 8
    assert report.fixed["second"].startswith(why)
    assert compare(net.eval(), small.eval(), images(12)).relative < 1e-10
