"""Pictures of groups and norms: balls, levels and arrows over two or three one-weight kernels.

With kernels of one weight a whole layer fits on a page: two kernels `a` and `b` share a group, or kernels `a`
and `c` belong to two groups. Every value here comes from `Penalty` itself, so a picture cannot drift from it.
Every function returns the matplotlib `Figure` and leaves showing or saving it to the caller.
"""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Callable, Sequence
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from hgsr_lite.arguments import choose
from hgsr_lite.figures.style import COLOR_MAP, color
from hgsr_lite.penalties import Penalty
from hgsr_lite.table import PENALTIES

PLANES = {"same group": ("a", "b"), "two groups": ("a", "c")}
"""Plane -> the names of its two kernels: they share a group, or each is alone in its own."""
_SHAPES = {"same group": (2, 1), "two groups": (1, 2)}  # of a weight read feature-wise


def values(key: str, points: Tensor, plane: str = "same group") -> Tensor:
    """The penalty at each point of a plane; points (..., 2), values (...).

    >>> corners = torch.tensor([[1., 0.], [1., 1.]])
    >>> values("gl", corners, "same group"), values("gl", corners, "two groups")
    (tensor([1.0000, 1.4142]), tensor([1., 2.]))
    """
    return _each(Penalty(key), points, _SHAPES[choose("plane", plane, PLANES)])


def space_values(key: str, points: Tensor) -> Tensor:
    """The penalty at points (..., 3) = (a, b, c): `a` and `b` share a group, `c` is alone in another.

    >>> space_values("es", torch.tensor([[1., 1., 2.]]))
    tensor([8.])
    """
    first, second = points[..., [0, 1]], points[..., [2]]
    return _each(Penalty(key), first, (2, 1)) + _each(Penalty(key), second, (1, 1))


def steepest_descent(key: str, points: Tensor, plane: str = "same group") -> Tensor:
    """Minus the penalty's gradient at each point: (..., 2), 0 where a weight is 0."""
    return -_each(Penalty(key).gradient, points, _SHAPES[choose("plane", plane, PLANES)]).flatten(-2)


def group_sizes(weight: Tensor) -> Figure:
    """A small layer (O, I, K) as a table of its kernels, three times: a frame for each group of a size.

    Each cell shows its kernel's weights.
    """
    outputs, inputs = weight.shape[:2]
    cells = list(itertools.product(range(outputs), range(inputs)))
    frames = {  # column, row, width, height
        "kernels": [(i, o, 1, 1) for o, i in cells],
        "feature-wise groups": [(i, 0, 1, outputs) for i in range(inputs)],
        "neuron-wise groups": [(0, o, inputs, 1) for o in range(outputs)],
    }
    figure, grid = plt.subplots(1, 3, figsize=(9.6, 3.0), layout="constrained", sharey=True)
    for axes, (name, boxes) in zip(grid, frames.items(), strict=True):
        for number, (i, o, width, height) in enumerate(boxes):
            corner, size = (i - 0.46, o - 0.46), (width - 0.08, height - 0.08)
            axes.add_patch(
                Rectangle(corner, *size, facecolor=(color(number), 0.15), edgecolor=color(number), lw=2.5)
            )
        for o, i in cells:
            axes.text(
                i, o, ", ".join(f"{value:g}" for value in weight[o, i].tolist()), ha="center", va="center"
            )
        axes.set(
            title=f"{len(boxes)} {name}", xlabel="input channel", xticks=range(inputs), yticks=range(outputs)
        )
        axes.set(xlim=(-0.55, inputs - 0.45), ylim=(outputs - 0.45, -0.55))
    grid[0].set_ylabel("output channel")
    return figure


def unit_balls(keys: Sequence[str], *, catchment: bool = False) -> Figure:
    """The curve where each penalty is 1: a row for each plane, a column for each penalty.

    Dots mark the points on the axes that stick out: there one kernel is exactly zero. With `catchment`,
    every point outside whose nearest point of the ball lies on an axis is shaded.
    """
    reach = 2.0 if catchment else 1.25
    figure, panels = plane_panels(keys, height=4.8)
    for axes, key, plane in panels:
        curve = _ball(partial(values, key, plane=plane), key, _circle(1441))
        if catchment:
            _shade_catchment(axes, curve, partial(values, key, plane=plane), square(reach, 100))
        axes.fill(*plain(curve), facecolor="#A8DAF5", edgecolor=color(0), linewidth=1.5)
        if _sticks_out(curve):
            axes.plot([1, 0, -1, 0], [0, 1, 0, -1], "o", color=color(1), markersize=5)
        cross(axes, plane, reach)
        if plane == "same group":
            axes.set_title("\n".join([key, *textwrap.wrap(PENALTIES[key].title, 24)]), fontsize=9)
    label_planes(panels)
    return figure


def plane_panels(keys: Sequence[str], height: float) -> tuple[Figure, list[tuple[Axes, str, str]]]:
    """A figure, `height` inches high, and its panels: a row for each plane, a column for each penalty."""
    figure, grid = plt.subplots(
        len(PLANES),
        len(keys),
        figsize=(2.2 * len(keys), height),
        layout="constrained",
        sharex=True,
        sharey=True,
        squeeze=False,
    )
    places = itertools.product(PLANES, keys)
    return figure, [(axes, key, plane) for axes, (plane, key) in zip(grid.flat, places, strict=True)]


def label_planes(panels: Sequence[tuple[Axes, str, str]]) -> None:
    """Name the plane, and its second kernel, on the left of each row of `plane_panels`."""
    for axes, key, plane in panels:
        if key == panels[0][1]:
            axes.set_ylabel(f"{plane}\nkernel {PLANES[plane][1]}")


