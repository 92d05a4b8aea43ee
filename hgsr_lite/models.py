"""The four networks of the series, each a row of one table.

`digits_cnn` is a small net for 8 x 8 digits. `alexnet`, `vgg11` and `resnet18` are the narrow versions that
the method's authors trained: the shapes of the well-known networks with a fraction of their channels.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, fx, nn
from torchvision.models.resnet import BasicBlock, conv1x1

from hgsr_lite.arguments import as_number, check_count, check_seed, choose, shown

POOL = "pool"
"""Stands in a network's list of channels where a 2x2 max-pool stands in the network."""
STARTS = ("he", "pytorch")
"""How initial weights are drawn: see `build_model`."""


class ConvNet(nn.Module):
    """A plain chain of 3x3 convolutions, then a classifier of linear layers.

    `channels` lists the output channels of each convolution, with `POOL` for each max-pool. The last feature
    map is averaged to `grid x grid` and flattened; `hidden` lists the sizes of the hidden linear layers.
    `width` multiplies channels and hidden sizes. A pool keeps an odd edge, so that images of any size pass.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        width: float = 1.0,
        *,
        channels: Sequence[int | str],
        hidden: Sequence[int] = (),
        grid: int = 1,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        channels, hidden = _scaled(channels, width), _scaled(hidden, width)
        self.features = _convolutions(in_channels, channels, batch_norm)
        self.avgpool = nn.AdaptiveAvgPool2d(grid)
        last = [step for step in channels if step != POOL][-1]
        self.classifier = _linear_layers(last * grid**2, hidden, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of shape (batch, num_classes) for images of shape (batch, in_channels, height, width)."""
        _check_images(images, self.features.conv1.in_channels)
        return self.classifier(self.avgpool(self.features(images)).flatten(1))


