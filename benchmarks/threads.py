"""Is `fit` ever slower with the threads it finds than with one? A step on one and on two threads, in turn.

`python -m benchmarks.threads [BUSY]` starts so many busy processes beside it and prints a line a network: the
operations of a batch's forward pass, the median seconds of a training step on one thread, and the ratios of
two threads to one (median, lowest, highest).
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

import hgsr_lite as hg

PAIRS, SECONDS = 5, 0.3
NETWORKS = [
    ("digits_cnn", 1, 8, 1),
    ("digits_cnn", 1, 28, 1),
    ("alexnet", 3, 32, 1),
    ("resnet18", 3, 32, 1),
    ("vgg11", 3, 32, 1),
    ("vgg11", 3, 32, 4),
    ("vgg11", 3, 64, 8),
]


def _spin() -> None:
    while True:
        pass


def _steps(model: nn.Module, images: Tensor, threads: int, count: int) -> float:
    """Seconds a training step takes."""
    torch.set_num_threads(threads)
    labels = torch.arange(len(images)) % 10
    optimizer = torch.optim.SGD(model.parameters(), 1e-3, momentum=0.9)
    started = 0.0
    for number in range(count + 1):
        if number == 1:  # the first warms up
            started = time.perf_counter()
        optimizer.zero_grad()
        cross_entropy(model(images), labels).backward()
        optimizer.step()
    return (time.perf_counter() - started) / count


def _lines() -> Iterator[str]:
    for name, channels, size, width in NETWORKS:
        model = hg.build_model(name, in_channels=channels, num_classes=10, width=width, seed=0)
        images = torch.randn(64, channels, size, size, generator=torch.Generator().manual_seed(0))
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model.eval()(images)
        count = max(1, round(SECONDS / _steps(model.train(), images, 1, 1)))
        pairs = [[_steps(model, images, threads, count) for threads in (1, 2)] for _ in range(PAIRS)]
        one = statistics.median(one for one, _ in pairs)
        ratios = sorted(two / one for one, two in pairs)
        yield (
            f"{name} x{width}, {size} px".ljust(24)
            + f"{counter.get_total_flops() / 1e9:8.2f} Gflop {one:8.4f} s "
            + f"two / one: {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        )


def main(busy: int) -> None:
    """Print the table while so many processes keep the machine busy."""
    for _ in range(busy):
        multiprocessing.Process(target=_spin, daemon=True).start()
    print(f"{os.cpu_count()} cores, {busy} busy processes, load before {os.getloadavg()[0]:.1f}")
    for line in _lines():
        print(line, flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
