"""Saying at once when a layer, or the network, has died; not at the end of the run."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING

from hgsr_lite.zeros import SparsityReport

if TYPE_CHECKING:
    from hgsr_lite.training.state import TrainingState

_CHANCE = 0.98  # a loss above this share of ln(classes) has learnt nothing
_FEW_STEPS = 50  # in fewer, a network may well have learnt nothing yet


def warn_of_death(state: TrainingState, report: SparsityReport, loss: float, term: float) -> None:
    """Warn, and note in the history, what the last epoch left without a living weight, or without learning.

    `loss` is the epoch's mean training loss, `term` the penalty beside it. Without a regularizer nothing is
    said: then no penalty did it.
    """
    if state.regularizer is None:
        return
    chance = _CHANCE * math.log(state.data.num_classes)
    at_chance = loss > chance
    empty = [layer.name for layer in report.layers if layer.below_tolerance == layer.weights]
    for name in empty:
        how = (
            "and the loss is at chance: the network is dead"
            if at_chance
            else (
                "though the loss is not at chance; before a batch norm the scale means little, else "
                "the layer is dying"
            )
        )
        _warn(state, name + str(at_chance), f"every weight of layer {name!r} is below tolerance, {how}")
    had_learnt = any(record["training loss"] <= chance for record in state.history.records)
    should_have = state.epoch == state.settings.epochs and state.epoch * state.steps >= _FEW_STEPS
    if at_chance and term > loss and (had_learnt or should_have) and not empty:
        _warn(state, "chance", "the loss is at chance, though no layer is below tolerance as a whole")


def _warn(state: TrainingState, once: str, what: str) -> None:
    if once in state.warned:
        return
    state.warned.add(once)
    note = (
        f"epoch {state.epoch}: {what}. Lower the strength (now {state.regularizer.current_strength:g}) "
        "or warm it up (warmup=0.5)."
    )
    state.history.notes.append(note)
    warnings.warn(note, RuntimeWarning, stacklevel=8)  # where `fit` was called
