"""Which channels a model can lose, what must be carried on in their place, and the cut itself.

A channel can go when every layer that reads it either has zero columns there or reads a value that no
image can change (`ConstantInputs`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from hgsr_lite.coupling import NORMS, Block, CoupledChannels, Coupling, Slice, channel_counts
from hgsr_lite.groups import CONVOLUTIONS, WITH_KERNELS, Layout, kernel_stack

_COUNTS = (
    *("in_channels", "out_channels", "groups", "in_features", "out_features", "num_features"),
    "num_parameters",
)
"""Attributes of layers that follow from the shapes of their tensors."""


def zero_columns(module: nn.Module) -> Tensor:
    """For each input channel of a convolution or linear layer: are all weights that read it zero?

    >>> layer = nn.Linear(2, 1)
    >>> _ = layer.weight.data.copy_(torch.tensor([[0., 3.]]))
    >>> zero_columns(layer)
    tensor([ True, False])
    """
    return (kernel_stack(module.weight.detach(), Layout.of(module)) == 0).all(-1).all(1).flatten()


def removable(channels: CoupledChannels, coupling: Coupling, exact_only: bool) -> tuple[Tensor, Tensor]:
    """Which of these channels can go, and which of them without any change of the function.

    Exact means: each reader ignores the channel, reads zeros, or reads one number at every size that no
    padding cuts off.
    """
    can_go = torch.ones(channels.size, dtype=torch.bool)
    exact = torch.ones(channels.size, dtype=torch.bool)
    for part in channels.readers:
        ignored = zero_columns(part.module).cpu()
        known = coupling.constants.get(part.module)
        fixed = ignored if known is None else ignored | known.fixed
        harmless = ignored if known is None else ignored | known.exact
        can_go[part.channel[~fixed[part.index]]] = False
        exact[part.channel[~harmless[part.index]]] = False
    return (can_go & exact if exact_only else can_go), exact


def hold_back(
    sets: list[CoupledChannels], removed: list[Tensor], scores: list[Tensor] | None = None
) -> set[str]:
    """Take channels out of `removed`, in place, until every layer keeps one; return those layers' names.

    A grouped convolution must also lose as many channels in each of its groups. Of the channels that
    could go, those with the highest scores stay; without scores, the last ones.
    """
    if scores is None:
        scores = [torch.arange(channels.size, dtype=torch.float64) for channels in sets]
    kept: set[str] = set()
    sides = list(sides_of(sets))
    changed = True
    while changed:
        changed = False
        for block, parts in sides:
            surplus = list(_surplus(block, parts, removed, scores))
            for number, channel in surplus:
                removed[number][channel] = False
            if surplus:
                changed = True
                kept.add(block.name)
    return kept


def sides_of(sets: list[CoupledChannels]) -> Iterator[tuple[Block, list[tuple[int, Slice]]]]:
    """Every block that these channels touch, with the numbers of the sets and their slices."""
    found: dict[Block, list[tuple[int, Slice]]] = {}
    for number, channels in enumerate(sets):
        for part in channels.slices:
            found.setdefault(part.block, []).append((number, part))
    yield from found.items()


def _surplus(
    block: Block, parts: list[tuple[int, Slice]], removed: list[Tensor], scores: list[Tensor]
) -> Iterator[tuple[int, int]]:
    """The (set, channel) pairs that must stay so that this layer keeps a channel in each group."""
    conv_groups = 1 if block.side == "both" else channel_counts(block.module, block.side)[1]
    goes = torch.zeros(block.size, dtype=torch.bool)
    score = torch.zeros(block.size, dtype=torch.float64)
    for number, part in parts:
        goes[part.index] = removed[number][part.channel]
        score[part.index] = scores[number][part.channel].double()
    in_group = block.size // conv_groups
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


def _gone(parts: list[tuple[int, Slice]], removed: list[Tensor]) -> Tensor:
    return torch.cat([part.positions(removed[number]) for number, part in parts])


@torch.no_grad()
def fold_(coupling: Coupling, sets: list[CoupledChannels], removed: list[Tensor]) -> None:
    """Add what the channels about to go contribute to each reader to what comes right behind it, in place.

    That is the running mean of a batch norm, else the layer's bias (made if there is none). Where zero
    padding makes the contribution differ along the border, its mean over the image is taken: of all
    constants the nearest in least squares, at the image size of the example.
    """
    for block, parts in sides_of(sets):
        known = coupling.constants.get(block.module)
        if block.side != "in" or known is None or known.images is None:
            continue
        positions = _gone(parts, removed)
        positions = positions[known.fixed[positions]].to(known.images.device)
        images = torch.zeros_like(known.images)
        images.index_copy_(known.dim, positions, known.images.index_select(known.dim, positions))
        if images.any():
            behind = block.module(images) - block.module(torch.zeros_like(images))
            _add_constant_(block.module, coupling, behind.movedim(known.dim, 0).flatten(1).mean(1))


def _add_constant_(module: nn.Module, coupling: Coupling, constant: Tensor) -> None:
    norm = coupling.norm_behind.get(module)
    if norm is not None and norm.running_mean is not None:
        norm.running_mean = norm.running_mean - constant
    else:
        module.bias = nn.Parameter(constant if module.bias is None else module.bias + constant)


def cut_(sets: list[CoupledChannels], removed: list[Tensor], places: dict[str, Tensor] | None = None) -> None:
    """Take the marked channels out of all the tensors they touch, in place.

    `places` holds a tensor for some of them, by full name; it loses the same positions.
    """
    for block, parts in sides_of(sets):
        keep = torch.ones(block.size, dtype=torch.bool)
        keep[_gone(parts, removed)] = False
        if keep.all():
            continue
        select = _selection(block, keep)
        for key in block.tensors:
            tensor = getattr(block.module, key)
            if tensor is None:
                continue
            smaller = select(tensor.detach())
            setattr(block.module, key, nn.Parameter(smaller) if key in block.module._parameters else smaller)
            full = f"{block.name}.{key}" if block.name else key
            if places is not None and full in places:
                places[full] = select(places[full])
        set_counts_(block.module, block.side)
    for module in {block.module for block, _ in sides_of(sets)}:
        made = getattr(module, "out_channels", getattr(module, "out_features", None))
        if made is not None and module.bias is not None and len(module.bias) != made:
            raise AssertionError(
                f"a cut left {type(module).__name__} {made} rows, but {len(module.bias)} biases"
            )


def _selection(block: Block, keep: Tensor) -> Callable[[Tensor], Tensor]:
    """How a tensor of this block loses what is not kept."""
    module = block.module

    def select(tensor: Tensor) -> Tensor:
        if block.side == "in" and channel_counts(module, "in")[1] > 1:
            rows = tensor.unflatten(0, (module.groups, -1))
            columns = keep.view(module.groups, -1).to(tensor.device)
            return torch.cat([rows[group][:, columns[group]] for group in range(module.groups)])
        if tensor.ndim > 1 and isinstance(module, WITH_KERNELS):
            dim = int(block.side != "both" and (block.side == "in") != Layout.of(module).transposed)
        else:
            dim = max(range(tensor.ndim), key=lambda at: tensor.shape[at])
        return tensor.index_select(dim, keep.nonzero().flatten().to(tensor.device))

    return select


@contextmanager
def undone(model: nn.Module) -> Iterator[None]:
    """A context after which the model has its tensors and channel counts of before: for a cut on trial.

    >>> net = nn.Sequential(nn.Linear(2, 3))
    >>> with undone(net):
    ...     net[0].weight = nn.Parameter(torch.ones(1, 2))
    ...     set_counts_(net[0])
    >>> net[0].out_features, len(net[0].weight)
    (3, 3)
    """
    before = [
        (
            module,
            dict(module._parameters),
            dict(module._buffers),
            {key: vars(module).get(key) for key in _COUNTS},
        )
        for module in model.modules()
    ]
    try:
        yield
    finally:
        for module, own, buffers, counts in before:
            module._parameters.update(own)
            module._buffers.update(buffers)
            vars(module).update({key: value for key, value in counts.items() if value is not None})


def set_counts_(module: nn.Module, side: str = "out") -> None:
    """Bring a layer's channel counts in line with the shapes of its tensors, a depthwise one's groups too.

    `side` "both" says that the layer is depthwise: its number of groups is its number of channels.
    """
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, NORMS):
        vectors = [module.weight, module.running_mean, module.bias]
        module.num_features = next((len(v) for v in vectors if v is not None), module.num_features)
    elif isinstance(module, nn.PReLU):
        module.num_parameters = len(module.weight)
    elif isinstance(module, CONVOLUTIONS):
        if side == "both":
            module.groups = len(module.weight)
        first, second = module.weight.shape[:2]
        inputs, outputs = (first, second * module.groups)
        if not module.transposed:
            inputs, outputs = outputs, inputs
        module.in_channels, module.out_channels = inputs, outputs
