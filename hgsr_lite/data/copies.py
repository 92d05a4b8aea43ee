"""Pictures that a folder holds more than once, byte for byte, as separate files."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence

_SHOWN = 3
"""So many pairs a message names; of more it tells the number."""


def copies_among(paths: Sequence[str]) -> list[list[int]]:
    """The numbers of the files that hold the same bytes, in order; files without a copy are left out.

    Only files of the same length are read.

    >>> import tempfile, pathlib
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> paths = [folder / name for name in "abcd"]
    >>> for path, text in zip(paths, ("one", "two", "one", "three")):
    ...     _ = path.write_text(text)
    >>> copies_among(list(map(str, paths)))
    [[0, 2]]
    """
    alike = _alike(range(len(paths)), lambda number: os.path.getsize(paths[number]))
    return [copies for some in alike for copies in _alike(some, lambda number: _digest(paths[number]))]


def _alike(numbers: Iterable[int], key: Callable[[int], Hashable]) -> list[list[int]]:
    found = defaultdict(list)
    for number in numbers:
        found[key(number)].append(number)
    return [some for some in found.values() if len(some) > 1]


def _digest(path: str) -> bytes:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "blake2b").digest()


def told(pairs: Sequence[tuple[str, str]], folder: str) -> str:
    """The first of some pairs of files, by their names in the folder.

    >>> told([("/a/x/1.png", "/a/y/2.png")] * 5, "/a")
    'x/1.png = y/2.png, x/1.png = y/2.png, x/1.png = y/2.png, ...'
    """
    names = [" = ".join(os.path.relpath(path, folder) for path in pair) for pair in pairs[:_SHOWN]]
    return ", ".join(names + ["..."] * (len(pairs) > _SHOWN))
