"""What a table of runs says: fronts, accuracy at a given sparsity, differences that are more than luck.

A *path* is one method under rising strength; it has one run for each strength and seed. Strengths are chosen
on the validation part, and what is reported is read from the test part at the places so chosen.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from hgsr_lite.arguments import choose
from hgsr_lite.study.intervals import confidence_half_width

CHOSEN_BY = "validation accuracy after zeroing"
REPORTED = "test accuracy after zeroing"
PATH = ("method", "grouping")
"""The columns that tell one path from another; a table with proximal runs adds the kind of step."""


def front(gain: Sequence[float], quality: Sequence[float]) -> np.ndarray:
    """The places of those points that no other point beats in both, in order of rising gain.

    Of equal points the first is kept; a point with a missing number is never on the front.

    >>> front([0.1, 0.5, 0.4, 0.9], [0.99, 0.98, 0.97, 0.90]).tolist()
    [0, 1, 3]
    """
    gains, qualities = np.asarray(gain, float), np.asarray(quality, float)
    order = np.lexsort((np.arange(len(gains)), -qualities, -gains))
    order = order[~np.isnan(gains[order]) & ~np.isnan(qualities[order])]
    best_so_far = np.maximum.accumulate(np.concatenate([[-np.inf], qualities[order]]))
    return order[qualities[order] > best_so_far[:-1]][::-1]


def at_levels(
    table: pd.DataFrame,
    levels: Iterable[float],
    *,
    gain: str = "below tolerance",
    chosen_by: str = CHOSEN_BY,
    reported: str = REPORTED,
    path: Sequence[str] = PATH,
) -> pd.DataFrame:
    """For each path and seed: `reported` where the path reaches each level of `gain`.

    Among the runs of one path and seed, those on the front of `gain` and `chosen_by` are kept, and `reported`
    is interpolated linearly between neighbours on that front. Below the front's first point that point
    counts: it has the gain asked for, and more. Beyond its last point the answer is missing.

    Returns the columns of `path`, `seed`, `level` and `reported`. Raises `ValueError` for an unknown column.
    """
    for name in (gain, chosen_by, reported, *path, "seed"):
        choose("column", name, table.columns)
    levels = [float(level) for level in levels]
    parts = []
    for key, runs in table.groupby([*path, "seed"], sort=False, dropna=False):
        best = runs.iloc[front(runs[gain], runs[chosen_by])]
        values = [np.nan] * len(levels)
        if len(best):
            values = np.interp(levels, best[gain], best[reported], right=np.nan)
        parts.append(
            pd.DataFrame({**dict(zip([*path, "seed"], key, strict=True)), "level": levels, reported: values})
        )
    if not parts:
        return pd.DataFrame(columns=[*path, "seed", "level", reported])
    return pd.concat(parts, ignore_index=True)


def hypervolume(gain: Sequence[float], quality: Sequence[float]) -> float:
    """The area that a path's points dominate, both axes from 0: one number for a whole front.

    >>> hypervolume([0.5, 1.0], [1.0, 0.5])
    0.75
    """
    places = front(gain, quality)
    gains, qualities = np.asarray(gain, float)[places], np.asarray(quality, float)[places]
    return float((np.diff(gains, prepend=0.0) * qualities).sum())


def summary(table: pd.DataFrame, value: str, by: Sequence[str]) -> pd.DataFrame:
    """Mean over seeds, half of the mean's 95 % interval, and the number of seeds, for each group of rows.

    A group in which any seed's value is missing has no mean: the seeds that are left would flatter it. One
    seed has no interval: NaN.
    """
    groups = table.groupby(list(by), sort=False, dropna=False)[value]
    counted = groups.agg(["mean", "std", "count", "size"])
    counted.loc[counted["count"] < counted["size"], ["mean", "std"]] = np.nan
    unknown = counted["mean"].isna() | (counted["count"] < 2)
    counted["±"] = np.where(unknown, np.nan, confidence_half_width(counted["std"], counted["count"]))
    return counted.rename(columns={"size": "seeds"})[["mean", "±", "seeds"]].reset_index()


def against(
    table: pd.DataFrame, value: str, baseline: dict[str, object], path: Sequence[str] = PATH
) -> pd.DataFrame:
    """Differences from a baseline path, paired over seeds: mean, 95 % interval, p, and p corrected.

    `baseline` names one value for each column of `path`. Seeds that either side lacks are left out, and at
    least two must remain. p is that of a paired t-test, `p (Holm)` the same corrected for as many
    comparisons as the result has rows: below 0.05 a difference is more than luck. Raises `ValueError` for a
    baseline that the table does not hold.
    """
    by_seed = table.pivot_table(index="seed", columns=list(path), values=value, dropna=False)
    key = _key(baseline, path)
    if key not in by_seed.columns:
        known = table[list(path)].drop_duplicates().astype(str).agg(" ".join, axis=1).tolist()
        raise ValueError(f"the table holds no path {baseline}: its paths are {', '.join(known)}")
    others = [dict(zip(path, np.atleast_1d(other), strict=True)) for other in by_seed.columns.drop(key)]
    found = paired(table, value, [(other, baseline) for other in others], path)
    return found.sort_values("difference", ascending=False, ignore_index=True)


def paired(
    table: pd.DataFrame,
    value: str,
    pairs: Iterable[tuple[dict[str, object], dict[str, object]]],
    path: Sequence[str] = PATH,
    fewest: int = 2,
) -> pd.DataFrame:
    """Differences of pairs of paths, the first minus the second, paired over seeds; see `against`.

    Both sides of a pair name one value for each column of `path`; the rows carry the first's. Pairs with
    fewer than `fewest` seeds in common are left out, and `p (Holm)` counts those that are left.
    """
    # Slow and large to import, and only those who test differences need them.
    from scipy.stats import ttest_rel
    from statsmodels.stats.multitest import multipletests

    by_seed = table.pivot_table(index="seed", columns=list(path), values=value, dropna=False)
    rows = []
    for one, other in pairs:
        keys = [_key(one, path), _key(other, path)]
        if not set(keys) <= set(by_seed.columns) or len(both := by_seed[keys].dropna()) < fewest:
            continue
        difference = both[keys[0]] - both[keys[1]]
        half = confidence_half_width(pd.Series([difference.std()]), pd.Series([len(difference)]))[0]
        equal = np.ptp(difference) == 0  # the same for every seed: t is infinite, or 0 / 0
        p = float(difference.iloc[0] == 0) if equal else ttest_rel(both[keys[0]], both[keys[1]]).pvalue
        rows.append([*(one[name] for name in path), difference.mean(), half, len(difference), p])
    found = pd.DataFrame(rows, columns=[*path, "difference", "±", "seeds", "p"])
    found["p (Holm)"] = multipletests(found["p"], method="holm")[1] if len(found) else []
    return found


def _key(names: dict[str, object], path: Sequence[str]) -> object:
    key = tuple(names[name] for name in path)
    return key[0] if len(path) == 1 else key
