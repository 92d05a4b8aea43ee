"""A file of living kernels only: a bit for each kernel of a convolution, and the weights of the living.

The format is safetensors, so that reading runs no code; the same dictionary of tensors can be saved with
`torch.save` and read with `torch.load(weights_only=True)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike

import safetensors
from safetensors.torch import load_file, save, save_file
from torch import Tensor, nn

from hgsr_lite.arguments import as_path
from hgsr_lite.fast import alive_kernels
from hgsr_lite.layers import check_model
from hgsr_lite.removal import load_compact
from hgsr_lite.skipping.choice import DenseNetwork
from hgsr_lite.skipping.layers import LivingConvolution
from hgsr_lite.skipping.packing import packed, unpacked


def living_state(model: nn.Module) -> dict[str, Tensor]:
    """A model's state dict without its dead kernels, packed: an index, bits, numbers, a checksum.

    The index is JSON, compressed by zlib to bytes: the version, and for each tensor its name, dtype, shape
    and whether it is a convolution's weight. Those have a bit a kernel, output channel by output channel, all
    weights one after the other, the first kernel in a byte's highest bit. The numbers lie in one tensor
    for each dtype, named after it, in the order of the index; of a convolution's weight the living kernels'.

    >>> layer = nn.Sequential(nn.Conv2d(2, 1, 3, bias=False))
    >>> _ = layer[0].weight.data[0, 0].zero_()
    >>> state = living_state(layer)
    >>> state["living_bits"], state["float32"].shape
    (tensor([64], dtype=torch.uint8), torch.Size([9]))
    """
    return packed(model.state_dict(), _convolution_keys(model))


def _convolution_keys(model: nn.Module) -> set[str]:
    layers = (nn.modules.conv._ConvNd,)
    named = [(name, module) for name, module in model.named_modules() if isinstance(module, layers)]
    return {
        f"{name}.weight" if name else "weight" for name, module in named if "weight" in module._parameters
    }


def save_living(model: nn.Module, path: str | PathLike) -> int:
    """Write a model's `living_state` to a file; return its size in bytes.

    Besides living kernels, a bit a kernel and all other tensors the file holds some 400 bytes and the index,
    about 5 to 10 bytes a tensor. Raises `ValueError` for a network that `skip_dead_kernels` made, whose
    layers have lost their names, `OSError` where the file cannot be written.
    """
    check_model(model)
    if any(isinstance(module, LivingConvolution | DenseNetwork) for module in model.modules()):
        raise ValueError(
            "save_living takes the network that skip_dead_kernels was given, not the one it returned: batch "
            "norms are folded into that one's layers (torch.save keeps it as it is)"
        )
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
    convolutions = _convolution_keys(model)
    return sum(
        int(alive_kernels(parameter).sum()) * parameter[0, 0].numel()
        if name in convolutions
        else parameter.numel()
        for name, parameter in model.named_parameters()
    )


def load_living(model: nn.Module, file: str | PathLike | Mapping[str, Tensor]) -> nn.Module:
    """Return a copy of a model that holds what a file of living kernels says; dead kernels are zero.

    `file` is a path, or the dictionary that `torch.load(path, weights_only=True)` gave. The model may be
    larger than what was saved: it is cut as `load_compact` cuts. Call `skip_dead_kernels` on the result.
    Raises `ValueError` for a file that is damaged (its checksum tells, to the bit), of another version or
    does not fit, `OSError` for one that is not there.
    """
    check_model(model)
    stored = file if isinstance(file, Mapping) else _read(file)
    return load_compact(model, unpacked(stored, model.state_dict()))


def _read(file: str | PathLike) -> dict[str, Tensor]:
    path = as_path("file", file)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}: give the path that save_living wrote to")
    try:
        return load_file(path)
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is no file of living kernels: {error}") from error
