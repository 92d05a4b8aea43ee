"""Threads for compiled loops that run without Python's lock.

Not numba's own: those may not be started twice at once, nor survive a fork.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise


@cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Threads of this process: a forked one has lost those of the process it came from."""
    return ThreadPoolExecutor(threads, thread_name_prefix="hgsr_lite")


def run_shares(loop: Callable, bounds: Iterable[int], arguments: tuple) -> None:
    """Call `loop(first, end, *arguments)` for each two neighbours in `bounds`, all at once.

    >>> found = []
    >>> run_shares(lambda first, end, by: found.extend(by * n for n in range(first, end)), [0, 2, 4], (10,))
    >>> sorted(found)
    [0, 10, 20, 30]
    """
    shares = [(int(a), int(b)) for a, b in pairwise(bounds) if a < b]
    pool = _pool(len(shares) - 1, os.getpid()) if len(shares) > 1 else None
    others = [pool.submit(loop, *share, *arguments) for share in shares[1:]]
    if shares:
        loop(*shares[0], *arguments)
    for other in others:
        other.result()
