"""What a smaller network takes along from the original: which channels it kept, an optimizer's state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from hgsr_lite.groups import kernel_stack, weight_of_stack
from hgsr_lite.layers import WeightLayer


class KeptChannels(NamedTuple):
    """The numbers that a layer's channels had in the original network, in the order they have now."""

    inputs: list[int]
    outputs: list[int]


def kept_channels(layer: WeightLayer, places: Tensor) -> KeptChannels:
    """The channels of a layer of the original that are left.

    `places` says of every number of the cut weight where it stood in the original.

    >>> from hgsr_lite.groups import Layout
    >>> layer = nn.Conv2d(3, 2, 1)
    >>> kept_channels(WeightLayer("conv", layer, Layout()), torch.tensor([3, 5]))
    KeptChannels(inputs=[0, 2], outputs=[1])
    """
    weight = layer.module.weight
    stack = kernel_stack(weight, layer.layout)
    groups, outputs, inputs, _ = stack.shape
    numbers = {
        "inputs": torch.arange(groups * inputs).view(groups, 1, inputs, 1),
        "outputs": torch.arange(groups * outputs).view(groups, outputs, 1, 1),
    }
    channel_of = {
        side: weight_of_stack(of.expand(stack.shape), layer.layout, weight.shape).flatten()
        for side, of in numbers.items()
    }
    return KeptChannels(**{side: of[places.flatten()].unique().tolist() for side, of in channel_of.items()})


def carry_optimizer_(
    optimizer: Optimizer, model: nn.Module, small: nn.Module, places: Mapping[str, Tensor]
) -> None:
    """Let an optimizer of the original train the smaller network: see `CompactReport.carry_`."""
    names: dict[Tensor, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(parameter, []).append(name)
    learned = dict(small.named_parameters(remove_duplicate=False))
    _check_belongs(optimizer, names, learned, places)
    states, groups = {}, []
    for group in optimizer.param_groups:
        parameters: list[Tensor] = []
        for old in group["params"]:
            for new, name in _successors(old, names, learned):
                if new not in states:
                    parameters.append(new)
                    states[new] = _carried(optimizer, old, new, places.get(name))
        groups.append(parameters)
    for group, parameters in zip(optimizer.param_groups, groups, strict=True):
        group["params"] = parameters
    optimizer.state.clear()
    optimizer.state.update({parameter: state for parameter, state in states.items() if state})


def _check_belongs(
    optimizer: Optimizer, names: Mapping[Tensor, list[str]], learned: Mapping[str, Tensor],
    places: Mapping[str, Tensor],
) -> None:  # fmt: skip
    if not any(parameter in names for group in optimizer.param_groups for parameter in group["params"]):
        raise ValueError(
            "the optimizer trains no parameter of this model: give the original, then the smaller"
        )
    for every in names.values():
        for name in every:
            found = None if name not in learned else tuple(learned[name].shape)
            if name not in places or found != tuple(places[name].shape):
                raise ValueError(
                    f"this report is of other networks: {name} would have the shape "
                    f"{tuple(places[name].shape) if name in places else None}, but has {found}"
                )


def _successors(
    old: Tensor, names: Mapping[Tensor, list[str]], learned: Mapping[str, Tensor]
) -> Iterator[tuple[Tensor, str]]:
    """What takes a parameter's place, with its name: itself if it is not the model's.

    A bias that the removal made, because the layer had none to take up a constant, goes with the weight.
    """
    if old not in names:
        yield old, ""
    known = {name for every in names.values() for name in every}
    for name in names.get(old, ()):
        yield learned[name], name
        bias = f"{name.removesuffix('weight')}bias"
        if name.endswith("weight") and bias in learned and bias not in known:
            yield learned[bias], bias


def _carried(optimizer: Optimizer, old: Tensor, new: Tensor, place: Tensor | None) -> dict[str, Any]:
    """The optimizer's state of a parameter, as far as it belongs to what is left of it."""
    state = optimizer.state.get(old, {})
    if old is new:
        return state
    if place is None:
        return {}
    carried = {}
    for key, value in state.items():
        if isinstance(value, Tensor) and value.ndim and value.shape == old.shape:
            left = value.flatten()[place.flatten().to(value.device)].view(place.shape)
            carried[key] = torch.empty_like(new, dtype=value.dtype, requires_grad=False).copy_(left)
        elif isinstance(value, Tensor) and value.numel() != 1:
            raise ValueError(
                f"{type(optimizer).__name__} keeps {key!r} of shape {tuple(value.shape)} for a parameter of "
                f"shape {tuple(old.shape)}, which cannot be cut: make a new optimizer for the smaller network"
            )
        else:
            carried[key] = value
    return carried
