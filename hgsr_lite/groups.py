"""From a weight tensor to its kernels, and from kernels to groups.

A weight of any supported layer is seen as one *kernel stack* of shape
`(conv_groups, output_channels, input_channels, kernel_elements)`. A group is then
nothing more than a dimension to sum over: feature-wise sums over the output channels,
neuron-wise over the input channels.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

GROUPINGS = {"feature": 1, "neuron": 2}
"""Grouping -> the dimension of the kernel stack over which the kernels of one group lie."""

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


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

    @classmethod
    def of(cls, module: nn.Module) -> Layout:
        """The layout of a convolution, transposed convolution or linear layer."""
        return cls(getattr(module, "groups", 1), isinstance(module, _TRANSPOSED))


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

    `norm` is 1 (sum of absolute values) or 2 (Euclidean). Half-precision weights are measured in
    float32.

    >>> kernel_norms(torch.tensor([[[3., -4.]], [[0., 0.]]]), norm=2)
    tensor([[5.],
            [0.]])
    """
    return stack_norms(kernel_stack(weight, layout), norm).flatten(0, 1)


def stack_norms(stack: Tensor, norm: int) -> Tensor:
    """The norms along the last dimension of a kernel stack, half precision measured in float32."""
    wide = stack.float() if stack.dtype in (torch.float16, torch.bfloat16) else stack
    return wide.abs().sum(-1) if norm == 1 else torch.linalg.vector_norm(wide, dim=-1)


@dataclass(frozen=True)
class WeightLayer:
    """One layer of a model that a penalty acts on: its dotted name, its module and its layout."""

    name: str
    module: nn.Module
    layout: Layout

    @property
    def is_computed(self) -> bool:
        """Whether the weight is made anew from other parameters whenever it is asked for (parametrized)."""
        return self.module._parameters.get("weight") is None

    @property
    def weight(self) -> nn.Parameter:
        """The layer's weight as it is now (also after `.to()` or a swap of the parameter)."""
        # Ten times faster than the attribute, which is for a computed weight (torch.nn.utils.parametrize).
        plain = self.module._parameters.get("weight")
        return self.module.weight if plain is None else plain


def _has_part(name: str, wanted: str) -> bool:
    return f".{wanted}." in f".{name}."


def _check_names(kind: str, wanted: tuple[str, ...], names: list[str]) -> None:
    for part in wanted:
        if not any(_has_part(name, part) for name in names):
            parts = sorted({part for name in names for part in [name, *name.split(".")]})
            near = difflib.get_close_matches(part, parts, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"the layers are {', '.join(names) or 'none'}"
            raise ValueError(f"{kind} name {part!r} matches no layer of the model: {hint}")


def weight_layers(
    model: nn.Module, include: Iterable[str] | None = None, exclude: Iterable[str] = ()
) -> list[WeightLayer]:
    """The layers of a model whose weights have groups, in the order of `model.named_modules()`.

    Without `include`: every convolution, plain, grouped or transposed (in a network that has none,
    every linear layer). With `include`: the convolutions and linear layers whose name contains one of
    the given dotted parts. `exclude` takes
    layers away by the same rule, so `"downsample"` excludes `layer2.0.downsample.0`. A weight that two
    layers share is listed once.

    Raises `ValueError` for a name that matches nothing and for a model in which no layer is left.

    >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Linear(4, 2))
    >>> [layer.name for layer in weight_layers(model)]
    ['0', '2']
    >>> [layer.name for layer in weight_layers(model, include=("2", "3"))]
    ['2', '3']
    """
    convolutions = (*_CONVOLUTIONS, *_TRANSPOSED)
    include = None if include is None else _as_names("include", include)
    exclude = _as_names("exclude", exclude)
    found = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, (*convolutions, nn.Linear))
    }
    if include is None and any(isinstance(module, convolutions) for module in found.values()):
        found = {name: module for name, module in found.items() if isinstance(module, convolutions)}
    _check_names("excluded", exclude, list(found))
    if include is not None:
        _check_names("included", include, list(found))
        found = {name: m for name, m in found.items() if any(_has_part(name, part) for part in include)}
    kept = {name: m for name, m in found.items() if not any(_has_part(name, part) for part in exclude)}
    once = {id(module.weight): name for name, module in reversed(kept.items())}
    layers = [WeightLayer(name, kept[name], Layout.of(kept[name])) for name in reversed(once.values())]
    if not layers:
        raise ValueError(
            f"{type(model).__name__} has no layer to regularise: it needs a convolution or a linear layer "
            "that is not excluded"
        )
    return layers


def _as_names(kind: str, names: Iterable[str]) -> tuple[str, ...]:
    """A tuple of names, where a lone string would silently be read letter by letter."""
    if isinstance(names, str):
        raise TypeError(f"{kind}={names!r} is one string: give a tuple of names, {kind}=({names!r},)")
    return tuple(names)
