"""A small layer under the reader's hand: what each penalty is worth, and how it pulls at every kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
import traitlets
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from torch import Tensor

from hgsr_lite.arguments import choose
from hgsr_lite.figures import COLORS
from hgsr_lite.groups import GROUPINGS, kernel_norms, kernel_stack
from hgsr_lite.live.figure import PENALTY_ROWS, LiveFigure
from hgsr_lite.penalties import Penalty
from hgsr_lite.table import PENALTIES

LARGEST_SCALE = 3.0
_LAYER = ((3.0, -4.0), (1.0, 1.0)), ((1.0, 0.0), (2.0, -2.0)), ((0.5, 0.5), (0.0, 1.0))
_MOST_KERNELS = 24
_STYLES = ("-", "--", ":")
_HIGHEST = 4
_FOLDS = (0.5, 0.7, 1, 1.4, 2)
_UNCHANGED = 0.01  # powers of two
STILL_KEYS = ("gl", "hsqrt_gl", "hsq_gl12")
"""The penalties that the still picture draws: those that notebook 03 teaches."""


class Penalties(LiveFigure):
    """Scale the kernels of a small layer, turn the dials r, p and q, and watch value, forces and formula.

    `weight` has shape (output channels, input channels, *kernel) and at most 24 kernels; without it a layer
    of 3 x 2 kernels is shown. `key` says where the dials stand at first. Raises `ValueError` for a layer too
    large to read and for an unknown penalty.

    >>> figure = Penalties(key="es")
    >>> figure.norm, figure.inner, figure.outer
    (1, 1.0, 2.0)
    >>> Penalties(torch.zeros(32, 8, 3, 3))
    Traceback (most recent call last):
    ...
    ValueError: 32 x 8 kernels are too many to read: give at most 24
    """

    module = "penalties.js"
    address = ("norm", "inner", "outer", "grouping")
    rows = traitlets.List(PENALTY_ROWS).tag(sync=True)
    shape = traitlets.List(traitlets.Int()).tag(sync=True)
    weight = traitlets.List(traitlets.Float()).tag(sync=True)
    scales = traitlets.List(traitlets.Float(min=0.0, max=LARGEST_SCALE)).tag(sync=True)
    norm = traitlets.Enum([1, 2]).tag(sync=True)
    inner = traitlets.Enum([0.5, 1.0, 2.0]).tag(sync=True)
    outer = traitlets.Enum([0.5, 1.0, 2.0]).tag(sync=True)
    grouping = traitlets.Enum(list(GROUPINGS), "feature").tag(sync=True)

    def __init__(self, weight: Tensor | None = None, key: str = "hsq_gl12", **state: Any) -> None:
        layer = torch.tensor(_LAYER) if weight is None else weight.detach().cpu()
        outputs, inputs = kernel_norms(layer).shape
        if outputs * inputs > _MOST_KERNELS:
            raise ValueError(
                f"{outputs} x {inputs} kernels are too many to read: give at most {_MOST_KERNELS}"
            )
        row = PENALTIES[choose("penalty", key, PENALTIES)]
        stack = kernel_stack(layer)[0]
        dials = {"norm": row.norm, "inner": row.inner, "outer": row.outer}
        scales = [2.0] + [1.0] * (outputs * inputs - 1)
        fixed = {"shape": list(stack.shape), "weight": stack.flatten().tolist()}
        super().__init__(**{**dials, "scales": scales, **state, **fixed})

    def picture(self) -> Figure:
        """Three penalties of the layer while its first kernel is scaled: see `explorer_figure`."""
        weight = torch.tensor(self.weight).reshape(self.shape)
        return explorer_figure(weight, (0, 0), self.scales[0], self.grouping)

    def alt(self) -> str:
        """What `picture` shows, in words."""
        outputs, inputs, _ = self.shape
        return (
            f"A layer of {outputs} x {inputs} kernels, the first scaled by {self.scales[0]:g}: on the left "
            "the value of three penalties against that scale, on the right the force of each on every kernel."
        )


def explorer_figure(
    weight: Tensor,
    kernel: tuple[int, int],
    scale: float,
    grouping: str = "feature",
    keys: Sequence[str] = STILL_KEYS,
) -> Figure:
    """Penalties of a layer while one of its kernels is scaled.

    Left: each penalty against the scale, in units of its value at scale 1. Right: every kernel's force at
    scale 1 and now, with a mark and a colour for how many times as strong it has become; the frame marks the
    scaled kernel.

    `kernel` is (output channel, input channel), `scale` from 0 to 3. Raises `ValueError` for a kernel that is
    not there and for an unknown grouping.

    >>> figure = explorer_figure(torch.ones(3, 2, 4), (0, 1), scale=2.0)
    >>> figure.axes[1].get_title()
    'gl'
    """
    choose("grouping", grouping, GROUPINGS)
    if not all(0 <= place < size for place, size in zip(kernel, weight.shape, strict=False)):
        raise ValueError(f"there is no kernel {kernel}: the layer has {weight.shape[0]} x {weight.shape[1]}")
    sizes = {"figsize": (3.0 + 2.6 * len(keys), 3.5), "width_ratios": (1.5, *[1.2] * len(keys))}
    figure, (values, *panels) = plt.subplots(1, 1 + len(keys), layout="constrained", **sizes)
    scaled = _scaled(weight, kernel, scale)
    penalties = [Penalty(key, grouping) for key in keys]
    _draw_values(values, penalties, weight, kernel, scale)
    for axes, penalty in zip(panels, penalties, strict=True):
        image = _draw_force(axes, penalty.key, penalty.force(weight), penalty.force(scaled), kernel)
        axes.set_xlabel("input channel")
    panels[0].set_ylabel("output channel")
    bar = figure.colorbar(image, ax=panels, ticks=np.log2(_FOLDS), extend="both")
    bar.ax.set_yticklabels([f"{fold:g}" for fold in _FOLDS])
    bar.set_label("times as strong as at scale 1")
    figure.suptitle(
        f"kernel of output {kernel[0]}, input {kernel[1]}, scaled by {scale:g}; {grouping}-wise groups"
    )
    return figure


def _scaled(weight: Tensor, kernel: tuple[int, int], scale: float) -> Tensor:
    scaled = weight.clone()
    scaled[kernel] *= scale
    return scaled


def _draw_values(
    axes: Axes, penalties: list[Penalty], weight: Tensor, kernel: tuple[int, int], scale: float
) -> None:
    scales = np.linspace(0, LARGEST_SCALE, 61)
    for number, penalty in enumerate(penalties):
        values = np.array([float(penalty.value(_scaled(weight, kernel, s))) for s in (scale, 1.0, *scales)])
        now, unit, curve = values[0], values[1] or 1.0, values[2:]
        style = {"linestyle": _STYLES[number % len(_STYLES)], "color": COLORS[number % len(COLORS)]}
        inside = np.where(curve / unit <= _HIGHEST, curve / unit, np.nan)
        axes.plot(scales, inside, **style, label=f"{penalty.key}: {_short(now)}")
    axes.axvline(scale, color="grey", linewidth=1)
    highest = max(float(np.nanmax(line.get_ydata())) for line in axes.lines[:-1])
    room = 1.4 + 0.12 * len(penalties)  # for the legend, which would lie on a curve
    axes.set(title="the penalty", xlabel="scale of the kernel", ylabel="value (1 at scale 1)")
    axes.set_ylim(0, room * max(highest, 1.0))
    axes.legend(loc="upper left")


def _draw_force(axes: Axes, key: str, before: Tensor, after: Tensor, kernel: tuple[int, int]) -> AxesImage:
    # A zero kernel has force 0 by convention, so its ratio says nothing: it is drawn neutral.
    known = (before > 0) & (after > 0)
    ratio = torch.where(known, after / torch.where(known, before, 1.0), 1.0).numpy()
    image = axes.imshow(np.log2(ratio), cmap="PuOr_r", norm=Normalize(-1, 1), aspect="auto")
    for place in np.ndindex(ratio.shape):
        was, now, times = float(before[place]), float(after[place]), float(np.log2(ratio[place]))
        mark = "" if abs(times) < _UNCHANGED else ("\n▲" if times > 0 else "\n▼")
        color = "white" if abs(times) > 0.7 else "black"
        words = f"{_short(was)} → {_short(now)}{mark}" if mark else _short(now)
        axes.text(*place[::-1], words, ha="center", va="center", color=color, fontsize=9)
    output, channel = kernel
    axes.add_patch(plt.Rectangle((channel - 0.48, output - 0.48), 0.96, 0.96, fill=False, linewidth=2))
    axes.set(title=key, xticks=range(ratio.shape[1]), yticks=range(ratio.shape[0]))
    return image


def _short(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.2g}"
