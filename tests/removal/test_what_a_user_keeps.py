"""What a smaller network keeps of the original: memory format, hooks, dtypes of constants, a file."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hgsr_lite.removal import compact, load_compact


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def images(channels=3, size=8, batch=2):
    return torch.randn(batch, channels, size, size)


def chain():
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3))
    net[2].weight.data[:, [1, 4]] = 0
    return net


def test_channels_last_stays_channels_last():
    small, _ = compact(chain().to(memory_format=torch.channels_last), images(), repeats=0)
    assert small[2].weight.shape == (4, 4, 3, 3)
    for at in (0, 2):
        assert small[at].weight.is_contiguous(memory_format=torch.channels_last)
    assert compact(chain(), images(), repeats=0)[0][2].weight.is_contiguous()


def test_hooks_are_never_called_and_are_there_again_afterwards():
    called = []
    net = chain()
    net[1].register_forward_hook(lambda *_: called.append("forward"))
    net[2].register_forward_pre_hook(lambda *_: called.append("pre"))
    small, _ = compact(net, images(), repeats=2)
    assert not called
    small(images())
    assert called == ["forward", "pre"]
    net(images())
    assert len(called) == 4


class Constants(nn.Module):
    """Works with float32 constants of its own, and in inference mode."""

    def __init__(self):
        super().__init__()
        self.first, self.last, self.shift = nn.Conv2d(3, 6, 1), nn.Linear(6, 4), torch.ones(1, 1, 1, 1)

    def forward(self, x):
        with torch.inference_mode():
            x = self.first(x) * torch.full((1,), 0.5, dtype=torch.float32) + self.shift
            x = x - x.float().mean((2, 3), keepdim=True)
            return self.last(x.square().mean((2, 3)))


def test_constants_in_single_precision_and_inference_mode_are_no_hindrance():
    net = Constants()
    net.last.weight.data[:, 2] = 0
    small, report = compact(net, images(), exact_only=True, repeats=0)
    assert (small.first.out_channels, report.exact) == (5, 1)
    batch = images()
    torch.testing.assert_close(small(batch), net(batch))


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.stem, self.conv, self.recurrent = (
            nn.Conv2d(3, 5, 1),
            nn.Conv2d(5, 4, 1),
            kind(4, 3, batch_first=True),
        )

    def forward(self, x):
        return self.recurrent(self.conv(self.stem(x)).flatten(2).transpose(1, 2))[0]


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_a_recurrent_layer_keeps_what_it_reads_and_the_rest_goes(kind):
    net = Recurrent(kind).eval()
    net.conv.weight.data[:, 1] = 0
    net.conv.weight.data[2] = 0
    batch = images()
    small, report = compact(net, batch, exact_only=True, repeats=0)
    assert (small.stem.out_channels, small.conv.out_channels) == (4, 4)
    assert "may mix channels" in report.fixed["conv"]
    torch.testing.assert_close(small(batch), net(batch))


class ByChunks(nn.Module):
    """Splits into parts of a size that it holds itself: no channel of these can go, and others can."""

    def __init__(self):
        super().__init__()
        self.stem, self.wide = nn.Conv2d(3, 5, 1), nn.Conv2d(5, 6, 1)
        self.part, self.last = nn.Conv2d(3, 3, 1), nn.Conv2d(6, 2, 1)

    def forward(self, x):
        one, two = torch.split(self.wide(self.stem(x)), 3, 1)
        return self.last(torch.cat([self.part(one), self.part(one) + two], 1))


def test_channels_whose_number_a_forward_holds_stay_and_the_report_says_why():
    net = ByChunks().eval()
    net.wide.weight.data[:, 1] = 0
    net.wide.weight.data[[0, 3, 4]] = 0
    net.part.weight.data[:, 0] = 0
    net.last.weight.data[:, 3] = 0
    batch = images()
    small, report = compact(net, batch, exact_only=True, repeats=0)
    assert (small.stem.out_channels, small.wide.out_channels) == (4, 6)
    assert report.fixed
    torch.testing.assert_close(small(batch), net(batch))


class CentredHead(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.middle, self.last = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 4, 1), nn.Conv2d(4, 2, 1)
        self.scale = nn.Parameter(torch.rand(6, 1, 1))

    def forward(self, x):
        x = self.middle(self.stem(x) * self.scale)
        return self.last(x - x.mean(1, keepdim=True))


def test_a_scale_for_each_channel_is_cut_and_a_mean_over_channels_keeps_them():
    net = CentredHead().eval()
    net.middle.weight.data[:, 3] = 0
    net.last.weight.data[:, 1] = 0
    batch = images()
    small, _ = compact(net, batch, exact_only=True, repeats=0)
    assert (small.stem.out_channels, tuple(small.scale.shape), small.middle.out_channels) == (5, (5, 1, 1), 4)
    torch.testing.assert_close(small(batch), net(batch))
    loaded = load_compact(net, small.state_dict())
    torch.testing.assert_close(loaded(batch), small(batch))


@pytest.mark.parametrize("left", [1, 2])
def test_a_depthwise_layer_cut_to_few_channels_comes_back_from_a_file(left):
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 2, 1)).eval()
    net[2].weight.data[:, left:] = 0
    small, _ = compact(net, images(), repeats=0)
    loaded = load_compact(net, small.state_dict())
    assert small[1].out_channels == small[1].groups == left
    assert str(loaded) == str(small)
    batch = images()
    assert torch.equal(loaded(batch), small(batch))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda state: state.update({"0.weight": torch.ones(9, 3, 3, 3)}),
            r"0\.weight of shape \(9, 3, 3, 3\)",
        ),
        (
            lambda state: state.update({"2.weight": torch.ones(4, 4)}),
            r"2\.weight of shape \(4, 4\) is no cut",
        ),
        (lambda state: state.update({"0.bias": torch.ones(2)}), r"layer '0' has 4 rows.*a bias of 2"),
        (lambda state: state.update({"1.bias": torch.ones(2)}), r"1\.bias"),
        (lambda state: state.pop("2.bias"), r"2\.bias"),
    ],
)
def test_a_state_that_is_no_cut_is_refused_by_the_tensors_name(change, words):
    net = chain()
    state = compact(net, images(), repeats=0)[0].state_dict()
    change(state)
    with pytest.raises(ValueError, match=words):
        load_compact(net, state)
