"""Any folder of images as a source: which files there are, each counted once, and under which label."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torchvision.datasets.folder import IMG_EXTENSIONS

from hgsr_lite.data.copies import copies_among, told
from hgsr_lite.data.pixels import decode_all
from hgsr_lite.data.sources import Source


class _Part(NamedTuple):
    """The images of one part: class names, and for each image its path and the number of its class."""

    classes: list[str]
    paths: list[str]
    labels: list[int]


def folder_source(folder: Path) -> Source:
    """Images in `folder/<class>/`, or in `folder/train/<class>/` and `folder/test/<class>/`.

    Links are followed. A file that can be reached on two ways counts once; under two labels, or in train and
    test, it is refused. A copy of a file, byte for byte, counts once in its class too, with a warning; copies
    under two labels, or in train and test, are told with their number. Hidden files and folders are passed
    over.
    """
    if (folder / "train").is_dir() and (folder / "test").is_dir():
        parts = [_read_part(folder / "train"), _read_part(folder / "test")]
        if parts[0].classes != parts[1].classes:
            odd = sorted(set(parts[0].classes) ^ set(parts[1].classes))
            raise ValueError(f"train and test in {folder} differ in their classes: {', '.join(odd)}")
    else:
        parts = [_read_part(folder)]
    classes = tuple(parts[0].classes)
    if len(classes) < 2:
        raise ValueError(
            f"{folder} has only one class, {classes[0]!r}: a classifier needs two, as folder/<class>/ "
            "or as folder/train/<class>/ and folder/test/<class>/"
        )
    _refuse_shared(parts)
    parts = _without_copies(folder, parts)
    paths = [path for part in parts for path in part.paths]
    labels = torch.tensor([label for part in parts for label in part.labels])
    is_test = torch.arange(len(labels)) >= len(parts[0].paths) if len(parts) == 2 else None
    return Source(classes, labels, is_test, partial(decode_all, paths))


def _read_part(folder: Path) -> _Part:
    # Notebook servers leave hidden folders beside the classes.
    classes = sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")
    if not classes:
        raise ValueError(f"no images in {folder}: it holds no class folder; put them in {folder}/<class>/")
    part, passed_over, empty = _Part(classes, [], []), Counter(), []
    for label, name in enumerate(classes):
        found = _images(_files(folder / name), passed_over)
        empty += [name] * (not found)
        part.paths.extend(found)
        part.labels.extend([label] * len(found))
    if passed_over or empty:
        others = ", ".join(f"{count} {suffix}" for suffix, count in passed_over.most_common())
        told = f"; {others} passed over, read are {' '.join(IMG_EXTENSIONS)}" if passed_over else ""
        if empty:
            raise ValueError(
                f"no images in {folder} for the classes {', '.join(empty)}{told}; "
                f"put them in {folder}/<class>/"
            )
        warnings.warn(f"{folder}{told.replace(';', ':', 1)}", RuntimeWarning, stacklevel=5)
    return part


def _images(files: Iterator[str], passed_over: Counter[str]) -> list[str]:
    """The images among the files, each once; the endings of all others are counted."""
    found = {}
    for path in files:
        suffix = Path(path).suffix.lower()
        if suffix in IMG_EXTENSIONS:
            found.setdefault(_identity(path), path)
        else:
            passed_over[suffix or "without an ending"] += 1
    return list(found.values())


def _files(folder: Path) -> Iterator[str]:
    """Every file below a folder in order, links followed, no folder entered twice."""
    entered = set()
    for here, folders, files in os.walk(folder, followlinks=True):
        if (identity := _identity(here)) in entered:
            folders.clear()
            continue
        entered.add(identity)
        folders[:] = sorted(name for name in folders if name[0] != ".")
        yield from (os.path.join(here, name) for name in sorted(files) if name[0] != ".")


def _identity(path: str) -> tuple[int, int]:
    """What two ways to the same file share."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise ValueError(f"{path} cannot be opened ({error.strerror}): mend or delete it") from error
    return status.st_dev, status.st_ino


def _refuse_shared(parts: Sequence[_Part]) -> None:
    """One file under two labels, or in train and test, would make every figure a lie."""
    first: dict[tuple[int, int], tuple[str, object]] = {}
    for number, part in enumerate(parts):
        for path, label in zip(part.paths, part.labels, strict=True):
            place = (number, label)
            other, its_place = first.setdefault(_identity(path), (path, place))
            if its_place != place:
                what = "under two labels" if its_place[1] != label else "in train and test"
                raise ValueError(f"{path} and {other} are one and the same file {what}: remove one of them")


def _without_copies(folder: Path, parts: Sequence[_Part]) -> list[_Part]:
    """The parts with each picture once a class; warn of copies, and of those that no rule can mend.

    Left in, copies of a training picture would be drawn into the validation or test part.
    """
    places = [(number, label) for number, part in enumerate(parts) for label in part.labels]
    paths = [path for part in parts for path in part.paths]
    gone: list[tuple[str, str]] = []
    labelled_twice: list[tuple[str, str]] = []
    in_both: list[tuple[str, str]] = []
    for copies in copies_among(paths):
        once = {}
        for at in copies:
            first = once.setdefault(places[at], at)
            if first != at:
                gone.append((paths[at], paths[first]))
        kept = list(once.values())
        labelled_twice += [(paths[at], paths[kept[0]]) for at in kept if places[at][1] != places[kept[0]][1]]
        if places[kept[0]][0] == 0:
            in_both += [(paths[at], paths[kept[0]]) for at in kept if places[at][0] == 1]
    left = [_without(part, {path for path, _ in gone}) for part in parts]
    for pairs, what in (
        (gone, "{count} files are copies of others in their class and were left out"),
        (labelled_twice, "{count} pictures stand under two labels, and no network can be right for both"),
        (
            in_both,
            f"{{count}} of {len(left[-1].paths)} test pictures are in train too, which flatters the test",
        ),
    ):
        if pairs:
            said = f"{what.format(count=len(pairs))}: {told(pairs, str(folder))}; remove one of each pair"
            warnings.warn(f"{folder}: {said}", RuntimeWarning, stacklevel=5)
    return left


def _without(part: _Part, gone: set[str]) -> _Part:
    kept = [(path, label) for path, label in zip(part.paths, part.labels, strict=True) if path not in gone]
    return _Part(part.classes, *map(list, zip(*kept, strict=True)))
