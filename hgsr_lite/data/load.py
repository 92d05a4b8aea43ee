"""From a name or a folder to an image set: read, split, brought to mean 0."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from hgsr_lite.arguments import check_count, check_flag, choose
from hgsr_lite.data.folder import folder_source
from hgsr_lite.data.parts import Data, Split, find_device
from hgsr_lite.data.sources import SETS, Source, data_root
from hgsr_lite.data.splits import split_indices


def load_data(
    name: str | Path,
    root: str | Path | None = None,
    device: str | torch.device | None = None,
    *,
    validation: float = 0.1,
    seed: int = 0,
    image_size: int | tuple[int, int] | None = None,
    limit: int | None = None,
    download: bool = True,
) -> Data:
    """Load an image set by name, or any folder of images, as normalised tensors on the device.

    `name`: `"digits"` (comes with scikit-learn, no network needed), `"mnist"`, `"cifar10"`, `"cifar100"`,
    `"stl10"`, or a folder, itself or below `root`, that holds `<class>/image.png`, or else
    `train/<class>/image.png` and `test/<class>/image.png`. `root` is by default `$HGSR_DATA`, else
    `~/.cache/hgsr_lite`; a set that is missing there is downloaded unless `download=False`. `device=None`
    takes a CUDA GPU if there is one.

    `validation` is the share of the training images held out for choosing, drawn by `seed` with each class in
    proportion. Where a set has no test part, a fixed fifth of it becomes one, whatever the seed, so that no
    run trains on another's test images. `image_size`, in pixels, resizes; by default a folder's images take
    the size of its first. A folder's images are read upright, scaled from 16 bits to 8, and laid on white
    where they are transparent; a file reached by two links counts once, and so does, with a warning, a copy
    of one; a warning tells of copies under two labels or in train and test. `limit` caps the training images
    and cuts the other parts in proportion.

    Raises `ValueError`, in words that say how to mend it, for an unknown name, a set that is missing or
    damaged, a folder without images of two classes, an unreadable image or an impossible option.

    >>> load_data("digits", device="cpu")
    Data(digits, 10 classes, 8x8 pixels, 1 channel, on cpu: train 1294, validation 144, test 359)
    """
    check_flag("download", download)
    device, size = find_device(device), _as_size(image_size)
    source, title = _open(name, data_root(root), download)
    parts = split_indices(source.labels, source.is_test, source.classes, validation, seed, limit)
    _check_parts(parts, source.labels, source.classes)
    if size is not None:
        _check_room(sum(map(len, parts)), size)
    images = source.read(torch.cat(parts), size).to(device).float().div_(source.white)
    if size is not None and images.shape[2:] != size:
        images = F.interpolate(images, size, mode="bilinear", antialias=True)
    std, mean = torch.std_mean(images[: len(parts[0])], dim=(0, 2, 3), correction=0)
    std = torch.where(std > 0, std, 1.0)
    images.sub_(mean[:, None, None]).div_(std[:, None, None])
    splits = [
        Split(part, source.labels[chosen].to(device))
        for part, chosen in zip(images.split([len(part) for part in parts]), parts, strict=True)
    ]
    return Data(title, source.classes, *splits, mean, std, tuple(range(images.shape[1])))


def _open(name: str | Path, root: Path, download: bool) -> tuple[Source, str]:
    if not isinstance(name, str | Path):
        raise TypeError(f"name must be the name of an image set or a folder, not {type(name).__name__}")
    folder = None if name in SETS else _find_folder(name, root)
    if folder is not None:
        return folder_source(folder), folder.resolve().name
    name = choose("image set or folder", name, SETS)
    return SETS[name](root, download), name


def _find_folder(name: str | Path, root: Path) -> Path | None:
    for folder in (Path(name).expanduser(), root / name):
        with suppress(OSError):  # no folder has a name of so many letters
            if folder.is_dir() and str(name):
                return folder
    if isinstance(name, Path) or Path(name).name != name:
        raise ValueError(f"there is no folder {str(name)!r}, nor one of that name in {root}")
    return None


def _check_parts(parts: Sequence[Tensor], labels: Tensor, classes: Sequence[str]) -> None:
    """Refuse a split that leaves a class without an image: mean, spread and shares would not be numbers."""
    for part, chosen in zip(("train", "validation", "test"), parts, strict=True):
        missing = (labels[chosen].bincount(minlength=len(classes)) == 0).nonzero().flatten().tolist()
        if missing:
            more = f" ({len(missing)} such classes)" if len(missing) > 1 else ""
            raise ValueError(
                f"class {classes[missing[0]]!r} has no image left for the {part} part{more}: a class needs "
                "one in each of train, validation and test; with a test folder of its own, two in train"
            )


def _check_room(images: int, size: tuple[int, int]) -> None:
    """Refuse pictures that this machine has no memory for, before any is read."""
    try:
        torch.empty(images, *size)  # nothing is written to it: the system is only asked
    except RuntimeError as error:
        gigabytes = images * size[0] * size[1] * 4 / 1e9
        raise ValueError(
            f"image_size {size}: {images} images take {gigabytes:,.0f} GB a channel, more than is here: "
            "take fewer pixels, or fewer images with limit"
        ) from error


def _as_size(image_size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    if image_size is None:
        return None
    size = tuple(image_size) if isinstance(image_size, Sequence) else (image_size, image_size)
    if len(size) != 2 or isinstance(image_size, str):
        raise ValueError(f"image_size must be a number of pixels or (height, width), not {image_size!r}")
    height, width = (check_count("image_size", pixels) for pixels in size)
    return height, width
