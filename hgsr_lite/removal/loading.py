"""A compact network back from its state dict alone."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from hgsr_lite.arguments import shown
from hgsr_lite.coupling import NORMS, is_depthwise
from hgsr_lite.groups import CONVOLUTIONS, WITH_KERNELS
from hgsr_lite.layers import check_model
from hgsr_lite.removal.surgery import set_counts_


def load_compact(model: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """Return a copy of a model cut to the shapes of a state dict, and loaded with it.

    So a compact network is saved as its state dict alone and needs no pickled code to come back: build
    the full network, read the file with `torch.load(path, weights_only=True)`, give both here. Raises
    `ValueError`, with its name, for a tensor that is missing, unknown or of a shape or kind of numbers that
    no cut can give. Whether neighbouring layers fit each other shows in the first forward.

    >>> from hgsr_lite.removal import compact
    >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3))
    >>> _ = net[2].weight.data[:, 0].zero_()
    >>> small, _ = compact(net, torch.ones(1, 1, 8, 8), repeats=0)
    >>> load_compact(net, small.state_dict())[2]
    Conv2d(3, 2, kernel_size=(3, 3), stride=(1, 1))
    """
    check_model(model)
    if not isinstance(state, Mapping):
        raise TypeError(
            f"state must be a state dict, as small.state_dict() gives it, not {shown(state)}; one in a file "
            "is read with torch.load(path, weights_only=True)"
        )
    strange = [key for key in state if not isinstance(key, str)]
    if strange:
        raise ValueError(
            f"the state dict's key {strange[0]!r} is no parameter's name: give small.state_dict()"
        )
    missing = [key for key in model.state_dict() if key not in state and "num_batches" not in key]
    if missing:
        raise ValueError(f"this state dict does not fit a cut {type(model).__name__}: it lacks {missing[0]}")
    small = copy.deepcopy(model)
    for name, module in small.named_modules():
        prefix = f"{name}." if name else ""
        side = "both" if isinstance(module, CONVOLUTIONS) and is_depthwise(module) else "out"
        for key, present in [*module._parameters.items(), *module._buffers.items()]:
            if prefix + key in state:
                saved = _checked(state[prefix + key], present, prefix + key)
                if present is None or saved.shape != present.shape:
                    _take_shape_(module, key, saved, prefix + key)
        set_counts_(module, side)
        _check_shapes(type(model).__name__, name, module)
    try:
        small.load_state_dict(state)
    except RuntimeError as error:
        why = " ".join(str(error).split())
        raise ValueError(f"this state dict does not fit a cut {type(model).__name__}: {why}") from error
    return small


def _checked(saved: object, present: Tensor | None, full: str) -> Tensor:
    """A saved value, if it is a tensor of the same kind of numbers."""
    if not isinstance(saved, Tensor) or saved.layout != torch.strided:
        what = saved.layout if isinstance(saved, Tensor) else type(saved).__name__
        raise ValueError(f"{full} in the state dict is no plain tensor, but {what}")
    if present is not None and saved.is_floating_point() != present.is_floating_point():
        raise ValueError(f"{full} in the state dict holds {saved.dtype}, the model's {present.dtype}")
    return saved


def _take_shape_(module: nn.Module, key: str, saved: Tensor, full: str) -> None:
    """Give a tensor the shape of the saved one, if that has lost rows or columns only, or is a new bias."""
    present = getattr(module, key)
    like = present if present is not None else getattr(module, "weight", None)
    if like is None or (present is None and key != "bias"):
        raise ValueError(f"{full} is in the state dict, but not in the model: build the same network")
    cut = (
        saved.ndim == like.ndim
        and all(0 < a <= b for a, b in zip(saved.shape, like.shape, strict=True))
        and saved.shape[2:] == like.shape[2:]
    )
    if present is not None and not cut:
        raise ValueError(
            f"{full} of shape {tuple(saved.shape)} is no cut of one of shape {tuple(like.shape)}: "
            "build the network that was made smaller"
        )
    empty = torch.empty(saved.shape, dtype=like.dtype, device=like.device)
    setattr(module, key, nn.Parameter(empty) if key in module._parameters else empty)


def _vectors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a batch norm that hold a number for each channel."""
    for key, value in [*module._parameters.items(), *module._buffers.items()]:
        if value is not None and value.ndim:
            yield key, value


def _check_shapes(model: str, name: str, module: nn.Module) -> None:
    """The tensors of one layer must have lost the same channels, a grouped one as many in each group."""
    if isinstance(module, NORMS):
        lengths = {key: len(value) for key, value in _vectors(module)}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"this state dict does not fit a cut {model}: layer {name!r} has {lengths}")
    if isinstance(module, WITH_KERNELS):
        first = module.out_features if isinstance(module, nn.Linear) else module.out_channels
        groups = getattr(module, "groups", 1)
        if (module.bias is not None and len(module.bias) != first) or first % groups:
            raise ValueError(
                f"this state dict does not fit a cut {model}: layer {name!r} has {first} rows in {groups} "
                f"groups, and a bias of {'none' if module.bias is None else len(module.bias)}"
            )
