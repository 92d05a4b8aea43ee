"""Choosing which channels to remove, removing them, and training on: one call, one table."""

from __future__ import annotations

import copy
import html
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from hgsr_lite.arguments import check_count, check_share, choose, shown
from hgsr_lite.coupling import Coupling, couple
from hgsr_lite.data import Data, check_data
from hgsr_lite.groups import Layout, kernel_stack, weight_of_stack
from hgsr_lite.layers import check_model
from hgsr_lite.removal.compaction import check_input, compact
from hgsr_lite.removal.cost import latency, macs, parameters
from hgsr_lite.removal.ranking import STRATEGIES, Candidates, Scoring, Tolerance
from hgsr_lite.removal.report import CompactReport, written
from hgsr_lite.removal.surgery import cut_, hold_back
from hgsr_lite.training import Settings, accuracy, fit
from hgsr_lite.zeros import sparsity, zero_below_

_TIMED_BATCH = 128


@dataclass(frozen=True)
class PruneReport:
    """What one `prune` did: the table of its stages, and `compact`'s report on the removal itself.

    `how` is the way of choosing, `interrupted` says whether Ctrl-C ended the fine-tuning early.
    `stages` has a row each for before, after removal and, if there was any, after fine-tuning: validation
    accuracy, the five sparsity figures (shares, 0..1), parameters, multiply-accumulates for one image, and
    milliseconds for a batch of at most 128 images.
    """

    how: Tolerance | Scoring
    stages: pd.DataFrame
    removal: CompactReport
    test_accuracy: float
    interrupted: bool = False

    def to_frame(self) -> pd.DataFrame:
        """The table of stages."""
        return self.stages

    def _title(self) -> str:
        early = "; fine-tuning was interrupted" if self.interrupted else ""
        return f"pruned by {self.how}; test accuracy of the result {self.test_accuracy:.1%}{early}"

    def __str__(self) -> str:
        return f"{self._title()}\n{self.stages.T.to_string(float_format=written)}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(self._title())}</p>{self.stages.T.to_html(float_format=written)}"


def prune(
    model: nn.Module,
    data: Data,
    how: str | Tolerance | Scoring = "tolerance",
    amount: float | None = None,
    *,
    to_parameters: int | None = None,
    finetune: Mapping[str, Any] | None = None,
    repeats: int = 20,
    progress: bool = True,
) -> tuple[nn.Module, PruneReport]:
    """Choose channels, remove them, train on if asked; return a smaller copy of the model and a report.

    `how` is a way of choosing, or its short name where it needs no numbers of its own:

    - `Tolerance(1e-3)`, `"tolerance"`: set every convolution weight below it to zero and remove the channels
      that die of it;
    - `Norm("feature")`, `"norm"`: the lowest root mean square of a channel's group of weights;
    - `LossRise(images=256)`, `"loss"`: the lowest rise in cross-entropy on random training images when the
      channel is silenced (arXiv 2011.02389);
    - `Random(seed=0)`, `"random"`: any, the control;
    - an object of your own with the method of `Scoring`.

    All but the first need `amount`, the share of the removable channels to take (0..1), or `to_parameters`,
    and then take channels until the parameters left are as near to that number as whole channels allow.
    Every layer keeps a channel. Channels are removed as `compact` does it. `finetune` holds the arguments of
    `fit` for training on. Choices are made on training and validation images; the test part is read once,
    for the result. `repeats` forward passes are timed of each stage (0: none).

    Long work shows a bar unless `progress` is False. Ctrl-C ends the choice and the removal with nothing
    done; it ends fine-tuning early, and the report says so. `model` itself is never changed: an optimizer
    and a regularizer go on training it, until `report.removal.carry_(optimizer, model, small)` and
    `regularizer.on(small)` lead them to the smaller one. Raises
    `ValueError` for an unknown way and an impossible amount, and whatever `compact` raises.

    >>> from hgsr_lite.data import load_data
    >>> from hgsr_lite.models import build_model
    >>> from hgsr_lite.removal import Norm
    >>> data = load_data("digits", device="cpu")
    >>> net = build_model("digits_cnn", in_channels=1, num_classes=10, seed=0)
    >>> small, report = prune(net, data, Norm("neuron"), 0.5, repeats=0)
    >>> int(report.stages.parameters["after removal"]) < int(report.stages.parameters["before"])
    True
    """
    way = _way_of_choosing(how)
    check_model(model)
    check_data(data)
    amount, to_parameters = _checked_request(way, amount, to_parameters)
    repeats = check_count("repeats", repeats, 0)
    _check_finetune(finetune)
    example = data.validation.images[:_TIMED_BATCH]
    check_input(model, example[:2])
    zeroed = copy.deepcopy(model)
    if isinstance(way, Tolerance):
        zero_below_(zeroed, way.tolerance, way.relative)
    else:
        work = copy.deepcopy(model).eval().requires_grad_(True)
        coupling = couple(work, example[:1])
        scores = way.scores(Candidates(work, coupling.free, data, progress))
        if any(bool(score.isnan().any()) for score in scores):
            raise ValueError(
                f"{way} gives scores that are NaN, which have no order: give each channel a number"
            )
        plan = _Plan(work, coupling, scores)
        silence_(zeroed, plan.choice(amount, to_parameters))
    small, removal = compact(zeroed, example[:8], repeats=0, progress=progress)
    stages, interrupted = {"before": model, "after removal": copy.deepcopy(small)}, False
    if finetune is not None:
        interrupted = fit(small, data, **{"progress": progress, **finetune}).interrupted
        stages["after fine-tuning"] = small
    table = _table(stages, data, way if isinstance(way, Tolerance) else Tolerance(), repeats)
    return small, PruneReport(way, table, removal, accuracy(small, data.test), interrupted)


