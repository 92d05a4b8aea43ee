"""Is `fit` ever slower with the threads it finds than with one? Three ways to train, in turn.

`python -m benchmarks.threads [BUSY]` starts so many busy processes beside it and makes a row a network: the
operations of a batch's forward pass, the median seconds of a short `fit` that finds one thread, and how many
times as long it takes (median, lowest, highest) where it finds two, `found`, and where it shares its work
among the two although it is small, `shared`: what the rule of `hgsr_lite/training/threads.py` prevents. The
rows for this number of busy processes are put into `results/cpu/threads.csv` in place of older ones.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode

import hgsr_lite as hg
from hgsr_lite.training import threads

ROUNDS, SECONDS, BATCH = 5, 0.5, 64
WAYS = {"one": (1, threads.WORTH_SHARING), "found": (2, threads.WORTH_SHARING), "shared": (2, 0.0)}
"""How many threads `fit` finds, and from how many operations on it leaves them as they are."""
TABLE = Path(__file__).parent / "results" / "cpu" / "threads.csv"
Network = tuple[str, int, int, int]
NETWORKS: list[Network] = [
    ("digits_cnn", 1, 8, 1),
    ("digits_cnn", 1, 28, 1),
    ("alexnet", 3, 32, 1),
    ("resnet18", 3, 32, 1),
    ("vgg11", 3, 32, 1),
    ("vgg11", 3, 32, 4),
    ("vgg11", 3, 32, 10),  # work enough for `fit` to leave the threads as they are
]
"""Name, channels, pixels, width."""


def _spin() -> None:
    while True:
        pass


def _noise(channels: int, pixels: int, batches: int) -> hg.Data:
    """Images of noise: so many batches to train on, a few images to measure on."""
    generator = torch.Generator().manual_seed(0)
    train, validation, test = (
        hg.Split(torch.randn(count, channels, pixels, pixels, generator=generator), torch.arange(count) % 10)
        for count in (batches * BATCH, 8, 8)
    )
    mean, std = torch.zeros(channels), torch.ones(channels)
    return hg.Data("noise", tuple("0123456789"), train, validation, test, mean, std, tuple(range(channels)))


def _seconds(network: Network, data: hg.Data, way: str) -> float:
    """How long `fit` takes for one pass over the images."""
    name, channels, _, width = network
    model = hg.build_model(name, in_channels=channels, num_classes=10, width=width, seed=0)
    regularizer = hg.Regularizer(model, "hsq_gl12", strength=1e-5)
    found, limit = WAYS[way]
    torch.set_num_threads(found)
    with patch.object(threads, "WORTH_SHARING", limit):
        started = time.perf_counter()
        hg.fit(model, data, regularizer, epochs=1, lr=1e-3, batch_size=BATCH, progress=False)
        return time.perf_counter() - started


def _gflop(network: Network, data: hg.Data) -> float:
    """Thousand millions of operations in the forward pass of a batch."""
    name, channels, _, width = network
    model = hg.build_model(name, in_channels=channels, num_classes=10, width=width).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(data.train.images[:BATCH])
    return counter.get_total_flops() / 1e9


def _row(network: Network) -> dict[str, object]:
    """The ways for one network, in turn, after a round of one batch that warms up."""
    name, channels, pixels, width = network
    few = _noise(channels, pixels, batches=1)
    gflop = _gflop(network, few)
    ways = list(WAYS) if 1e9 * gflop < threads.WORTH_SHARING else ["one", "found"]
    step = [_seconds(network, few, way) for way in reversed(ways)][-1]
    data = _noise(channels, pixels, batches=max(1, round(SECONDS / step)))
    rounds = [{way: _seconds(network, data, way) for way in ways} for _ in range(ROUNDS)]
    row: dict[str, object] = {
        "network": f"{name} x{width}",
        "pixels": pixels,
        "gflop": round(gflop, 2),
        "seconds_on_one": round(statistics.median(seconds["one"] for seconds in rounds), 3),
    }
    for way in ways[1:]:
        ratios = sorted(seconds[way] / seconds["one"] for seconds in rounds)
        numbers = {"": statistics.median(ratios), " lowest": ratios[0], " highest": ratios[-1]}
        row |= {f"{way}{which}": round(number, 2) for which, number in numbers.items()}
    return row


def _rows(beside: dict[str, object]) -> Iterator[dict[str, object]]:
    for network in NETWORKS:
        row = beside | _row(network)
        print(*row.values(), sep="  ", flush=True)
        yield row


def threads_table(table: pd.DataFrame) -> str:
    """The README's table: a line a network, both ways alone and beside four busy processes."""
    lines = [
        "| network | GFLOP | as found, alone | beside four | shared, alone | beside four |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for (network, pixels), pair in table.groupby(["network", "pixels"], sort=False):
        rows = [pair[pair["busy"] == busy].iloc[0] for busy in (0, 4)]
        ratios = [_ratio(row, way) for way in ("found", "shared") for row in rows]
        lines.append(f"| {network}, {pixels} pixels | {rows[0]['gflop']:g} | {' | '.join(ratios)} |")
    return "\n".join(lines)


def _ratio(row: pd.Series, way: str) -> str:
    if pd.isna(row[way]):
        return "-"
    return f"{row[way]:.2f} ({row[f'{way} lowest']:.2f} to {row[f'{way} highest']:.2f})"


def main(busy: int) -> None:
    """Measure while so many processes keep the machine busy; print and keep the rows."""
    beside = {"busy": busy, "cores": os.cpu_count()}
    for _ in range(busy):
        multiprocessing.Process(target=_spin, daemon=True).start()
    found = pd.DataFrame(_rows(beside))
    if TABLE.exists():
        older = pd.read_csv(TABLE)
        found = pd.concat([older[older["busy"] != busy], found]).sort_values("busy", kind="stable")
    found.to_csv(TABLE, index=False)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
