"""Which channels a model can lose, what must be carried on in their place, and the cut itself.

A channel can go when every layer that reads it either has zero columns there or reads a value that no
image can change. Such values are found by a poison test: the model is run on an image of NaNs. NaN
spreads through arithmetic, so whatever is still a number when a layer reads it does not depend on the
image, where sampling images alone would be weaker evidence: a ReLU may happen to sleep. Only a layer whose
row is all zero has to stop the poison by hand: its output there is its bias. A real image is run as well,
because a comparison (`torch.where`) can swallow a NaN.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch_pruning.ops import module2type
from torch_pruning.pruner.function import PrunerBox

from hgsr_lite.groups import Layout, kernel_stack
from hgsr_lite.removal.coupling import Coupling, Family, Slice, channel_counts

CONVOLUTIONS = nn.modules.conv._ConvNd
NORMS = nn.modules.batchnorm._BatchNorm
_ROUNDING = 1e-12  # float64 pooling of a constant may differ from it in the last bits


@dataclass(frozen=True)
class Carried:
    """What one layer reads whatever the image: `images[0, c]`, where that is a `number` and not NaN.

    Of every input channel: is it a `number` everywhere, the same one everywhere (`constant`), `zero`.
    """

    images: Tensor
    number: Tensor
    constant: Tensor
    zero: Tensor

    @classmethod
    def of(cls, poisoned: Tensor, real: Tensor, channel_dim: int) -> Carried:
        """Judge every channel of what a layer reads from a poisoned and from a real image."""
        flat = poisoned.movedim(channel_dim, 0).flatten(1)
        low, high = flat.amin(1), flat.amax(1)
        rounding = _ROUNDING * high.abs().clamp_min(1.0)
        moved = (real - poisoned).abs().movedim(channel_dim, 0).flatten(1).amax(1)
        number = flat.isfinite().all(1) & (moved <= rounding)
        return cls(poisoned, number, number & (high - low <= rounding), number & (flat == 0).all(1))


def zero_columns(module: nn.Module) -> Tensor:
    """For each input channel of a convolution or linear layer: are all weights that read it zero?

    >>> layer = nn.Linear(2, 1)
    >>> _ = layer.weight.data.copy_(torch.tensor([[0., 3.]]))
    >>> zero_columns(layer)
    tensor([ True, False])
    """
    return (kernel_stack(module.weight.detach(), Layout.of(module)) == 0).all(-1).all(1).flatten()


def zero_rows(module: nn.Module) -> Tensor:
    """For each output channel of a layer: are all weights that make it zero?

    >>> zero_rows(nn.BatchNorm2d(2))
    tensor([False, False])
    """
    if isinstance(module, NORMS):
        return module.weight.detach() == 0
    return (kernel_stack(module.weight.detach(), Layout.of(module)) == 0).all(-1).all(2).flatten()


def carried_values(model: nn.Module, example_input: Tensor) -> dict[nn.Module, Carried]:
    """What every convolution and linear layer reads whatever the image; the model in eval mode.

    A layer that runs more than once is left out: it would read more than one value.

    >>> net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.Conv2d(2, 1, 1)).eval()
    >>> _ = net[0].weight.data[1].zero_(), net[0].bias.data.fill_(0.5)
    >>> carried_values(net, torch.ones(1, 1, 4, 4))[net[2]].constant
    tensor([False,  True])
    """
    seen: dict[nn.Module, list[Tensor]] = {}

    def read(module: nn.Module, images: tuple[Tensor, ...]) -> None:
        seen.setdefault(module, []).append(images[0].detach().clone())

    def stop_poison(module: nn.Module, _images, out: Tensor) -> Tensor:
        rows = zero_rows(module).view(_channel_shape(module, out))
        bias = (
            torch.zeros_like(rows, dtype=out.dtype) if module.bias is None else module.bias.view(rows.shape)
        )
        return torch.where(rows, bias, out)

    hooks = []
    for module in model.modules():
        if isinstance(module, (CONVOLUTIONS, nn.Linear)):
            hooks.append(module.register_forward_pre_hook(read))
        if isinstance(module, (CONVOLUTIONS, nn.Linear)) or (isinstance(module, NORMS) and module.affine):
            hooks.append(module.register_forward_hook(stop_poison))
    try:
        with torch.no_grad():
            model(torch.full_like(example_input[:1], torch.nan))
            model(example_input)
    finally:
        for hook in hooks:
            hook.remove()
    return {
        module: Carried.of(*images, _channel_dim(module))
        for module, images in seen.items()
        if len(images) == 2
    }


def _channel_dim(module: nn.Module) -> int:
    return -1 if isinstance(module, nn.Linear) else 1


def _channel_shape(module: nn.Module, out: Tensor) -> list[int]:
    shape = [1] * out.ndim
    shape[_channel_dim(module)] = -1
    return shape


def pads_with_zeros(module: nn.Module) -> bool:
    """Whether a constant image is no longer constant behind this layer, because its border sees zeros."""
    if isinstance(module, nn.Linear):
        return False
    if Layout.of(module).transposed:
        return True
    if module.padding_mode != "zeros" or module.padding == "valid":
        return False
    if module.padding == "same":
        return any(size > 1 for size in module.kernel_size)
    return any(pad > 0 for pad in module.padding)


def removable(family: Family, carried: dict[nn.Module, Carried], exact_only: bool) -> tuple[Tensor, Tensor]:
    """Which channels of a family can go, and which of them without any change of the function.

    Exact means: each reader ignores the channel, reads zeros, or reads a constant that its border does
    not cut.
    """
    can_go = torch.ones(family.size, dtype=torch.bool)
    exact = torch.ones(family.size, dtype=torch.bool)
    for part in family.readers:
        ignored = zero_columns(part.module).cpu()
        known = carried.get(part.module)
        harmless, number = ignored, ignored
        if known is not None:
            constant = torch.zeros_like(ignored) if pads_with_zeros(part.module) else known.constant.cpu()
            harmless = ignored | known.zero.cpu() | constant
            number = ignored | known.number.cpu()
        can_go[part.channel[~number[part.index]]] = False
        exact[part.channel[~harmless[part.index]]] = False
    return (can_go & exact if exact_only else can_go), exact


def hold_back(families: list[Family], removed: list[Tensor], scores: list[Tensor] | None = None) -> set[str]:
    """Take channels out of `removed`, in place, until every layer keeps one; return those layers' names.

    A grouped convolution must also lose as many channels in each of its groups. Of the channels that
    could go, those with the highest scores stay; without scores, the last ones.
    """
    if scores is None:
        scores = [torch.arange(family.size, dtype=torch.float64) for family in families]
    held: set[str] = set()
    sides = list(_sides(families))
    changed = True
    while changed:
        changed = False
        for module, side, parts in sides:
            surplus = list(_surplus(module, side, parts, removed, scores))
            for number, channel in surplus:
                removed[number][channel] = False
            if surplus:
                changed = True
                held.add(parts[0][1].name)
    return held


def _sides(families: list[Family]) -> Iterator[tuple[nn.Module, str, list[tuple[int, Slice]]]]:
    """Every layer and side that a family touches, with the numbers of those families and their slices."""
    found: dict[tuple[nn.Module, str], list[tuple[int, Slice]]] = {}
    for number, family in enumerate(families):
        for part in family.slices:
            found.setdefault((part.module, part.side), []).append((number, part))
    for (module, side), parts in found.items():
        yield module, side, parts


def _surplus(
    module: nn.Module, side: str, parts: list[tuple[int, Slice]], removed: list[Tensor], scores: list[Tensor]
) -> Iterator[tuple[int, int]]:
    """The (family, channel) pairs that must stay so that this layer keeps a channel in each group."""
    count, conv_groups = channel_counts(module, side)
    goes = torch.zeros(count, dtype=torch.bool)
    score = torch.zeros(count, dtype=torch.float64)
    for number, part in parts:
        goes[part.index] = removed[number][part.channel]
        score[part.index] = scores[number][part.channel].double()
    in_group = count // conv_groups
    lost = goes.view(conv_groups, in_group).sum(1)
    allowed = min(int(lost.min()), in_group - 1)
    if int(lost.max()) <= allowed:
        return
    owner = {
        int(at): (number, int(channel))
        for number, part in parts
        for at, channel in zip(part.index, part.channel, strict=True)
    }
    for group in range(conv_groups):
        positions = group * in_group + goes.view(conv_groups, in_group)[group].nonzero().flatten()
        ranked = positions[score[positions].argsort(descending=True, stable=True)]
        yield from (owner[int(at)] for at in ranked[: int(lost[group]) - allowed])


@torch.no_grad()
def fold_(coupling: Coupling, removed: list[Tensor], carried: dict[nn.Module, Carried]) -> None:
    """Add what the channels about to go contribute to each reader to what comes right behind it, in place.

    That is the running mean of a batch norm, else the layer's bias (made if there is none). Where zero
    padding makes the contribution differ along the border, its mean over the image is taken: of all
    constants the nearest in least squares, at the image size of the example.
    """
    for module, side, parts in _sides(coupling.free):
        known = carried.get(module)
        if side != "in" or known is None:
            continue
        positions = torch.cat([part.positions(removed[number]) for number, part in parts])
        positions = positions[known.number.cpu()[positions]].to(known.images.device)
        dim = _channel_dim(module) % known.images.ndim
        images = torch.zeros_like(known.images)
        images.index_copy_(dim, positions, known.images.index_select(dim, positions))
        if images.any():
            behind = module(images) - module(torch.zeros_like(images))
            _add_constant_(module, coupling, behind.movedim(dim, 0).flatten(1).mean(1))


def _add_constant_(module: nn.Module, coupling: Coupling, constant: Tensor) -> None:
    norm = coupling.norm_behind.get(module)
    if norm is not None and norm.running_mean is not None:
        norm.running_mean -= constant
    elif module.bias is None:
        module.bias = nn.Parameter(constant)
    else:
        module.bias += constant


def cut_(coupling: Coupling, removed: list[Tensor]) -> None:
    """Take the marked channels of every free family out of all the layers they touch, in place."""
    for module, side, parts in _sides(coupling.free):
        positions = torch.cat([part.positions(removed[number]) for number, part in parts]).tolist()
        if not positions:
            continue
        if side == "in" and channel_counts(module, side)[1] > 1:
            _cut_grouped_inputs_(module, positions)
            continue
        pruner = PrunerBox[module2type(module)]
        (pruner.prune_in_channels if side == "in" else pruner.prune_out_channels)(module, positions)


def _cut_grouped_inputs_(module: nn.Module, positions: list[int]) -> None:
    """Each convolution group loses columns of its own, as many as the others."""
    keep = torch.ones(module.in_channels, dtype=torch.bool)
    keep[positions] = False
    columns = keep.view(module.groups, -1)
    weight = module.weight.detach().unflatten(0, (module.groups, -1))
    kept = [weight[group][:, columns[group].to(weight.device)] for group in range(module.groups)]
    module.weight = nn.Parameter(torch.cat(kept))
    module.in_channels = int(keep.sum())
