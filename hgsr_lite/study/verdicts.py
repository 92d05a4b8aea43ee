"""What a table says about the two questions a reader has: does the hierarchy help, and what should I take?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from hgsr_lite.study.analysis import at_levels, paired, summary
from hgsr_lite.study.intervals import confidence_half_width
from hgsr_lite.table import PENALTY_FAMILIES
from hgsr_lite.training import RANKINGS

PATH = ("method", "grouping", "step", "start")
"""What tells one path from another here: also the kind of step and the initial weights."""
TUNED = ("validation accuracy after fine-tuning", "test accuracy after fine-tuning")
GOALS = ("parameters removed", "dead kernels", "below tolerance")
QUESTIONS = (("parameters removed", 0.25), ("dead kernels", 0.5), ("below tolerance", 0.8))
"""Where a hierarchical penalty is compared with its plain one: levels that both reach somewhere."""
LOSS_ALLOWED = 0.01
_BUDGET = (
    *("network", "width", "epochs", "finetune", "optimizer", "lr", "momentum", "weight_decay"),
    *("batch_size", "augment", "bfloat16", "tolerance", "relative"),
)
_STAGES = ("", " after zeroing", " after removal", " after fine-tuning")
_MEASURED = (
    *(f"{part} accuracy{stage}" for part in ("validation", "test") for stage in _STAGES),
    *("below tolerance", "exact zeros", "dead kernels", "dead inputs", "dead outputs", "MACs", "MACs left"),
)
"""What no run may have, where all diverged, or none was fine-tuned: then it is missing in each."""
FEWEST_POINTS = 2
"""One point is no path."""
_FEWEST_SEEDS = 3


def prepared(table: pd.DataFrame) -> pd.DataFrame:
    """The runs that did not diverge, with the kind of step in words."""
    return with_steps(table)[~table["diverged"]]


def with_steps(table: pd.DataFrame) -> pd.DataFrame:
    """The runs with the kind of step in words, and whether their amount is `steady`: no seed diverged.

    `seeds of the path` counts those that also diverged. Raises `ValueError` where runs that would count as
    seeds of one thing, or be compared, differ in anything else.
    """
    table = table.copy()
    table[[name for name in _MEASURED if name not in table]] = np.nan
    penalised = table["penalty"].notna()
    table["step"] = np.where(penalised, np.where(table["proximal"], "proximal", "gradient"), "cut")
    points = table.groupby([*PATH, "l1_mix", "amount"], dropna=False)
    table["steady"] = ~points["diverged"].transform("any")
    table["seeds of the path"] = table.groupby(list(PATH), dropna=False)["seed"].transform("nunique")
    _check_alike(on_paths(table, or_dense=True))
    return table


def _check_alike(runs: pd.DataFrame) -> None:
    """Nothing but the method, its amount and the seed may differ; between first weights, nothing else."""
    runs = runs.assign(amounts=np.where(runs["penalty"].notna() & runs["fraction"].isna(), "strength", ""))
    images = [name for name in runs if name.startswith("images ")]
    for by, names in ((["start"], [*_BUDGET, *images]), (list(PATH), ["warmup", "layers", "amounts"])):
        counts = runs.groupby(by, dropna=False)[[name for name in names if name in runs]].nunique(
            dropna=False
        )
        if differing := counts.columns[(counts > 1).any()].tolist():
            raise ValueError(
                f"runs that are to be compared, or are seeds of one path, differ in {', '.join(differing)}: "
                "make a study's file of each (of amounts: one for fractions, one for strengths)"
            )


def on_paths(runs: pd.DataFrame, or_dense: bool = False) -> pd.DataFrame:
    """The runs that stand on a path: cuts, and penalties by themselves.

    A dense network has no amount; a penalty mixed with l1, as the authors released theirs, is another method.
    """
    return runs[((runs["method"] != "dense") | or_dense) & ~(runs["l1_mix"] > 0)]


def accuracy_at(
    table: pd.DataFrame, gain: str, levels: Sequence[float], columns: tuple[str, str] = TUNED
) -> pd.DataFrame:
    """For each path and level of `gain`: the mean test accuracy over seeds, its half interval, the seeds.

    `columns` are what chooses and what is reported. There is no mean where a seed has fewer than two runs
    that did not diverge: the seeds that are left would flatter it.
    """
    chosen_by, reported = columns
    paths = on_paths(table)
    sizes = paths.groupby([*PATH, "seed"], dropna=False)["amount"].transform("nunique")
    options = {"gain": gain, "chosen_by": chosen_by, "reported": reported, "path": PATH}
    paths = paths[sizes >= FEWEST_POINTS]
    if paths.empty:
        return pd.DataFrame(columns=[*PATH, "level", "mean", "±", "seeds"])
    found = summary(at_levels(paths, levels, **options), reported, [*PATH, "level"])
    made = found[list(PATH)].merge(paths.groupby(list(PATH))["seeds of the path"].max().reset_index())
    found.loc[found["seeds"] < made["seeds of the path"], ["mean", "±"]] = np.nan
    return found


def against_plain(runs: pd.DataFrame, gain: str, level: float) -> pd.DataFrame:
    """Each hierarchical penalty minus the plain one of its family, alike in all else, at `level` of `gain`.

    The difference of the mean test accuracies after fine-tuning, paired over seeds, with its 95 % interval
    where at least three seeds have both, `p (Holm)` over these rows. `reach` and `plain's reach` count the
    seeds in which each gets to the level at all. Left out: pairs of which neither ever does, and pairs of
    which one has no runs, which says nothing about it.
    """
    paths = on_paths(runs[runs["penalty"].notna()])
    found = at_levels(paths, [level], gain=gain, chosen_by=TUNED[0], reported=TUNED[1], path=PATH)
    found = found.dropna(subset=TUNED[1])
    reach = found.groupby(list(PATH))["seed"].nunique()
    plain = {key: keys[0] for keys in PENALTY_FAMILIES.values() for key in keys[1:]}
    made = set(paths[list(PATH)].itertuples(index=False, name=None))
    rows = [
        (key, plain[key], *way) for key, *way in sorted(made) if key in plain and (plain[key], *way) in made
    ]
    table = pd.DataFrame(rows, columns=["method", "instead of", *PATH[1:]])
    for column, name in (("reach", "method"), ("plain's reach", "instead of")):
        places = zip(table[name], *(table[part] for part in PATH[1:]), strict=True)
        table[column] = [int(reach.get(place, 0)) for place in places]
    table = table[table["reach"] + table["plain's reach"] > 0]
    pairs = [(row, {**row, "method": row["instead of"]}) for row in table.to_dict("records")]
    differences = paired(found, TUNED[1], pairs, PATH, _FEWEST_SEEDS).drop(columns=["seeds", "p"])
    order = ["difference", "reach", "plain's reach"]
    table = table.merge(differences, on=list(PATH), how="left")
    return table.sort_values(order, ascending=False, ignore_index=True, kind="stable")


def bearable(runs: pd.DataFrame, accuracies: pd.Series, loss_allowed: float = LOSS_ALLOWED) -> np.ndarray:
    """Which mean validation accuracies after fine-tuning are at most so far below the dense network's.

    `accuracies` has the initial weights, `start`, in its index; the dense network, in `runs`, has the same.
    """
    dense = runs[runs["method"] == "dense"].groupby("start")[TUNED[0]].mean()
    lost = accuracies.index.get_level_values("start").map(dense) - accuracies
    return np.asarray(lost) <= loss_allowed


def choices(runs: pd.DataFrame, goal: str, loss_allowed: float = LOSS_ALLOWED, most: int = 4) -> pd.DataFrame:
    """The paths that get furthest towards `goal` at a bearable loss, and at which amount, of `prepared` runs.

    Bearable: no seed diverged, and after fine-tuning the mean validation accuracy is at most `loss_allowed`
    below that of the dense network with the same first weights. Only of the amounts so chosen is the test
    accuracy read. The best `most` penalties, then the best control, each with half of its mean's 95 %
    interval.
    """
    paths = on_paths(runs)
    groups = paths[paths["steady"]].groupby([*PATH, "amount"])
    means = groups[[goal, TUNED[0], TUNED[1]]].mean()
    half = {
        name: confidence_half_width(groups[name].std(), groups[name].count()) for name in (goal, TUNED[1])
    }
    table = pd.DataFrame(
        {goal: means[goal], "± ": half[goal], "test accuracy": means[TUNED[1]], "±": half[TUNED[1]]}
    )
    table["seeds"] = groups.size()
    table.loc[table["seeds"] < 2, ["± ", "±"]] = np.nan  # one seed has no interval
    best = table[bearable(runs, means[TUNED[0]], loss_allowed)]
    best = best.reset_index().sort_values(goal, ascending=False)
    best = best.groupby(list(PATH), sort=False).head(1)
    is_baseline = best["method"].isin(RANKINGS)
    return pd.concat([best[~is_baseline].head(most), best[is_baseline].head(1)], ignore_index=True)


def markdown_table(table: pd.DataFrame) -> str:
    """A Markdown table, numbers to three digits after the point."""
    if table.empty:
        return "Nothing yet."
    cells = table.map(lambda cell: f"{cell:.3f}" if isinstance(cell, float) else str(cell)).replace("nan", "")
    lines = [list(table.columns), ["---"] * len(table.columns), *cells.to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
