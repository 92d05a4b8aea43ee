"""The operator of a network without its dead kernels, registered with `torch.library`.

So `torch.export` and `torch.compile` keep it as one node, and `FlopCounterMode` counts what it does. It takes
images in any memory format and gives them back batch innermost.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from importlib.util import find_spec
from math import inf
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad
from torch.utils._python_dispatch import is_in_torch_dispatch_mode
from torch.utils.flop_counter import register_flop_formula

from hgsr_lite.fast.known import DTYPES
from hgsr_lite.fast.living import (
    LivingKernels,
    Window,
    batch_innermost,
    empty_images,
    plain_sparse_convolution,
)


@cache
def has_numba() -> bool:
    """Whether the compiled loops can be had; without them the plain formula serves."""
    return find_spec("numba") is not None


def compiled_takes(images: Tensor) -> bool:
    """Whether the compiled loops read these images."""
    return images.device.type == "cpu" and images.dtype in DTYPES and has_numba()


@lru_cache(maxsize=4096)
def _window(kernel: torch.Size, numbers: tuple[int, ...]) -> Window:
    return Window(tuple(kernel), numbers[:2], numbers[2:6], numbers[6:8])


torch.library.define(
    "hgsr_lite::living_convolution",
    "(Tensor images, Tensor? residual, Tensor weight, Tensor inputs, Tensor starts, Tensor bias, "
    "Tensor? dense, int[] window, int channels, int groups, float low, float high, bool dense_alone, "
    "bool dense_many) -> Tensor",
)


def convolve(
    images, residual, weight, inputs, starts, bias, dense, window, channels, groups, low, high,
    dense_alone, dense_many,
):  # fmt: skip
    """A convolution over living kernels, a residual added, held between two bounds.

    `window` is stride, padding (top, bottom, left, right) and dilation; `channels` are the inputs, dead ones
    too. `dense` is the whole weight, for a single image if `dense_alone`, for more if `dense_many`: where a
    dense convolution is faster. Raises `ValueError` for images that the layer cannot take.
    """
    moves = _window(weight.shape[1:], tuple(window))
    size = output_size(images.shape, images.dtype, weight.dtype, channels, moves)
    if residual is not None:
        wanted = (images.shape[0], bias.shape[0], *size)
        check_residual(residual.shape, residual.dtype, wanted, weight.dtype)
    if dense is not None and (dense_alone if images.shape[0] == 1 else dense_many):
        return _convolve_dense(images, residual, dense, bias, moves, groups, low, high)
    living = LivingKernels(weight, inputs, starts)
    if compiled_takes(images):
        # Numba takes a second to import: only those who run such a network pay for it.
        from hgsr_lite.fast.cpu.sparse_convolution import sparse_convolution

        return sparse_convolution(images, living, bias, moves, residual, low, high)
    return plain_sparse_convolution(images, living, bias, moves, residual, low, high)


torch.library.impl("hgsr_lite::living_convolution", "default", convolve)


@lru_cache(maxsize=4096)
def output_size(
    shape: torch.Size, dtype: torch.dtype, layer_dtype: torch.dtype, channels: int, moves: Window
) -> tuple[int, int]:
    """Height and width; refuses images that the loops, which trust their sizes, would read wrongly."""
    if dtype != layer_dtype:
        raise ValueError(
            f"the images are {dtype}, the layer is {layer_dtype}: convert them with .to({layer_dtype})"
        )
    if len(shape) != 4 or shape[1] != channels:
        raise ValueError(
            f"the layer takes images of shape (batch, {channels}, height, width), not {tuple(shape)}"
        )
    size = moves.output_size(*shape[2:])
    if min(size) < 1:
        raise ValueError(
            f"images of {shape[2]} x {shape[3]} pixels are smaller than the kernel: give larger ones"
        )
    return size


def check_residual(
    shape: torch.Size, dtype: torch.dtype, wanted: tuple[int, ...], layer_dtype: torch.dtype
) -> None:
    """Refuse a summand that is not like a layer's outputs."""
    if shape != wanted or dtype != layer_dtype:
        raise ValueError(
            f"the other summand has shape {tuple(shape)} and {dtype}, the layer's outputs {wanted} and "
            f"{layer_dtype}"
        )


def _convolve_dense(images, residual, weight, bias, moves: Window, groups, low, high) -> Tensor:
    above, below, left, right = moves.padding
    images, padding = _ordinary(images), (above, left)
    if (above, left) != (below, right):
        images, padding = pad(images, (left, right, above, below)), 0
    out = conv2d(images, weight, bias, moves.stride, padding, moves.dilation, groups)
    out = out if residual is None else out.add_(residual)
    return batch_innermost(out if (low, high) == (-inf, inf) else out.clamp_(low, high))


def _ordinary(images: Tensor) -> Tensor:
    """Images in PyTorch's own layout; in two dimensions, because it transposes those by blocks."""
    return images.flatten(1).contiguous().view(images.shape)


@torch.library.register_fake("hgsr_lite::living_convolution")
def _(images, residual, weight, inputs, starts, bias, dense, window, *_):
    # Not `_window`: sizes may be symbols here, which no cache can hold.
    moves = Window(tuple(weight.shape[1:]), tuple(window[:2]), tuple(window[2:6]), tuple(window[6:8]))
    return empty_images(images, bias.shape[0], *moves.output_size(*images.shape[2:]))


_operator = torch.ops.hgsr_lite.living_convolution.default


class _Calls(threading.local):
    """How a thread calls the operator."""

    directly = False


_calls = _Calls()


@contextmanager
def called_directly(images: Tensor) -> Iterator[None]:
    """Within it `living_convolution` passes by PyTorch's dispatcher, which takes longer than a small layer.

    Not where something follows each operator: a trace, an export, a counter, `vmap`.
    """
    before = _calls.directly
    _calls.directly = type(images) is Tensor and not (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or is_in_torch_dispatch_mode()
        or torch._C._functorch.peek_interpreter_stack() is not None
    )
    try:
        yield
    finally:
        _calls.directly = before


def calls_directly() -> bool:
    """Whether this thread is within `called_directly`, and nothing follows each operator."""
    return _calls.directly


def living_convolution(*arguments: Any) -> Tensor:
    """The operator, with the arguments of `convolve`; see `called_directly`."""
    if not torch.compiler.is_compiling() and _calls.directly:
        return convolve(*arguments)
    return _operator(*arguments)


@register_flop_formula(torch.ops.hgsr_lite.living_convolution)
def _flops(images_shape, residual, weight_shape, *_, out_shape=None, **__) -> int:
    count, _, height, width = out_shape
    return 2 * count * height * width * weight_shape[0] * weight_shape[1] * weight_shape[2]
