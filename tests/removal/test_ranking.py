"""Every way of choosing channels: its scores against their definition, one channel at a time."""

from __future__ import annotations

import copy
from dataclasses import FrozenInstanceError

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from hgsr_lite.coupling import couple
from hgsr_lite.data import Data, load_data
from hgsr_lite.removal.ranking import STRATEGIES, Candidates, LossRise, Norm, Random, Tolerance


class TwoReaders(nn.Module):
    """Three channels, read by two convolutions of different kernel sizes, then one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.made = nn.Conv2d(1, 3, 2)
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.second = nn.Conv2d(3, 4, 1)
        self.head = nn.Linear(4, 10)

    def forward(self, images: Tensor) -> Tensor:
        middle = self.made(images).relu()
        return self.head((self.first(middle) + self.second(middle)).relu().mean((2, 3)))


class Words(nn.Module):
    """A linear layer that reads the channels of every place: its inputs have a third dimension."""

    def __init__(self) -> None:
        super().__init__()
        self.made = nn.Conv2d(1, 3, 4, stride=4)
        self.read = nn.Linear(3, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.read(self.made(images).flatten(2).transpose(1, 2)).mean(1)


@pytest.fixture(scope="module")
def digits() -> Data:
    return load_data("digits", device="cpu", limit=60)


def candidates(model: nn.Module, data: Data) -> Candidates:
    return Candidates(model.eval(), couple(model, data.train.images[:2]).free, data)


def root_mean_square(parts: list[Tensor]) -> Tensor:
    return torch.cat([part.double().flatten() for part in parts]).square().mean().sqrt()


@pytest.mark.parametrize("relative", [False, True])
def test_a_norm_is_the_root_mean_square_of_a_channels_columns_or_of_its_rows(relative, digits):
    torch.manual_seed(0)
    model = TwoReaders()
    with torch.no_grad():
        model.second.weight.mul_(3)

    def weight(layer: nn.Module) -> Tensor:
        whole = layer.weight.detach()
        return whole / root_mean_square([whole]) if relative else whole

    given = candidates(model, digits)
    (columns, joined), (rows, joined_rows) = (
        Norm(grouping, relative).scores(given) for grouping in ("feature", "neuron")
    )
    for channel in range(3):
        readers = [weight(model.first)[:, channel], weight(model.second)[:, channel]]
        torch.testing.assert_close(columns[channel], root_mean_square(readers), rtol=1e-6, atol=0)
        makers = [weight(model.made)[channel]]
        torch.testing.assert_close(rows[channel], root_mean_square(makers), rtol=1e-6, atol=0)
    for channel in range(4):  # one channel that two layers make: the first and the second, added up
        readers = [weight(model.head)[:, channel]]
        torch.testing.assert_close(joined[channel], root_mean_square(readers), rtol=1e-6, atol=0)
        makers = [weight(model.first)[channel], weight(model.second)[channel]]
        torch.testing.assert_close(joined_rows[channel], root_mean_square(makers), rtol=1e-6, atol=0)


@pytest.mark.parametrize("network", [TwoReaders, Words])
def test_a_rise_of_the_loss_is_what_emptying_the_columns_of_one_channel_costs(network, digits):
    torch.manual_seed(1)
    model = network().eval()
    images, labels = digits.train.images, digits.train.labels
    given = candidates(model, digits)
    found = LossRise(images=len(labels)).scores(given)
    assert not any(scores.requires_grad for scores in found)
    assert not any(module._forward_pre_hooks for module in model.modules())
    with torch.no_grad():
        before = cross_entropy(model(images), labels)
        for channels, scores in zip(given.sets, found, strict=True):
            for channel in range(channels.size):
                emptied = copy.deepcopy(model)
                for part in channels.readers:
                    reader = emptied.get_submodule(part.name)
                    reader.weight[:, part.index[part.channel == channel]] = 0
                rise = cross_entropy(emptied(images), labels) - before
                torch.testing.assert_close(scores[channel].float(), rise, rtol=1e-4, atol=1e-6)
    assert len({float(score) for scores in found for score in scores}) > 2


def test_a_name_stands_for_the_way_without_further_numbers():
    assert {name: way() for name, way in STRATEGIES.items()} == {
        "tolerance": Tolerance(1e-3, relative=False),
        "norm": Norm("feature", relative=False),
        "loss": LossRise(256, seed=0),
        "random": Random(0),
    }


@pytest.mark.parametrize("way", [way() for way in STRATEGIES.values()], ids=list(STRATEGIES))
def test_a_way_cannot_be_given_other_numbers_past_its_checks(way):
    with pytest.raises(FrozenInstanceError):
        setattr(way, next(iter(vars(way))), -1)
