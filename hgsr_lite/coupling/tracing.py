"""Following a forward pass: every operation of PyTorch is watched, and carries the shadows of its inputs on.

Here operations are caught, in float64, and shadows kept; `rules` says what each does to them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakTensorKeyDictionary

from hgsr_lite.coupling.blocks import Blocks, ConstantInputs
from hgsr_lite.coupling.calls import READS, Call
from hgsr_lite.coupling.rules import normalise
from hgsr_lite.coupling.shadow import FIXED, MOVES, Shadow, on_device_of


class InDouble(TorchDispatchMode):
    """While it lasts, PyTorch computes in float64, whatever dtype a forward asks for.

    >>> with InDouble():
    ...     (torch.ones(1, dtype=torch.float32) / 3).dtype
    torch.float64
    """

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return func(*self.widened(func, args), **self.widened(func, kwargs or {}))

    def widened(self, func, given: Any) -> Any:
        """The arguments of an operation with floating-point tensors and dtypes made float64."""
        target = given[0] if func._schema.is_mutable and isinstance(given, tuple) and given else None
        return tree_map(lambda value: value if value is target else self.wide(value), given)

    def wide(self, value: Any) -> Any:
        """One argument made float64, if it is a floating-point tensor or dtype."""
        if isinstance(value, Tensor) and value.is_floating_point() and value.dtype != torch.float64:
            return value.double()
        if isinstance(value, torch.dtype) and value.is_floating_point:
            return torch.float64
        return value


@dataclass
class Readings:
    """What was seen of a model's layers: what each reads whatever the image, and what reads each.

    A consumer is the batch norm that took an output, or None for anything else. `branches`: a number was
    taken out of an image, and may steer the forward.
    """

    constants: dict[nn.Module, ConstantInputs] = field(default_factory=dict)
    consumers: dict[nn.Module, list[nn.Module | None]] = field(default_factory=dict)
    branches: bool = False

    def add(self, module: nn.Module, seen: ConstantInputs) -> None:
        """Note one run of a layer."""
        before = self.constants.get(module)
        self.constants[module] = seen if before is None else before.also(seen)


class Tracer(InDouble):
    """Watches forward passes of one model; what it finds is in `blocks` and `readings`."""

    def __init__(self, blocks: Blocks) -> None:
        super().__init__()
        self.blocks, self.readings = blocks, Readings()
        self.turned = WeakTensorKeyDictionary()  # the transposed weight of a linear layer -> the layer
        self.made = WeakTensorKeyDictionary()  # an output -> the layer that made it
        self.shadows = WeakTensorKeyDictionary()
        self.aliases: dict[int, list[Tensor]] = {}
        for tensor, label in blocks.known_tensors():
            self._note(tensor, label, FIXED)

    def enter(self, images: Tensor) -> None:
        """Take a tensor for the model's input."""
        self._note(images, self.blocks.pinned("joined with the model's input"), MOVES)

    def leave(self, outputs: list[Tensor]) -> None:
        """Take these tensors for the model's outputs."""
        for tensor in outputs:
            self.blocks.pin(self.shadow(tensor).label, "an output of the model")
            if tensor in self.made:
                self.readings.consumers.setdefault(self.made[tensor], []).append(None)

    def wide(self, value: Any) -> Any:
        """As in `InDouble`; the widened tensor keeps its shadow."""
        wide = super().wide(value)
        if isinstance(wide, Tensor) and wide is not value:
            self.shadows[wide] = self.shadow(value)
            self.blocks.also_known_as(value, wide)
        return wide

    def shadow(self, tensor: Tensor) -> Shadow:
        """The shadow of a tensor; one that no watched operation made may hold anything."""
        found = self.shadows.get(tensor)
        if found is None:
            found = Shadow.of(tensor.shape, self.blocks.pinned("joined with a tensor made elsewhere"), MOVES)
        return found

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.split("::")[1]
        if name not in READS and func._can_decompose():
            with self:
                return func.decompose(*args, **(kwargs or {}))
        args, kwargs = self.widened(func, args), self.widened(func, kwargs or {})
        name = name.removesuffix("_") if func._schema.is_mutable else name
        given = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        call = Call(self, func, name, args, kwargs, given)
        carry_on = call.rule()
        self._count_consumers(call, carry_on)
        zeros = [tensor == 0 for tensor in given] if name == "mul" else []
        out = func(*args, **kwargs)
        call.out, call.zeros = out, zeros
        carry_on(call)
        if any(tag is torch.Tag.nondeterministic_seeded for tag in func.tags):
            self._note_random(out)
        return out

    def _note(self, tensor: Tensor, label: Tensor | int, level: Tensor | int) -> None:
        self.shadows[tensor] = Shadow.of(
            tensor.shape, *(on_device_of(tensor, values) for values in (label, level))
        )

    def note(self, call: Call, tensor: Tensor, label: Tensor | int, level: Tensor | int) -> None:
        """Give an output its shadow. Written in place, it has changed under every other view of it."""
        self._note(tensor, label, level)
        if not (call.func._schema.is_mutable or call.shares_memory):
            return
        owners = self.aliases.setdefault(tensor.untyped_storage().data_ptr(), [])
        if call.func._schema.is_mutable:
            for other in owners:
                if other is not tensor and other in self.shadows:
                    self.shadows[other] = Shadow.of(other.shape, self.shadows[other].label, MOVES)
        owners += [tensor, *call.given[:1]]

    def _note_random(self, out: Any) -> None:
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._note(tensor, self.shadow(tensor).label, MOVES)

    def _count_consumers(self, call: Call, carry_on: Callable) -> None:
        for tensor in call.given:
            if tensor in self.made:
                norm = self.blocks.norm_of(call.given) if carry_on is normalise else None
                self.readings.consumers.setdefault(self.made[tensor], []).append(norm)
