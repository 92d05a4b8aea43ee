"""A file of living kernels only: for each convolution a bit a kernel, and the weights of the living.

The format is safetensors, so that reading runs no code; the same dictionary of tensors can be saved with
`torch.save` and read with `torch.load(weights_only=True)`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from os import PathLike

import numpy as np
import safetensors
import torch
from safetensors.torch import load_file, save, save_file
from torch import Tensor, nn

from hgsr_lite.arguments import as_path, shown
from hgsr_lite.fast import alive_kernels
from hgsr_lite.layers import check_model
from hgsr_lite.removal import load_compact

_ALIVE, _SHAPE, _WEIGHT = ".living_bitmap", ".living_shape", ".living_weight"
CHECKSUM = "living_checksum"
"""The entry with the SHA-256 of all others: 32 bytes."""


def living_state(model: nn.Module) -> dict[str, Tensor]:
    """A model's state dict in which each convolution's weight is a bitmap, a shape and living kernels.

    Eight kernels share a byte, output channel by output channel, the first in the highest bit. One entry more
    is a checksum of all the others.

    >>> layer = nn.Sequential(nn.Conv2d(2, 1, 3, bias=False))
    >>> _ = layer[0].weight.data[0, 0].zero_()
    >>> state = living_state(layer)
    >>> state["0.weight.living_bitmap"], state["0.weight.living_weight"].shape
    (tensor([64], dtype=torch.uint8), torch.Size([1, 9]))
    """
    state = {key: tensor.detach() for key, tensor in model.state_dict().items()}
    for name in _convolution_keys(model):
        weight = state[name]
        kernels, alive = weight.flatten(2).flatten(0, 1), alive_kernels(weight).flatten()
        bitmap = torch.from_numpy(np.packbits(alive.cpu().numpy()))
        state |= {name + _ALIVE: bitmap, name + _SHAPE: torch.tensor(weight.shape)}
        state[name + _WEIGHT] = kernels[alive]
        del state[name]
    state = {key: tensor.cpu().contiguous().clone() for key, tensor in state.items()}
    return state | {CHECKSUM: checksum_of(state)}


def checksum_of(state: Mapping[str, Tensor]) -> Tensor:
    """The SHA-256 of names, dtypes, shapes and numbers, as 32 bytes."""
    digest = hashlib.sha256()
    for key in sorted(state):
        tensor = state[key]
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return torch.tensor([*digest.digest()], dtype=torch.uint8)


def _convolution_keys(model: nn.Module) -> list[str]:
    layers = (nn.modules.conv._ConvNd,)
    named = [(name, module) for name, module in model.named_modules() if isinstance(module, layers)]
    return [
        f"{name}.weight" if name else "weight" for name, module in named if "weight" in module._parameters
    ]


def save_living(model: nn.Module, path: str | PathLike) -> int:
    """Write a model's `living_state` to a file; return its size in bytes. `OSError` where it cannot be."""
    check_model(model)
    path = as_path("path", path)
    try:
        save_file(living_state(model), path)
    except safetensors.SafetensorError as error:
        raise OSError(f"{path} cannot be written: {error}") from error
    return path.stat().st_size


def living_bytes(model: nn.Module) -> int:
    """How large the file of `save_living` would be."""
    return len(save(living_state(model)))


def stored_numbers(model: nn.Module) -> int:
    """How many of a model's parameters are stored: all but those of dead kernels."""
    convolutions = set(_convolution_keys(model))
    dense = sum(p.numel() for name, p in model.named_parameters() if name not in convolutions)
    return dense + sum(t.numel() for key, t in living_state(model).items() if key.endswith(_WEIGHT))


def load_living(model: nn.Module, file: str | PathLike | Mapping[str, Tensor]) -> nn.Module:
    """Return a copy of a model that holds what a file of living kernels says; dead kernels are zero.

    `file` is a path, or the dictionary that `torch.load(path, weights_only=True)` gave. The model may be
    larger than what was saved: it is cut as `load_compact` cuts. Call `skip_dead_kernels` on the result.
    Raises `ValueError` for a file that is damaged (its checksum tells, to the bit) or does not fit, `OSError`
    for one that is not there.
    """
    check_model(model)
    return load_compact(model, _dense_state(file if isinstance(file, Mapping) else _read(file)))


def _read(file: str | PathLike) -> dict[str, Tensor]:
    path = as_path("file", file)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}: give the path that save_living wrote to")
    try:
        return load_file(path)
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is no file of living kernels: {error}") from error


def _dense_state(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    for key, value in stored.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise ValueError(f"the entry {shown(key)} of the file of living kernels is no tensor with a name")
    parts = {key: tensor for key, tensor in stored.items() if key != CHECKSUM}
    found = stored.get(CHECKSUM)
    if found is None or not torch.equal(found.cpu(), checksum_of(parts)):
        why = "holds no checksum" if found is None else "is damaged, its checksum does not fit"
        raise ValueError(f"the file of living kernels {why}: save it again with save_living")
    state = {key: tensor for key, tensor in parts.items() if ".living_" not in key}
    for key in parts:
        if key.endswith(_ALIVE):
            name = key.removesuffix(_ALIVE)
            bitmap, shape, living = (parts.get(name + part) for part in (_ALIVE, _SHAPE, _WEIGHT))
            state[name] = _dense_weight(name, bitmap, shape, living)
    return state


def _dense_weight(name: str, bitmap: Tensor, shape: Tensor | None, living: Tensor | None) -> Tensor:
    """One weight with zeros for its dead kernels, after a look at whether its three parts belong together."""
    if shape is None or living is None:
        raise ValueError(f"the file holds a bitmap of {name} but not its shape and its living kernels")
    sizes = shape.tolist()
    if shape.dtype != torch.int64 or len(sizes) < 3 or min(sizes) < 1 or bitmap.dtype != torch.uint8:
        raise ValueError(f"the shape {sizes} that the file gives for {name} is none of a convolution")
    kernels, elements = sizes[0] * sizes[1], int(np.prod(sizes[2:]))
    bits = np.unpackbits(bitmap.numpy())
    fits = len(bitmap) == -(-kernels // 8) and not bits[kernels:].any()
    alive = torch.from_numpy(bits[:kernels].astype(bool))
    if not fits or tuple(living.shape) != (int(alive.sum()), elements):
        raise ValueError(
            f"the parts of {name} do not belong together: {len(bitmap)} bytes of bitmap and living kernels "
            f"of shape {tuple(living.shape)} for a weight of shape {tuple(sizes)}"
        )
    weight = living.new_zeros(kernels, elements)
    weight[alive] = living
    return weight.view(sizes)
