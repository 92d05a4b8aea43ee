"""The paths of a study under the hand: scrub the strength of two penalties and see what each would remove."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import traitlets
from matplotlib.figure import Figure

from hgsr_lite.arguments import choose
from hgsr_lite.figures import color
from hgsr_lite.live.figure import LiveFigure
from hgsr_lite.study import PATH, prepared, summary

ACCURACIES = {
    "removal": "validation accuracy after removal",
    "fine-tuning": "validation accuracy after fine-tuning",
}
_CHANNELS = ("dead inputs", "dead outputs")
GAINS = ("dead kernels", "below tolerance", "parameters removed", "MACs removed", *_CHANNELS)
_COUNTS = ("kernels", "input_channels", "output_channels")
_DIGITS = 5


class Paths(LiveFigure):
    """Two paths of a study side by side: accuracy against what goes, and what is dead in each layer.

    `table` is what `read_table` returns, `layers` the study's table of layers. A path is a penalty with its
    grouping and kind of step, its points are the strengths of the study at which no seed diverged, from weak
    to strong; accuracies are those on validation images, by which a strength may be chosen: means over seeds
    with their 95 % intervals. `left` and `right` name the paths shown first, such as
    "hsq_gl12, feature, proximal". Raises `ValueError` for a table without paths and for an unknown path.

    >>> from hgsr_lite.study import read_table
    >>> figure = Paths(read_table("studies/digits.csv"), pd.read_csv("studies/digits_layers.csv"))
    >>> len(figure.paths), figure.left
    (40, 'hsq_gl12, feature, proximal')
    """

    module = "paths.js"
    address = ("left", "right", "at", "after", "gain")
    paths = traitlets.List().tag(sync=True)
    left = traitlets.Unicode().tag(sync=True)
    right = traitlets.Unicode().tag(sync=True)
    at = traitlets.Int(0, min=0).tag(sync=True)
    after = traitlets.Enum(list(ACCURACIES), "fine-tuning").tag(sync=True)
    gain = traitlets.Enum(list(GAINS), "dead kernels").tag(sync=True)

    def __init__(
        self, table: pd.DataFrame, layers: pd.DataFrame, left: str = "", right: str = "", **state: Any
    ) -> None:
        paths = paths_of(table, layers)
        if not paths:
            raise ValueError("this table has no paths: a study needs penalties at several fractions")
        names = [path["name"] for path in paths]
        shown = [
            choose("path", name, names) if name else next((n for n in usual if n in names), names[0])
            for name, usual in ((left, _LEFT), (right, _RIGHT))
        ]
        middle = {"at": len(paths[0]["points"]) // 2}
        super().__init__(paths=paths, left=shown[0], right=shown[1], **{**middle, **state})

    def picture(self) -> Figure:
        """The accuracy of both paths against what goes, with intervals over seeds."""
        figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
        for number, (name, style) in enumerate(((self.left, "o-"), (self.right, "s--"))):
            points = next(path for path in self.paths if path["name"] == name)["points"]
            known = [point for point in points if point["accuracy"][self.after]["mean"] is not None]
            accuracies = [point["accuracy"][self.after] for point in known]
            axes.errorbar(
                [100 * point[self.gain] for point in known],
                [100 * accuracy["mean"] for accuracy in accuracies],
                [100 * (accuracy["±"] or 0) for accuracy in accuracies],
                fmt=style,
                color=color(number),
                capsize=3,
                label=name,
            )
        axes.set(xlabel=f"{self.gain} (%)", ylabel=f"{ACCURACIES[self.after]} (%)")
        axes.set(xlim=(0, 100), ylim=(0, 102))
        axes.legend(loc="lower left")
        return figure

    def alt(self) -> str:
        """What `picture` shows, in words."""
        return (
            f"{ACCURACIES[self.after].capitalize()} against {self.gain} on two paths of strengths: "
            f"{self.left}, solid with circles, and {self.right}, dashed with squares. "
            "Bars are 95 % intervals over seeds."
        )


_LEFT = ("hsq_gl12, feature, proximal", "hsq_gl12, feature, gradient")
_RIGHT = ("l1, feature, proximal", "l1, feature, gradient")


def paths_of(table: pd.DataFrame, layers: pd.DataFrame) -> list[dict[str, Any]]:
    """Every path of a study, its points from weak to strong, as JSON takes them; means over seeds."""
    runs = prepared(table)
    # The seeds that are left where one diverged would flatter an amount.
    runs = runs[runs["penalty"].notna() & runs["fraction"].notna() & runs["steady"]].copy()
    runs["MACs removed"] = 1 - runs["MACs left"] / runs["MACs"]
    by = [*PATH, "step", "fraction"]
    counts = layers.merge(runs[["key", *by]], on="key")
    numbers = [name for kind in _COUNTS for name in (kind, f"dead_{kind}")]
    in_layers = counts.groupby([*by, "layer"], sort=False)[numbers].mean().reset_index(level="layer")
    means = runs.groupby(by)[["strength", *GAINS]].mean().sort_index()
    accuracy = {after: summary(runs, column, by).set_index(by) for after, column in ACCURACIES.items()}
    paths: dict[str, list[dict[str, Any]]] = {}
    for place, row in means.iterrows():
        point = {"fraction": place[-1], **_plain(row)}
        point["accuracy"] = {after: _plain(found.loc[place]) for after, found in accuracy.items()}
        point["layers"] = [_plain(layer) for _, layer in in_layers.loc[[place]].iterrows()]
        paths.setdefault(", ".join(place[:-1]), []).append(point)
    return [{"name": name, "points": points} for name, points in paths.items()]


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as JSON takes it: five digits that matter, None for what is missing."""
    return {name: value if isinstance(value, str) else _number(value) for name, value in row.items()}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(f"{value:.{_DIGITS}g}")
