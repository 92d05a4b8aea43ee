"""The table behind "a truth to find" in notebook 05: which input channels each penalty keeps.

    python studies/run_distractors.py

writes studies/distractors_digits_noise.csv and studies/distractors_digits_shuffled.csv, a row as soon as
it is known; started again, it goes on where it stopped. On the columns see `hgsr_lite.study.distractors`.
"""

from __future__ import annotations

from pathlib import Path

from hgsr_lite.data import load_data
from hgsr_lite.study import Configuration, find_channels, penalty_grid
from hgsr_lite.table import PENALTIES

SEEDS = (0, 1, 2)
AMOUNTS = (3, 10, 30, 100, 300)
BUDGET = {
    "model": "digits_cnn",
    "width": 0.25,
    "epochs": 10,
    "lr": 0.02,
    "batch_size": 64,
    "warmup": 0.3,
    "proximal": True,
}


if __name__ == "__main__":
    digits = load_data("digits", device="cpu", validation=0.25)
    # Seed by seed, so that a table cut short still holds every penalty.
    for seed in SEEDS:
        runs = [Configuration("dense", seed=seed), *penalty_grid(PENALTIES, ["feature"], AMOUNTS, [seed])]
        for kind in ("noise", "shuffled"):
            out = Path(__file__).with_name(f"distractors_digits_{kind}.csv")
            find_channels(runs, digits, distractors=7, kind=kind, out=out, processes=None, **BUDGET)
