"""Compiling a loop: kept on disk by a name that its sources are part of, explained if it takes long."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from numba import get_num_threads, njit

from hgsr_lite.fast.first_use import explained


def compiled(loop: Callable, *, parallel: bool = False, **options: Any) -> Callable:
    """A loop compiled by numba at its first call, from numba's cache where it lies there; `options` of njit.

    What the loop closes over is part of the name in the cache.
    """
    if parallel:
        start_threads()
    return explained(njit(cache=True, parallel=parallel, **options)(loop))


@cache
def start_threads() -> None:
    """Start numba's threads. Left to itself, that would give PyTorch as many, whatever it was told."""
    threads = torch.get_num_threads()
    get_num_threads()
    torch.set_num_threads(threads)


def mark_of(*sources: ModuleType) -> int:
    """A number that changes with these modules: numba's cache looks at the loop's own file only."""
    return zlib.crc32(b"".join(Path(source.__file__).read_bytes() for source in sources))
