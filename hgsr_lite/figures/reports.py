"""The pictures of a study's page: accuracy against what was gained, penalties and controls in one panel."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from hgsr_lite.figures.studies import recovery_figure
from hgsr_lite.figures.style import MARKERS, color
from hgsr_lite.study import (
    CURVES,
    RECOVERY,
    Study,
    curves,
    dense_accuracy,
    has_readings,
    is_baseline,
    picture_of,
    prepared,
    seeds_that_found,
)

_LOSS_SHOWN = 0.2
_GAIN_SHOWN = 0.06
_DPI = 110
_GREYS = ("#000000", "#777777")


def curves_figure(lines: Mapping[str, pd.DataFrame], gain: str, dense: float) -> Figure:
    """Test accuracy after fine-tuning against `gain`: a line a path with its 95 % interval as a band.

    `lines` is what `curves` returns, `dense` the accuracy to compare with, drawn dotted. Controls are grey
    and dashed. What lies more than 20 points below dense is cut off.

    >>> rows = pd.DataFrame({"level": [0.1, 0.2], "mean": [0.9, 0.8], "±": [0.01, 0.02], "seeds": 3})
    >>> figure = curves_figure({"gl, feature-wise, proximal": rows}, "dead kernels", 0.9)
    >>> figure.axes[0].get_xlabel()
    'dead kernels (%)'
    """
    figure, axes = plt.subplots(figsize=(7.6, 4.4), layout="constrained")
    axes.axhline(100 * dense, color="black", linewidth=0.9, linestyle=":", label="dense, the same budget")
    penalties = [name for name in lines if not is_baseline(name)]
    controls = [name for name in lines if is_baseline(name)]
    for name, rows in lines.items():
        number = (controls if is_baseline(name) else penalties).index(name)
        style = {"color": color(number), "marker": MARKERS[number]}
        if is_baseline(name):
            style = {"color": _GREYS[number % 2], "marker": "x+"[number % 2], "linestyle": "--"}
        x, y, half = 100 * rows["level"], 100 * rows["mean"], 100 * rows["±"]
        axes.plot(x, y, markersize=5, linewidth=1.4, label=name, **style)
        if half.notna().any():  # one seed has no interval
            axes.fill_between(x, y - half, y + half, color=style["color"], alpha=0.13, linewidth=0)
    axes.set(xlabel=f"{gain} (%)", ylabel="test accuracy after fine-tuning (%)", xlim=(0, 100))
    axes.set(ylim=(100 * (dense - _LOSS_SHOWN), min(100.5, 100 * (dense + _GAIN_SHOWN))))
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2, fontsize="small", frameon=False)
    return figure


def draw_pictures(study: Study) -> list[Path]:
    """Draw the pictures that the study's page shows, beside it; return where they are.

    Each carries its numbers as JSON in its description, so that it can be told whether a picture is of the
    table as it is now. A picture in which no path reaches any level is not drawn.
    """
    table, _ = study.believed()  # what is left out, the page's own command names
    runs = prepared(table)
    if has_readings(runs):
        if runs["penalty"].isna().all():
            return []
        numbers = seeds_that_found(runs, "below 1e-3").to_json()
        return [_saved(recovery_figure(runs), study, RECOVERY, numbers)]
    shown = {gain: curves(runs, gain) for gain in CURVES}
    return [
        _saved(curves_figure(lines, gain, dense_accuracy(runs)), study, gain, numbers_of(lines))
        for gain, lines in shown.items()
        if lines
    ]


def _saved(figure: Figure, study: Study, what: str, numbers: str) -> Path:
    place = study.path.with_name(picture_of(study.path.stem, what))
    figure.savefig(place, dpi=_DPI, metadata={"Description": numbers, "Software": None})
    plt.close(figure)
    return place


def numbers_of(lines: Mapping[str, pd.DataFrame]) -> str:
    """The numbers of a picture as one text: name -> rows of level, mean, half interval, seeds.

    >>> numbers_of({"gl": pd.DataFrame({"level": [0.5], "mean": [0.9], "±": [float("nan")], "seeds": [1]})})
    '{"gl": [[0.5, 0.9, null, 1]]}'
    """
    rounded = {name: rows.astype(object).where(rows.notna(), None) for name, rows in lines.items()}
    return json.dumps(
        {
            name: [[v if v is None else round(v, 6) for v in row] for row in rows.to_numpy().tolist()]
            for name, rows in rounded.items()
        }
    )