class ResNet18(nn.Module):
    """Torchvision's ResNet18, layer names included, with any number of input channels and channels per stage.

    Source: He et al., *Deep Residual Learning for Image Recognition*, CVPR 2016, arXiv 1512.03385.
    """

    def __init__(
        self, in_channels: int, num_classes: int, width: float = 1.0, *, channels: Sequence[int]
    ) -> None:
        super().__init__()
        first, second, third, fourth = _scaled(channels, width)
        self.conv1 = nn.Conv2d(in_channels, first, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(first)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.layer1 = _residual_stage(first, first, stride=1)
        self.layer2 = _residual_stage(first, second, stride=2)
        self.layer3 = _residual_stage(second, third, stride=2)
        self.layer4 = _residual_stage(third, fourth, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(fourth, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of shape (batch, num_classes) for images of shape (batch, in_channels, height, width)."""
        _check_images(images, self.conv1.in_channels)
        features = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        features = self.layer4(self.layer3(self.layer2(self.layer1(features))))
        return self.fc(self.avgpool(features).flatten(1))


@fx.wrap  # a graph keeps it as one step: a proxy for images has no shape to be asked for
def _check_images(images: Tensor, in_channels: int) -> None:
    if images.ndim != 4 or images.shape[1] != in_channels:
        raise ValueError(
            f"this model takes images of shape (batch, {in_channels}, height, width), not "
            f"{tuple(images.shape)}: build it with in_channels=data.in_channels"
        )


def _scaled(sizes: Sequence[int | str], width: float) -> list[int | str]:
    return [size if size == POOL else max(1, round(size * width)) for size in sizes]


def _convolutions(in_channels: int, channels: Sequence[int | str], batch_norm: bool) -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    number = 0
    for step in channels:
        if step == POOL:
            layers[f"pool{number}"] = nn.MaxPool2d(2, ceil_mode=True)
            continue
        number += 1
        # A bias in front of a batch norm would be subtracted again with the mean.
        layers[f"conv{number}"] = nn.Conv2d(in_channels, step, 3, padding=1, bias=not batch_norm)
        if batch_norm:
            layers[f"norm{number}"] = nn.BatchNorm2d(step)
        layers[f"relu{number}"] = nn.ReLU()
        in_channels = step
    return nn.Sequential(layers)


def _linear_layers(features: int, hidden: Sequence[int], num_classes: int) -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number, size in enumerate(hidden, start=1):
        layers[f"linear{number}"] = nn.Linear(features, size)
        layers[f"relu{number}"] = nn.ReLU()
        features = size
    layers["output"] = nn.Linear(features, num_classes)
    return nn.Sequential(layers)


def _draw_after_he(network: nn.Module) -> None:
    """Draw the weights after He et al. 2015 (arXiv 1502.01852): the signal keeps its size layer by layer.

    The layer that gives the logits keeps PyTorch's start. A residual network is drawn as torchvision does it:
    convolutions alone, with the variance that keeps the gradient's size on its way back.
    """
    if isinstance(network, ResNet18):
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        return
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and module is not network.classifier.output:
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _residual_stage(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    downsample = None
    if stride != 1:
        downsample = nn.Sequential(conv1x1(in_channels, out_channels, stride), nn.BatchNorm2d(out_channels))
    return nn.Sequential(
        BasicBlock(in_channels, out_channels, stride, downsample),
        BasicBlock(out_channels, out_channels),
    )


@dataclass(frozen=True)
class ModelSpec:
    """One row of `MODELS`: a title, a start, the builder, called with `(in_channels, num_classes, width)`.

    The builder leaves PyTorch's own initial weights; `start`, one of `STARTS`, is what `build_model` takes
    unless told otherwise.
    """

    title: str
    build: Callable[[int, int, float], nn.Module]
    start: str = "he"


MODELS: dict[str, ModelSpec] = {
    "digits_cnn": ModelSpec(
        "three convolutions with batch norm, for small images",
        partial(ConvNet, channels=(32, POOL, 64, 64), batch_norm=True),
        start="pytorch",
    ),
    "alexnet": ModelSpec(
        "narrow AlexNet: five 3x3 convolutions, two hidden layers, no batch norm",
        partial(ConvNet, channels=(8, POOL, 16, POOL, 32, 16, 16, POOL), hidden=(128, 128), grid=4),
    ),
    "vgg11": ModelSpec(
        "narrow VGG11: eight 3x3 convolutions, two hidden layers, no batch norm",
        partial(
            ConvNet,
            channels=(16, POOL, 32, POOL, 64, 64, POOL, 128, 128, POOL, 128, 128, POOL),
            hidden=(128, 128),
        ),
    ),
    "resnet18": ModelSpec(
        "narrow ResNet18: torchvision's layers and names, stages of 8, 16, 32 and 64 channels",
        partial(ResNet18, channels=(8, 16, 32, 64)),
    ),
}
"""Key -> title and builder. The narrow networks' sizes are those of the method's released code."""


def build_model(
    name: str,
    *,
    in_channels: int,
    num_classes: int,
    width: float = 1.0,
    seed: int | None = None,
    start: str | None = None,
) -> nn.Module:
    """Build one of the networks in `MODELS`, on the CPU and ready to train.

    `width` multiplies every layer's channels (rounded, at least 1). With a `seed` the weights are the same
    on every call and PyTorch's global random state is left as it was; without one they are drawn from it.

    `start` says how the initial weights are drawn: `"he"`, after He et al. 2015, or `"pytorch"`, as PyTorch
    draws them by itself, which is how the authors trained. None takes the network's usual one,
    `MODELS[name].start`. It matters more than any penalty: from PyTorch's start, AlexNet and VGG11 are at
    chance after three epochs on 12,000 MNIST images.

    The network maps float images (batch, in_channels, height, width) to logits (batch, num_classes). Any
    image size passes; but at 32 pixels and below, the last feature map of `vgg11` and `resnet18` is one or
    two pixels wide, and the outer weights of their last 3x3 kernels see mostly padding.

    Raises `ValueError` for an unknown name, or for sizes that make no network.
    Source: the authors' released networks (Mitsuno et al., arXiv 2004.04394).

    >>> model = build_model("alexnet", in_channels=3, num_classes=10, seed=0)
    >>> model(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    >>> sum(layer.weight.numel() for layer in model.modules() if isinstance(layer, nn.Conv2d))
    12888
    """
    spec = MODELS[choose("model", name, MODELS)]
    start = spec.start if start is None else choose("start", start, STARTS)
    in_channels, num_classes = (
        check_count("in_channels", in_channels),
        check_count("num_classes", num_classes, 2),
    )
    if not 0 < as_number(width) < math.inf:
        raise ValueError(f"width must be a finite number above 0 (1 is the published size), not {width!r}")
    width = as_number(width)
    seed = None if seed is None else check_seed(seed)
    try:
        with nullcontext() if seed is None else torch.random.fork_rng(devices=[]):
            if seed is not None:
                # Not torch.manual_seed: that would reseed the GPUs' generators too.
                torch.default_generator.manual_seed(seed)
            return _started(spec.build(in_channels, num_classes, width), start)
    except (RuntimeError, TypeError, OverflowError, MemoryError) as error:
        raise ValueError(
            f"{name} with in_channels={in_channels}, num_classes={num_classes}, width={width:g} is too large "
            f"to be built here ({shown(str(error))}): give smaller numbers"
        ) from error


def _started(network: nn.Module, start: str) -> nn.Module:
    if start == "he":
        _draw_after_he(network)
    return network
