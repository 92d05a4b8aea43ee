"""The two operators of a network without its dead kernels, registered with `torch.library`.

So `torch.export` and `torch.compile` keep them as one node each, and `FlopCounterMode` counts what they do.
Both take images in any memory format and give them back batch innermost.
"""

from __future__ import annotations

import math
from functools import cache, lru_cache
from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, conv2d, max_pool2d, pad
from torch.utils.flop_counter import register_flop_formula

from hgsr_lite.fast.living import (
    LivingKernels,
    Window,
    batch_innermost,
    empty_images,
    plain_sparse_convolution,
)

_DTYPES = (torch.float32, torch.float64)


@cache
def has_numba() -> bool:
    """Whether the compiled loops can be had; without them the plain formula serves."""
    return find_spec("numba") is not None


def compiled_takes(images: Tensor) -> bool:
    """Whether the compiled loops read these images."""
    return images.device.type == "cpu" and images.dtype in _DTYPES and has_numba()


def _window(weight: Tensor, numbers: list[int]) -> Window:
    return _known_window(weight.shape, tuple(numbers))


@lru_cache(maxsize=4096)
def _known_window(shape: torch.Size, numbers: tuple[int, ...]) -> Window:
    return Window(tuple(shape[1:]), numbers[:2], numbers[2:6], numbers[6:8])


torch.library.define(
    "hgsr_lite::living_convolution",
    "(Tensor images, Tensor? residual, Tensor weight, Tensor inputs, Tensor starts, Tensor bias, "
    "Tensor? dense, int[] window, int channels, int groups, float low, float high, bool dense_alone, "
    "bool dense_many) -> Tensor",
)


@torch.library.impl("hgsr_lite::living_convolution", "default")
def _convolve(
    images, residual, weight, inputs, starts, bias, dense, window, channels, groups, low, high,
    dense_alone, dense_many,
):  # fmt: skip
    """A convolution over living kernels, a residual added, held between two bounds.

    `window` is stride, padding (top, bottom, left, right) and dilation; `channels` are the inputs, dead ones
    too. `dense` is the whole weight, for a single image if `dense_alone`, for more if `dense_many`: where a
    dense convolution is faster. Raises `ValueError` for images that the layer cannot take.
    """
    moves = _window(weight, window)
    _check_images(images, residual, weight.dtype, channels, len(bias), moves)
    if dense is not None and (dense_alone if images.shape[0] == 1 else dense_many):
        return _convolve_dense(images, residual, dense, bias, moves, groups, low, high)
    living = LivingKernels(weight, inputs, starts)
    if compiled_takes(images):
        # Numba takes a second to import: only those who run such a network pay for it.
        from hgsr_lite.fast.cpu.sparse_convolution import sparse_convolution

        return sparse_convolution(images, living, bias, moves, residual, low, high)
    return plain_sparse_convolution(images, living, bias, moves, residual, low, high)


def _check_images(
    images: Tensor, residual: Tensor | None, dtype: torch.dtype, channels: int, outputs: int, moves: Window
) -> None:
    """Refuse what the loops, which trust their sizes, would read wrongly or beyond its end."""
    shape = tuple(images.shape)
    if images.dtype != dtype:
        raise ValueError(
            f"the images are {images.dtype}, the layer is {dtype}: convert them with .to({dtype})"
        )
    if images.ndim != 4 or shape[1] != channels:
        raise ValueError(f"the layer takes images of shape (batch, {channels}, height, width), not {shape}")
    size = moves.output_size(*shape[2:])
    if min(size) < 1:
        raise ValueError(
            f"images of {shape[2]} x {shape[3]} pixels are smaller than the kernel: give larger ones"
        )
    if residual is not None and (residual.dtype, tuple(residual.shape)) != (
        dtype,
        (shape[0], outputs, *size),
    ):
        raise ValueError(
            f"the other summand has shape {tuple(residual.shape)} and {residual.dtype}, the layer's outputs "
            f"{(shape[0], outputs, *size)} and {dtype}"
        )


def _convolve_dense(images, residual, weight, bias, moves: Window, groups, low, high) -> Tensor:
    above, below, left, right = moves.padding
    images, padding = _ordinary(images), (above, left)
    if (above, left) != (below, right):
        images, padding = pad(images, (left, right, above, below)), 0
    out = conv2d(images, weight, bias, moves.stride, padding, moves.dilation, groups)
    out = out if residual is None else out.add_(residual)
    return batch_innermost(out if (low, high) == (-math.inf, math.inf) else out.clamp_(low, high))


