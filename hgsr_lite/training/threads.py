"""How many threads a training takes on the CPU: one, unless a batch is work enough to share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from hgsr_lite.data import Data
from hgsr_lite.training.measurement import eval_mode

WORTH_SHARING = 100e9
"""Floating-point operations in one forward pass of a batch from which on threads are left as they are."""


@contextmanager
def one_thread() -> Iterator[None]:
    """Let PyTorch compute on one thread of the CPU as long as the context lasts.

    Then a sum has the same bits beside other work and alone.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def threads_for(model: nn.Module, data: Data, batch_size: int) -> Iterator[None]:
    """Train on one thread where the network is small; leave larger ones, and a GPU, as they are.

    Threads meet after every operator. In a small network each operator takes less than a thread may have to
    wait for its turn on a busy machine: there, `fit` took 1.9 to 5.8 times as long on two threads as on one,
    while a network beyond the limit still gained by the second (`benchmarks/threads.py`). The rule goes by
    the size of the work, never by a clock: the number of threads moves the last digits of a sum, and with a
    clock two equal runs would end differently.
    """
    if data.device.type != "cpu" or _operations(model, data, batch_size) >= WORTH_SHARING:
        yield
        return
    with one_thread():
        yield


def _operations(model: nn.Module, data: Data, batch_size: int) -> float:
    """Floating-point operations of a batch's forward pass, counted on two images; nothing changes."""
    images = data.train.images[:2]
    with one_thread(), torch.no_grad(), eval_mode(model), FlopCounterMode(display=False) as counter:
        model(images)
    return counter.get_total_flops() * batch_size / len(images)
