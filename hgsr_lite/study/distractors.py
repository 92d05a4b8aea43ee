"""A truth to find: among the input channels, some show the labelled image, the others say nothing.

Which channels does a network still read after training with a penalty? Precision and recall tell how
near that comes to the truth.
"""

from __future__ import annotations

import math
from collections.abc import Collection

from torch import nn

from hgsr_lite.arguments import choose
from hgsr_lite.data import Data
from hgsr_lite.groups import kernel_stack
from hgsr_lite.layers import weight_layers

READINGS = {"below 1e-3": {"tolerance": 1e-3}, "below a tenth": {"relative": 0.1}}
"""Two ways to call a channel ignored: all its weights below 1e-3, or below a tenth of the layer's largest."""


def first_layer(model: nn.Module) -> str:
    """The name of the layer that reads the image.

    >>> first_layer(nn.Sequential(nn.Conv2d(3, 2, 1), nn.Conv2d(2, 2, 1)))
    '0'
    """
    return weight_layers(model)[0].name


def kept_channels(
    model: nn.Module, layer: str | None = None, *, tolerance: float = 0.0, relative: float = 0.0
) -> tuple[int, ...]:
    """The input channels that a layer (by default the first) still reads.

    A channel is kept if the largest of its weights, in absolute value, is not zero, not below
    `tolerance`, and not below `relative` times the largest weight of the layer. Raises `ValueError` for
    a layer that the model does not have.

    >>> layer = nn.Conv2d(3, 2, 1)
    >>> for channel, size in enumerate((1.0, 0.0, 0.01)):
    ...     layer.weight.data[:, channel] = size
    >>> kept_channels(layer), kept_channels(layer, relative=0.1)
    ((0, 2), (0,))
    """
    layers = {found.name: found for found in weight_layers(model)}
    chosen = layers[first_layer(model) if layer is None else choose("layer", layer, layers)]
    largest = kernel_stack(chosen.weight.detach(), chosen.layout).abs().amax((0, 1, 3))
    kept = (largest > 0) & (largest >= tolerance) & (largest >= relative * largest.max())
    return tuple(kept.nonzero().flatten().tolist())


def precision_and_recall(kept: Collection[int], relevant: Collection[int]) -> tuple[float, float]:
    """How much of what was kept is relevant, and how much of what is relevant was kept.

        precision = |kept and relevant| / |kept|,   recall = |kept and relevant| / |relevant|

    The precision of nothing is NaN: where nothing was kept, there is nothing to judge.

    >>> precision_and_recall({0, 2, 3, 5}, {0, 1})
    (0.25, 0.5)
    """
    both = len(set(kept) & set(relevant))
    return (both / len(set(kept)) if kept else math.nan), both / len(set(relevant))


def readings(model: nn.Module, data: Data) -> dict[str, float]:
    """What the first layer kept, in both ways of `READINGS`; nothing where every channel is relevant.

    `kept, ...` is a count, `precision, ...` and `recall, ...` are shares.
    """
    if len(data.relevant_channels) == data.in_channels:
        return {}
    found: dict[str, float] = {}
    for what, limits in READINGS.items():
        kept = kept_channels(model, **limits)
        precision, recall = precision_and_recall(kept, data.relevant_channels)
        found |= {f"kept, {what}": len(kept), f"precision, {what}": precision, f"recall, {what}": recall}
    return found
