"""Random crops and flips of a whole batch or a whole epoch at once, on whatever device the images lie.

No loop runs over images. A crop and a flip together are one lookup: pixel `(y, x)` of the n-th result is
pixel `(y + row_n, x' + column_n)` of the n-th zero-padded image, where `x'` is `x`, or `width - 1 - x` where
the image is mirrored.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_BLOCK = {"cpu": 128}
"""Images per lookup: on a CPU a block should stay in the cache (twice as fast as the whole set at once)."""


def random_crop(images: Tensor, padding: int = 4, generator: torch.Generator | None = None) -> Tensor:
    """Shift each image by its own random offset of up to `padding` pixels, the size kept.

    Each image is padded by `padding` zeros on every side (zero is the mean colour of normalised images) and a
    window of the old size is cut out, all `(2 padding + 1)^2` places being equally likely.

    `images`: (batch, channels, height, width), any dtype and device; the result has the same shape and dtype.
    With a generator on the CPU the draw is the same on every device.

    >>> random_crop(torch.ones(2, 3, 8, 8), padding=1, generator=torch.Generator().manual_seed(0)).shape
    torch.Size([2, 3, 8, 8])
    """
    _check(images, padding)
    return window_at(images, _draw_offsets(images, padding, generator), None, padding)


def random_flip(images: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Mirror each image left to right with probability 1/2; shapes and draw as in `random_crop`.

    >>> random_flip(torch.ones(2, 3, 8, 8), torch.Generator().manual_seed(0)).shape
    torch.Size([2, 3, 8, 8])
    """
    _check(images, 0)
    return window_at(images, None, _draw_mirrored(images, generator), 0)


def augmented(images: Tensor, generator: torch.Generator | None = None, padding: int = 4) -> Tensor:
    """A copy of the images, each one cropped and flipped at random: what one epoch trains on.

    Offsets are drawn for all images first, then the mirrored ones; see `random_crop` and `random_flip`.

    >>> augmented(torch.ones(2, 3, 8, 8), torch.Generator().manual_seed(0)).shape
    torch.Size([2, 3, 8, 8])
    """
    _check(images, padding)
    offsets = _draw_offsets(images, padding, generator)
    mirrored = _draw_mirrored(images, generator)
    block = _BLOCK.get(images.device.type, len(images)) or 1
    result = torch.empty_like(images)
    parts = (result, images, offsets, mirrored)
    for out, *drawn in zip(*(part.split(block) for part in parts), strict=True):
        out.copy_(window_at(*drawn, padding))
    return result


def window_at(images: Tensor, offsets: Tensor | None, mirrored: Tensor | None, padding: int) -> Tensor:
    """Cut the window at `offsets[n]` out of the n-th zero-padded image, mirrored where `mirrored[n]` is true.

    `offsets`: integers (batch, 2), row and column, each from 0 to `2 padding`; `padding` is the middle, where
    nothing moves. `mirrored`: booleans (batch,). None leaves the images where, or as, they are.

    >>> image = torch.arange(4).reshape(1, 1, 2, 2)
    >>> window_at(image, torch.tensor([[1, 2]]), None, padding=1)
    tensor([[[[1, 0],
              [3, 0]]]])
    >>> window_at(image, None, torch.tensor([True]), padding=0)
    tensor([[[[1, 0],
              [3, 2]]]])
    """
    batch, channels, height, width = images.shape
    rows = torch.arange(height, device=images.device).expand(batch, height)
    columns = torch.arange(width, device=images.device).expand(batch, width)
    if mirrored is not None:
        columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    if offsets is None:
        offsets = torch.full((batch, 2), padding, device=images.device)
    rows, columns = rows + offsets[:, :1], columns + offsets[:, 1:]
    # One lookup into flattened pixels: a single index serves all channels of an image.
    places = rows[:, :, None] * (width + 2 * padding) + columns[:, None, :]
    pixels = F.pad(images, (padding,) * 4).flatten(2)
    return pixels.gather(2, places.flatten(1)[:, None].expand(-1, channels, -1)).view(images.shape)


def _draw_offsets(images: Tensor, padding: int, generator: torch.Generator | None) -> Tensor:
    device = images.device if generator is None else generator.device
    draw = torch.randint(2 * padding + 1, (len(images), 2), generator=generator, device=device)
    return draw.to(images.device)


def _draw_mirrored(images: Tensor, generator: torch.Generator | None) -> Tensor:
    device = images.device if generator is None else generator.device
    return (torch.rand(len(images), generator=generator, device=device) < 0.5).to(images.device)


def _check(images: Tensor, padding: int) -> None:
    if images.ndim != 4:
        shape = tuple(images.shape)
        raise ValueError(f"images must have shape (batch, channels, height, width), not {shape}")
    if not isinstance(padding, int) or padding < 0:
        raise ValueError(f"padding must be a whole number of pixels, 0 or more, not {padding!r}")
