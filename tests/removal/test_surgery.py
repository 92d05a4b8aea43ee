"""Which channels are held back so that every layer keeps one, and each group of a layer as many."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch import Tensor, nn

from hgsr_lite.coupling.blocks import Block
from hgsr_lite.coupling.channels import CoupledChannels, Slice
from hgsr_lite.removal.surgery import cut_, hold_back


def read_by(size: int, *orders: list[int]) -> CoupledChannels:
    """Channels that convolutions of two groups read: each layer's groups are the halves of its order."""
    slices = tuple(
        Slice(
            Block(f"reader {number}", nn.Conv2d(size, size, 1, groups=2), "in", ("weight",), 0, size),
            torch.arange(size),
            torch.tensor(order),
        )
        for number, order in enumerate(orders)
    )
    return CoupledChannels("made", size, slices, "")


def made_by(layer: nn.Module, size: int, *tensors: str) -> CoupledChannels:
    block = Block("layer", layer, "out", tensors, 0, size)
    return CoupledChannels("layer", size, (Slice(block, torch.arange(size), torch.arange(size)),), "")


def held(channels: CoupledChannels, removed: list[int], scores: list[float] | None = None) -> list[int]:
    """The channels that still go."""
    marked = torch.zeros(channels.size, dtype=torch.bool)
    marked[removed] = True
    hold_back([channels], [marked], None if scores is None else [torch.tensor(scores)])
    return marked.nonzero().flatten().tolist()


def test_of_a_layer_that_would_lose_all_the_highest_score_stays_else_the_last():
    channels = made_by(nn.Conv2d(2, 4, 1), 4, "weight", "bias")
    assert held(channels, [0, 1, 2, 3], [3.0, 9.0, 1.0, 2.0]) == [0, 2, 3]
    assert held(channels, [0, 1, 2, 3]) == [0, 1, 2]
    assert held(channels, [0, 1, 2], [3.0, 9.0, 1.0, 2.0]) == [0, 1, 2]


def test_of_a_group_that_would_lose_more_than_another_the_highest_scores_stay():
    channels = read_by(8, [*range(8)])
    assert held(channels, [0, 1, 2, 4], [2.0, 1.0, 3.0, 0, 0, 0, 0, 0]) == [1, 4]


def test_a_channel_held_back_for_one_layer_is_counted_in_the_others():
    """The second layer's groups keep two channels; then the first layer's are uneven, and keep two more."""
    channels = read_by(8, [0, 1, 2, 3, 4, 5, 6, 7], [0, 1, 4, 5, 2, 3, 6, 7])
    assert held(channels, [0, 1, 4, 6], [9.0, 8.0, 0, 0, 1.0, 0, 2.0, 0]) == []


@given(
    st.permutations(range(8)),
    st.permutations(range(8)),
    st.sets(st.integers(0, 7)),
    st.lists(st.floats(-1, 1), min_size=8, max_size=8),
)
def test_whatever_is_asked_every_group_keeps_as_many_and_at_least_one(first, second, removed, scores):
    left = {*range(8)} - {*held(read_by(8, first, second), sorted(removed), scores)}
    assert left >= {*range(8)} - removed
    for order in (first, second):
        halves = [len(left & {*order[:4]}), len(left & {*order[4:]})]
        assert halves[0] == halves[1] >= 1


def test_a_cut_that_would_leave_a_bias_as_it_was_says_so():
    def half() -> Tensor:
        return torch.tensor([True, False, False, False])

    cut_([made_by(layer := nn.Linear(2, 4), 4, "weight", "bias")], [half()])
    assert (layer.out_features, len(layer.bias)) == (3, 3)
    with pytest.raises(AssertionError, match="left Linear 3 rows, but 4 biases"):
        cut_([made_by(nn.Linear(2, 4), 4, "weight")], [half()])
