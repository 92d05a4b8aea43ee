"""The workbench behind the playground: from a penalty to a trained network and its metrics.

Plain functions that need no browser; `panel` puts the controls on them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace

import pandas as pd
from torch import Tensor, nn

from hgsr_lite.arguments import choose
from hgsr_lite.data import Data
from hgsr_lite.skipping import skip_dead_kernels
from hgsr_lite.study import SPARSITY_METRICS, measure
from hgsr_lite.training import (
    FINISHED,
    DivergedError,
    History,
    Penalised,
    Recipe,
    Settings,
    Trained,
    TrainingState,
    one_thread,
    training_conditions,
)

Watch = Callable[[float, History], bool]
SHOWN = (
    "validation accuracy",
    "validation accuracy after zeroing",
    *SPARSITY_METRICS,
    *("parameters left", "MACs left"),
)
"""The metrics of `hgsr_lite.study.measure` that `compare` shows."""
MILLISECONDS = "milliseconds an image"
_TIMED_AT_ONCE = 128


@dataclass(frozen=True, eq=False)
class Workbench:
    """What stays the same from run to run, so that two runs differ by their penalty alone.

    The data, the network with its first weights (fixed by `seed`), and the training budget. `batch_size`
    is in images; the learning rate falls as in `fit`.

    >>> from hgsr_lite.data import load_data
    >>> bench = Workbench(load_data("digits", device="cpu", limit=100), "digits_cnn", epochs=1)
    >>> bench.train(Penalised(strength=1e-5)).ended
    'finished'
    """

    data: Data
    model_name: str = "digits_cnn"
    epochs: int = 12
    seed: int = 0
    lr: float = 0.05
    batch_size: int = 64

    def recipe(self, method: Penalised | None = None, proximal: bool = False) -> Recipe:
        """The recipe of a run; `proximal` takes proximal steps in place of the penalty's gradient.

        Raises `ValueError` for a model and for settings that `Recipe` refuses.
        """
        budget = {name: getattr(self, name) for name in ("epochs", "seed", "lr", "batch_size")}
        return Recipe(self.model_name, method=method, settings=Settings(**budget, proximal=proximal))

    def calibrated(self, method: Penalised) -> Penalised:
        """The same penalty at the strength that its `fraction` comes to on this network and these images."""
        _, regularizer = self.recipe(method).build(self.data)
        return replace(method, strength=regularizer.strength, fraction=None)

    def train(
        self, method: Penalised | None = None, *, proximal: bool = False, watch: Watch | None = None
    ) -> Trained:
        """Train the network anew by `recipe`; without a method, without a penalty. The test part is not read.

        `watch(share done, history)` is called after every batch and stops the run by returning True.
        A run that diverges ends too, with the reason in `ended`.
        """
        recipe = self.recipe(method, proximal)
        model, regularizer = recipe.build(self.data)
        with training_conditions(model, self.data, recipe.settings):
            state = TrainingState(model, self.data, regularizer, recipe.settings)
            state.history.take_snapshot(model, 0, self.epochs)
            ended = _run(state, watch or (lambda share, history: False))
        return Trained(recipe, model.eval(), state.history, ended)


def _run(state: TrainingState, watch: Watch) -> str:
    """Train until the last epoch, a stop or a divergence, and say which."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the history's notes say the same, once
        try:
            for share in state.train():
                if watch(share, state.history):
                    return f"stopped in epoch {state.epoch} of {state.settings.epochs}"
        except DivergedError as error:
            return error.reason
    return FINISHED


def metrics_of(
    trained: Trained, data: Data, tolerance: float = 1e-3, relative: bool = False
) -> dict[str, float]:
    """The metrics of `hgsr_lite.study.measure` at a tolerance that may be chosen afterwards, and the time.

    `MILLISECONDS` is of what is left: the network without small weights, dead channels and dead kernels.
    Empty where weights are no numbers: then there is nothing to measure.
    """
    try:
        found = measure(trained.model, data, tolerance, relative)
    except ValueError:
        return {}
    return {**found.metrics, MILLISECONDS: milliseconds_an_image(found.small, data.validation.images)}


def milliseconds_an_image(model: nn.Module, images: Tensor) -> float:
    """What a network takes for one of up to 128 images at once, on one thread, its dead kernels skipped.

    A time: it depends on the machine, and on what else it does at that moment.

    >>> import torch
    >>> milliseconds_an_image(nn.Conv2d(1, 2, 3), torch.ones(8, 1, 4, 4)) > 0
    True
    """
    batch = images[:_TIMED_AT_ONCE]
    with one_thread():
        _, report = skip_dead_kernels(model.eval(), batch, batches=(len(batch),))
    return 1e3 * report.costs.by_batch[len(batch)][1].seconds / len(batch)


def compare(
    runs: dict[str, Trained], data: Data, tolerance: float = 1e-3, relative: bool = False
) -> pd.DataFrame:
    """The metrics in `SHOWN` of several runs side by side, written out: one column a run."""
    columns = {}
    for name, trained in runs.items():
        metrics = metrics_of(trained, data, tolerance, relative)
        columns[name] = {metric: _written(metrics.get(metric)) for metric in SHOWN}
    return pd.DataFrame(columns)


def _written(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.1%}"


def newest_maps(before: History, after: History, layer: str) -> dict[str, Tensor]:
    """The kernel norms of one layer at the end of two runs, each under a title."""
    maps: dict[str, Tensor] = {}
    for name, history in (("before: dense", before), ("after: your penalty", after)):
        norms = history.snapshots[choose("layer", layer, history.snapshots)][-1].float()
        maps[f"{name}, epoch {history.snapshot_epochs[-1]}"] = norms.nan_to_num(0.0)
    return maps
