"""Exact means: the same function for every image and size, in training branches too."""

from __future__ import annotations

import copy

import pytest
import torch
import torchvision
from torch import nn

from hgsr_lite.removal import compact
from hgsr_lite.removal.proof import Proof


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def images(channels=3, size=8, batch=2):
    return torch.randn(batch, channels, size, size)


def relative_change(model, small, batch):
    with torch.no_grad():
        expected, found = model.eval()(batch), small.eval()(batch)
    return float((expected - found).abs().max() / expected.abs().max())


class BorderedMean(nn.Module):
    """The dead row's bias meets zero padding, and a mean over the image hides the border."""

    def __init__(self, spread):
        super().__init__()
        self.first, self.last, self.spread = nn.Conv2d(1, 4, 1), nn.Conv2d(4, 3, 1), spread

    def forward(self, x):
        return self.last(self.spread(self.first(x).relu()).mean((2, 3), keepdim=True))


class Summed(nn.Module):
    def forward(self, x):
        return x.sum((2, 3), keepdim=True) / 64


class Ramp(nn.Module):
    """Adds a ramp across the image, whose mean hangs on how it is made for each width."""

    def forward(self, x):
        return x + torch.arange(x.shape[-1], device=x.device)


SIZED = {
    "a depthwise convolution with padding": nn.Conv2d(4, 4, 3, padding=1, groups=4),
    "an average over a padded window": nn.AvgPool2d(3, 1, 1),
    "padding with zeros": nn.ZeroPad2d(2),
    "a sum over the image": Summed(),
    "a ramp over the image": Ramp(),
}


@pytest.mark.parametrize("spread", SIZED.values(), ids=SIZED)
def test_a_constant_that_hangs_on_the_size_of_the_image_is_not_exact(spread):
    net = BorderedMean(spread)
    net.first.weight.data[1] = 0
    net.first.bias.data[1] = 5
    kept, _ = compact(net, images(1), exact_only=True, repeats=0)
    small, report = compact(net, images(1), repeats=0)
    assert kept.first.out_channels == 4
    assert (small.first.out_channels, report.exact) == (3, 0)
    assert report.approximate >= 1
    assert max(relative_change(net, kept, images(1, size)) for size in (8, 16, 31)) < 1e-5


SIZELESS = {
    "nothing": nn.Identity(),
    "a pooling": nn.MaxPool2d(3, 2, 1),
    "an average that leaves the border out": nn.AvgPool2d(3, 1, 1, count_include_pad=False),
    "resizing": nn.Upsample(scale_factor=2, mode="bilinear"),
    "repeating the border": nn.ReplicationPad2d(1),
    "a depthwise convolution": nn.Conv2d(4, 4, 3, groups=4),
}


@pytest.mark.parametrize("spread", SIZELESS.values(), ids=SIZELESS)
def test_a_constant_that_is_one_at_every_size_goes_exactly(spread):
    net = BorderedMean(spread)
    net.first.weight.data[1] = 0
    net.first.bias.data[1] = 5
    small, _ = compact(net, images(1), exact_only=True, repeats=0)
    assert small.first.out_channels == 3
    assert max(relative_change(net, small, images(1, size)) for size in (8, 16, 31)) < 1e-5


