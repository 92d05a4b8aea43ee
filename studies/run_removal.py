"""Which way of becoming smaller costs least? Every method gets the same network, images and epochs.

Run from the repository's root: `python studies/run_removal.py`. It goes on where it stopped.
"""

from __future__ import annotations

import copy
import itertools
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd
from torch import nn

import hgsr_lite as hg
from hgsr_lite.data import Data
from hgsr_lite.removal import compact
from hgsr_lite.series import example_budget, example_network
from hgsr_lite.study import held_zeros, zero_lowest_

OUT = Path(__file__).parent / "removal_digits.csv"
EPOCHS = 20
MOMENTUM_FACTOR = 10  # what momentum 0.9 does to a gradient, and not to a proximal step
SHARES = (0.4, 0.6, 0.75, 0.85)
FRACTIONS = {
    "gl12": (0.25, 0.5, 1.0),
    "hsqrt_gl": (0.25, 0.5, 1.0),
    "hsq_gl12": (1.0, 4.0, 16.0),
    "l1": (1.0, 4.0, 16.0),
}
FULL_SEEDS, SEEDS = 2, 5


@dataclass(frozen=True)
class Case:
    """One run. `amount`: a share of input channels to cut, or a fraction of the loss's gradient.

    `tuned`: half of the epochs come after the cut, without a penalty and with the zeros held.
    """

    method: str
    step: str
    amount: float
    width: float
    tuned: bool
    seed: int


def cases(seed: int) -> Iterator[Case]:
    """Dense, controls, gl12 with either step at two widths, and four penalties with fine-tuning."""
    for width in (1.0, 0.5):
        yield Case("dense", "none", 0.0, width, False, seed)
        for method, share in itertools.product(
            ("random", "magnitude") if width == 1 else ("random",), SHARES
        ):
            yield Case(method, "cut", share, width, True, seed)
        for step, fraction in itertools.product(("proximal", "gradient"), FRACTIONS["gl12"]):
            yield Case("gl12", step, fraction, width, False, seed)
    for method, fractions in FRACTIONS.items():
        for fraction in fractions:
            yield Case(method, "proximal", fraction, 1.0, True, seed)


def fewer_cases(seed: int) -> Iterator[Case]:
    """What it takes to compare the channel methods at a half and at a quarter of the parameters."""
    yield Case("dense", "none", 0.0, 1.0, False, seed)
    for method, share in itertools.product(("random", "magnitude"), SHARES[:3]):
        yield Case(method, "cut", share, 1.0, True, seed)
    for method, fraction in itertools.product(("gl12", "hsqrt_gl"), FRACTIONS["gl12"][1:]):
        yield Case(method, "proximal", fraction, 1.0, True, seed)


def train(case: Case, data: Data) -> nn.Module:
    """Train one case from its seed."""
    network = example_network(data, case.seed, width=case.width)
    first = EPOCHS // 2 if case.tuned else EPOCHS
    regularizer = None
    if case.method in hg.PENALTIES:
        regularizer = hg.Regularizer(network, case.method, warmup=0.3)
        regularizer.calibrate_(data.train.images[:1000], data.train.labels[:1000], fraction=case.amount)
        regularizer.strength *= MOMENTUM_FACTOR if case.step == "proximal" else 1
    proximal = case.step == "proximal"
    hg.fit(network, data, regularizer, proximal=proximal, progress=False, **example_budget(first, case.seed))
    if case.tuned:
        if regularizer is None:
            zero_lowest_(network, case.amount, "feature", case.method, case.seed)
        else:
            hg.zero_below_(network, 1e-3)
        with held_zeros(network):
            hg.fit(network, data, progress=False, **example_budget(EPOCHS - first, case.seed))
    return network


def measure(network: nn.Module, data: Data) -> dict[str, float]:
    """What is left when the small weights are zero and all dead channels are gone."""
    zeroed = copy.deepcopy(network).eval()
    hg.zero_below_(zeroed, 1e-3)
    small, report = compact(zeroed, data.validation.images[:8], repeats=0)
    return {
        "validation accuracy": hg.accuracy(small, data.validation),
        "test accuracy": hg.accuracy(small, data.test),
        "dead kernels": hg.sparsity(network).dead_kernels,
        "exact zeros": hg.sparsity(network).exact_zeros,
        "parameters left": report.after.parameters / report.before.parameters,
        "MACs left": report.after.macs / report.before.macs,
        "parameters": report.after.parameters,
    }


def main() -> None:
    """Add the runs that the table lacks."""
    data = hg.load_data("digits", validation=0.25)
    names = list(Case.__dataclass_fields__)
    done = {Case(*row) for row in pd.read_csv(OUT)[names].itertuples(index=False)} if OUT.exists() else set()
    for seed in range(SEEDS):
        for case in cases(seed) if seed < FULL_SEEDS else fewer_cases(seed):
            if case not in done:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", RuntimeWarning)
                    row = {**asdict(case), **measure(train(case, data), data)}
                table = pd.DataFrame([row])
                table.to_csv(OUT, mode="a", header=not OUT.exists(), index=False, float_format="%.6g")


if __name__ == "__main__":
    main()
