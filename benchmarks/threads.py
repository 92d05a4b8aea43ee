"""Is `fit` ever slower with the threads it finds than with one? A step on one and on two threads, in turn.

`python -m benchmarks.threads [BUSY]` starts so many busy processes beside it and makes a row a network: the
operations of a batch's forward pass, the median seconds of a training step on one thread, and the ratios of
two threads to one (median, lowest, highest). The rows for this number of busy processes are put into
`results/cpu/threads.csv` in place of older ones.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

import hgsr_lite as hg

PAIRS, SECONDS = 5, 0.3
TABLE = Path(__file__).parent / "results" / "cpu" / "threads.csv"
NETWORKS = [
    ("digits_cnn", 1, 8, 1),
    ("digits_cnn", 1, 28, 1),
    ("alexnet", 3, 32, 1),
    ("resnet18", 3, 32, 1),
    ("vgg11", 3, 32, 1),
    ("vgg11", 3, 32, 4),
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


def _rows() -> Iterator[dict[str, object]]:
    for name, channels, size, width in NETWORKS:
        model = hg.build_model(name, in_channels=channels, num_classes=10, width=width, seed=0)
        images = torch.randn(64, channels, size, size, generator=torch.Generator().manual_seed(0))
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model.eval()(images)
        count = max(1, round(SECONDS / _steps(model.train(), images, 1, 1)))
        pairs = [[_steps(model, images, threads, count) for threads in (1, 2)] for _ in range(PAIRS)]
        one = statistics.median(one for one, _ in pairs)
        ratios = sorted(two / one for one, two in pairs)
        yield {
            "network": f"{name} x{width}",
            "pixels": size,
            "gflop": round(counter.get_total_flops() / 1e9, 2),
            "seconds_on_one": round(one, 4),
            "two_over_one": round(statistics.median(ratios), 2),
            "lowest": round(ratios[0], 2),
            "highest": round(ratios[-1], 2),
        }


def main(busy: int) -> None:
    """Measure while so many processes keep the machine busy; print and keep the rows."""
    beside = {"busy": busy, "cores": os.cpu_count(), "load_before": round(os.getloadavg()[0], 1)}
    for _ in range(busy):
        multiprocessing.Process(target=_spin, daemon=True).start()
    rows = []
    for row in _rows():
        rows.append(beside | row)
        print(*rows[-1].values(), sep="  ", flush=True)
    found = pd.DataFrame(rows)
    if TABLE.exists():
        older = pd.read_csv(TABLE)
        found = pd.concat([older[older.busy != busy], found]).sort_values("busy", kind="stable")
    found.to_csv(TABLE, index=False)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
