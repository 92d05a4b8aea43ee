"""One image through the layers of several networks, computed in the page: switch channels off and see."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import traitlets
from matplotlib.figure import Figure
from torch import Tensor, nn

from hgsr_lite.data import Data
from hgsr_lite.figures import through_the_layers
from hgsr_lite.live.figure import LiveFigure

LAYERS = {"first convolution": "relu1", "second": "relu2", "third": "relu3"}
READERS = {"first convolution": "conv2", "second": "conv3"}
_TENSORS = ("conv{}.weight", "norm{}.weight", "norm{}.bias", "norm{}.running_mean", "norm{}.running_var")
_MOST_IMAGES = 12
_CHILDREN = [
    *(f"features.{name}" for name in ("conv1", "norm1", "relu1", "pool1", "conv2", "norm2", "relu2")),
    *(f"features.{name}" for name in ("conv3", "norm3", "relu3")),
    "avgpool",
    "classifier.output",
]


class ThroughLayers(LiveFigure):
    """Follow one image through networks of the kind `digits_cnn`, and switch channels off under way.

    `models` are at most three networks of one size, by name; `data` gives the images, the first dozen of its
    test part (looked at, not measured). The page computes what the networks compute in eval mode; a channel
    that is switched off is zero for whoever reads it. A channel that nobody reads is hatched, one that is the
    same at every position is framed.

    Raises `ValueError` for other networks, and for images of other channels than they take.

    >>> import hgsr_lite as hg
    >>> data = hg.load_data("digits", device="cpu")
    >>> model = hg.build_model("digits_cnn", in_channels=1, num_classes=10, width=0.25, seed=0)
    >>> figure = ThroughLayers({"dense": model}, data)
    >>> figure.channels, figure.height, figure.count
    ([8, 16, 16], 8, 12)
    """

    module = "through.js"
    names = traitlets.List(traitlets.Unicode()).tag(sync=True)
    channels = traitlets.List(traitlets.Int()).tag(sync=True)
    classes = traitlets.Int().tag(sync=True)
    inputs = traitlets.Int().tag(sync=True)
    height = traitlets.Int().tag(sync=True)
    width = traitlets.Int().tag(sync=True)
    weights = traitlets.Bytes().tag(sync=True)
    images = traitlets.Bytes().tag(sync=True)
    labels = traitlets.List(traitlets.Int()).tag(sync=True)
    count = traitlets.Int().tag(sync=True)
    number = traitlets.Int(0, min=0).tag(sync=True)
    off = traitlets.List().tag(sync=True)

    def __init__(self, models: Mapping[str, nn.Module], data: Data, **state: Any) -> None:
        images = data.test.images[:_MOST_IMAGES].float().cpu()
        sizes = [_checked(name, model, images) for name, model in models.items()]
        if not 1 <= len(sizes) <= 3 or any(each != sizes[0] for each in sizes):
            raise ValueError(f"models must be one to three networks of one size, not {len(sizes)}: {sizes}")
        self._models = {name: copy.deepcopy(model).cpu().eval() for name, model in models.items()}
        self._images = images
        super().__init__(
            names=list(models),
            height=images.shape[2],
            width=images.shape[3],
            **sizes[0],
            weights=b"".join(_weight_bytes(model) for model in models.values()),
            images=images.numpy().astype("<f4").tobytes(),
            labels=data.test.labels[:_MOST_IMAGES].tolist(),
            count=len(images),
            **state,
        )

    def picture(self) -> Figure:
        """The feature maps of the image shown, all channels on."""
        image = self._images[min(self.number, self.count - 1)]
        layers, readers = (
            {title: f"features.{name}" for title, name in each.items()} for each in (LAYERS, READERS)
        )
        return through_the_layers(self._models, image, layers, readers)

    def alt(self) -> str:
        """What `picture` shows, in words."""
        return (
            f"An image of a {self.labels[self.number]} and its feature maps behind each of three "
            f"convolutions, a row each for {' and '.join(self.names)}. Channels that nobody reads are "
            "hatched, channels that are the same at every position are framed."
        )


def _checked(name: str, model: nn.Module, images: Tensor) -> dict[str, Any]:
    """The sizes of a network that the page can compute with these images."""
    children = [child for child, module in model.named_modules() if not [*module.children()]]
    if children != _CHILDREN:
        raise ValueError(
            f"{name!r}, a {type(model).__name__}, has other layers: the page computes digits_cnn alone"
        )
    inputs = images.shape[1]
    if model.features.conv1.in_channels != inputs:
        raise ValueError(
            f"{name!r} takes {model.features.conv1.in_channels} channels, the images have {inputs}"
        )
    channels = [model.get_submodule(f"features.conv{n}").out_channels for n in (1, 2, 3)]
    return {"channels": channels, "classes": model.classifier.output.out_features, "inputs": inputs}


def _weight_bytes(model: nn.Module) -> bytes:
    """All numbers of a network in the order in which the page reads them, as float32."""
    state = model.state_dict()
    names = [f"features.{each.format(n)}" for n in (1, 2, 3) for each in _TENSORS]
    tensors = [state[name] for name in [*names, "classifier.output.weight", "classifier.output.bias"]]
    return np.concatenate(
        [tensor.detach().cpu().numpy().astype("<f4").ravel() for tensor in tensors]
    ).tobytes()
