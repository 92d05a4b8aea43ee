"""The figures that notebooks hand to the closing table of ``make run``."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas

RESULTS_VARIABLE = "HGSR_RESULTS"


def record_result(
    network: str,
    variant: str,
    *,
    accuracy: float,
    accuracy_after_zeroing: float,
    below_tolerance: float,
    exact_zeros: float,
    dead_channels: int,
    parameters_after_removal: int | None = None,
) -> None:
    """Hand the figures of one trained network to the closing table of ``make run``.

    ``variant`` is ``"dense"`` or ``"regularised"``; accuracies, ``below_tolerance`` and ``exact_zeros`` are
    fractions in 0..1, the last one counted after the weights below tolerance were set to zero. Appends a line
    to the file that ``$HGSR_RESULTS`` names, and does nothing where the variable is not set. Raises
    ``ValueError`` for another variant or a fraction outside 0..1.

    >>> record_result("digits_cnn", "dense", accuracy=0.99, accuracy_after_zeroing=0.99,
    ...               below_tolerance=0.01, exact_zeros=0.01, dead_channels=0)
    """
    figures = {key: value for key, value in locals().items() if key not in ("network", "variant")}
    if variant not in ("dense", "regularised"):
        raise ValueError(f"variant is {variant!r}; use 'dense' or 'regularised'.")
    for name in ("accuracy", "accuracy_after_zeroing", "below_tolerance", "exact_zeros"):
        if not 0 <= figures[name] <= 1:
            raise ValueError(f"{name} is {figures[name]}; give a fraction between 0 and 1.")
    target = os.environ.get(RESULTS_VARIABLE)
    if target:
        plain = {key: value if value is None else float(value) for key, value in figures.items()}
        with open(target, "a", encoding="utf-8") as lines:
            lines.write(json.dumps({"network": network, "variant": variant, **plain}) + "\n")


def read_results(path: str | Path) -> list[dict[str, Any]]:
    """Return the recorded figures of a run in the order they came; none if no notebook recorded any."""
    path = Path(path)
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []


def results_table(results: Sequence[Mapping[str, Any]]) -> pandas.DataFrame:
    """Return recorded figures as the table that ``make run`` closes with: one row a network and variant.

    >>> row = {"network": "digits_cnn", "variant": "dense", "accuracy": 0.99, "accuracy_after_zeroing": 0.99,
    ...        "below_tolerance": 0.02, "exact_zeros": 0.02, "dead_channels": 0.0,
    ...        "parameters_after_removal": None}
    >>> results_table([row]).iloc[0].tolist()
    ['digits_cnn', 'dense', '99.0 %', '99.0 %', '2.0 %', '2.0 %', '0', '-']
    """
    import pandas

    def percent(value: float) -> str:
        return f"{100 * value:.1f} %"

    def count(value: float | None) -> str:
        return "-" if value is None else f"{value:,.0f}"

    columns = {
        "network": ("network", str),
        "variant": ("variant", str),
        "test accuracy": ("accuracy", percent),
        "after zeroing": ("accuracy_after_zeroing", percent),
        "below tolerance": ("below_tolerance", percent),
        "exact zeros": ("exact_zeros", percent),
        "dead channels": ("dead_channels", count),
        "parameters left": ("parameters_after_removal", count),
    }
    rows = [[form(result[key]) for key, form in columns.values()] for result in results]
    return pandas.DataFrame(rows, columns=list(columns))
