"""Where images come from: what a source is, and one table of named sets. `folder` makes one of any folder.

Every source is a single pool of images with a label each; where the set has a test part of its own, that is
marked. Pixels stay unread, if possible, until `data` says which images it wants.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.datasets import CIFAR10, CIFAR100, MNIST, STL10
from torchvision.datasets.utils import check_integrity

from hgsr_lite.arguments import as_path

_TIME_OUT = 10.0  # seconds without an answer, after which a download is given up


@dataclass(frozen=True)
class Source:
    """A pool of labelled images before it is split.

    `labels`: int64 (images,). `is_test`: booleans (images,), or None where the set has no test part of its
    own. `read(indices, size)` returns uint8 pixels (images, channels, height, width); `size` (height, width)
    is a wish that only a folder grants. `white` is the pixel value of full brightness.
    """

    classes: tuple[str, ...]
    labels: Tensor
    is_test: Tensor | None
    read: Callable[[Tensor, tuple[int, int] | None], Tensor]
    white: float = 255.0


def data_root(root: str | Path | None) -> Path:
    """The folder that holds the image sets: `root`, else `$HGSR_DATA`, else `~/.cache/hgsr_lite`.

    >>> data_root("sets").name
    'sets'
    """
    if root is None or root == "":
        root = os.environ.get("HGSR_DATA") or "~/.cache/hgsr_lite"
    return as_path("root", root).expanduser()


def digits_source(root: Path, download: bool) -> Source:
    """1,797 handwritten digits, 8x8 grey pixels from 0 to 16, that come with scikit-learn."""
    # Its file is read without it: the import takes two seconds and 50 MB in every notebook.
    home = Path(find_spec("sklearn").origin).parent
    rows = torch.from_numpy(np.loadtxt(home / "datasets" / "data" / "digits.csv.gz", np.uint8, delimiter=","))
    pixels, labels = rows[:, :-1].reshape(-1, 1, 8, 8), rows[:, -1].long()
    return Source(tuple("0123456789"), labels, None, _reader(pixels), white=16.0)


@dataclass(frozen=True)
class _Published:
    """A set that torchvision can fetch: how to open a part of it, and the MD5 sum of each file it reads."""

    open: Callable[..., MNIST | CIFAR10 | STL10]
    folder: str
    files: Sequence[Sequence[str]]

    def faults(self, root: Path) -> list[str]:
        """What is wrong with the files below `root`, a line for each; nothing if the set is whole."""
        found = []
        for name, checksum in self.files:
            path = root / self.folder / name
            if not path.is_file():
                found.append(f"{path} is missing")
            elif not check_integrity(path, checksum):
                found.append(f"{path} is damaged or incomplete: delete it")
        return found


_PUBLISHED = {
    "mnist": _Published(
        lambda root, test, download: MNIST(root, train=not test, download=download),
        "MNIST/raw",
        (
            ("train-images-idx3-ubyte", "6bbc9ace898e44ae57da46a324031adb"),
            ("train-labels-idx1-ubyte", "a25bea736e30d166cdddb491f175f624"),
            ("t10k-images-idx3-ubyte", "2646ac647ad5339dbf082846283269ea"),
            ("t10k-labels-idx1-ubyte", "27ae3e4e09519cfbb04c329615203637"),
        ),
    ),
    "cifar10": _Published(
        lambda root, test, download: CIFAR10(root, train=not test, download=download),
        CIFAR10.base_folder,
        (*CIFAR10.train_list, *CIFAR10.test_list, (CIFAR10.meta["filename"], CIFAR10.meta["md5"])),
    ),
    "cifar100": _Published(
        lambda root, test, download: CIFAR100(root, train=not test, download=download),
        CIFAR100.base_folder,
        (*CIFAR100.train_list, *CIFAR100.test_list, (CIFAR100.meta["filename"], CIFAR100.meta["md5"])),
    ),
    "stl10": _Published(
        lambda root, test, download: STL10(root, split="test" if test else "train", download=download),
        STL10.base_folder,
        (*STL10.train_list, *STL10.test_list),
    ),
}


def _published_source(name: str, root: Path, download: bool) -> Source:
    published = _PUBLISHED[name]
    faults, attempt = published.faults(root), ""
    if faults and download:
        attempt = _download(published, root)
        faults = published.faults(root)
    if faults:
        more = f" ({len(faults)} such files)" if len(faults) > 1 else ""
        raise ValueError(
            f"{name} cannot be read: {faults[0]}{more}.{attempt} Set HGSR_DATA or root= to the folder that "
            f"holds {published.folder}, or call load_data({name!r}, download=True) with a network."
        )
    train, test = (published.open(root, test, False) for test in (False, True))
    pixels = torch.cat([_channels_first(part.data) for part in (train, test)])
    labels = torch.cat([_labels(part) for part in (train, test)])
    classes = tuple(str(label).split(" - ")[0] for label in train.classes)
    return Source(classes, labels, torch.arange(len(labels)) >= len(train), _reader(pixels))


def _labels(part: MNIST | CIFAR10 | STL10) -> Tensor:
    return torch.as_tensor(part.labels if isinstance(part, STL10) else part.targets).long()


def _download(published: _Published, root: Path) -> str:
    """Fetch a set with torchvision, which shows its progress; return what went wrong, as a sentence."""
    try:
        with _socket_time_out(_TIME_OUT):
            published.open(root, False, True)
    except Exception as error:  # whatever went wrong, the reader needs the same advice
        reason = str(error).strip().splitlines() or [type(error).__name__]
        return f" The download failed: {reason[-1]}."
    return ""


@contextmanager
def _socket_time_out(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _channels_first(pixels: Tensor | np.ndarray) -> Tensor:
    pixels = torch.as_tensor(pixels)
    if pixels.ndim == 3:
        return pixels.unsqueeze(1)
    return pixels.permute(0, 3, 1, 2) if pixels.shape[-1] == 3 else pixels


def _reader(pixels: Tensor) -> Callable[[Tensor, tuple[int, int] | None], Tensor]:
    return lambda indices, size: pixels[indices]


SETS: dict[str, Callable[[Path, bool], Source]] = {
    "digits": digits_source,
    **{name: partial(_published_source, name) for name in _PUBLISHED},
}
"""Name of an image set -> what opens it, given the root folder and whether it may be downloaded."""
