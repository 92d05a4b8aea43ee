"""The page of a study with distractors: which channels were kept, and whether those were the right ones."""

from __future__ import annotations

import pandas as pd

from hgsr_lite.study.analysis import summary
from hgsr_lite.study.distractors import READINGS
from hgsr_lite.study.verdicts import markdown_table

RECOVERY = "recovery"
"""What the page's picture is of, in its file's name."""
RECOVERY_IN_WORDS = (
    "Precision and recall of the kept channels against the calibrated strength, a column of panels for each "
    "family of penalties; the numbers stand in the tables below"
)
_MEANS = {
    "below 1e-3": "all weights that read it are below 1e-3",
    "below a tenth": "all weights that read it are below a tenth of the layer's largest",
}


def has_readings(table: pd.DataFrame) -> bool:
    """Whether these are runs with distractors."""
    return any(f"precision, {reading}" in table for reading in READINGS)


def seeds_that_found(runs: pd.DataFrame, reading: str) -> pd.DataFrame:
    """For each method (row) and amount (column): in how many seeds exactly the relevant channels were kept.

    >>> right = {"method": "gl", "amount": 3.0, "precision, below 1e-3": 1.0, "recall, below 1e-3": 1.0}
    >>> wrong = {**right, "precision, below 1e-3": 0.5}
    >>> int(seeds_that_found(pd.DataFrame([right, wrong]), "below 1e-3").loc["gl", 3.0])
    1
    """
    right = (runs[f"precision, {reading}"] == 1) & (runs[f"recall, {reading}"] == 1)
    return right.groupby([runs["method"], runs["amount"]], sort=False).sum().unstack()


def recovery_parts(runs: pd.DataFrame) -> list[str]:
    """The sections of the page: how often the truth was found, precision, recall, accuracy."""
    seeds = runs["seed"].nunique()
    penalties = runs[runs["method"] != "dense"]
    if (penalties.groupby("method")[["grouping", "step"]].nunique() > 1).any(axis=None):
        raise ValueError("a penalty has two groupings, or both kinds of step: make a study's file of each")
    parts = []
    for reading in READINGS:
        found = seeds_that_found(penalties, reading).sort_index(axis=1)
        parts += [
            f"## In how many of {seeds} seeds exactly the relevant channels were kept, {reading}",
            f"A channel counts as ignored if {_MEANS[reading]}. Columns: the penalty's calibrated fraction.",
            markdown_table(found.rename(columns="{:g}".format).reset_index()),
        ]
    for value, what in (
        ("precision, below 1e-3", "Precision of what was kept, below 1e-3"),
        ("recall, below 1e-3", "Recall, below 1e-3"),
        ("validation accuracy", "Validation accuracy; `dense` without a penalty"),
    ):
        parts += [f"## {what}", markdown_table(_by_amount(runs, value))]
    return parts


def _by_amount(runs: pd.DataFrame, value: str) -> pd.DataFrame:
    """Mean and half interval for each method and amount; the mean over those seeds that have the value."""
    found = summary(runs.dropna(subset=value), value, ["method", "amount"])
    numbers = zip(found["mean"], found["±"], strict=True)
    found["text"] = [f"{mean:.3f}" if pd.isna(half) else f"{mean:.3f} ± {half:.3f}" for mean, half in numbers]
    order = found["method"].drop_duplicates()
    wide = found.pivot(index="method", columns="amount", values="text").reindex(order).fillna("")
    return wide.rename(columns="{:g}".format).reset_index()
