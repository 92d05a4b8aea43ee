"""Where a path ends: the greatest amount at a bearable loss, found by bisection.

A grid of amounts leaves the end somewhere between two of them, and nearer to it on one path than on another.
Bisection asks every path alike, penalties and cuts: an amount between the last that is good and the next that
is too much, until the two are near each other. What is found is written down as further grids of the study's
file, so that the file alone says what the study is; their runs are made by then.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import pandas as pd

from hgsr_lite.study.engine import Outcome, dask_executor, make_all
from hgsr_lite.study.grid import recipes_of
from hgsr_lite.study.progress import say
from hgsr_lite.study.verdicts import PATH, TUNED, bearable, on_paths, with_steps
from hgsr_lite.training import Cut, Penalised, Recipe

if TYPE_CHECKING:
    from hgsr_lite.study.study import Study

NEAR = 1.25
"""The end is found when the least amount beyond it is at most so many times the greatest before it."""
WIDER = 4.0
"""How far the next amount lies from a path that was good throughout, or nowhere."""
EXACT = 2.0**53
"""Below it a whole number is the same as a float; above it is written as one."""
WIDEST = 1024.0
"""No amount is tried that lies further outside of the file's amounts than this."""

_PathName: TypeAlias = tuple[str, ...]  # the values of PATH


def path_ends(table: pd.DataFrame) -> pd.DataFrame:
    """Of each path in a table the amounts between which its end lies: `good up to`, `too much from`.

    An amount is good where no seed diverged and the mean validation accuracy after fine-tuning is at most
    `LOSS_ALLOWED` below that of the dense network with the same first weights. `good up to` is the greatest
    such amount, `too much from` the least that was tried beyond it; either is missing where there is none,
    both are without a dense network. `amounts` counts what was tried, and the end is `found` where the two
    are at most a factor `NEAR` apart.
    """
    runs = with_steps(table)
    points = on_paths(runs).groupby([*PATH, "amount"])
    means = points[TUNED[0]].mean()
    tried = means.index.to_frame(index=False)
    tried["good"] = bearable(runs, means) & points["steady"].all().to_numpy()
    starts = set(runs.loc[runs["method"] == "dense", "start"])
    rows = []
    for key, amounts in tried.groupby(list(PATH)):
        last = amounts.loc[amounts["good"], "amount"].max()
        beyond = amounts.loc[~(amounts["amount"] <= last), "amount"].min()
        if key[PATH.index("start")] not in starts:
            last = beyond = math.nan
        found = "yes" if beyond <= NEAR * last else "no"
        rows.append([*key, len(amounts), last, beyond, found])
    return pd.DataFrame(rows, columns=[*PATH, "amounts", "good up to", "too much from", "found"])


def next_amount(good_up_to: float, too_much_from: float, most: float = math.inf) -> float | None:
    """The amount to try next, two digits that count; None if the end is found. NaN stands for none.

    `most` is an amount that cannot be: a share stays below 1, and nearer to it if that of before was good.

    >>> next_amount(5, 10), next_amount(8, 10), next_amount(5, math.nan), next_amount(math.nan, 2)
    (7.1, None, 20.0, 0.5)
    >>> next_amount(0.72, math.nan, most=1)
    0.93
    """
    if math.isnan(good_up_to):
        wanted = too_much_from / WIDER
    elif math.isnan(too_much_from):
        wanted = good_up_to * WIDER
        if wanted >= most:
            wanted = most - (most - good_up_to) / WIDER
    elif too_much_from <= NEAR * good_up_to:
        return None
    else:
        wanted = math.sqrt(good_up_to * too_much_from)
    return float(f"{wanted:.2g}")


