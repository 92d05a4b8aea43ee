"""A control panel over two one-weight kernels: choose a norm, move the kernels, see which become zero."""

from __future__ import annotations

from functools import lru_cache

import ipywidgets as widgets
import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from hgsr_lite.figures import (
    PLANES,
    color,
    landing_legend,
    landing_map,
    plain,
    proximal_step,
    square,
    steepest_descent,
    values,
)
from hgsr_lite.table import PENALTIES

_REACH = 2.0
_STEPS = 60
_SHARE = 0.1  # of the chosen step, for each of the repeated small steps


def norm_explorer() -> widgets.VBox:
    """Controls for the penalty, the plane, the two kernels and the step, above the figure they draw.

    Shown by being the last expression of a cell; it needs a running kernel.
    """
    controls = {
        "key": _row(widgets.Dropdown, "penalty", options=["l1", "gl", "es", "gl12", "l2"], value="es"),
        "plane": _row(widgets.Dropdown, "kernels in", options=list(PLANES)),
        "first": _slider("kernel a", 1.6, -_REACH, _REACH),
        "second": _slider("b or c", 0.5, -_REACH, _REACH),
        "step": _slider("step", 0.3, 0.05, 1.0),
    }
    shown = widgets.interactive_output(_draw, controls)
    names = list(controls)
    columns = [widgets.VBox([controls[name] for name in part]) for part in (names[:2], names[2:])]
    return widgets.VBox([widgets.HBox(columns), shown])


def _slider(description: str, value: float, smallest: float, largest: float) -> widgets.FloatSlider:
    # Drawn when the slider is let go: one figure takes longer than the time between two positions.
    return _row(
        widgets.FloatSlider,
        description,
        value=value,
        min=smallest,
        max=largest,
        step=0.05,
        continuous_update=False,
    )


def _row(kind: type[widgets.DOMWidget], description: str, **settings: object) -> widgets.DOMWidget:
    return kind(description=description, style={"description_width": "5.5em"}, **settings)


def _draw(key: str, plane: str, first: float, second: float, step: float) -> None:
    explorer_figure(key, plane, first, second, step)
    plt.show()


def explorer_figure(key: str, plane: str, first: float, second: float, step: float) -> Figure:
    """The two panels of `norm_explorer`: one proximal step in the plane, and many small ones over time.

    Left: colours say which kernels one step sets to zero from each start; the arrow is the step taken, the
    line through its start the level of the penalty there. Right: both kernels under repeated steps of a
    tenth of the size.

    >>> [axes.get_title() for axes in explorer_figure("es", "same group", 1.6, 0.5, step=0.3).axes]
    ['one step of size 0.3', 'repeated steps of size 0.03']
    """
    start = torch.tensor([first, second], dtype=torch.float64)
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 4.3), layout="constrained")
    _draw_plane(left, key, plane, start, step)
    _draw_race(right, key, plane, start, step)
    pull = steepest_descent(key, start, plane).abs()
    here = float(values(key, start, plane))
    one, other = PLANES[plane]
    figure.suptitle(
        f"{PENALTIES[key].title}: penalty {here:.2f}, pull on {one} {pull[0]:.2f}, on {other} {pull[1]:.2f}"
    )
    figure.legend(handles=landing_legend(), loc="outside lower left", ncols=4, fontsize=8)
    return figure


def _draw_plane(axes: Axes, key: str, plane: str, start: Tensor, step: float) -> None:
    landing_map(axes, key, step, plane, square(_REACH, 80))
    grid = square(_REACH, 160)
    level = float(values(key, start, plane))
    if level > 0:
        axes.contour(*plain(grid), values(key, grid, plane).numpy(), [level], colors=color(0), linewidths=1.5)
    end = proximal_step(key, start, step, plane)
    axes.annotate("", end.tolist(), start.tolist(), arrowprops={"arrowstyle": "->", "linewidth": 2})
    axes.plot(*start.tolist(), "o", color=color(0), markersize=8)
    axes.plot(*end.tolist(), "s", color=color(1), markersize=7)
    axes.set(title=f"one step of size {step:g}", ylabel=f"kernel {PLANES[plane][1]}")


def _draw_race(axes: Axes, key: str, plane: str, start: Tensor, step: float) -> None:
    path = _race(key, plane, tuple(start.tolist()), step)
    for number, name in enumerate(PLANES[plane]):
        axes.plot(
            path[:, number].abs().numpy(),
            color=color(number),
            linestyle=("-", "--")[number],
            label=f"|{name}|",
        )
    axes.axhline(0, color="grey", linewidth=0.5)
    axes.set(
        title=f"repeated steps of size {_SHARE * step:.3g}", xlabel="steps taken", ylabel="size of the kernel"
    )
    axes.legend()


@lru_cache(maxsize=32)
def _race(key: str, plane: str, start: tuple[float, float], step: float) -> Tensor:
    """The kernels (steps + 1, 2) under repeated small proximal steps."""
    path = [torch.tensor(start, dtype=torch.float64)]
    for _ in range(_STEPS):
        path.append(proximal_step(key, path[-1], _SHARE * step, plane))
    return torch.stack(path)
