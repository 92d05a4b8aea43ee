"""Three one-weight kernels in the plane: choose a norm, drag the kernels, see which become zero."""

from __future__ import annotations

from functools import lru_cache

import matplotlib.pyplot as plt
import torch
import traitlets
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
from hgsr_lite.live.figure import PENALTY_ROWS, LiveFigure
from hgsr_lite.table import PENALTIES

_REACH = 2.0
_STEPS = 60
_SHARE = 0.1  # of the chosen step, for each of the repeated small steps


class Norms(LiveFigure):
    """Kernels of one weight each: `a` and `b` share a group, `c` is alone in another.

    Drag them; the penalty's level line through the point, its unit ball, its pull and the landing of one
    proximal step of size `step` answer, and beside them the sizes under repeated small steps. `key` names the
    penalty; with `three`, kernel `c` is there too. All are traits, to be read and set while it is shown.

    >>> figure = Norms(key="gl12", step=0.5)
    >>> figure.a, figure.b
    (1.6, 0.5)
    """

    module = "norms.js"
    address = ("key", "step", "three", "a", "b", "c")
    rows = traitlets.List(PENALTY_ROWS).tag(sync=True)
    key = traitlets.Enum(list(PENALTIES), "es").tag(sync=True)
    step = traitlets.Float(0.3, min=0.01, max=1.0).tag(sync=True)
    three = traitlets.Bool(True).tag(sync=True)
    a = traitlets.Float(1.6, min=-_REACH, max=_REACH).tag(sync=True)
    b = traitlets.Float(0.5, min=-_REACH, max=_REACH).tag(sync=True)
    c = traitlets.Float(0.5, min=-_REACH, max=_REACH).tag(sync=True)

    def picture(self) -> Figure:
        """The plane of `a` and `b`, and their sizes under repeated small steps."""
        return explorer_figure(self.key, "same group", self.a, self.b, self.step)

    def alt(self) -> str:
        """What `picture` shows, in words."""
        return (
            f"{PENALTIES[self.key].title}: the plane of two one-weight kernels of one group, the level line "
            f"through ({self.a:g}, {self.b:g}) and an arrow to where one proximal step of size {self.step:g} "
            "lands; beside it the size of both kernels under repeated small steps."
        )


def explorer_figure(key: str, plane: str, first: float, second: float, step: float) -> Figure:
    """The two panels of `Norms`: one proximal step in the plane, and many small ones over time.

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
