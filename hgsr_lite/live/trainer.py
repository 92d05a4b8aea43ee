"""The digits network trained in the page: the data, the recipe and the table of penalties it is given."""

from __future__ import annotations

from typing import Any

import torch
import traitlets
from matplotlib.figure import Figure

from hgsr_lite.data import Data, load_data
from hgsr_lite.figures import model_kernel_maps
from hgsr_lite.groups import GROUPINGS
from hgsr_lite.layers import weight_layers
from hgsr_lite.live.figure import PENALTY_ROWS, LiveFigure
from hgsr_lite.live.maps import MAP_COLORS, layer_places
from hgsr_lite.live.modules import as_script
from hgsr_lite.models import build_model
from hgsr_lite.table import PENALTIES

_WHITE = 16  # the brightest pixel of the digits
_WIDTH = 0.5
_RECIPE = {"lr": 0.05, "momentum": 0.9, "weightDecay": 5e-4, "batchSize": 64}


class Trainer(LiveFigure):
    """Train the digits network, at half its width, in the page itself, with any penalty; no Python is asked.

    The recipe is that of `fit` with lr 0.05 and batches of 64. What the page shows is measured on the
    validation images; the test images do not travel.

    >>> figure = Trainer(penalty="gl", strength=0.01)
    >>> len(figure.images), figure.train_count
    (92032, 1294)
    """

    module = "trainer.js"
    address = ("penalty", "grouping", "strength", "l1_mix", "proximal", "epochs", "seed")
    rows = traitlets.List(PENALTY_ROWS).tag(sync=True)
    colors = traitlets.Bytes(MAP_COLORS).tag(sync=True)
    worker = traitlets.Unicode().tag(sync=True)
    recipe = traitlets.Dict(_RECIPE).tag(sync=True)
    layers = traitlets.List().tag(sync=True)
    images = traitlets.Bytes().tag(sync=True)
    labels = traitlets.Bytes().tag(sync=True)
    train_count = traitlets.Int().tag(sync=True)
    mean = traitlets.Float().tag(sync=True)
    std = traitlets.Float().tag(sync=True)
    white = traitlets.Int(_WHITE).tag(sync=True)
    tolerance = traitlets.Float(1e-3).tag(sync=True)
    penalty = traitlets.Enum(list(PENALTIES), "hsq_gl12").tag(sync=True)
    grouping = traitlets.Enum(list(GROUPINGS), "feature").tag(sync=True)
    strength = traitlets.Float(3e-4, min=0.0).tag(sync=True)
    l1_mix = traitlets.Float(0.0, min=0.0, max=1.0).tag(sync=True)
    proximal = traitlets.Bool(False).tag(sync=True)
    epochs = traitlets.Int(12, min=1).tag(sync=True)
    seed = traitlets.Int(0, min=0).tag(sync=True)

    def __init__(self, **state: Any) -> None:
        data = load_data("digits", device="cpu")
        super().__init__(
            worker=as_script("worker.js"), layers=layer_places(_model()), **_as_bytes(data), **state
        )

    def picture(self) -> Figure:
        """The kernels of the middle layer before training."""
        model = _model()
        name = weight_layers(model)[1].name
        return model_kernel_maps({"before training": model}, name, title=f"layer {name}")

    def alt(self) -> str:
        """What `picture` shows, in words."""
        return "The kernel map of the network's middle layer before training: all kernels are alive."


def _model() -> torch.nn.Module:
    return build_model("digits_cnn", in_channels=1, num_classes=10, width=_WIDTH, seed=0)


def _as_bytes(data: Data) -> dict[str, Any]:
    """Training and validation images as the bytes they came as, and how they are brought to mean 0."""
    images = torch.cat([data.train.images, data.validation.images])
    pixels = (images * data.std.view(-1, 1, 1) + data.mean.view(-1, 1, 1)) * _WHITE
    labels = torch.cat([data.train.labels, data.validation.labels])
    return {
        "images": pixels.round().to(torch.uint8).numpy().tobytes(),
        "labels": labels.to(torch.uint8).numpy().tobytes(),
        "train_count": len(data.train.labels),
        "mean": data.mean.item(),
        "std": data.std.item(),
    }