@pytest.mark.slow
def test_inception_is_the_same_at_another_size():
    net = torchvision.models.inception_v3(init_weights=False, aux_logits=False, num_classes=10).eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.bias, -0.5, 0.5)
        if isinstance(module, nn.Conv2d):
            module.weight.data[:: max(2, module.out_channels // 8)] = 0
    small, report = compact(net, images(size=96, batch=1), exact_only=True, repeats=0)
    assert report.exact > 100
    assert relative_change(net, small, torch.randn(1, 3, 96, 128)) < 1e-4


class Cleaned(nn.Module):
    """Between two layers stands something that NaN does not come through."""

    def __init__(self, clean):
        super().__init__()
        self.first, self.last, self.clean = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1), clean

    def forward(self, x):
        return self.last(self.clean(self.first(x)))


CLEANERS = {
    "nan_to_num": lambda x: torch.nan_to_num(x - 50).clamp_min(0),
    "a comparison": lambda x: (x > 50).to(x.dtype),
    "where": lambda x: torch.where(x > 50, x, 0.0),
    "masked_fill": lambda x: x.masked_fill(~(x > 50), 1.0),
    "sign": lambda x: (x - 50).sign(),
    "integers": lambda x: (x / 100).long().to(x.dtype),
    "fmax": lambda x: torch.fmax(x - 50, torch.zeros_like(x)),
    "a quantisation": lambda x: (x / 100).round(),
    "bucketize": lambda x: torch.bucketize(x, torch.tensor([-50.0, 50.0])).to(x.dtype),
    "isnan": lambda x: (x - x).isnan().to(x.dtype) * x,
    "an index": lambda x: x.new_ones(4)[(x > 50).long()],
    "written in place": lambda x: torch.zeros_like(x).copy_(x - 50).relu_(),
    "through a view": lambda x: _through_a_view(x),
    "numbers in Python": lambda x: x * 0 + float((x > 50).sum()),
    "an argmax": lambda x: torch.zeros_like(x) + (x - 50).relu().flatten(2).argmax(-1)[..., None, None],
}


def _through_a_view(x):
    y = torch.zeros_like(x)
    y.flatten(2).add_((x - 50).relu().flatten(2))
    return y


@pytest.mark.parametrize("clean", CLEANERS.values(), ids=CLEANERS)
def test_what_sleeps_on_every_sampled_image_is_no_constant(clean):
    """All of these are one number on the example and on NaN, and another on an image bright enough."""
    net = Cleaned(clean).eval()
    small, report = compact(net, images(), repeats=0)
    assert report.exact == report.approximate == 0
    bright = 1e4 * images()
    torch.testing.assert_close(small(bright), net(bright))


class BrightImagesElsewhere(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.plain, self.bright = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1), nn.Conv2d(4, 2, 1)

    def forward(self, x):
        read = self.bright if x.abs().max() > 50 else self.plain
        return read(self.stem(x))


def test_a_forward_that_branches_on_its_images_keeps_its_channels_and_says_why():
    net = BrightImagesElsewhere().eval()
    net.plain.weight.data[:, 1] = 0
    small, report = compact(net, images(), repeats=0)
    bright = 1e4 * images()
    torch.testing.assert_close(small(bright), net(bright))
    assert "may branch" in report.fixed["stem"]


class Auxiliary(nn.Module):
    """A second head that only training sees."""

    def __init__(self):
        super().__init__()
        self.stem, self.head, self.extra = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 2, 1), nn.Conv2d(6, 2, 1)

    def forward(self, x):
        x = self.stem(x)
        return (self.head(x), self.extra(x)) if self.training else self.head(x)


def test_a_head_that_only_training_reads_keeps_its_channels_and_is_cut_with_the_others():
    net = Auxiliary().eval()
    net.head.weight.data[:, [1, 2]] = 0
    net.extra.weight.data[:, [2, 3]] = 0
    small, report = compact(net, images(), exact_only=True, repeats=0)
    assert (small.stem.out_channels, small.extra.in_channels) == (5, 5), "channel 2 alone is read by neither"
    assert report.proof["training branches"].relative < 1e-10
    for mine, theirs in zip(small.train()(images()), net.train()(images()), strict=True):
        assert mine.shape == theirs.shape


@pytest.mark.slow
def test_googlenet_trains_on_with_its_auxiliary_heads():
    net = torchvision.models.googlenet(init_weights=False, num_classes=10).eval()
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.weight.data[:, 5::7] = 0
    small, report = compact(net, images(size=64), exact_only=True, repeats=0)
    assert report.exact > 100
    assert report.proof["training branches"].relative < 1e-10
    outputs = small.train()(images(size=64))
    sum(out.square().mean() for out in outputs).backward()
    assert all(parameter.grad is not None for parameter in small.parameters())


def test_the_report_says_on_what_the_removal_was_proved():
    flat = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(4 * 64, 2))
    free = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1))
    assert list(compact(flat, images(), repeats=0)[1].proof) == ["example", "random", "training branches"]
    report = compact(free, images(), repeats=0)[1]
    assert list(report.proof) == ["example", "random", "twice as high", "training branches"]
    assert "proved in float64 on: example, random, twice as high, training branches" in str(report)


def test_an_approximate_removal_is_measured_at_another_size_too_and_the_report_warns():
    torch.manual_seed(0)  # by chance a border could weigh nothing
    model = BorderedMean(nn.Conv2d(4, 4, 3, padding=1, groups=4)).eval()
    model.first.weight.data[1] = 0
    model.first.bias.data[1] = 5
    _, report = compact(model, torch.randn(2, 1, 8, 8), repeats=0)
    assert report.approximate == 2  # an output each of two layers
    assert report.change["example"].relative < 1e-4 < report.change["twice as high"].relative
    assert "another size" in str(report)


@pytest.mark.parametrize(("moved", "is_the_same"), [(1e-13, True), (1e-8, False), (1e-5, False)])
def test_an_exact_removal_may_move_an_output_by_rounding_and_by_nothing_more(moved, is_the_same):
    model = nn.Conv2d(1, 2, 1).double().eval()
    nearly = copy.deepcopy(model)
    proof = Proof(model, images()[:, :1])
    largest = float(proof.cases["example"].expected[0].abs().max())
    nearly.bias.data += moved * largest
    fault = proof.fault(nearly, True, ["example"])
    assert (fault == "") == is_the_same
    assert ("moves by" in fault) != is_the_same
    assert proof.fault(nearly, False, ["example"]) == ""