def find_ends(
    study: Study,
    scheduler: str | None = None,
    workers: int | None = None,
    device: str = "cpu",
    progress: bool = True,
) -> Outcome:
    """Make the runs that bisection asks for until each path's end is found; where they run: `Study.make`.

    Each amount is made with every seed of its path. The runs go to the study's folder of run files:
    interrupted, the search goes on from there. Raises what `Study.make` raises, and what `searched` does.
    """
    if "[[grid]]" not in study.path.read_text(encoding="utf-8-sig"):
        raise ValueError(f"{study.path}: write each grid as a [[grid]] table: what is found is to be added")
    study.folder.check_writable()
    say(study.status(device).notes())
    made, wanted = Outcome(), _wanted(study)
    if not wanted:
        return made
    with dask_executor(scheduler, workers) as (executor, at_once):
        while wanted:
            outcome = make_all(study.jobs(wanted, device), study.folder, executor, at_once, progress)
            made.written += outcome.written
            made.diverged += outcome.diverged
            made.failed |= outcome.failed
            made.interrupted = outcome.interrupted
            wanted = [] if outcome.failed or outcome.interrupted else _wanted(study)
    return made


def searched(study: Study) -> pd.DataFrame:
    """The table of the study's runs, and of the amounts beside them that its folder holds with every seed.

    Raises `ValueError` if runs that the file plans are missing, if it has no dense run of a path's budget and
    first weights, or if the runs of a path differ in more than their amounts and seeds.
    """
    if missing := len(study.missing()):
        raise ValueError(f"{missing} runs are missing, and the ends come after: study run {study.path}")
    return study.with_runs_beside(
        key for runs in _whole(study, _paths(study)).values() for key in runs.values()
    )


def further_grids(study: Study) -> str:
    """The amounts that the search has made and the file does not plan, as grids to be added to it (TOML)."""
    paths = _paths(study)
    amounts: dict[_PathName, list[float]] = {}
    for name, amount in sorted(_whole(study, paths)):
        amounts.setdefault(name, []).append(amount)
    return "".join(f"\n{_as_grid(study.grid.shared, paths[name], found)}" for name, found in amounts.items())


@dataclass(frozen=True)
class _Path:
    """The runs of one path that a study's file plans: alike but for amounts and seeds."""

    recipes: tuple[Recipe, ...]

    @property
    def course(self) -> Recipe:
        return _course(self.recipes[0])

    @property
    def seeds(self) -> set[int]:
        return {recipe.seed for recipe in self.recipes}

    @property
    def most(self) -> float:
        return 1.0 if isinstance(self.recipes[0].method, Cut) else math.inf

    @property
    def amounts(self) -> set[float]:
        return {_amount(recipe) for recipe in self.recipes}

    def at(self, amount: float, seeds: Iterable[int]) -> list[Recipe]:
        """The recipes of an amount."""
        settings = self.recipes[0].settings
        return [
            replace(_with_amount(self.recipes[0], amount), settings=replace(settings, seed=seed))
            for seed in sorted(seeds)
        ]

    def may_try(self, amount: float) -> bool:
        """Whether an amount is possible, and not absurdly far from those of the file."""
        near = min(self.amounts) / WIDEST <= amount <= max(self.amounts) * WIDEST
        return near and amount < self.most


def _paths(study: Study) -> dict[_PathName, _Path]:
    """The paths that the file plans, by name; what `searched` raises."""
    found: dict[_PathName, list[Recipe]] = {}
    for recipe in study.grid.recipes:
        match recipe.method:
            case Penalised(l1_mix=0) as by:
                step = "proximal" if recipe.settings.proximal else "gradient"
                found.setdefault((by.penalty, by.grouping, step, recipe.start), []).append(recipe)
            case Cut() as by:
                found.setdefault((by.by, by.unit, "cut", recipe.start), []).append(recipe)
    dense = {_budget(recipe) for recipe in study.grid.recipes if recipe.method is None}
    for name, recipes in found.items():
        if len({_course(recipe) for recipe in recipes}) > 1:
            raise ValueError(
                f"{study.path}: the runs of {' '.join(name)} differ in more than their amounts and seeds: a "
                "path has one network, one budget, and fractions or strengths; make a file of each"
            )
        budget = _budget(recipes[0])
        if {each for each in dense if each[0] == budget[0]} != {budget}:
            raise ValueError(
                f"{study.path}: {' '.join(name)} has no dense run to compare with, or several kinds: add one "
                '[[grid]] with baseline = "dense", the same network, first weights and epochs'
            )
    return {name: _Path(tuple(recipes)) for name, recipes in found.items()}


