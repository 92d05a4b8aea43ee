"""Many small trainings over all cores: one process a core, one thread each, the images shared.

Many operators of a small network cannot keep two threads busy; two processes with a thread each then do up
to twice the work (how much, depends on the network: see the benchmark). joblib starts them, keeps them for
the next call, and lays the images where all can read them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any, TypeVar

import joblib
import numpy as np
import torch

from hgsr_lite.data import Data, Split

Item = TypeVar("Item")
Result = TypeVar("Result")
Arrays = dict[str, tuple[np.ndarray, np.ndarray]]


def in_processes(
    function: Callable[[Item, Data], Result], items: Iterable[Item], data: Data, processes: int | None = None
) -> Iterator[tuple[Item, Result]]:
    """Yield `(item, function(item, data))` for every item, in the order in which they are finished.

    `processes`: how many work at a time; None takes one a core. `function` and what it returns must be
    picklable, `data` must lie on the CPU. With one process nothing is started: the work is done here.

    >>> from hgsr_lite.data import load_data
    >>> digits = load_data("digits", device="cpu", limit=50)
    >>> list(in_processes(lambda power, data: data.num_classes**power, [1, 2], digits, processes=1))
    [(1, 10), (2, 100)]
    """
    if processes == 1:
        yield from ((item, function(item, data)) for item in items)
        return
    # joblib shares numpy arrays among processes without copying them, but not torch's tensors.
    plain = replace(data, **{part: Split(*_EMPTY) for part in data.parts})
    arrays = {part: (split.images.numpy(), split.labels.numpy()) for part, split in data.parts.items()}
    job = joblib.delayed(_call)
    with joblib.parallel_config("loky", inner_max_num_threads=1):
        # "c": a process that writes to the shared images changes its own copy only.
        workers = joblib.Parallel(processes or -1, return_as="generator_unordered", mmap_mode="c")
        yield from workers(job(function, item, plain, arrays) for item in items)


_EMPTY = torch.empty(0), torch.empty(0, dtype=torch.int64)


def _call(function: Callable[[Any, Data], Any], item: Any, plain: Data, arrays: Arrays) -> tuple[Any, Any]:
    torch.set_num_threads(1)
    parts = {part: Split(*map(torch.from_numpy, pair)) for part, pair in arrays.items()}
    return item, function(item, replace(plain, **parts))
