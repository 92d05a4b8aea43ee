"""What a study's table says, as one page: made again from the table by one command, and by a test."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from hgsr_lite.study.analysis import against, at_levels, hypervolume, summary
from hgsr_lite.study.tables import read_table
from hgsr_lite.study.verdicts import (
    GOALS,
    LOSS_ALLOWED,
    PATH,
    QUESTIONS,
    TUNED,
    against_plain,
    choices,
)

if TYPE_CHECKING:
    from hgsr_lite.study.study import Study

ZEROED = ("validation accuracy after zeroing", "test accuracy after zeroing")
SPARSITIES = (0.5, 0.8, 0.9, 0.95)
DEAD_KERNELS = (0.5, 0.7, 0.8, 0.9)
REMOVED = (0.25, 0.5, 0.75, 0.9)
_FEWEST = 2  # points of a path: one is no path
_FEWEST_SEEDS = 3


def prepared(table: pd.DataFrame) -> pd.DataFrame:
    """The runs that did not diverge, with the kind of step in words."""
    table = table[~table["diverged"]].copy()
    penalised = table["penalty"].notna()
    table["step"] = np.where(penalised, np.where(table["proximal"], "proximal", "gradient"), "cut")
    return table


def accuracy_at(
    table: pd.DataFrame, gain: str, levels: Sequence[float], columns: tuple[str, str] = TUNED
) -> pd.DataFrame:
    """For each path and level of `gain`: the mean test accuracy over seeds, its half interval, the seeds.

    `columns` are what chooses and what is reported. Dense networks and given strengths have no path.
    """
    chosen_by, reported = columns
    paths = table[(table["method"] != "dense") & (table["fraction"].notna() | table["share"].notna())]
    sizes = paths.groupby([*PATH, "seed"], dropna=False)["amount"].transform("nunique")
    options = {"gain": gain, "chosen_by": chosen_by, "reported": reported, "path": PATH}
    paths = paths[sizes >= _FEWEST]
    if paths.empty:
        return pd.DataFrame(columns=[*PATH, "level", "mean", "±", "seeds"])
    found = at_levels(paths, levels, **options)
    return summary(found, reported, [*PATH, "level"])


def page(table: pd.DataFrame, title: str) -> str:
    """The whole report, as Markdown."""
    runs = prepared(table)
    dense = summary(runs[runs["method"] == "dense"], TUNED[1], ["start"])
    parts = [
        f"# {title}",
        _what_there_is(table),
        "## Dense, the same budget",
        _table(dense.rename(columns={"mean": "test accuracy"})),
        f"## Furthest within {LOSS_ALLOWED:.0%} of dense: penalties, and the best cut",
        "`amount`: a penalty's calibrated fraction, or the share that is cut.",
        *[_table(choices(runs, goal)) for goal in GOALS],
        "## Does the hierarchy help? Each penalty minus the plain one of its family",
        *_hierarchy(runs),
        "## Test accuracy after fine-tuning, at the share of parameters removed",
        _levels(accuracy_at(runs, "parameters removed", REMOVED)),
        "## Test accuracy after fine-tuning, at the share of dead kernels",
        _levels(accuracy_at(runs, "dead kernels", DEAD_KERNELS)),
        "## Test accuracy after zeroing, at the share of weights below tolerance (cuts: at zero)",
        _levels(accuracy_at(runs, "below tolerance", SPARSITIES, ZEROED)),
        "## Against magnitude pruning of input channels, paired over seeds",
        "At half of the parameters removed.",
        _differences(runs, "parameters removed", 0.5, "feature"),
        "## Against magnitude pruning of kernels, paired over seeds",
        "At 80 % of the kernels dead.",
        _differences(runs, "dead kernels", 0.8, "kernel"),
        "## Area under each front",
        "Share of multiply-accumulates saved, and test accuracy after fine-tuning, both from 0 to 1.",
        _table(_areas(runs)),
        "## Strengths that were given, not calibrated",
        _table(_given(runs)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def write_report(study: Study) -> Path:
    """Write `NAME.md` beside the study's table, from the table alone; `ValueError` if there is none."""
    if not study.table.exists():
        raise ValueError(f"{study.table} is not there: study collect {study.path}")
    place = study.path.with_suffix(".md")
    planned = f"{study.grid.title} ({len(study.grid.recipes)} runs planned)"
    place.write_text(page(read_table(study.table), planned), encoding="utf-8")
    return place


