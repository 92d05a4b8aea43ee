"""The table behind notebook 06: every penalty and control on the digits, under one budget.

    python studies/run_comparison.py

writes studies/comparison_digits.csv, a row as soon as it is known; started again, it goes on where it
stopped. On the columns see `hgsr_lite.study.comparison`.
"""

from __future__ import annotations

from pathlib import Path

from hgsr_lite.data import load_data
from hgsr_lite.groups import GROUPINGS
from hgsr_lite.study import compare, control_grid, penalty_grid

SEEDS = (0, 1, 2)
BUDGET = {"model": "digits_cnn", "width": 0.5, "epochs": 14, "lr": 0.02, "batch_size": 64, "warmup": 0.3}
SHARES = (0.5, 0.8, 0.9, 0.95, 0.98)
# From hardly any effect to a damaged network; the ranges differ because the penalties' degrees do.
AMOUNTS = {
    "hsq_gl12": (1, 2, 4, 8, 16),
    "l1": (0.5, 1, 2, 4, 8),
    "gl": (0.2, 0.5, 1, 2, 4),
    "hsqrt_gl": (0.2, 0.5, 1, 2, 4),
    "gl12": (0.2, 0.5, 1, 2, 4),
    "hsqrt_gl12": (0.2, 0.5, 1, 2, 4),
    "hsqrt_es": (0.2, 0.5, 1, 2, 4),
    "es": (2, 5, 10, 30, 100),
    "hsq_gl": (2, 5, 10, 30, 100),
    "hsq_es": (20, 50, 100, 300, 1000),
    "l2": (2, 5, 10, 30, 100),
}


def configurations() -> list:
    """All runs: controls first, then the penalties."""
    runs = control_grid(("weight", "kernel", "feature"), SHARES, SEEDS)
    for key, amounts in AMOUNTS.items():
        runs += penalty_grid([key], GROUPINGS, amounts, SEEDS)
    return runs


if __name__ == "__main__":
    digits = load_data("digits", device="cpu", validation=0.25)
    out = Path(__file__).with_name("comparison_digits.csv")
    compare(configurations(), digits, out=out, processes=None, **BUDGET)
