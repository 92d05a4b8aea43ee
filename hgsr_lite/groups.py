"""From a weight tensor to its kernels, and from kernels to groups.

A weight of any supported layer is seen as one *kernel stack* of shape
`(conv_groups, output_channels, input_channels, kernel_elements)`. A group is then
nothing more than a dimension to sum over: feature-wise sums over the output channels,
neuron-wise over the input channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hgsr_lite.arguments import as_number, check_count, check_flag, set_plain_, shown

GROUPINGS = {"feature": 1, "neuron": 2}
"""Grouping -> the dimension of the kernel stack over which the kernels of one group lie."""

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
"""The layers that store their input channels first."""

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, *TRANSPOSED)
WITH_KERNELS = (*CONVOLUTIONS, nn.Linear)
"""The layers whose weights have groups; a linear layer's kernels have one element."""


@dataclass(frozen=True)
class Layout:
    """How a layer stores its weight: the number of convolution groups, and which axis comes first.

    `conv_groups` is PyTorch's `groups` argument of a convolution. `transposed` is true for
    transposed convolutions, which store the input channels first.

    >>> Layout.of(nn.Conv2d(8, 4, 3, groups=2))
    Layout(conv_groups=2, transposed=False)
    """

    conv_groups: int = 1
    transposed: bool = False

    def __post_init__(self) -> None:
        set_plain_(self)
        check_count("conv_groups", self.conv_groups)
        check_flag("transposed", self.transposed)

    @classmethod
    def of(cls, module: nn.Module) -> Layout:
        """The layout of a convolution, transposed convolution or linear layer; `TypeError` for another."""
        if not isinstance(module, WITH_KERNELS):
            raise TypeError(f"a layout is that of a convolution or linear layer, not of {shown(module)}")
        return cls(getattr(module, "groups", 1), isinstance(module, TRANSPOSED))


def check_weight(weight: Tensor, layout: Layout) -> None:
    """Refuse what has no kernels: no floating-point tensor, too few dimensions, nothing in it.

    >>> check_weight(torch.ones(3), Layout())
    Traceback (most recent call last):
    ...
    ValueError: a weight of shape (3,) has no kernels: give at least (output channels, input channels)
    """
    if not isinstance(weight, Tensor):
        raise TypeError(f"a weight must be a torch.Tensor, not {type(weight).__name__}")
    shape = tuple(weight.shape)
    if not weight.is_floating_point():
        raise TypeError(f"a weight of dtype {weight.dtype} has no gradient: convert it with .float()")
    if weight.ndim < 2:
        raise ValueError(
            f"a weight of shape {shape} has no kernels: give at least (output channels, input channels)"
        )
    if weight.layout != torch.strided:
        raise TypeError(
            f"a weight of layout {weight.layout} has no kernels in memory: convert it with .to_dense()"
        )
    if weight.is_meta:
        raise ValueError(
            "a weight on the meta device has a shape and no numbers: give it a device with "
            ".to_empty(device='cpu') and initialise it, or load a state dict"
        )
    if not isinstance(layout, Layout):
        raise TypeError(f"layout must be a Layout, not {layout!r}: Layout.of(module) makes one")
    if weight.numel() == 0:
        raise ValueError(f"a weight of shape {shape} is empty: every dimension must be at least 1")
    if shape[0] % layout.conv_groups:
        raise ValueError(
            f"a weight of shape {shape} cannot be split into {layout.conv_groups} convolution groups: "
            f"its first dimension must be a multiple of that number"
        )


def kernel_stack(weight: Tensor, layout: Layout = Layout()) -> Tensor:
    """See a weight as its kernels: `(conv_groups, output_channels, input_channels, kernel_elements)`.

    The channel counts are those inside one convolution group. A linear weight has kernels of one
    element. The result is a view of the weight wherever its memory format allows one.

    >>> kernel_stack(torch.zeros(3, 2, 5, 5)).shape
    torch.Size([1, 3, 2, 25])
    >>> kernel_stack(torch.zeros(8, 2, 3, 3), Layout(conv_groups=4)).shape
    torch.Size([4, 2, 2, 9])
    >>> kernel_stack(torch.zeros(6, 2, 3, 3), Layout(transposed=True)).shape
    torch.Size([1, 2, 6, 9])
    """
    check_weight(weight, layout)
    stack = weight.unflatten(0, (layout.conv_groups, -1))
    stack = stack.unsqueeze(-1) if stack.ndim == 3 else stack.flatten(3)
    return stack.transpose(1, 2) if layout.transposed else stack


def kernel_norms(weight: Tensor, norm: int = 1, layout: Layout = Layout()) -> Tensor:
    """The norm of every kernel: a picture of shape `(output channels, input channels per conv group)`.

    `norm` is 1 (sum of absolute values) or 2 (Euclidean), else `ValueError`. In float32 for half-precision
    weights, else in the weight's dtype.

    >>> kernel_norms(torch.tensor([[[3., -4.]], [[0., 0.]]]), norm=2)
    tensor([[5.],
            [0.]])
    """
    if as_number(norm) not in (1, 2):
        raise ValueError(f"norm={shown(norm)} is none of ours: give 1 or 2")
    norms = stack_norms(kernel_stack(weight, layout), norm).flatten(0, 1)
    return norms.to(sum_dtype(weight.dtype))


def sum_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which a sum over weights of this dtype is told: float32 for half precision."""
    return torch.promote_types(dtype, torch.float32)


def widest_dtype(device: torch.device) -> torch.dtype:
    """float64, but on Apple's GPUs, which do not know it, float32."""
    return torch.float32 if device.type == "mps" else torch.float64


def stack_norms(stack: Tensor, norm: int) -> Tensor:
    """The norms along the last dimension of a kernel stack, in float64.

    There the square of no float32 number vanishes or overflows.
    """
    wide = widest_dtype(stack.device)
    if norm == 1:
        return stack.abs().sum(-1, dtype=wide)
    return torch.linalg.vector_norm(stack, dim=-1, dtype=wide)


def groups_first(weight: Tensor, layout: Layout, grouping: str) -> Tensor:
    """A weight as `(conv_groups, groups, kernels of a group, elements)`: a view where its stack is one.

    >>> groups_first(torch.zeros(3, 2, 5, 5), Layout(), "feature").shape
    torch.Size([1, 2, 3, 25])
    """
    stack = kernel_stack(weight, layout)
    return stack.transpose(1, 2) if grouping == "feature" else stack


def weight_of_stack(stack: Tensor, layout: Layout, shape: torch.Size) -> Tensor:
    """The way back from `kernel_stack`: a stack as a weight of this shape.

    >>> layout, weight = Layout(conv_groups=2, transposed=True), torch.randn(4, 3, 2, 2)
    >>> torch.equal(weight_of_stack(kernel_stack(weight, layout), layout, weight.shape), weight)
    True
    """
    return (stack.transpose(1, 2) if layout.transposed else stack).reshape(shape)