def _ordinary(images: Tensor) -> Tensor:
    """Images in PyTorch's own layout; in two dimensions, because it transposes those by blocks."""
    return images.flatten(1).contiguous().view(images.shape)


@torch.library.register_fake("hgsr_lite::living_convolution")
def _(images, residual, weight, inputs, starts, bias, dense, window, *_):
    moves = Window(tuple(weight.shape[1:]), tuple(window[:2]), tuple(window[2:6]), tuple(window[6:8]))
    return empty_images(images, bias.shape[0], *moves.output_size(*images.shape[2:]))


living_convolution = torch.ops.hgsr_lite.living_convolution.default


@register_flop_formula(torch.ops.hgsr_lite.living_convolution)
def _flops(images_shape, residual, weight_shape, *_, out_shape=None, **__) -> int:
    count, _, height, width = out_shape
    return 2 * count * height * width * weight_shape[0] * weight_shape[1] * weight_shape[2]


def window_bounds(size: int, outputs: int, kernel: int, stride: int, padding: int) -> np.ndarray:
    """The (first, end) pixels that each output of a pool sees."""
    start = np.arange(outputs) * stride - padding
    return np.stack([np.clip(start, 0, size), np.clip(start + kernel, 0, size)], axis=1)


torch.library.define(
    "hgsr_lite::max_pool", "(Tensor images, int[] kernel, int[] stride, int[] padding, bool ceil) -> Tensor"
)


@torch.library.impl("hgsr_lite::max_pool", "default")
def _max_pool(images: Tensor, kernel: list[int], stride: list[int], padding: list[int], ceil: bool) -> Tensor:
    """The largest value in each window, as `torch.nn.functional.max_pool2d` gives it."""
    if not compiled_takes(images):
        return batch_innermost(max_pool2d(images, kernel, stride, padding, ceil_mode=ceil))
    out = _empty_pool(images, kernel, stride, padding, ceil)
    rows, columns = (
        window_bounds(images.shape[2 + side], out.shape[2 + side], kernel[side], stride[side], padding[side])
        for side in (0, 1)
    )
    return _pool("max_pool", images, rows, columns, out)


@torch.library.register_fake("hgsr_lite::max_pool")
def _empty_pool(images, kernel, stride, padding, ceil):
    sides = [
        _pooled(size, *moves, ceil)
        for size, *moves in zip(images.shape[2:], kernel, stride, padding, strict=True)
    ]
    return empty_images(images, images.shape[1], *sides)


def _pooled(size: int, kernel: int, stride: int, padding: int, ceil: bool) -> int:
    """How many windows there are; one that would begin behind the image and its padding is left out."""
    outputs = (size + 2 * padding - kernel + (stride - 1 if ceil else 0)) // stride + 1
    return outputs - 1 if ceil and (outputs - 1) * stride >= size + padding else outputs


torch.library.define("hgsr_lite::mean_pool", "(Tensor images, int height, int width) -> Tensor")


@torch.library.impl("hgsr_lite::mean_pool", "default")
def _mean_pool(images: Tensor, height: int, width: int) -> Tensor:
    """Means over a grid, as `torch.nn.functional.adaptive_avg_pool2d` gives them."""
    if not compiled_takes(images):
        return batch_innermost(adaptive_avg_pool2d(images, (height, width)))
    rows, columns = (
        np.stack([np.arange(n) * size // n, -(-(np.arange(n) + 1) * size // n)], axis=1)
        for n, size in zip((height, width), images.shape[2:], strict=True)
    )
    return _pool("mean_pool", images, rows, columns, empty_images(images, images.shape[1], height, width))


@torch.library.register_fake("hgsr_lite::mean_pool")
def _(images, height, width):
    return empty_images(images, images.shape[1], height, width)


def _pool(loop: str, images: Tensor, rows: np.ndarray, columns: np.ndarray, out: Tensor) -> Tensor:
    """Run a loop of `pooling` on memory that lies batch innermost."""
    from hgsr_lite.fast.cpu import pooling

    seen, found = (tensor.permute(1, 2, 3, 0).numpy() for tensor in (batch_innermost(images), out))
    getattr(pooling, loop)(0, len(found), seen, rows, columns, found)
    return out


living_max_pool = torch.ops.hgsr_lite.max_pool.default
living_mean_pool = torch.ops.hgsr_lite.mean_pool.default
