"""The workbench behind the playground: from settings to a trained network and its figures.

Plain functions that need no browser; `panel` puts the controls on them.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace

import matplotlib.pyplot as plt
import pandas as pd
from torch import Tensor, nn

from hgsr_lite.arguments import choose
from hgsr_lite.computed_weights import plain_copy
from hgsr_lite.data import Data
from hgsr_lite.figures import kernel_map
from hgsr_lite.models import build_model
from hgsr_lite.regularizer import Regularizer
from hgsr_lite.removal import compact
from hgsr_lite.training import (
    FINISHED,
    DivergedError,
    History,
    Settings,
    TrainingState,
    accuracy,
    training_conditions,
)
from hgsr_lite.zeros import sparsity, zero_below_

Watch = Callable[[float, History], bool]
_CALIBRATION_IMAGES = 256


@dataclass(frozen=True)
class Choice:
    """What a reader can turn that needs a new training run; the arguments are those of `Regularizer`.

    `proximal` takes a proximal step after each SGD step in place of the penalty's gradient.

    >>> Choice(penalty="gl", strength=0.01)
    Choice(penalty='gl', grouping='feature', strength=0.01, l1_mix=0.0, warmup=0.0, proximal=False)
    """

    penalty: str = "hsq_gl12"
    grouping: str = "feature"
    strength: float = 1e-4
    l1_mix: float = 0.0
    warmup: float = 0.0
    proximal: bool = False

    def regularizer(self, model: nn.Module) -> Regularizer:
        """The regularizer that these settings make on a model."""
        return Regularizer(
            model,
            self.penalty,
            grouping=self.grouping,
            strength=self.strength,
            l1_mix=self.l1_mix,
            warmup=self.warmup,
        )


@dataclass(frozen=True)
class Trained:
    """A finished (or stopped) run: what was chosen (None: dense), the network, its history, how it ended."""

    choice: Choice | None
    model: nn.Module
    history: History
    ending: str
    finished: bool


@dataclass(frozen=True, eq=False)
class Workbench:
    """What stays the same from run to run, so that two runs differ by their choice alone.

    The data, the network with its first weights (fixed by `seed`), and the training budget. `batch_size`
    is in images; the learning rate falls as in `fit`.

    >>> from hgsr_lite.data import load_data
    >>> bench = Workbench(load_data("digits", device="cpu", limit=100), "digits_cnn", epochs=1)
    >>> bench.train(Choice(strength=1e-5)).ending
    'finished after epoch 1'
    """

    data: Data
    model_name: str = "digits_cnn"
    epochs: int = 12
    seed: int = 0
    lr: float = 0.05
    batch_size: int = 64

    def new_model(self) -> nn.Module:
        """The untrained network: the same weights on every call."""
        sizes = {"in_channels": self.data.in_channels, "num_classes": self.data.num_classes}
        return build_model(self.model_name, **sizes, seed=self.seed).to(self.data.device)

    def calibrated(self, choice: Choice, fraction: float) -> Choice:
        """The same choice at the strength where its gradient is `fraction` of the loss's at the start."""
        train = self.data.train
        images, labels = train.images[:_CALIBRATION_IMAGES], train.labels[:_CALIBRATION_IMAGES]
        strength = choice.regularizer(self.new_model()).calibrate_(images, labels, fraction)
        return replace(choice, strength=strength)

    def train(self, choice: Choice | None = None, watch: Watch | None = None) -> Trained:
        """Train the network anew with a choice; None trains it without a penalty.

        `watch(share done, history)` is called after every batch and stops the run by returning True.
        A run that diverges ends too, with the reason in `ending`. Raises `ValueError` for settings that
        `Regularizer` refuses.
        """
        model = self.new_model()
        regularizer = choice.regularizer(model) if choice else None
        settings = Settings(
            epochs=self.epochs,
            seed=self.seed,
            lr=self.lr,
            batch_size=self.batch_size,
            proximal=choice is not None and choice.proximal,
        )
        with training_conditions(model, self.data, settings):
            state = TrainingState(model, self.data, regularizer, settings)
            state.history.take_snapshot(model, 0, self.epochs)
            ending = _run(state, watch or (lambda share, history: False))
        model.eval()
        words = " ".join([ending, *state.history.notes])
        return Trained(choice, model, state.history, words, ending.startswith(FINISHED))


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
    return f"{FINISHED} after epoch {state.epoch}"


def judge(model: nn.Module, data: Data, tolerance: float = 1e-3, relative: bool = False) -> dict[str, float]:
    """The figures of a trained network, at a tolerance that may be chosen afterwards.

    Validation accuracy as trained and after the weights below tolerance were set to zero, the four
    shares of `sparsity`, and what is left after `compact`. The test part is not read. All are shares in
    0..1 but the last two, which are counts. The model is not changed.

    >>> from hgsr_lite.data import load_data
    >>> data = load_data("digits", device="cpu", limit=100)
    >>> judge(build_model("digits_cnn", in_channels=1, num_classes=10, seed=0), data)["parameters left"]
    56554
    """
    report = sparsity(model, tolerance, relative)
    zeroed = plain_copy(model).eval()
    zero_below_(zeroed, tolerance, relative)
    _, removal = compact(zeroed, data.validation.images[:8], repeats=0)
    return {
        "validation accuracy": accuracy(model, data.validation),
        "accuracy after zeroing": accuracy(zeroed, data.validation),
        "below tolerance": report.below_tolerance,
        "exact zeros": report.exact_zeros,
        "dead kernels": report.dead_kernels,
        "dead channels": report.dead_channels,
        "parameters left": removal.after.parameters,
        "MACs left": removal.after.macs,
    }


def compare(
    runs: dict[str, Trained], data: Data, tolerance: float = 1e-3, relative: bool = False
) -> pd.DataFrame:
    """The figures of several runs side by side, written out: one column a run."""
    columns = {}
    for name, trained in runs.items():
        try:
            figures = judge(trained.model, data, tolerance, relative)
        except ValueError:  # weights that are no numbers have no figures
            figures = {}
        columns[name] = {figure: _written(value) for figure, value in figures.items()}
    return pd.DataFrame(columns).fillna("-")


def _written(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.1%}"


def newest_maps(before: History, after: History, layer: str) -> dict[str, Tensor]:
    """The kernel norms of one layer at the end of two runs, each under a title."""
    maps: dict[str, Tensor] = {}
    for name, history in (("before: dense", before), ("after: your choice", after)):
        norms = history.snapshots[choose("layer", layer, history.snapshots)][-1].float()
        maps[f"{name}, epoch {history.snapshot_epochs[-1]}"] = norms.nan_to_num(0.0)
    return maps


def before_and_after(before: History, after: History, layer: str) -> bytes:
    """The kernel maps of one layer at the end of two runs, side by side on one scale, as a PNG."""
    figure = kernel_map(newest_maps(before, after, layer), title=f"layer {layer}")
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=90)
    plt.close(figure)
    return picture.getvalue()
