"""The scrubber: move through a training run and watch the kernels of one layer."""

from __future__ import annotations

import io

import ipywidgets as widgets
import matplotlib.pyplot as plt

from hgsr_lite.arguments import choose
from hgsr_lite.figures import kernel_map
from hgsr_lite.training import History

_DPI = 80
_MILLISECONDS_A_PICTURE = 400


def history_scrubber(history: History, layer: str, *, smallest: float = 1e-4) -> widgets.VBox:
    """A slider and a play button over the snapshots of a run: one layer's kernel map at each of them.

    The map before training stays beside it, and one colour scale holds for all moments. Each picture is
    drawn when it is first asked for and kept; where no kernel runs, the last one is what a reader sees.
    Raises `ValueError` for a layer that the history does not know.

    >>> import torch
    >>> norms = torch.rand(2, 4, 3)
    >>> scrubber = history_scrubber(History(snapshots={"conv": norms}, snapshot_epochs=[0, 5]), "conv")
    >>> slider, image = scrubber.children[0].children[1], scrubber.children[1]
    >>> slider.max, image.format
    (1, 'png')
    """
    norms = history.snapshots[choose("layer", layer, history.snapshots)].float()
    epochs = history.snapshot_epochs
    drawn: dict[int, bytes] = {}

    def picture(moment: int) -> bytes:
        if moment not in drawn:
            maps = {"before training": norms[0], f"epoch {epochs[moment]} of {epochs[-1]}": norms[moment]}
            figure = kernel_map(maps, title=f"layer {layer}", smallest=smallest)
            # The maps share one scale object: stretched to the whole run, it stays put while one scrubs.
            figure.axes[0].images[0].norm.vmax = max(norms.max().item(), 10 * smallest)
            drawn[moment] = _png(figure)
        return drawn[moment]

    last = len(epochs) - 1
    image = widgets.Image(value=picture(last), format="png")
    slider = widgets.IntSlider(value=last, min=0, max=last, description="snapshot", readout=False)
    play = widgets.Play(value=last, min=0, max=last, interval=_MILLISECONDS_A_PICTURE)
    widgets.link((play, "value"), (slider, "value"))

    def show(change: dict) -> None:
        image.value = picture(change["new"])

    slider.observe(show, "value")
    return widgets.VBox([widgets.HBox([play, slider]), image])


def _png(figure: plt.Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI)
    plt.close(figure)
    return buffer.getvalue()
