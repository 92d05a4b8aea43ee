"""Training: settings, the loop, its history, what is measured, many networks at once. Start in `loop`."""

from __future__ import annotations

from hgsr_lite.training.history import History, TestResult
from hgsr_lite.training.loop import fit, seed_everything
from hgsr_lite.training.many import FitConfig, Fitted, fit_many
from hgsr_lite.training.measurement import accuracy, eval_mode, test_result
from hgsr_lite.training.processes import in_processes
from hgsr_lite.training.state import Run, Settings

__all__ = [
    "FitConfig",
    "Fitted",
    "History",
    "Run",
    "Settings",
    "TestResult",
    "accuracy",
    "eval_mode",
    "fit",
    "fit_many",
    "in_processes",
    "seed_everything",
    "test_result",
]
