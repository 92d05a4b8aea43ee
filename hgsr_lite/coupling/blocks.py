"""The channels of a model under numbers: which of them meet in a forward pass, and which must stay."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from hgsr_lite.coupling.shadow import FIXED, FIXED_HERE, MOVES, spread_of
from hgsr_lite.groups import WITH_KERNELS, Layout

NORMS = nn.modules.batchnorm._BatchNorm


@dataclass(frozen=True)
class Block:
    """One side of a layer, its channels numbered from `start` on, and the tensors with a row for each.

    `side` is "out" for what a layer makes, "in" for what it reads, "both" where one position is both: a
    depthwise convolution, a batch norm, a vector of any other module.
    """

    name: str
    module: nn.Module
    side: str
    tensors: tuple[str, ...]
    start: int
    size: int

    @property
    def numbers(self) -> Tensor:
        """The numbers of its channels."""
        return torch.arange(self.start, self.start + self.size, dtype=torch.int32)


class Blocks:
    """Every channel of a model under a number >= 0; pairs that go together; numbers that must stay.

    A number -1 - n is a value that is no channel: whatever meets it stays, for `reasons[n]`.
    """

    constant = -1

    def __init__(self, model: nn.Module) -> None:
        self.all: list[Block] = []
        self.reasons = ["joined with a constant of fixed size"]
        self.pairs: list[Tensor] = []
        self.pins: dict[int, str] = {}
        self.count = 0
        self._sides: dict[tuple[nn.Module, str], Block] = {}
        self._layers = WeakTensorKeyDictionary()
        self._norms = WeakTensorKeyDictionary()
        self._known: list[tuple[Tensor, Tensor | int]] = []
        for name, module in model.named_modules():
            self._register(name, module)
        for module in _layers_that_share(model):
            self.pin_layer(module, "it shares its weight with another layer")

    def _register(self, name: str, module: nn.Module) -> None:
        own = {
            key: tensor
            for key, tensor in [*module._parameters.items(), *module._buffers.items()]
            if tensor is not None
        }
        if isinstance(module, WITH_KERNELS) and "weight" in own:
            self._layers[own["weight"]] = module
            self._register_layer(name, module, own)
            own = {key: tensor for key, tensor in own.items() if key != "bias"}
        elif isinstance(module, NORMS) and own:
            keys = tuple(key for key in ("weight", "bias", "running_mean", "running_var") if key in own)
            block = self._add(name, module, "both", keys, module.num_features)
            self._know(own, keys, block)
            if "running_mean" in own:
                self._norms[own["running_mean"]] = module
            own = {key: tensor for key, tensor in own.items() if key not in keys}
        for key, tensor in own.items():
            if tensor.is_floating_point() and sum(size > 1 for size in tensor.shape) == 1:
                self._know(own, (key,), self._add(name, module, "both", (key,), max(tensor.shape)))
            else:
                self._known.append((tensor, self.constant))
        for value in vars(module).values():
            inside = value if isinstance(value, list | tuple) else [value]
            self._known += [(tensor, self.constant) for tensor in inside if isinstance(tensor, Tensor)]

    def _register_layer(self, name: str, module: nn.Module, own: dict[str, Tensor]) -> None:
        keys = ("weight", "bias")  # a layer without a bias may get one
        outputs, inputs = channel_counts(module, "out")[0], channel_counts(module, "in")[0]
        if is_depthwise(module):
            block = self._sides[module, "out"] = self._add(name, module, "both", keys, outputs)
            self._sides[module, "in"] = block
        else:
            block = self._sides[module, "out"] = self._add(name, module, "out", keys, outputs)
            self._sides[module, "in"] = self._add(name, module, "in", ("weight",), inputs)
            if getattr(module, "transposed", False) and module.groups > 1:
                self.pin_layer(module, "a grouped transposed convolution is not followed")
        self._know(own, tuple(key for key in ("bias",) if key in own), block)

    def _add(self, name: str, module: nn.Module, side: str, tensors: tuple[str, ...], size: int) -> Block:
        block = Block(name, module, side, tensors, self.count, size)
        self.count += size
        self.all.append(block)
        return block

    def _know(self, own: dict[str, Tensor], keys: tuple[str, ...], block: Block) -> None:
        self._known += [(own[key], block.numbers.view(own[key].shape)) for key in keys]

    def known_tensors(self) -> list[tuple[Tensor, Tensor | int]]:
        """Every tensor that the model holds, with the numbers of its elements."""
        return self._known

    def inputs(self, module: nn.Module) -> Tensor:
        """The numbers of the channels that a layer reads."""
        return self._sides[module, "in"].numbers

    def outputs(self, module: nn.Module) -> Tensor:
        """The numbers of the channels that a layer makes."""
        return self._sides[module, "out"].numbers

    def layer_of(self, weight: Tensor) -> nn.Module | None:
        """The convolution or linear layer with this weight."""
        return self._layers.get(weight)

    def also_known_as(self, tensor: Tensor, other: Tensor) -> None:
        """Take `other` for this tensor: it is the same in another dtype."""
        for known in (self._layers, self._norms):
            if tensor in known:
                known[other] = known[tensor]

    def norm_of(self, tensors: list[Tensor]) -> nn.Module | None:
        """The batch norm whose running mean is among these tensors."""
        return next((self._norms[tensor] for tensor in tensors if tensor in self._norms), None)

    def pinned(self, reason: str) -> int:
        """The number of a value that no channel can be joined with and still go."""
        if reason not in self.reasons:
            self.reasons.append(reason)
        return -1 - self.reasons.index(reason)

    def connect(self, one: Tensor, other: Tensor) -> None:
        """These channels go together, position by position; the two have one shape, which may be empty."""
        if not one.numel():
            return
        for dim in reversed(range(one.ndim)):
            if one.stride(dim) == 0 and other.stride(dim) == 0:
                one, other = one.select(dim, 0), other.select(dim, 0)
        pairs = torch.stack([one.reshape(-1).cpu(), other.reshape(-1).cpu()])
        self.pairs.append(pairs[:, pairs[0] != pairs[1]])

    def pin(self, label: Tensor, reason: str) -> None:
        """These channels stay."""
        stays = torch.full((), self.pinned(reason), dtype=label.dtype, device=label.device)
        self.connect(label, stays.expand(label.shape))

    def pin_layer(self, module: nn.Module, reason: str) -> None:
        """All that a layer reads and makes stays."""
        for side in ("in", "out"):
            self.pin(self._sides[module, side].numbers, reason)


def is_depthwise(module: nn.Module) -> bool:
    """Whether every channel of a convolution is read and made by itself."""
    return 1 < getattr(module, "groups", 1) == module.in_channels == module.out_channels


def channel_counts(module: nn.Module, side: str) -> tuple[int, int]:
    """How many channels a layer has on that side, and into how many convolution groups they fall.

    >>> channel_counts(nn.Conv2d(8, 4, 3, groups=2), "in")
    (8, 2)
    """
    kind = "channels" if hasattr(module, "in_channels") else "features"
    return getattr(module, f"{side}_{kind}"), Layout.of(module).conv_groups


def _layers_that_share(model: nn.Module) -> Iterator[nn.Module]:
    """Layers with a parameter that another layer holds too: cutting one would cut the other."""
    owners: dict[int, set[nn.Module]] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            owners.setdefault(id(parameter), set()).add(module)
    for together in owners.values():
        if len(together) > 1:
            yield from (module for module in together if isinstance(module, WITH_KERNELS))


@dataclass(frozen=True)
class ConstantInputs:
    """What a layer reads whatever the image, channel by channel, from one run or several.

    `fixed`: the same in every image of the example's size. `exact`: besides, one number all over, at every
    size, also behind this layer: it is zero, or no padding cuts it off. `zero`: that number is 0. `images`
    is what the layer read, where anything is fixed.
    """

    images: Tensor | None
    dim: int
    fixed: Tensor
    exact: Tensor
    zero: Tensor

    @classmethod
    def of(cls, images: Tensor, level: Tensor, dim: int, bordered: bool) -> ConstantInputs:
        """Judge what a layer reads by the level of its elements, the channels lying along `dim`."""
        planes = [at for at in range(images.ndim) if at != dim]
        highest = level.movedim(dim, 0).flatten(1).amax(1)
        differ, zero = (found.flatten() for found in spread_of(images, planes))
        fixed, uniform = highest < MOVES, (highest == FIXED) & ~differ
        exact = uniform & (zero | (not bordered))
        kept = images.detach().clone() if bool(fixed.any()) else None
        return cls(kept, dim, fixed.cpu(), exact.cpu(), (uniform & zero).cpu())

    @property
    def level(self) -> Tensor:
        """The level behind this layer of what each channel contributes."""
        return torch.where(self.exact, FIXED, torch.where(self.fixed, FIXED_HERE, MOVES))

    def also(self, other: ConstantInputs) -> ConstantInputs:
        """What holds in two runs of one layer: a value is fixed only if it is the same in both."""
        same = self.zero & other.zero
        if self.images is not None and other.images is not None and self.images.shape == other.images.shape:
            moved = (self.images - other.images).abs().movedim(self.dim, 0).flatten(1).amax(1)
            same = same | (moved == 0).cpu()
        fixed, exact = (both & same for both in (self.fixed & other.fixed, self.exact & other.exact))
        return ConstantInputs(self.images, self.dim, fixed, exact, self.zero & other.zero)