def _what_there_is(table: pd.DataFrame) -> str:
    by_seed = table.groupby("seed").size()
    seeds = ", ".join(f"seed {seed}: {count}" for seed, count in by_seed.items())
    diverged = int(table["diverged"].sum())
    machines = ", ".join(sorted(set(table["processor"].dropna())))
    return (
        f"{len(table)} runs ({seeds}), {diverged} of them diverged; made on: {machines}. Mean and half of "
        "the 95 % interval over seeds; with one seed there is no interval, and nothing is said about luck. "
        "Strengths are chosen on the validation part, the accuracy is read on the test part."
    )


def _levels(found: pd.DataFrame) -> str:
    reached = found.dropna(subset="mean")
    if reached.empty:
        return "No path reaches any of these levels yet."
    numbers = zip(reached["mean"], reached["±"], reached["seeds"], strict=True)
    reached = reached.assign(value=[_percent(*three) for three in numbers])
    wide = reached.pivot(index=list(PATH), columns="level", values="value")
    wide.columns = [f"{level:.0%}" for level in wide.columns]
    return _table(wide.fillna("").reset_index())


def _percent(mean: float, half: float, seeds: int) -> str:
    return f"{100 * mean:.1f} ± {100 * half:.1f}" if seeds > 1 else f"{100 * mean:.1f} (one seed)"


def differences(runs: pd.DataFrame, gain: str, level: float, unit: str) -> pd.DataFrame:
    """Where `gain` is at `level`, each path that gets there minus magnitude pruning of this unit.

    Raises `ValueError` where there is no such pruning.
    """
    paths = runs[(runs["method"] != "dense") & (runs["fraction"].notna() | runs["share"].notna())]
    options = {"gain": gain, "chosen_by": TUNED[0], "reported": TUNED[1], "path": PATH}
    found = at_levels(paths, [level], **options)
    start = runs.loc[runs["method"] == "magnitude", "start"]
    if start.empty:
        raise ValueError("the table holds no magnitude pruning")
    cut = {"method": "magnitude", "grouping": unit, "step": "cut", "start": start.iloc[0]}
    return against(found, TUNED[1], cut, PATH)


def _differences(runs: pd.DataFrame, gain: str, level: float, unit: str) -> str:
    if runs["seed"].nunique() < 2:
        return "One seed says nothing about luck: no differences yet."
    try:
        return _table(differences(runs, gain, level, unit))
    except ValueError as error:
        return f"Not yet: {error}"


def _hierarchy(runs: pd.DataFrame) -> list[str]:
    if runs["seed"].nunique() < _FEWEST_SEEDS:
        return ["Not enough seeds for intervals yet."]
    parts = ["Test accuracy after fine-tuning. `reach`: seeds in which the path gets to the level at all."]
    for gain, level in QUESTIONS:
        parts += [f"At {level:.0%}, {gain}:", _table(against_plain(runs, gain, level))]
    return parts


def _areas(runs: pd.DataFrame) -> pd.DataFrame:
    runs = runs.assign(saved=1 - runs["MACs left"] / runs["MACs"])
    areas = [
        {**dict(zip([*PATH, "seed"], key, strict=True)), "area": hypervolume(rows["saved"], rows[TUNED[1]])}
        for key, rows in runs[runs["method"] != "dense"].groupby([*PATH, "seed"], sort=False, dropna=False)
        if rows["amount"].nunique() >= _FEWEST
    ]
    if not areas:
        return pd.DataFrame()
    return summary(pd.DataFrame(areas), "area", PATH).sort_values("mean", ascending=False)


def _given(runs: pd.DataFrame) -> pd.DataFrame:
    given = runs[runs["penalty"].notna() & runs["fraction"].isna()]
    columns = [
        "method",
        "l1_mix",
        "start",
        "seed",
        ZEROED[1],
        TUNED[1],
        "below tolerance",
        "parameters removed",
    ]
    return given[columns]


def _table(table: pd.DataFrame) -> str:
    """A Markdown table, numbers to three digits after the point."""
    if table.empty:
        return "Nothing yet."
    cells = table.map(lambda cell: f"{cell:.3f}" if isinstance(cell, float) else str(cell)).replace("nan", "")
    lines = [list(table.columns), ["---"] * len(table.columns), *cells.to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
