"""What an operation of PyTorch does to the shadows of its inputs, by its kind.

It treats elements one by one, rearranges them, treats each channel's plane by itself, reduces planes to
numbers, or is a layer. Any other operation is taken to mix channels: they stay.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from hgsr_lite.groups import Layout, kernel_stack
from hgsr_lite.removal.blocks import ConstantInputs
from hgsr_lite.removal.shadow import FIXED, FIXED_HERE, MOVES, Shadow, same_along, spread_of, varies

if TYPE_CHECKING:
    from hgsr_lite.removal.tracing import Tracer

READS = ("convolution", "linear", "addmm", "mm")
_ELEMENTWISE = re.compile(
    r"rsub|hardswish|_prelu_kernel|_to_copy|copy|masked_fill|floor_divide|lift_fresh(_copy)?|alias|detach"
)
_REARRANGES = re.compile(
    r"_?(unsafe_)?view|_reshape_alias|permute|transpose|t|slice|select|split|split_with_sizes|unbind|narrow"
    r"|unsqueeze|squeeze|expand|flip|roll|repeat|pixel_(un)?shuffle|channel_shuffle|index_select|index"
)
_PLANEWISE = re.compile(
    r"(_?adaptive_)?(max|avg)_pool([123])d(_with_indices)?|_?upsample_\w+([123])d\w*"
    r"|(reflection|replication)_pad([123])d"
)
_REDUCES = re.compile(r"mean|sum|amax|amin|max|min|var|std|prod|any|all")
_SIZE_BLIND = ("mean", "amax", "amin", "max", "min", "any", "all")
"""Reductions under which a constant stays the same number whatever the size of the image."""
_LEAVES = ("_local_scalar_dense", "is_nonzero", "equal")


@dataclass
class Call:
    """One operation on its way through the tracer: what it was given, and once it has run, its outputs."""

    tracer: Tracer
    func: Any
    name: str
    args: tuple
    kwargs: dict
    given: list[Tensor]
    out: Any = None
    zeros: list[Tensor] | None = None

    @property
    def shares_memory(self) -> bool:
        """Whether its outputs are views of what it was given."""
        return self.func.is_view

    @property
    def outputs(self) -> list[Tensor]:
        """Its outputs, be they one tensor or several."""
        return [value for value in tree_leaves(self.out) if isinstance(value, Tensor)]

    def shadows(self) -> list[Shadow]:
        """The shadows of what it was given."""
        return [self.tracer.shadow(tensor) for tensor in self.given]

    def rule(self) -> Callable[[Call], None]:
        """What this operation does to shadows."""
        name, blocks = self.name, self.tracer.blocks
        layers = {layer for tensor in self.given if (layer := blocks.layer_of(tensor)) is not None}
        turned = [self.tracer.turned[tensor] for tensor in self.given if tensor in self.tracer.turned]
        if name in READS and len(layers) + len(turned) == 1 and self._reads_plainly():
            return read_layer
        if name in ("t", "transpose") and layers and isinstance(next(iter(layers)), nn.Linear):
            return turn_weight
        if layers or turned:
            return mix_channels
        if not self.given:
            return make_constant
        if name in _LEAVES:
            return leave_pytorch
        if name.endswith("_like"):
            return make_alike
        if "batch_norm" in name and "backward" not in name:
            return normalise
        if name in ("cat", "stack"):
            return concatenate
        if name == "constant_pad_nd":
            return pad
        return self._rule_by_kind()

    def _rule_by_kind(self) -> Callable[[Call], None]:
        name, overload = self.name, self.func._overloadname
        if torch.Tag.pointwise in self.func.tags or _ELEMENTWISE.fullmatch(name):
            return join
        if _REARRANGES.fullmatch(name) and overload != "dtype":
            return rearrange
        if _PLANEWISE.fullmatch(name):
            return keep_planes
        if _REDUCES.fullmatch(name) and not isinstance(self.argument(1, "dim"), Tensor):
            return reduce
        return mix_channels

    def _reads_plainly(self) -> bool:
        """The weight in its place, a bias of the layer itself."""
        if self.name in ("convolution", "linear"):
            return self.tracer.blocks.layer_of(self.args[1]) is not None
        return self.args[-1] in self.tracer.turned

    def argument(self, at: int, name: str) -> Any:
        """An argument by its place or its name; None if it is not given."""
        return self.args[at] if len(self.args) > at else self.kwargs.get(name)


def on_device_of(tensor: Tensor, values: Tensor | int) -> Tensor:
    """Labels or levels where the tensor they belong to is."""
    return values.to(tensor.device) if isinstance(values, Tensor) else torch.tensor(values).to(tensor.device)


def make_constant(call: Call) -> None:
    """An operation without tensors makes a constant, of a size that the forward knows."""
    for tensor in call.outputs:
        call.tracer.note(call, tensor, call.tracer.blocks.constant, FIXED)


def make_alike(call: Call) -> None:
    """`zeros_like` and its kin: a constant that takes its size from a tensor."""
    call.tracer.note(call, call.out, call.shadows()[0].label, FIXED)


def leave_pytorch(call: Call) -> None:
    """A number taken out of an image may steer the forward: nothing can be said about other images."""
    if any(bool((shadow.level == MOVES).any()) for shadow in call.shadows()):
        call.tracer.readings.branches = True
    for tensor in call.outputs:
        call.tracer.note(call, tensor, call.tracer.blocks.constant, MOVES)


def mix_channels(call: Call) -> None:
    """Any operation that is not known: its channels stay; all of its output may hang on all of its input."""
    blocks = call.tracer.blocks
    why = blocks.pinned(f"{call.name} may mix channels")
    level = FIXED_HERE
    for tensor, shadow in zip(call.given, call.shadows(), strict=True):
        blocks.pin(shadow.label, blocks.reasons[why])
        layer = call.tracer.turned.get(tensor) or blocks.layer_of(tensor)
        if layer is not None:
            blocks.pin_layer(layer, f"its weight is used in {call.name}")
        if bool((shadow.level == MOVES).any()):
            level = MOVES
    for tensor in call.outputs:
        call.tracer.note(call, tensor, why, level)


def turn_weight(call: Call) -> None:
    """`weight.t()` on its way into a matrix product, which is how PyTorch computes a linear layer."""
    call.tracer.turned[call.out] = call.tracer.blocks.layer_of(call.args[0])


def join(call: Call) -> None:
    """Element by element: channels that meet go together; one that is spread over others stays."""
    shape, operands = call.outputs[0].shape, call.shadows()
    padded = [
        shadow.label.view((1,) * (len(shape) - shadow.label.ndim) + shadow.label.shape) for shadow in operands
    ]
    varying = [dim for dim in range(len(shape)) if any(varies(label, dim) for label in padded)]
    whole = []
    for label in padded:
        if any(label.shape[dim] < shape[dim] for dim in varying):
            call.tracer.blocks.pin(label, "spread over other channels")
        else:
            whole.append(label.expand(shape))
    for label in whole[1:]:
        call.tracer.blocks.connect(whole[0], label)
    levels = [shadow.level.expand(shape) for shadow in operands]
    level = torch.stack([on_device_of(call.outputs[0], level) for level in levels]).amax(0)
    for zero, own in zip(call.zeros or (), levels, strict=False):
        level = torch.where(zero & (own < MOVES), own, level)
    for tensor in call.outputs:
        call.tracer.note(call, tensor, whole[0] if whole else call.tracer.blocks.constant, level)


def rearrange(call: Call) -> None:
    """Views and their like: the same is done to the shadows."""
    image, *others = call.given
    if any(bool((call.tracer.shadow(other).level == MOVES).any()) for other in others):
        return mix_channels(call)
    shadow = call.tracer.shadow(image)
    label, level = (
        [call.func(values.contiguous(), *call.args[1:], **call.kwargs)]
        for values in (shadow.label, shadow.level)
    )
    for tensor, *own in zip(call.outputs, tree_leaves(label), tree_leaves(level), strict=True):
        call.tracer.note(call, tensor, *own)
    return None


def keep_planes(call: Call) -> None:
    """Pooling, resizing and padding by repetition: each channel's plane by itself."""
    count = int(next(group for group in _PLANEWISE.fullmatch(call.name).groups() if group in {*"123"}))
    _keep_planes(call, count, "avg_pool" in call.name and _averages_zeros(call))


