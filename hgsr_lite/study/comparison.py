"""A fair comparison: many configurations under one budget, each a row of one table, and pruning controls.

A configuration is a penalty with a grouping, an amount and a seed, or a control that knows nothing of
penalties. All get the same network, the same images, the same number of epochs, the same measurements.
"""

from __future__ import annotations

import copy
import itertools
import math
import warnings
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from torch import nn
from tqdm import tqdm

from hgsr_lite.arguments import choose
from hgsr_lite.data import Data
from hgsr_lite.groups import GROUPINGS, weight_layers
from hgsr_lite.models import build_model
from hgsr_lite.regularizer import Regularizer
from hgsr_lite.removal import compact
from hgsr_lite.study.baselines import held_zeros, zero_lowest_
from hgsr_lite.study.distractors import READINGS, kept_channels, precision_and_recall
from hgsr_lite.study.intervals import confidence_half_width
from hgsr_lite.table import PENALTIES
from hgsr_lite.training import History, accuracy, fit, in_processes
from hgsr_lite.training.recipe import ALIKE_IN_BOTH_GROUPINGS, BASELINES, UNITS
from hgsr_lite.zeros import sparsity, zero_below_

CONTROLS = BASELINES
FIGURES = ("below tolerance", "exact zeros", "dead kernels", "dead channels")
COLUMNS = [
    "strength",
    "diverged",
    "validation accuracy",
    "validation accuracy after zeroing",
    "test accuracy",
    "test accuracy after zeroing",
    *FIGURES,
    "parameters removed",
]


@dataclass(frozen=True)
class Configuration:
    """One run of a comparison.

    `method` is a key of `PENALTIES`, or a control: `"dense"` (nothing), `"magnitude"` or `"random"`
    (pruned half-way, then trained on with the zeros held). `grouping` is that of the penalty; for the
    pruning controls, what they take out at a time: one of `UNITS`. `amount` is, for a penalty, its
    gradient's norm as a fraction of the loss's at the start; for pruning, the share of weights to
    set to zero; for `"dense"`, 0.

    >>> Configuration("hsq_gl12", "feature", 0.3, seed=1)
    Configuration(method='hsq_gl12', grouping='feature', amount=0.3, seed=1)
    """

    method: str
    grouping: str = "feature"
    amount: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        choose("method", self.method, (*PENALTIES, *CONTROLS))
        choose("grouping", self.grouping, GROUPINGS if self.method in PENALTIES else UNITS)
        limit = 1.0 if self.method in CONTROLS else math.inf
        if not 0 <= self.amount < limit or (self.method in PENALTIES and self.amount == 0):
            raise ValueError(
                f"amount {self.amount!r} is impossible for {self.method!r}: a penalty takes a fraction of "
                "the loss's gradient norm above 0, pruning a share of the weights from 0 to below 1"
            )


def penalty_grid(
    penalties: Iterable[str], groupings: Iterable[str], amounts: Iterable[float], seeds: Iterable[int]
) -> list[Configuration]:
    """Every combination; `l1` and `l2`, which know no groups, only once.

    >>> len(penalty_grid(["gl", "l1"], ["feature", "neuron"], [0.1, 1.0], [0, 1, 2]))
    18
    """
    combinations = itertools.product(penalties, groupings, amounts, seeds)
    made = (
        Configuration(method, "feature" if method in ALIKE_IN_BOTH_GROUPINGS else grouping, amount, seed)
        for method, grouping, amount, seed in combinations
    )
    return list(dict.fromkeys(made))


def control_grid(units: Iterable[str], shares: Iterable[float], seeds: Iterable[int]) -> list[Configuration]:
    """The dense network, and pruning by magnitude and at random, for every unit, share and seed.

    >>> len(control_grid(["weight"], [0.5, 0.9], [0, 1]))
    10
    """
    units, shares, seeds = list(units), list(shares), list(seeds)
    dense = [Configuration("dense", seed=seed) for seed in seeds]
    combinations = itertools.product(("magnitude", "random"), units, shares, seeds)
    return [*dense, *(Configuration(*combination) for combination in combinations)]


