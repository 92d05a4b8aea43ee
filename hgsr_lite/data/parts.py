"""An image set as tensors on the device, in three parts: train, validation and test.

Train on `train`, choose with `validation`, and read `test` once, at the end: a test part that has helped to
choose anything no longer says how well the network does on images it has never met.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from html import escape

import torch
from torch import Tensor

from hgsr_lite.arguments import check_count, check_seed, choose, shown

DISTRACTORS = ("noise", "shuffled")


@dataclass(frozen=True, eq=False)
class Split:
    """One part of an image set: float32 images (n, channels, height, width) and int64 labels (n,).

    >>> split = Split(torch.zeros(10, 1, 8, 8), torch.arange(10))
    >>> [len(labels) for images, labels in split.batches(4)]
    [4, 4, 2]
    """

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def batches(
        self, batch_size: int, generator: torch.Generator | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield every image once, in an order drawn anew, in batches; the last one may be smaller.

        A last batch of one image gets a second, the first of this order: batch norm cannot train on one.
        With a generator on the CPU the order is the same on every device.
        """
        for chosen in self.order(batch_size, generator):
            yield self.images[chosen], self.labels[chosen]

    def order(self, batch_size: int, generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
        """The numbers of the images in each batch of `batches`, on the images' device."""
        batch_size = check_count("batch_size", batch_size)
        if not isinstance(generator, torch.Generator | None):
            raise TypeError(f"generator must be a torch.Generator or None, not {shown(generator)}")
        device = self.labels.device if generator is None else generator.device
        order = torch.randperm(len(self), generator=generator, device=device).to(self.labels.device)
        if len(order) % batch_size == 1:
            order = torch.cat([order, order[:1]])
        return order.split(batch_size)

    def to(self, device: str | torch.device) -> Split:
        """The same part on another device."""
        return Split(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True, eq=False)
class Data:
    """An image set on one device, normalised: train, validation and test.

    Each channel has mean 0 and standard deviation 1 over the training part; `mean` and `std`, tensors
    (channels,), are what was taken off and divided by, in units of full brightness. `relevant_channels` are
    the input channels that show the labelled image: all of them, unless distractors were added.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    mean: Tensor
    std: Tensor
    relevant_channels: tuple[int, ...]

    @property
    def device(self) -> torch.device:
        """Where the tensors lie."""
        return self.train.images.device

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.classes)

    @property
    def in_channels(self) -> int:
        """How many channels an image has: 1 for grey, 3 for colour, more with distractors."""
        return self.train.images.shape[1]

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return tuple(self.train.images.shape[2:])

    @property
    def parts(self) -> dict[str, Split]:
        """The three parts by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    def to(self, device: str | torch.device | None) -> Data:
        """The same set on another device; None means a GPU if there is one."""
        device = find_device(device)
        parts = {name: part.to(device) for name, part in self.parts.items()}
        return replace(self, **parts, mean=self.mean.to(device), std=self.std.to(device))

    def brightness(self, images: Tensor) -> Tensor:
        """Undo the normalisation: images as they were, from 0 (black) to 1, ready to be shown."""
        return (images * self.std[:, None, None] + self.mean[:, None, None]).clamp(0, 1)

    def with_distractors(self, channels: int, kind: str = "noise", seed: int = 0) -> Data:
        """Append input channels that say nothing about the label; `relevant_channels` keeps the truth.

        `"noise"` draws standard normal pixels. `"shuffled"` shows other images of the same part, drawn anew
        for each image and channel: each looks just like a real channel, but belongs to another image.

        >>> from hgsr_lite.data import load_data
        >>> data = load_data("digits", device="cpu").with_distractors(3, "shuffled")
        >>> data.in_channels, data.relevant_channels
        (4, (0,))
        """
        choose("kind of distractor", kind, DISTRACTORS)
        channels, seed = check_count("channels", channels), check_seed(seed)
        shown = [self.relevant_channels[number % len(self.relevant_channels)] for number in range(channels)]
        generator = torch.Generator().manual_seed(seed)
        parts = {name: _distract(part, kind, shown, generator) for name, part in self.parts.items()}
        mean, std = self.mean[shown], self.std[shown]
        if kind == "noise":
            mean, std = torch.zeros_like(mean), torch.ones_like(std)
        return replace(self, **parts, mean=torch.cat([self.mean, mean]), std=torch.cat([self.std, std]))

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name} {len(part)}" for name, part in self.parts.items())
        return f"Data({self._summary()}: {sizes})"

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr><td>{name}</td><td>{len(part):,}</td></tr>" for name, part in self.parts.items())
        return (
            f"<p>{escape(self._summary())}</p>"
            f"<table><thead><tr><th>part</th><th>images</th></tr></thead><tbody>{rows}</tbody></table>"
        )

    def _summary(self) -> str:
        height, width = self.image_size
        return (
            f"{self.name}, {self.num_classes} classes, {height}x{width} pixels, "
            f"{self.in_channels} channel{'s' * (self.in_channels > 1)}, on {self.device}"
        )


def _distract(part: Split, kind: str, shown: list[int], generator: torch.Generator) -> Split:
    images, (count, _, height, width) = part.images, part.images.shape
    if kind == "noise":
        extra = torch.randn(count, len(shown), height, width, generator=generator).to(images.device)
    else:
        # A step of at least 1 and less than `count` never leads back to the image itself.
        step = torch.randint(1, max(count, 2), (count, len(shown)), generator=generator)
        other = (torch.arange(count)[:, None] + step) % count
        extra = images[other.to(images.device), torch.tensor(shown, device=images.device)]
    return Split(torch.cat([images, extra], dim=1), part.labels)


def find_device(device: str | torch.device | None) -> torch.device:
    """The device asked for, once it has been seen to work; None takes a CUDA GPU if there is one.

    >>> find_device("cpu")
    device(type='cpu')
    """
    has_gpu = torch.cuda.is_available()
    if device is None:
        return torch.device("cuda" if has_gpu else "cpu")
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, TypeError) as error:
        usable = "'cpu' or 'cuda'" if has_gpu else "'cpu' (no CUDA GPU was found)"
        raise ValueError(f"device {device!r} cannot be used here: take {usable}, or None") from error


def check_data(data: object) -> None:
    """Refuse what `load_data` did not return.

    >>> check_data("digits")
    Traceback (most recent call last):
    ...
    TypeError: data must be what load_data returns, not str: it takes a name or a folder
    """
    if not isinstance(data, Data):
        raise TypeError(
            f"data must be what load_data returns, not {type(data).__name__}: it takes a name or a folder"
        )
