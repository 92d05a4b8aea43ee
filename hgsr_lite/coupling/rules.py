"""What an operation of PyTorch does to the shadows of its inputs: a rule for each kind of operation."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from hgsr_lite.coupling.blocks import ConstantInputs
from hgsr_lite.coupling.shadow import FIXED, FIXED_HERE, MOVES, on_device_of, same_along, spread_of, varies
from hgsr_lite.groups import Layout, kernel_stack

if TYPE_CHECKING:
    from hgsr_lite.coupling.calls import Call

PLANEWISE = re.compile(
    r"(_?adaptive_)?(max|avg)_pool([123])d(_with_indices)?|_?upsample_\w+([123])d\w*"
    r"|(reflection|replication)_pad([123])d"
)
_SIZE_BLIND = ("mean", "amax", "amin", "max", "min", "any", "all")
"""Reductions under which a constant stays the same number whatever the size of the image."""


def make_constant(call: Call) -> None:
    """An operation without tensors makes a constant, of a size that the forward knows."""
    for tensor in call.outputs:
        call.tracer.note(call, tensor, call.tracer.blocks.constant, FIXED)


def make_alike(call: Call) -> None:
    """`zeros_like` and its kin: a constant that takes its size from a tensor."""
    call.tracer.note(call, call.out, call.shadows()[0].label, FIXED)


def make_new(call: Call) -> None:
    """`new_zeros` and its kin: as `zeros_like`, if it has a tensor's channels and one number for each plane.

    So dropout of whole channels draws them. Whether the size was taken from the tensor shows when it is cut.
    """
    image, label = call.given[0], call.shadows()[0].label
    narrow = [dim for dim, size in enumerate(call.out.shape[: image.ndim]) if size < image.shape[dim]]
    fits = call.out.ndim == image.ndim and all(
        size == (1 if dim in narrow else image.shape[dim]) for dim, size in enumerate(call.out.shape)
    )
    if not fits or not same_along(label, narrow):
        return make_constant(call)
    for dim in narrow:
        label = label.narrow(dim, 0, 1)
    return call.tracer.note(call, call.out, label, FIXED)


def leave_pytorch(call: Call) -> None:
    """A number taken out of an image, or a choice of some elements by their values, may steer the forward:
    nothing can be said about other images.
    """
    if any(bool((shadow.level == MOVES).any()) for shadow in call.shadows()):
        call.tracer.readings.branches = True
    for tensor in call.outputs:
        call.tracer.note(call, tensor, call.tracer.blocks.constant, MOVES)


def mix_channels(call: Call, why: str = "") -> None:
    """Any operation that is not known: its channels stay; all of its output may hang on all of its input."""
    blocks = call.tracer.blocks
    why = why or f"{call.name} may mix channels"
    if call.name == "convolution" and not any(map(blocks.layer_of, call.given)):
        why = "a convolution's weight is computed in the forward"
    level = FIXED_HERE
    for tensor, shadow in zip(call.given, call.shadows(), strict=True):
        blocks.pin(shadow.label, why)
        layer = call.tracer.turned.get(tensor) or blocks.layer_of(tensor)
        if layer is not None:
            blocks.pin_layer(layer, f"its weight is used in {call.name}")
        if bool((shadow.level == MOVES).any()):
            level = MOVES
    for tensor in call.outputs:
        call.tracer.note(call, tensor, blocks.pinned(why), level)


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
        return mix_channels(call, "an index picks from them that may follow from the images")
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
    count = int(next(group for group in PLANEWISE.fullmatch(call.name).groups() if group in {*"123"}))
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
    """A mean, a sum or a largest value over dimensions along which one channel lies; what is summed with
    others, position by position, goes with them.
    """
    image, shadow = call.args[0], call.tracer.shadow(call.args[0])
    given = call.argument(2 if call.name == "linalg_vector_norm" else 1, "dim")
    given = [given] if isinstance(given, int) else given
    dims = sorted(dim % image.ndim for dim in given) if given else list(range(image.ndim))
    across = [dim for dim in dims if varies(shadow.label, dim)]
    if across and same_along(shadow.label, set(range(image.ndim)) - set(dims)):
        return mix_channels(call)
    differ, zero = spread_of(image, [dim for dim in dims if dim not in across])
    level = shadow.level.amax(dims, keepdim=True) if dims else shadow.level
    if across:
        differ, zero = differ.amax(across, keepdim=True), zero.amin(across, keepdim=True)
    sized = differ | (~zero if call.name not in _SIZE_BLIND else torch.zeros_like(zero))
    level = torch.where(sized, level.clamp_min(FIXED_HERE), level)
    label = shadow.label
    for dim in dims:
        label = label.narrow(dim, 0, 1)
    if across:
        call.tracer.blocks.connect(label.expand(image.shape), shadow.label)
    for tensor in call.outputs:
        call.tracer.note(call, tensor, label.reshape(tensor.shape), level.reshape(tensor.shape))
    return None


def weigh(call: Call) -> None:
    """A softmax: whatever shares its sum goes together, be it all or nothing."""
    image, shadow, dim = call.args[0], call.tracer.shadow(call.args[0]), call.args[1] % call.args[0].ndim
    level = shadow.level.amax(dim, keepdim=True)
    if not varies(shadow.label, dim):  # how many there are may be a matter of the image's size
        level = level.clamp_min(FIXED_HERE)
    elif same_along(shadow.label, set(range(image.ndim)) - {dim}):
        return mix_channels(call)
    else:
        first = shadow.label.narrow(dim, 0, 1).expand(image.shape)
        call.tracer.blocks.connect(first, shadow.label)
    return call.tracer.note(call, call.out, shadow.label, level)


def concatenate(call: Call) -> None:
    """Channels side by side, or maps with the same channels one after the other."""
    parts = [(self_, call.tracer.shadow(self_)) for self_ in call.given if self_.numel()]
    if not parts:
        return make_constant(call)
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
        labels = [labels[0].narrow(dim, 0, 1).expand(call.out.shape)]
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