def train_configuration(
    configuration: Configuration,
    data: Data,
    *,
    model: str = "digits_cnn",
    width: float = 1.0,
    epochs: int = 20,
    warmup: float = 0.3,
    first_layer_only: bool = False,
    **options: Any,
) -> tuple[nn.Module, Regularizer | None, History]:
    """Train one configuration from its seed; return the network, its regularizer if any, its history.

    Penalties are calibrated on the first thousand training images at the start and warmed up over the
    share `warmup` of the epochs; with `first_layer_only` they act on no other layer. The pruning controls
    spend half of the same epochs before the cut and half after it. `options` are those of `fit`. Warnings
    of a dying network stay in the history's notes.
    """
    sizes = {"in_channels": data.in_channels, "num_classes": data.num_classes, "width": width}
    network = build_model(model, **sizes, seed=configuration.seed).to(data.device)
    options = {"progress": False, "seed": configuration.seed, **options}
    if configuration.method in CONTROLS:
        options.pop("proximal", None)
    regularizer = None
    if configuration.method in PENALTIES:
        include = [weight_layers(network)[0].name] if first_layer_only else None
        regularizer = Regularizer(
            network, configuration.method, grouping=configuration.grouping, warmup=warmup, include=include
        )
        batch = data.train.images[:1000], data.train.labels[:1000]
        regularizer.calibrate_(*batch, fraction=configuration.amount)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        if configuration.method in ("magnitude", "random"):
            history = _prune_half_way(network, data, configuration, epochs, options)
        else:
            history = fit(network, data, regularizer, epochs=epochs, **options)
    return network, regularizer, history


