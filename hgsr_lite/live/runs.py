"""What the page knows of a run: its settings, its metrics, its curves and the norms of its kernels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from hgsr_lite.live.maps import plain_record
from hgsr_lite.training import History, Penalised, Trained

CONTROLS = {
    "penalty": None,
    "grouping": "feature",
    "strength": 0.0,
    "l1_mix": 0.0,
    "warmup": 0.0,
    "proximal": False,
}
"""What a reader can turn that needs a new run; the values say that there is no penalty."""


def controls_of(method: Penalised | None, proximal: bool) -> dict[str, Any]:
    """How the controls stand for a penalty of fixed strength.

    >>> controls_of(Penalised("gl", strength=0.1), proximal=True)["strength"]
    0.1
    """
    given = {} if method is None else {**vars(method), "proximal": proximal}
    return {name: given.get(name, value) for name, value in CONTROLS.items()}


def run_in_table(
    number: int, trained: Trained, metrics: Mapping[str, float], tolerance: float
) -> dict[str, Any]:
    """One run as the page's table and curves take it."""
    controls = controls_of(trained.recipe.method, trained.recipe.settings.proximal)
    words = f"{controls['penalty']} {controls['strength']:.2g}" if trained.recipe.method else "dense"
    return {
        **controls,
        "tolerance": tolerance,
        "name": f"{number}: {words}",
        "ending": ending(trained),
        "metrics": plain_record(metrics),
        "records": [plain_record(record) for record in trained.history.records],
        "norms": newest_norms(trained.history),
    }


def ending(trained: Trained) -> str:
    """How a run ended, and what was noted on the way."""
    how = f"finished after epoch {trained.recipe.settings.epochs}" if trained.finished else trained.ended
    return " ".join([how, *trained.history.notes])


def newest_norms(history: History) -> bytes:
    """The kernels' norms of all layers at the newest snapshot, one layer behind the other, as float32."""
    layers = [norms[-1].float().nan_to_num(0.0).flatten() for norms in history.snapshots.values()]
    return torch.cat(layers).numpy().tobytes()
