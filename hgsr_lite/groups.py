"""From a weight tensor to its kernels, and from kernels to groups.

A weight of any supported layer is seen as one *kernel stack* of shape
`(conv_groups, output_channels, input_channels, kernel_elements)`. A group is then
nothing more than a dimension to sum over: feature-wise sums over the output channels,
neuron-wise over the input channels.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import utils
from torch.nn.utils import parametrize, prune

from hgsr_lite.arguments import nearest

GROUPINGS = {"feature": 1, "neuron": 2}
"""Grouping -> the dimension of the kernel stack over which the kernels of one group lie."""

_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, *_TRANSPOSED)


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
    if weight.layout != torch.strided:
        raise TypeError(
            f"a weight of layout {weight.layout} has no kernels in memory: convert it with .to_dense()"
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

    `norm` is 1 (sum of absolute values) or 2 (Euclidean). In float32 for half-precision weights, else in
    the weight's dtype.

    >>> kernel_norms(torch.tensor([[[3., -4.]], [[0., 0.]]]), norm=2)
    tensor([[5.],
            [0.]])
    """
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


@dataclass(frozen=True)
class WeightLayer:
    """One layer of a model that a penalty acts on: its dotted name, its module and its layout."""

    name: str
    module: nn.Module
    layout: Layout

    @property
    def is_computed(self) -> bool:
        """Whether the weight is made anew from other parameters: weight or spectral norm, a mask, any other
        parametrization."""
        return self.module._parameters.get("weight") is None

    @property
    def weight(self) -> Tensor:
        """The layer's weight as it is now: also after `.to()`, a swap of the parameter, an optimizer's step.

        A computed weight is computed; gradients flow to the parameters that it is made of.
        """
        # Ten times faster than the attribute, which is for a computed weight (torch.nn.utils.parametrize).
        plain = self.module._parameters.get("weight")
        if plain is not None:
            return plain
        for hook in _hooks_that_set_the_weight(self.module):
            hook(self.module, ())
        return self.module.weight

    @property
    def learns(self) -> bool:
        """Whether the weight, or any parameter that it is computed from, is trained and not frozen."""
        plain = self.module._parameters.get("weight")
        if plain is not None:
            return plain.requires_grad
        bias = self.module._parameters.get("bias")
        return any(part.requires_grad for part in self.module.parameters() if part is not bias)

    def stored_weight(self, purpose: str) -> nn.Parameter:
        """The weight as a parameter that may be written to; `ValueError` for one that is computed.

        What is written to a computed weight is lost when it is computed again.
        """
        plain = self.module._parameters.get("weight")
        if plain is None:
            raise ValueError(
                f"{purpose}: the weight of layer {self.name!r} is computed from other parameters (what "
                f"is written to it is lost): make it plain with {_way_to_plain(self.module)[0]}, or leave it "
                "out with exclude"
            )
        return plain


def _hooks_that_set_the_weight(module: nn.Module) -> list[Callable]:
    """PyTorch's older way to compute a weight: before each forward, by torch.nn.utils.prune and its like."""
    names = ("name", "_tensor_name")
    hooks = module._forward_pre_hooks.values()
    return [hook for hook in hooks if any(getattr(hook, name, None) == "weight" for name in names)]


def _way_to_plain(module: nn.Module) -> tuple[str, Callable[[], object]]:
    """What makes a computed weight a parameter again: as a text for a reader, and as a call."""
    if parametrize.is_parametrized(module, "weight"):
        text = 'torch.nn.utils.parametrize.remove_parametrizations(layer, "weight")'
        return text, partial(parametrize.remove_parametrizations, module, "weight")
    hooks = [type(hook) for hook in _hooks_that_set_the_weight(module)]
    if hooks and issubclass(hooks[0], prune.BasePruningMethod):
        return 'torch.nn.utils.prune.remove(layer, "weight")', partial(prune.remove, module, "weight")
    name = (
        "remove_weight_norm" if "WeightNorm" in [hook.__name__ for hook in hooks] else "remove_spectral_norm"
    )
    return f"torch.nn.utils.{name}(layer)", partial(getattr(utils, name), module)


def plain_copy(model: nn.Module) -> nn.Module:
    """A copy that computes the same, with each computed weight a parameter of its own that can be written to.

    >>> layer = torch.nn.utils.parametrizations.weight_norm(nn.Conv2d(1, 2, 3))
    >>> copied = plain_copy(layer)
    >>> torch.equal(copied.weight, layer.weight), [name for name, _ in copied.named_parameters()]
    (True, ['bias', 'weight'])
    """
    # A weight that a hook has set is part of an autograd graph and cannot be copied: it is left out.
    made = [vars(module).get("weight") for module in model.modules()]
    copied = copy.deepcopy(model, {id(weight): None for weight in made if isinstance(weight, Tensor)})
    for layer in _layers_by_name(copied).values():
        if layer.is_computed:
            # A parametrized module shares its class with its copies, and plain again it loses parts of that.
            kind = type(layer.module)
            layer.module.__class__ = type(kind.__name__, kind.__bases__, {**vars(kind)})
            _way_to_plain(layer.module)[1]()
    return copied


def _has_part(name: str, wanted: str) -> bool:
    return f".{wanted}." in f".{name}."


def _check_names(kind: str, wanted: tuple[str, ...], names: list[str]) -> None:
    for part in wanted:
        if not any(_has_part(name, part) for name in names):
            parts = sorted({part for name in names for part in [name, *name.split(".")]})
            near = nearest(part, parts)
            hint = f"did you mean {near!r}?" if near else f"the layers are {', '.join(names) or 'none'}"
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
    check_model(model)
    include = None if include is None else _as_names("include", include)
    exclude = _as_names("exclude", exclude)
    found = _layers_by_name(model)
    if include is None and any(isinstance(layer.module, _CONVOLUTIONS) for layer in found.values()):
        found = {name: layer for name, layer in found.items() if isinstance(layer.module, _CONVOLUTIONS)}
    _check_names("excluded", exclude, list(found))
    if include is not None:
        _check_names("included", include, list(found))
        found = {name: layer for name, layer in found.items() if any(_has_part(name, p) for p in include)}
    kept = [layer for name, layer in found.items() if not any(_has_part(name, part) for part in exclude)]
    # A computed weight is a new tensor whenever it is asked for: its layer stands for it.
    once = {id(layer.module._parameters.get("weight", layer.module)): layer for layer in reversed(kept)}
    if not once:
        raise ValueError(
            f"{type(model).__name__} has no layer to regularise: it needs a convolution or a linear layer "
            "that is not excluded"
        )
    return list(reversed(once.values()))


def check_model(model: object) -> None:
    """Refuse what is no PyTorch module.

    >>> check_model("alexnet")
    Traceback (most recent call last):
    ...
    TypeError: model must be a torch.nn.Module, not 'alexnet': build_model makes one
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, not {model!r}: build_model makes one")


def _layers_by_name(model: nn.Module) -> dict[str, WeightLayer]:
    return {
        name: WeightLayer(name, module, Layout.of(module))
        for name, module in model.named_modules()
        if isinstance(module, (*_CONVOLUTIONS, nn.Linear))
    }


def _as_names(kind: str, names: Iterable[str]) -> tuple[str, ...]:
    """A tuple of names, where a lone string would silently be read letter by letter."""
    if isinstance(names, str):
        raise TypeError(f"{kind}={names!r} is one string: give a tuple of names, {kind}=({names!r},)")
    return tuple(names)
