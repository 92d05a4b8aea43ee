"""Training: a recipe, the loop, its history, what is measured, many networks at once. Start in `loop`."""

from __future__ import annotations

from hgsr_lite.training.history import History, TestResult
from hgsr_lite.training.loop import fit, seed_everything, training_conditions
from hgsr_lite.training.many import Trained, fit_many
from hgsr_lite.training.measurement import accuracy, eval_mode, evaluate, test_result
from hgsr_lite.training.recipe import BASELINES, FIELDS, RANKINGS, UNITS, Cut, Penalised, Recipe
from hgsr_lite.training.settings import Settings
from hgsr_lite.training.state import FINISHED, DivergedError, TrainingState
from hgsr_lite.training.threads import one_thread, threads_for

__all__ = [
    "BASELINES",
    "FIELDS",
    "FINISHED",
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
    "evaluate",
    "fit",
    "fit_many",
    "one_thread",
    "seed_everything",
    "test_result",
    "threads_for",
    "training_conditions",
]