def _averages_zeros(call: Call) -> bool:
    """Whether an average pooling counts the zeros that it pads with, as it does unless told otherwise."""
    padding, counts = call.argument(3, "padding"), call.argument(5, "count_include_pad")
    return "adaptive" not in call.name and any(padding or ()) and counts is not False


def _keep_planes(call: Call, count: int, bordered: bool) -> None:
    image, shadow = call.args[0], call.tracer.shadow(call.args[0])
    dims = list(range(image.ndim - count, image.ndim))
    if not same_along(shadow.label, dims):
        return mix_channels(call)
    level = shadow.level.amax(dims, keepdim=True)
    differ, zero = spread_of(image, dims)
    level = torch.where(differ | (~zero & bordered), level.clamp_min(FIXED_HERE), level)
    first = shadow.label[(..., *[slice(0, 1)] * count)]
    for tensor in call.outputs:
        call.tracer.note(call, tensor, first, level)
    return None


def pad(call: Call) -> None:
    """Padding with a number: around planes, or new constant channels beside the others."""
    image, sizes, value = call.args[0], call.args[1], call.argument(2, "value") or 0
    shadow, count = call.tracer.shadow(image), len(sizes) // 2
    padded = [image.ndim - 1 - at // 2 for at, size in enumerate(sizes) if size]
    if same_along(shadow.label, padded):
        same = bool((image == value).all()) if value else False
        return _keep_planes(call, count, bordered=not same)
    label = call.func(shadow.label.contiguous(), sizes, call.tracer.blocks.constant)
    level = call.func(shadow.level.contiguous(), sizes, FIXED)
    return call.tracer.note(call, call.out, label, level)


def reduce(call: Call) -> None:
    """A mean, a sum or a largest value over dimensions along which one channel lies."""
    image, shadow = call.args[0], call.tracer.shadow(call.args[0])
    given = call.argument(1, "dim")
    given = [given] if isinstance(given, int) else given
    dims = sorted(dim % image.ndim for dim in given) if given else list(range(image.ndim))
    if not same_along(shadow.label, dims):
        return mix_channels(call)
    differ, zero = spread_of(image, dims)
    level = shadow.level.amax(dims, keepdim=True) if dims else shadow.level
    sized = differ | (~zero if call.name not in _SIZE_BLIND else torch.zeros_like(zero))
    level = torch.where(sized, level.clamp_min(FIXED_HERE), level)
    label = shadow.label
    for dim in dims:
        label = label.narrow(dim, 0, 1)
    for tensor in call.outputs:
        call.tracer.note(call, tensor, label.reshape(tensor.shape), level.reshape(tensor.shape))
    return None


def concatenate(call: Call) -> None:
    """Channels side by side, or maps with the same channels one after the other."""
    parts = [(self_, call.tracer.shadow(self_)) for self_ in call.given if self_.numel()]
    dim = (call.argument(1, "dim") or 0) % call.outputs[0].ndim
    labels, levels = ([getattr(shadow, kind) for _, shadow in parts] for kind in ("label", "level"))
    if call.name == "stack":
        labels, levels = ([values.unsqueeze(dim) for values in some] for some in (labels, levels))
    others = [at for at in range(call.out.ndim) if at != dim]
    if not all(same_along(label, others) for label in labels):
        if not all(same_along(label, [dim]) for label in labels):
            return mix_channels(call)
        for label in labels[1:]:
            call.tracer.blocks.connect(labels[0].select(dim, 0), label.select(dim, 0))
    return call.tracer.note(call, call.out, torch.cat(labels, dim), torch.cat(levels, dim))


def normalise(call: Call) -> None:
    """A batch norm, or any operation on planes with the name of one: vectors of one number a channel."""
    image, *vectors = call.given
    shadow = call.tracer.shadow(image)
    planes = [dim for dim in range(image.ndim) if dim != 1]
    if not same_along(shadow.label, planes):
        return mix_channels(call)
    flat = shadow.label.movedim(1, 0).flatten(1)[:, 0]
    for vector in vectors:
        call.tracer.blocks.connect(flat, call.tracer.shadow(vector).label)
    level = shadow.level
    if any(value is True for value in call.args) or len(vectors) < 2:  # statistics of this batch
        differ, _ = spread_of(image, planes)
        level = level.amax(planes, keepdim=True)
        level = torch.where(differ, level.clamp_min(FIXED_HERE), level)
    weight = call.args[1] if isinstance(call.args[1], Tensor) else None
    if weight is not None:
        level = torch.where((weight == 0).view(-1, *(1,) * (image.ndim - 2)), FIXED, level)
    return call.tracer.note(call, call.outputs[0], shadow.label, level)


def read_layer(call: Call) -> None:
    """A convolution or a linear layer: it reads channels and makes new ones."""
    tracer, blocks = call.tracer, call.tracer.blocks
    image = call.args[1] if call.name == "addmm" else call.args[0]
    weight = call.args[-1] if call.name in ("addmm", "mm") else call.args[1]
    module = tracer.turned.get(weight) or blocks.layer_of(weight)
    dim = 1 if call.name == "convolution" else image.ndim - 1
    shadow, planes = tracer.shadow(image), [at for at in range(image.ndim) if at != dim]
    inputs, outputs = blocks.inputs(module), blocks.outputs(module)
    if not same_along(shadow.label, planes):
        for label in (shadow.label, inputs):
            blocks.pin(label, "a layer reads several of its channels as one")
    else:
        blocks.connect(inputs, shadow.label.movedim(dim, 0).flatten(1)[:, 0])
    bordered = call.name == "convolution" and (call.args[6] or any(call.args[4]))
    seen = ConstantInputs.of(image, shadow.level, dim, bool(bordered))
    tracer.readings.add(module, seen)
    level = _level_behind(module, seen.level.to(image.device))
    shape = [1] * call.out.ndim
    shape[dim] = -1
    tracer.note(call, call.out, outputs.view(shape), level.view(shape))
    tracer.made[call.out] = module


def _level_behind(module: nn.Module, state: Tensor) -> Tensor:
    """The level of each output: the highest among the inputs that it has a weight for."""
    alive = (kernel_stack(module.weight.detach(), Layout.of(module)) != 0).any(-1)
    return (alive * state.view(alive.shape[0], 1, -1)).amax(2).flatten()
