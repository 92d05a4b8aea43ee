"""Random crops and flips of a whole batch or a whole epoch at once, on whatever device the images lie.

No Python loop runs over images. On the CPU a compiled loop copies the windows. Elsewhere a crop and a flip
together are one lookup: pixel `(y, x)` of the n-th result is pixel `(y + row_n, x' + column_n)` of the n-th
zero-padded image, where `x'` is `x`, or `width - 1 - x` where the image is mirrored.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from hgsr_lite.data.parts import Split


class BatchSpec(NamedTuple):
    """A batch before it is made: the numbers of its images, how each is shifted, and whether it is mirrored.

    `chosen`: integers (batch,). `offsets` and `mirrored` as in `window_at`; None: shown as they are.
    """

    chosen: Tensor
    offsets: Tensor | None = None
    mirrored: Tensor | None = None

    def at(self, split: Split, padding: int) -> tuple[Tensor, Tensor]:
        """The images and labels of the batch."""
        if self.offsets is None:
            return split.images[self.chosen], split.labels[self.chosen]
        images = window_at(split.images, self.chosen, self.offsets, self.mirrored, padding)
        return images, split.labels[self.chosen]


def one_batch(specs: Iterable[BatchSpec]) -> BatchSpec:
    """Several batches as one, one behind the other.

    >>> one_batch([BatchSpec(torch.tensor([0, 1])), BatchSpec(torch.tensor([5]))]).chosen
    tensor([0, 1, 5])
    """
    return BatchSpec(*(None if parts[0] is None else torch.cat(parts) for parts in zip(*specs, strict=True)))


def augmented_specs(
    split: Split, batch_size: int, generator: torch.Generator | None = None, padding: int = 4
) -> Iterator[BatchSpec]:
    """All that is random about an epoch, drawn at once: first offsets, then who is mirrored, then the order.

    Every image is moved by up to `padding` pixels both ways, all `(2 padding + 1)^2` places being equally
    likely, and mirrored with probability 1/2. With a generator on the CPU the draw is the same on every
    device. Raises `ValueError` for images without a batch dimension and for an impossible padding.
    """
    _check(split.images, padding)
    offsets = _draw_offsets(split.images, padding, generator)
    mirrored = _draw_mirrored(split.images, generator)
    order = split.order(batch_size, generator)
    every = torch.cat(order)
    sizes = [len(chosen) for chosen in order]
    yield from map(BatchSpec, order, offsets[every].split(sizes), mirrored[every].split(sizes))


def augmented_batches(
    split: Split, batch_size: int, generator: torch.Generator | None = None, padding: int = 4
) -> Iterator[tuple[Tensor, Tensor]]:
    """`split.batches`, each image cropped and flipped at random as `augmented_specs` draws it: one epoch.

    >>> split = Split(torch.ones(5, 3, 8, 8), torch.arange(5))
    >>> [tuple(images.shape) for images, _ in augmented_batches(split, 3)]
    [(3, 3, 8, 8), (2, 3, 8, 8)]
    """
    for spec in augmented_specs(split, batch_size, generator, padding):
        yield spec.at(split, padding)


def window_at(images: Tensor, chosen: Tensor, offsets: Tensor, mirrored: Tensor, padding: int) -> Tensor:
    """Cut windows of the images' own size out of zero-padded images, and mirror some of them.

    The n-th result shows `images[chosen[n]]`, padded by `padding` zeros on every side (zero is the mean
    colour of normalised images), from the place `offsets[n]` on, mirrored where `mirrored[n]` is true.
    `chosen`: integers (batch,). `offsets`: integers (batch, 2), row and column, each from 0 to `2 padding`;
    `padding` is the middle, where nothing moves. `mirrored`: booleans (batch,). Any dtype and device.

    >>> image, first = torch.arange(4).reshape(1, 1, 2, 2), torch.tensor([0])
    >>> window_at(image, first, torch.tensor([[1, 2]]), torch.tensor([False]), padding=1)
    tensor([[[[1, 0],
              [3, 0]]]])
    """
    for name, given in (("offsets", offsets), ("mirrored", mirrored)):
        if len(given) != len(chosen):
            raise ValueError(
                f"{name} has {len(given)} rows for {len(chosen)} images: give one row for each image"
            )
    windows = _compiled_windows if images.device.type == "cpu" else _looked_up_windows
    return windows(images, chosen, offsets, mirrored, padding)


def _looked_up_windows(
    images: Tensor, chosen: Tensor, offsets: Tensor, mirrored: Tensor, padding: int
) -> Tensor:
    height, width = images.shape[2:]
    rows = torch.arange(height, device=images.device) + offsets[:, :1]
    columns = torch.arange(width, device=images.device).expand(len(chosen), width)
    columns = torch.where(mirrored[:, None], columns.flip(1), columns) + offsets[:, 1:]
    # One lookup into flattened pixels: a single index serves all channels of an image.
    places = rows[:, :, None] * (width + 2 * padding) + columns[:, None, :]
    padded = F.pad(images[chosen], (padding,) * 4)
    pixels = padded.flatten(2).gather(2, places.flatten(1)[:, None].expand(-1, padded.shape[1], -1))
    return pixels.view(len(chosen), *images.shape[1:])


def _compiled_windows(
    images: Tensor, chosen: Tensor, offsets: Tensor, mirrored: Tensor, padding: int
) -> Tensor:
    try:
        from hgsr_lite.fast.cpu.augment import fused_windows, takes
    except ImportError:
        return _looked_up_windows(images, chosen, offsets, mirrored, padding)
    if not takes(images):
        return _looked_up_windows(images, chosen, offsets, mirrored, padding)
    if len(chosen) and not (int(chosen.min()) >= 0 and int(chosen.max()) < len(images)):
        raise ValueError(
            f"chosen must number images from 0 to {len(images) - 1}: the loop reads them unchecked"
        )
    result = torch.empty(len(chosen), *images.shape[1:], dtype=images.dtype)
    arrays = (part.numpy() for part in (images.detach(), chosen, offsets, mirrored))
    fused_windows(*arrays, padding, result.numpy())
    return result


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
