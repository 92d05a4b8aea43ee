"""Where a penalty's path ends: the greatest amount at a bearable loss, found by bisection.

A grid of amounts leaves the end somewhere between two of them, and closer to it for one penalty than for
another. Bisection asks every path alike: an amount between the last that is bearable and the next that is
not, until the two are near each other. What is found is written down as further grids of the study's file, so
that the file alone says what the study is; their runs are made by then.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from hgsr_lite.study.engine import Outcome, dask_executor, make_all
from hgsr_lite.study.grid import recipes_of
from hgsr_lite.study.verdicts import PATH, TUNED, bearable, on_paths, with_steps
from hgsr_lite.training import Penalised, Recipe

if TYPE_CHECKING:
    from hgsr_lite.study.study import Study

NEAR = 1.25
"""The end is found when the least amount beyond it is at most so many times the greatest before it."""
WIDER = 4.0
"""How far the next amount lies from a path that was bearable throughout, or nowhere."""
WIDEST = 1024.0
"""No amount is tried that lies further outside of the file's amounts than this."""


def path_ends(table: pd.DataFrame) -> pd.DataFrame:
    """Of each penalty's path in a table: its end lies from `bearable up to` to below `lost at`.

    An amount is bearable where the mean validation accuracy after fine-tuning is at most `LOSS_ALLOWED` below
    the dense network's and no seed diverged. `bearable up to` is the greatest such amount, `lost at` the
    least that was tried beyond it; either is missing where there is none. `amounts` counts what was tried,
    and an end is `found` where the two are near each other.
    """
    runs = with_steps(table)
    paths = on_paths(runs[runs["penalty"].notna()])
    points = paths.groupby([*PATH, "amount"])
    means = points[TUNED[0]].mean()
    holds = bearable(runs, means) & points["steady"].all().to_numpy()
    tried = means.index.to_frame(index=False).assign(holds=holds)
    rows = []
    for key, points in tried.groupby(list(PATH)):
        last = points.loc[points["holds"], "amount"].max()
        beyond = points["amount"] if np.isnan(last) else points.loc[points["amount"] > last, "amount"]
        found = beyond.min() <= NEAR * last
        rows.append([*key, len(points), last, beyond.min(), "yes" if found else "no"])
    return pd.DataFrame(rows, columns=[*PATH, "amounts", "bearable up to", "lost at", "found"])


def next_amount(bearable_up_to: float, lost_at: float) -> float | None:
    """The amount to try next, two digits that count; None if the end is found. NaN stands for none.

    >>> next_amount(5, 10), next_amount(8, 10), next_amount(5, math.nan), next_amount(math.nan, 2)
    (7.1, None, 20.0, 0.5)
    """
    if math.isnan(bearable_up_to):
        wanted = lost_at / WIDER
    elif math.isnan(lost_at):
        wanted = bearable_up_to * WIDER
    elif lost_at <= NEAR * bearable_up_to:
        return None
    else:
        wanted = math.sqrt(bearable_up_to * lost_at)
    return float(f"{wanted:.2g}")


def find_ends(
    study: Study,
    scheduler: str | None = None,
    workers: int | None = None,
    device: str = "cpu",
    progress: bool = True,
) -> Outcome:
    """Make the runs that bisection asks for until each path's end is found; where they run: `Study.make`.

    They go to the study's folder of run files: interrupted, the search goes on from there. Raises what
    `Study.make` raises, and `ValueError` where no dense run says what is bearable or a path of the file is
    not one path.
    """
    study.folder.check_writable()
    made = Outcome()
    with dask_executor(scheduler, workers) as (executor, at_once):
        while wanted := _wanted(study):
            outcome = make_all(study.jobs(wanted, device), study.folder, executor, at_once, progress)
            made.written += outcome.written
            made.diverged += outcome.diverged
            made.failed |= outcome.failed
            made.interrupted = outcome.interrupted
            if outcome.failed or outcome.interrupted:
                break
    return made


