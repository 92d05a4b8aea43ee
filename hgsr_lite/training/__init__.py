"""Training: a recipe, the loop, its history, what is measured, many networks at once. Start in `loop`."""

from __future__ import annotations

from hgsr_lite.training.history import History, TestResult
from hgsr_lite.training.loop import fit, seed_everything
from hgsr_lite.training.many import Trained, fit_many
from hgsr_lite.training.measurement import accuracy, eval_mode, test_result
from hgsr_lite.training.recipe import BASELINES, RANKINGS, UNITS, Cut, Penalised, Recipe
from hgsr_lite.training.settings import Settings
from hgsr_lite.training.state import DivergedError, TrainingState

__all__ = [
    "BASELINES",
    "RANKINGS",
    "UNITS",
    "Cut",
    "DivergedError",
    "History",
    "Penalised",
    "Recipe",
    "Settings",
    "TestResult",
    "Trained",
    "TrainingState",
    "accuracy",
    "eval_mode",
    "fit",
    "fit_many",
    "seed_everything",
    "test_result",
]