def _check_finetune(finetune: object) -> None:
    """Refuse arguments that `fit` would refuse, before the removal and not after it."""
    if finetune is None:
        return
    if not isinstance(finetune, Mapping):
        raise TypeError(
            f"finetune must be a dict of arguments of fit, not {shown(finetune)}: {{'epochs': 3}}"
        )
    settings = [field.name for field in fields(Settings)]
    for name in finetune:
        choose("argument of fit", name, [*settings, "checkpoint", "progress"])
    Settings(**{name: value for name, value in finetune.items() if name in settings}).check()


def _way_of_choosing(how: object) -> Tolerance | Scoring:
    is_own = callable(getattr(how, "scores", None)) and not isinstance(how, type)
    if isinstance(how, Tolerance) or is_own:
        return how
    return STRATEGIES[choose("way of choosing", how, STRATEGIES)]()


def _checked_request(
    way: Tolerance | Scoring, amount: float | None, to_parameters: int | None
) -> tuple[float | None, int | None]:
    given = [value for value in (amount, to_parameters) if value is not None]
    if isinstance(way, Tolerance) and given:
        raise ValueError(f"{way} takes no amount: what is below the tolerance goes")
    if not isinstance(way, Tolerance) and len(given) != 1:
        raise ValueError(f"{way} needs either amount (a share of the channels) or to_parameters")
    return (
        amount if amount is None else check_share("amount", amount),
        to_parameters if to_parameters is None else check_count("to_parameters", to_parameters),
    )


class _Plan:
    """The removable channels of a copy of the model, their scores, and sets of the lowest ones."""

    def __init__(self, model: nn.Module, coupling: Coupling, scores: list[Tensor]) -> None:
        self.model, self.coupling, self.scores = model, coupling, scores
        self.sets = coupling.free

    def choice(self, amount: float | None, to_parameters: int | None) -> dict[str, Tensor]:
        """Layer name -> the input channels that are to fall silent."""
        total = sum(channels.size for channels in self.sets)
        if to_parameters is None:
            removed = self._lowest(round(amount * total))
        else:
            removed = self._down_to(to_parameters, total)
        silent: dict[str, list[Tensor]] = {}
        for channels, gone in zip(self.sets, removed, strict=True):
            for part in channels.readers:
                silent.setdefault(part.name, []).append(part.positions(gone))
        return {name: torch.cat(positions) for name, positions in silent.items()}

    def _lowest(self, wanted: int) -> list[Tensor]:
        """The `wanted` lowest channels, or as many as can go while every layer keeps one."""
        order = torch.cat(self.scores).argsort(stable=True)
        taken = wanted
        while True:
            marked = torch.zeros(len(order), dtype=torch.bool)
            marked[order[:taken]] = True
            removed = list(marked.split([channels.size for channels in self.sets]))
            hold_back(self.sets, removed, self.scores)
            missing = wanted - sum(int(gone.sum()) for gone in removed)
            if missing <= 0 or taken >= len(order):
                return removed
            taken += missing

    def _down_to(self, to_parameters: int, total: int) -> list[Tensor]:
        few, many = 0, total
        while many - few > 1:
            middle = (few + many) // 2
            few, many = (middle, many) if self._left(middle) > to_parameters else (few, middle)
        return self._lowest(min((few, many), key=lambda wanted: abs(self._left(wanted) - to_parameters)))

    def _left(self, wanted: int) -> int:
        """Parameters left when the `wanted` lowest channels are cut out of a copy."""
        model, coupling = copy.deepcopy((self.model, self.coupling))
        cut_(coupling.free, self._lowest(wanted))
        return parameters(model)


@torch.no_grad()
def silence_(model: nn.Module, silent: Mapping[str, Tensor]) -> None:
    """Set to zero, in place, all weights with which the named layers read the given input channels.

    >>> layer = nn.Sequential(nn.Linear(3, 1))
    >>> silence_(layer, {"0": torch.tensor([0, 2])})
    >>> (layer[0].weight == 0).tolist()
    [[True, False, True]]
    """
    for name, positions in silent.items():
        module = model.get_submodule(name)
        layout = Layout.of(module)
        stack = kernel_stack(module.weight, layout)
        columns = torch.zeros(stack.shape[0] * stack.shape[2], dtype=torch.bool, device=stack.device)
        columns[positions.to(stack.device)] = True
        quiet = stack.masked_fill(columns.view(stack.shape[0], 1, stack.shape[2], 1), 0.0)
        module.weight.copy_(weight_of_stack(quiet, layout, module.weight.shape))


def _table(stages: Mapping[str, nn.Module], data: Data, counted: Tolerance, repeats: int) -> pd.DataFrame:
    example = data.validation.images[:_TIMED_BATCH]
    models = {stage: copy.deepcopy(model).eval() for stage, model in stages.items()}
    seconds = latency(models, example, repeats)
    rows = {
        stage: {
            "validation accuracy": accuracy(model, data.validation),
            **sparsity(model, counted.tolerance, counted.relative).overall.shares(),
            "parameters": parameters(model),
            "MACs per image": macs(model, example[:1]),
            "milliseconds per batch": 1e3 * seconds[stage],
        }
        for stage, model in models.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index")