def _wanted(study: Study) -> list[Recipe]:
    """The runs to make next: of every path whose end is not found the next amount, with each of its seeds."""
    paths = _paths(study)
    wanted: list[Recipe] = []
    for row in path_ends(searched(study)).to_dict("records"):
        recipes = paths[tuple(row[name] for name in PATH)]
        planned = [getattr(recipe.method, _amount_name(recipe)) for recipe in recipes]
        amount = next_amount(row["bearable up to"], row["lost at"])
        if amount is not None and min(planned) / WIDEST <= amount <= max(planned) * WIDEST:
            wanted += dict.fromkeys(_with_amount(recipe, amount) for recipe in recipes)
    return sorted(wanted, key=lambda recipe: recipe.seed)


def searched(study: Study) -> pd.DataFrame:
    """The table of the study's runs, and of those in its folder that the search for the ends has made.

    Raises `ValueError` if runs that the file plans are missing, or none says what is bearable.
    """
    if missing := len(study.missing()):
        raise ValueError(f"{missing} runs are missing, and the ends come after: study run {study.path}")
    if all(recipe.method is not None for recipe in study.grid.recipes):
        raise ValueError(f'{study.path} plans no dense run to compare with: add [[grid]], baseline = "dense"')
    known = {_course(recipes[0]) for recipes in _paths(study).values()}
    return study.with_runs_beside(
        lambda recipe: isinstance(recipe.method, Penalised) and _course(recipe) in known
    )


def further_grids(study: Study) -> str:
    """The amounts that the search has made and the file does not plan, as grids to be added to it (TOML)."""
    found = on_paths(with_steps(searched(study)))
    found = found[~found["key"].isin(study.keys())]
    paths = _paths(study)
    return "\n".join(
        _as_grid(study.grid.shared, paths[key], sorted(points["amount"].unique()))
        for key, points in found.groupby(list(PATH))
    )


def _as_grid(shared: Mapping[str, Any], recipes: list[Recipe], amounts: list[float]) -> str:
    """A grid's text: a path's penalty, its amounts, and what differs from what the grids share."""
    template, name = recipes[0], _amount_name(recipes[0])
    penalty, given = template.method.penalty, template.fields()
    usual = recipes_of(shared, {"penalty": penalty, name: amounts})
    own = {
        field: value
        for field, value in given.items()
        if field not in (name, "seed") and value not in (None, usual[0].fields()[field])
    }
    seeds = sorted({recipe.seed for recipe in recipes})
    if seeds != sorted({recipe.seed for recipe in usual}):
        own["seed"] = seeds
    cells = {"penalty": penalty, **own, name: [int(each) if each.is_integer() else each for each in amounts]}
    return "\n".join(["[[grid]]", *(f"{field} = {json.dumps(value)}" for field, value in cells.items()), ""])


def _paths(study: Study) -> dict[tuple[str, ...], list[Recipe]]:
    """The recipes of each path that the file plans; `ValueError` if they differ in more than amount, seed."""
    paths: dict[tuple[str, ...], list[Recipe]] = {}
    for recipe in study.grid.recipes:
        method = recipe.method
        if isinstance(method, Penalised) and not method.l1_mix:
            step = "proximal" if recipe.settings.proximal else "gradient"
            paths.setdefault((method.penalty, method.grouping, step, recipe.start), []).append(recipe)
    for path, recipes in paths.items():
        if len({_course(recipe) for recipe in recipes}) > 1:
            raise ValueError(
                f"{study.path}: the runs of {' '.join(path)} differ in more than their amounts and seeds: a "
                "path has one network, one budget, and fractions or strengths; make a file of each"
            )
    return paths


def _course(recipe: Recipe) -> Recipe:
    """What all runs of a path have in common."""
    return replace(_with_amount(recipe, 1.0), settings=replace(recipe.settings, seed=0))


def _with_amount(recipe: Recipe, amount: float) -> Recipe:
    return replace(recipe, method=replace(recipe.method, **{_amount_name(recipe): amount}))


def _amount_name(recipe: Recipe) -> str:
    return "fraction" if recipe.method.strength is None else "strength"