def _prune_half_way(
    network: nn.Module, data: Data, configuration: Configuration, epochs: int, options: dict[str, Any]
) -> History:
    if epochs < 2:
        raise ValueError(f"epochs {epochs!r}: pruning needs at least 2, one before the cut and one after it")
    fit(network, data, epochs=epochs // 2, **options)
    zero_lowest_(
        network, configuration.amount, configuration.grouping, configuration.method, configuration.seed
    )
    with held_zeros(network):
        return fit(network, data, epochs=epochs - epochs // 2, **options)


def measure(model: nn.Module, data: Data, history: History, tolerance: float = 1e-3) -> dict[str, float]:
    """The figures of one trained network, shares in 0..1.

    Accuracies on the validation and the test part, each as trained and again with the weights below
    `tolerance` set to zero; the four sparsity figures as trained; and the share of all parameters that
    `compact` can take out of the zeroed network.
    """
    zeroed = copy.deepcopy(model).eval()
    zero_below_(zeroed, tolerance)
    example = data.validation.images[:8]
    _, removal = compact(zeroed, example, repeats=0)
    return {
        "validation accuracy": accuracy(model, data.validation),
        "validation accuracy after zeroing": accuracy(zeroed, data.validation),
        "test accuracy": history.test.accuracy,
        "test accuracy after zeroing": history.test.accuracy_after_zeroing,
        **sparsity(model, tolerance).overall.shares(),
        "parameters removed": 1 - removal.after.parameters / removal.before.parameters,
    }


def compare(
    configurations: Iterable[Configuration],
    data: Data,
    *,
    out: str | Path | None = None,
    progress: bool = True,
    processes: int | None = 1,
    **options: Any,
) -> pd.DataFrame:
    """Train every configuration and return the table, one row a run.

    The columns are the configuration's fields, the calibrated `strength`, whether the run `diverged`
    (its figures are then missing) and what `measure` returns. With `out`, a CSV file, each row is
    written as soon as it is known, and runs that the file already holds are not repeated. `processes`
    train at a time (None: one a core). `options` are those of `train_configuration`.
    """
    row = partial(_row, options=options)
    return table_of_runs(configurations, row, COLUMNS, data, out, progress, processes)


def _row(configuration: Configuration, data: Data, options: dict[str, Any]) -> dict[str, Any]:
    try:
        model, regularizer, history = train_configuration(configuration, data, **options)
    except FloatingPointError:
        return {"strength": math.nan, "diverged": True}
    strength = 0.0 if regularizer is None else regularizer.strength
    return {"strength": strength, "diverged": False, **measure(model, data, history)}


def table_of_runs(
    configurations: Iterable[Configuration],
    row: Callable[[Configuration, Data], dict[str, Any]],
    columns: list[str],
    data: Data,
    out: str | Path | None = None,
    progress: bool = True,
    processes: int | None = 1,
) -> pd.DataFrame:
    """Call `row` for every configuration and return the table; resume from the CSV file `out`, if given.

    The first columns are the configuration's fields, the rest is `columns`, in this order. Rows that the
    file holds of other configurations are left in it, and out of the table. `processes` as in
    `in_processes`: with more than one, rows are written in the order in which they are finished.
    """
    path = None if out is None else Path(out)
    names = [*Configuration.__dataclass_fields__, *columns]
    rows = pd.read_csv(path).to_dict("records") if path is not None and path.exists() else []
    done = {Configuration(*(known[name] for name in names[:4])): known for known in rows}
    configurations = list(configurations)
    missing = [configuration for configuration in configurations if configuration not in done]
    found = in_processes(row, missing, data, processes)
    bar = tqdm(found, "training", len(missing), unit="run", disable=not progress, leave=False)
    for configuration, figures in bar:
        done[configuration] = {**asdict(configuration), **figures}
        if path is not None:
            line = pd.DataFrame([done[configuration]], columns=names)
            line.to_csv(path, mode="a", header=not path.exists(), index=False, float_format="%.6g")
    return pd.DataFrame([done[configuration] for configuration in configurations], columns=names)


def sparsest_within(
    table: pd.DataFrame, figure: str = "below tolerance", loss_allowed: float = 0.01
) -> pd.DataFrame:
    """For each method and grouping, the amount that gives the most of `figure` at a bearable loss.

    Bearable: the mean validation accuracy after zeroing is at most `loss_allowed` below the dense
    network's. Only then is the test accuracy looked at, of the chosen amounts alone: the last two columns,
    its mean over the seeds and half of the mean's 95 % interval. Methods without a bearable amount, or with
    a diverged run at it, are left out. Sorted by `figure`. Raises `ValueError` for an unknown figure and a
    table without dense runs.
    """
    choose("figure", figure, [*FIGURES, "parameters removed"])
    judged, test = "validation accuracy after zeroing", "test accuracy after zeroing"
    dense = table.loc[table["method"] == "dense", judged].mean()
    if math.isnan(dense):
        raise ValueError("the table holds no dense runs: there is nothing to measure a loss against")
    runs = table[table["method"] != "dense"].groupby(["method", "grouping", "amount"], sort=False)
    means = runs.mean(numeric_only=True).drop(columns=["seed", "strength", test])
    means[test] = runs[test].mean()
    means["±"] = confidence_half_width(runs[test].std(), runs[test].count())
    bearable = means[(means[judged] >= dense - loss_allowed) & ~runs["diverged"].any()].reset_index()
    best = bearable.sort_values(figure, ascending=False).groupby(["method", "grouping"], sort=False).head(1)
    return best.drop(columns=["diverged", "test accuracy"], errors="ignore").reset_index(drop=True)


CHANNEL_COLUMNS = [
    "strength",
    *(f"{name}, {what}" for what in READINGS for name in ("kept", "precision", "recall")),
    "validation accuracy",
]


def find_channels(
    configurations: Iterable[Configuration],
    data: Data,
    *,
    distractors: int = 7,
    kind: str = "noise",
    out: str | Path | None = None,
    progress: bool = True,
    processes: int | None = 1,
    **options: Any,
) -> pd.DataFrame:
    """Train every configuration on images with distractors; one row a run: what it kept, precision, recall.

    The distractors are drawn anew for each seed. Only the first layer is regularised, so that a strength
    may be right for it without being too much for the others. `options` are those of
    `train_configuration`, `out` and `processes` as in `compare`. A channel is read as kept in the two ways
    of `READINGS`.
    """

    row = partial(_channels_row, distractors=distractors, kind=kind, options=options)
    return table_of_runs(configurations, row, CHANNEL_COLUMNS, data, out, progress, processes)


def _channels_row(
    configuration: Configuration, data: Data, distractors: int, kind: str, options: dict[str, Any]
) -> dict[str, Any]:
    extended = data.with_distractors(distractors, kind, configuration.seed)
    model, regularizer, history = train_configuration(
        configuration, extended, first_layer_only=True, **options
    )
    found: dict[str, Any] = {"strength": 0.0 if regularizer is None else regularizer.strength}
    for what, limits in READINGS.items():
        kept = kept_channels(model, **limits)
        precision, recall = precision_and_recall(kept, extended.relevant_channels)
        found |= {f"kept, {what}": len(kept), f"precision, {what}": precision, f"recall, {what}": recall}
    return {**found, "validation accuracy": history.records[-1]["validation accuracy"]}
