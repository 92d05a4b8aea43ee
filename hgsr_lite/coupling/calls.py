"""One operation of PyTorch in a forward pass, and the choice of its rule by what kind of operation it is.

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

from hgsr_lite.coupling import rules
from hgsr_lite.coupling.shadow import Shadow

if TYPE_CHECKING:
    from hgsr_lite.coupling.tracing import Tracer

READS = ("convolution", "linear", "addmm", "mm")
_ELEMENTWISE = re.compile(
    r"rsub|hardswish|_prelu_kernel|_to_copy|copy|masked_fill|floor_divide|lift_fresh(_copy)?|alias|detach"
    r"|bernoulli|native_dropout"
)
_REARRANGES = re.compile(
    r"_?(unsafe_)?view|_reshape_alias|permute|transpose|t|slice|select|split|split_with_sizes|unbind|narrow"
    r"|unsqueeze|squeeze|expand|flip|roll|repeat|pixel_(un)?shuffle|channel_shuffle|index_select|(_unsafe_)?index"
)
_REDUCES = re.compile(r"mean|sum|amax|amin|max|min|var|std|prod|any|all|linalg_vector_norm")
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
            return rules.read_layer
        if name in ("t", "transpose") and layers and isinstance(next(iter(layers)), nn.Linear):
            return rules.turn_weight
        if layers or turned:
            return rules.mix_channels
        if not self.given:
            return rules.make_constant
        if name in _LEAVES or self._size_follows_values():
            return rules.leave_pytorch
        if name.endswith("_like"):
            return rules.make_alike
        if name.startswith("new_"):
            return rules.make_new
        if "batch_norm" in name and "backward" not in name:
            return rules.normalise
        if name in ("_softmax", "_log_softmax"):
            return rules.weigh
        if name in ("cat", "stack"):
            return rules.concatenate
        if name == "constant_pad_nd":
            return rules.pad
        return self._rule_by_kind()

    def _rule_by_kind(self) -> Callable[[Call], None]:
        name, overload = self.name, self.func._overloadname
        if torch.Tag.pointwise in self.func.tags or _ELEMENTWISE.fullmatch(name):
            return rules.join
        if _REARRANGES.fullmatch(name) and overload != "dtype":
            return rules.rearrange
        if rules.PLANEWISE.fullmatch(name):
            return rules.keep_planes
        if _REDUCES.fullmatch(name) and not isinstance(self.argument(1, "dim"), Tensor):
            return rules.reduce
        return rules.mix_channels

    def _size_follows_values(self) -> bool:
        """Whether the values decide how many elements come out, as where a mask picks them."""
        if self.name == "index":  # by whole numbers it gives one element for each
            return any(tensor.dtype in (torch.bool, torch.uint8) for tensor in self.given[1:])
        return torch.Tag.dynamic_output_shape in self.func.tags

    def _reads_plainly(self) -> bool:
        """The weight in its place, a bias of the layer itself."""
        if self.name in ("convolution", "linear"):
            return self.tracer.blocks.layer_of(self.args[1]) is not None
        return self.args[-1] in self.tracer.turned

    def argument(self, at: int, name: str) -> Any:
        """An argument by its place or its name; None if it is not given."""
        return self.args[at] if len(self.args) > at else self.kwargs.get(name)