def _beside(study: Study, paths: Mapping[_PathName, _Path]) -> dict[tuple[_PathName, float], dict[int, str]]:
    """The runs in the study's folder at amounts of its paths that its file does not plan: keys by seed."""
    names, seen = {path.course: name for name, path in paths.items()}, (study.grid.images, study.fingerprint)
    found: dict[tuple[_PathName, float], dict[int, str]] = {}
    for key, run in study.folder.read().items():
        if run.recipe.method is None or (run.images, run.fingerprint) != seen:
            continue
        name, amount, seed = names.get(_course(run.recipe)), _amount(run.recipe), run.recipe.seed
        if name is not None and amount not in paths[name].amounts and seed in paths[name].seeds:
            found.setdefault((name, amount), {})[seed] = key
    return found


def _whole(study: Study, paths: Mapping[_PathName, _Path]) -> dict[tuple[_PathName, float], dict[int, str]]:
    """Of those the amounts that have every seed of their path: with fewer an amount says something else."""
    beside = _beside(study, paths)
    return {place: runs for place, runs in beside.items() if runs.keys() == paths[place[0]].seeds}


def _wanted(study: Study) -> list[Recipe]:
    """The runs to make next: what amounts already begun still lack, or else each open path's next amount."""
    table, paths = searched(study), _paths(study)
    wanted: list[Recipe] = []
    for (name, amount), runs in _beside(study, paths).items():
        wanted += paths[name].at(amount, paths[name].seeds - runs.keys())
    if not wanted:
        for row in path_ends(table).to_dict("records"):
            path, amount = paths.get(tuple(row[name] for name in PATH)), None
            if path is not None:
                amount = next_amount(row["good up to"], row["too much from"], path.most)
            if path is not None and amount is not None and path.may_try(amount):
                wanted += path.at(amount, path.seeds)
    return sorted(wanted, key=lambda recipe: recipe.seed)


def _as_grid(shared: Mapping[str, Any], path: _Path, amounts: list[float]) -> str:
    """A grid's text: a path's method, its amounts, and what differs from what the file's grids share."""
    template, name = path.recipes[0], _amount_name(path.recipes[0])
    given, kind = template.fields(), "baseline" if isinstance(template.method, Cut) else "penalty"
    bare = {kind: given[kind], name: amounts}
    if kind == "baseline":
        bare["unit"] = given["unit"]
    usual = recipes_of(shared, bare)[0].fields()
    own = {
        field: value
        for field, value in given.items()
        if field not in (*bare, "seed") and value is not None
        if value != usual[field] or isinstance(shared.get(field), list)
    }
    if path.seeds != {recipe.seed for recipe in recipes_of(shared, {"baseline": "dense"})}:
        own["seed"] = sorted(path.seeds)
    cells = {
        **bare,
        **own,
        name: [int(each) if float(each).is_integer() and each < EXACT else each for each in amounts],
    }
    return "\n".join(["[[grid]]", *(f"{field} = {json.dumps(value)}" for field, value in cells.items()), ""])


def _course(recipe: Recipe) -> Recipe:
    """What all runs of a path have in common."""
    return replace(_with_amount(recipe, 0.5), settings=replace(recipe.settings, seed=0))


def _budget(recipe: Recipe) -> tuple[Any, ...]:
    """What a run and the dense run that it is compared with have in common."""
    settings = replace(recipe.settings, seed=0, proximal=False)
    return recipe.start, replace(recipe, method=None, settings=settings)


def _with_amount(recipe: Recipe, amount: float) -> Recipe:
    return replace(recipe, method=replace(recipe.method, **{_amount_name(recipe): amount}))


def _amount(recipe: Recipe) -> float:
    return getattr(recipe.method, _amount_name(recipe))


def _amount_name(recipe: Recipe) -> str:
    if isinstance(recipe.method, Cut):
        return "share"
    return "fraction" if recipe.method.strength is None else "strength"