def _shade_catchment(axes: Axes, curve: Tensor, value: Callable[[Tensor], Tensor], points: Tensor) -> None:
    nearest = curve[torch.cdist(points.reshape(-1, 2), curve).argmin(1)]
    caught = (nearest.abs().amin(1) < 1e-9).reshape(points.shape[:2]) & (value(points) > 1)
    shade = ListedColormap([color(4)])
    axes.pcolormesh(*plain(points), np.ma.masked_equal(caught.numpy(), False), cmap=shade, rasterized=True)


def unit_balls_in_space(keys: Sequence[str], step_count: int = 81) -> Figure:
    """The surface where each penalty is 1, over kernels a and b of one group and c of another."""
    around = torch.linspace(0, 2 * torch.pi, step_count, dtype=torch.float64)
    up = torch.linspace(-torch.pi / 2, torch.pi / 2, step_count, dtype=torch.float64)
    height, turn = torch.meshgrid(up, around, indexing="ij")
    directions = torch.stack([height.cos() * turn.cos(), height.cos() * turn.sin(), height.sin()], -1)
    figure = plt.figure(figsize=(2.9 * len(keys), 3.3), layout="constrained")
    for number, key in enumerate(keys, start=1):
        axes = figure.add_subplot(1, len(keys), number, projection="3d")
        surface = _ball(partial(space_values, key), key, directions)
        axes.plot_surface(
            *plain(surface),
            color=color(5),
            edgecolor=color(0),
            linewidth=0.15,
            rstride=2,
            cstride=2,
            antialiased=True,
        )
        axes.set(
            title=key,
            xlabel="a",
            ylabel="b",
            zlabel="c",
            box_aspect=(1, 1, 1),
        )
        for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
            axis.set_ticks([-1, 0, 1])
        # The next panel's background would cover the name of this one's upright axis.
        axes.patch.set_visible(False)
        axes.zaxis.labelpad = -4
        axes.view_init(elev=22, azim=-58)
    return figure


def level_sets(keys: Sequence[str], plane: str = "same group", *, reach: float = 1.5) -> Figure:
    """Level lines of each penalty, arrows of steepest descent, and in colour how hard it pulls.

    All panels share the colours and the levels (a line every 0.5). The arrows show the direction only; the
    length of the gradient is the colour.
    """
    fine, coarse = square(reach, 160), square(0.87 * reach, 8)  # even counts: no point lies on an axis
    levels = np.arange(0.5, 20, 0.5)
    figure, grid = plt.subplots(
        1, len(keys), figsize=(2.5 * len(keys) + 0.9, 3.2), sharey=True, layout="constrained", squeeze=False
    )
    for axes, key in zip(grid[0], keys, strict=True):
        pull = steepest_descent(key, fine, plane).norm(dim=-1)
        image = axes.contourf(
            *plain(fine),
            pull.numpy(),
            np.geomspace(0.1, 10, 33),
            cmap=COLOR_MAP,
            norm=LogNorm(),
            extend="both",
        )
        axes.contour(*plain(fine), values(key, fine, plane).numpy(), levels, colors="white", linewidths=0.7)
        arrows = torch.nn.functional.normalize(steepest_descent(key, coarse, plane), dim=-1)
        axes.quiver(
            *plain(coarse),
            *plain(arrows),
            color="white",
            edgecolor="black",
            linewidth=0.6,
            angles="xy",
            scale_units="xy",
            scale=5 / reach,
            width=0.016,
            pivot="mid",
        )
        cross(axes, plane, reach)
        axes.set_title(key)
    grid[0][0].set_ylabel(f"kernel {PLANES[plane][1]}")
    figure.colorbar(
        image, ax=grid[0].tolist(), label="length of the gradient", ticks=[0.1, 0.3, 1, 3, 10], format="%g"
    )
    return figure


def _each(function: Callable[[Tensor], Tensor], points: Tensor, shape: tuple[int, int]) -> Tensor:
    """The function of each point seen as a weight of the given shape."""
    mapped = torch.vmap(function)(points.reshape(-1, *shape))
    return mapped.reshape((*points.shape[:-1], *mapped.shape[1:]))


def _ball(function: Callable[[Tensor], Tensor], key: str, directions: Tensor) -> Tensor:
    """Where the penalty is 1: penalty(r u) = r^degree penalty(u), so r = penalty(u)^(-1/degree)."""
    radius = function(directions).pow(-1 / PENALTIES[key].degree)
    return directions * radius.unsqueeze(-1)


def _circle(count: int) -> Tensor:
    even = torch.linspace(0, 2 * torch.pi, count, dtype=torch.float64)
    # Dense around the axes: the tips of a hollow star are so thin that even steps would miss their sides.
    angle = even - (4 * even).sin() / 4
    return torch.stack([angle.cos(), angle.sin()], -1)


def square(reach: float, count: int) -> Tensor:
    """A grid of count x count points (count, count, 2) from -reach to reach."""
    line = torch.linspace(-reach, reach, count, dtype=torch.float64)
    return torch.stack(torch.meshgrid(line, line, indexing="xy"), -1)


def _sticks_out(curve: Tensor) -> bool:
    """Whether the ball has a corner on an axis: near it the curve falls back faster than a circle would."""
    near = curve[len(curve) // 72]
    return float(near[0]) < 1 - 0.5 * float(near[1])


def plain(points: Tensor) -> np.ndarray:
    """The coordinates of points (..., n) as n NumPy arrays: (n, ...)."""
    return points.movedim(-1, 0).numpy()


def cross(axes: Axes, plane: str, reach: float) -> None:
    """Axes of a plane: a cross at zero, equal scales, the first kernel's name."""
    axes.axhline(0, color="grey", linewidth=0.5)
    axes.axvline(0, color="grey", linewidth=0.5)
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xlabel=f"kernel {PLANES[plane][0]}")
