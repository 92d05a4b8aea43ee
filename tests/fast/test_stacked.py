"""All layers in one table of kernels: the same numbers as the plain formula, layer by layer."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import hgsr_lite as hg
from hgsr_lite.fast import plain_gradient_
from hgsr_lite.fast.gpu.stacked import buckets, stackable, stacked_gradient_


def mixed_model() -> nn.Module:
    """Plain, grouped, transposed, 1x1, non-square and one-dimensional convolutions."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.Conv2d(8, 8, 3, groups=2),
        nn.ConvTranspose2d(8, 6, 3, groups=2),
        nn.Conv2d(6, 4, 1),
        nn.Conv2d(4, 4, (3, 1)),
        nn.Conv1d(3, 4, 3),
    )
    with torch.no_grad():
        model[0].weight[:, 1] = 0
        model[1].weight[2] = 0
        model[3].weight.zero_()
    return model


def both_ways(model: nn.Module, key: str, grouping: str) -> tuple[list, list]:
    reg = hg.Regularizer(model, key, grouping=grouping, strength=0.3, l1_mix=0.2)
    weights = [layer.weight for layer in reg.layers]
    layouts = [layer.layout for layer in reg.layers]
    stacked = [torch.zeros_like(weight) for weight in weights]
    for weight in weights:
        weight.grad = torch.zeros_like(weight)
    with torch.no_grad():
        tables = buckets(weights, layouts, grouping)
        value = stacked_gradient_(reg.penalty, weights, layouts, tables, stacked, *reg.strengths())
        plain = [weight.grad for weight in weights]
        expected = plain_gradient_(reg.penalty, weights, layouts, plain, *reg.strengths())
    return [value, *stacked], [expected, *(weight.grad for weight in weights)]


@pytest.mark.parametrize("grouping", hg.GROUPINGS)
def test_channels_last_weights_are_served_without_a_copy_of_their_gradients(grouping):
    model = mixed_model()
    for layer in list(model)[:5]:
        layer.to(memory_format=torch.channels_last)
    weights = [layer.weight for layer in hg.weight_layers(model)]
    assert stackable(weights, [layer.layout for layer in hg.weight_layers(model)])
    found, expected = both_ways(model, "hsq_gl12", grouping)
    assert all(torch.allclose(*pair, rtol=1e-6) for pair in zip(found, expected, strict=True))


def test_weights_whose_kernels_cannot_be_seen_in_place_are_not_stacked():
    weight = torch.zeros(4, 4, 3, 3).transpose(2, 3)[:, :, :, :2]
    assert not stackable([weight], [hg.Layout()])
