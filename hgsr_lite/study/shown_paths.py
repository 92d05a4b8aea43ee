"""The few paths of a study that its pictures show: the penalties that get furthest, and the controls."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd

from hgsr_lite.study.verdicts import PATH, TUNED, accuracy_at, choices, on_paths
from hgsr_lite.training import RANKINGS

CURVES = {"parameters removed": "feature", "dead kernels": "kernel"}
"""What the pictures have along their axis, and the unit that the controls beside cut."""
LEVELS = tuple(round(0.05 * step, 2) for step in range(1, 20))
_PENALTIES = 3
_ALWAYS = "hsq_gl12"  # the authors' choice is shown wherever it ends


def curves(runs: pd.DataFrame, gain: str) -> dict[str, pd.DataFrame]:
    """Mean test accuracy after fine-tuning at each of `LEVELS` of `gain`, by the name of the path.

    Of the penalties, the best path of each of the three methods that get furthest within a bearable loss
    (see `choices`), and the authors' own; then cutting by size and at random. A frame has a row for each
    level from the path's mildest amount on that all seeds reach: `level`, `mean`, `±` (half of the 95 %
    interval, NaN for one seed) and `seeds`. Paths that reach no level are left out.
    """
    found = accuracy_at(runs, gain, LEVELS).dropna(subset="mean")
    mildest = on_paths(runs).groupby([*PATH, "amount"])[gain].mean().groupby(list(PATH)).min()
    begins = mildest.reindex(pd.MultiIndex.from_frame(found[list(PATH)])).to_numpy()
    found = found[found["level"] >= begins]
    furthest = choices(runs, gain, most=len(runs))
    best = furthest[~furthest["method"].isin(RANKINGS)].drop_duplicates("method")
    own = best[best["method"] == _ALWAYS]
    if own.empty:
        whatever = choices(runs, gain, loss_allowed=math.inf, most=len(runs))
        own = whatever[whatever["method"] == _ALWAYS].head(1)
    best = pd.concat([best.head(_PENALTIES), own]).drop_duplicates("method")
    control = found["method"].isin(RANKINGS) & (found["grouping"] == CURVES[gain])
    keys = [*best[list(PATH)].itertuples(index=False, name=None)]
    keys += found[control][list(PATH)].drop_duplicates().itertuples(index=False, name=None)
    places = [*found[list(PATH)].itertuples(index=False, name=None)]
    shown = {key: found[np.array([place == key for place in places], bool)] for key in keys}
    several_starts = len({key[-1] for key in keys}) > 1
    return {
        _name(*key, several_starts): rows[["level", "mean", "±", "seeds"]].reset_index(drop=True)
        for key, rows in shown.items()
        if len(rows)
    }


def _name(method: str, grouping: str, step: str, start: str, several_starts: bool) -> str:
    unit = {"feature": "input channels", "kernel": "kernels"}
    ways = {"magnitude": "by size", "random": "at random"}
    name = (
        f"cut {unit.get(grouping, grouping)} {ways[method]}"
        if method in ways
        else f"{method}, {grouping}-wise, {step}"
    )
    return f"{name}, {start}" if several_starts else name


def is_baseline(name: str) -> bool:
    """Whether this name of a curve is one of a control."""
    return name.startswith("cut ")


def dense_accuracy(runs: pd.DataFrame) -> float:
    """The mean test accuracy, after the same fine-tuning, of the networks that were never pruned."""
    return float(runs.loc[runs["method"] == "dense", TUNED[1]].mean())


def picture_of(study: str, gain: str) -> str:
    """The file name of a study's picture.

    >>> picture_of("digits", "dead kernels")
    'digits_dead_kernels.png'
    """
    return f"{study}_{gain.replace(' ', '_')}.png"


def in_words(lines: Mapping[str, pd.DataFrame], gain: str) -> str:
    """What a picture shows, for those who do not see it."""
    ends = [
        f"{name}: {rows['mean'].iloc[0]:.1%} at {rows['level'].iloc[0]:.0%}, "
        f"{rows['mean'].iloc[-1]:.1%} at {rows['level'].iloc[-1]:.0%}"
        for name, rows in lines.items()
    ]
    return f"Test accuracy after fine-tuning against {gain}. {'; '.join(ends)}"
