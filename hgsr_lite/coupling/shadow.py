"""Two shadows of every tensor in a forward pass: the channel of each element, and what it depends on.

`label` numbers the channels: elements with one number are of one channel. `level` says what an element is:
`FIXED`, the same number whatever the image and its size; `FIXED_HERE`, the same for every image of this size
(zero padding made it differ along the border, say); or `MOVES` with the image. Nothing here is sampled: what
an operation does to the shadows follows from what it is, so no comparison, cast or `nan_to_num` in a forward
can hide a dependence. Both are kept small: a dimension along which nothing varies is stored once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

FIXED, FIXED_HERE, MOVES = 0, 1, 2
_ROUNDING = 1e-12  # float64 arithmetic on equal numbers may make them differ in the last bits


@dataclass(frozen=True)
class Shadow:
    """The channel of every element of a tensor, and what the element depends on; both of its shape."""

    label: Tensor
    level: Tensor

    @classmethod
    def of(cls, shape: Iterable[int], label: Tensor | int, level: Tensor | int) -> Shadow:
        """Spread labels and levels over a shape, storing each dimension that does not vary once."""
        spread = (
            torch.as_tensor(values, dtype=dtype).expand(tuple(shape))
            for values, dtype in ((label, torch.int32), (level, torch.uint8))
        )
        return cls(*(_stored_once(values) for values in spread))


def _stored_once(values: Tensor) -> Tensor:
    shape = values.shape
    for dim in range(values.ndim):
        if values.shape[dim] > 1:
            first = values.narrow(dim, 0, 1)
            if values.stride(dim) == 0 or bool((values == first).all()):
                values = first
    return values.expand(shape)


def varies(values: Tensor, dim: int) -> bool:
    """Whether a shadow varies along a dimension (others are stored once).

    >>> label = Shadow.of((2, 3), torch.arange(3), FIXED).label
    >>> varies(label, 0), varies(label, 1)
    (False, True)
    """
    return values.shape[dim] > 1 and values.stride(dim) != 0


def same_along(values: Tensor, dims: Iterable[int]) -> bool:
    """Whether a shadow is the same all along these dimensions."""
    return not any(varies(values, dim) for dim in dims)


def spread_of(tensor: Tensor, dims: list[int]) -> tuple[Tensor, Tensor]:
    """Along these dimensions, kept with size 1: do the values differ, and are they all zero?

    >>> differ, zero = spread_of(torch.tensor([[1., 2.], [0., 0.]]), [1])
    >>> differ.flatten().tolist(), zero.flatten().tolist()
    ([True, False], [False, True])
    """
    if not dims or not tensor.numel():
        return torch.zeros_like(tensor, dtype=torch.bool), tensor == 0
    wide = tensor if tensor.is_floating_point() else tensor.double()
    low, high = wide.amin(dims, keepdim=True), wide.amax(dims, keepdim=True)
    differ = ~(high - low <= _ROUNDING * high.abs().clamp_min(1.0))
    return differ, (low == 0) & (high == 0)


def on_device_of(tensor: Tensor, values: Tensor | int) -> Tensor:
    """Labels or levels where the tensor they belong to is."""
    return values.to(tensor.device) if isinstance(values, Tensor) else torch.tensor(values).to(tensor.device)
