"""The check of notebook 08's exercise on dead kernels: a convolution that multiplies by living ones only."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.overrides import TorchFunctionMode

from hgsr_lite.series.checks.engine import Answer, Exercise, exercise


def layer_with_dead_kernels(channels: int, seed: int, bias: bool = True) -> nn.Conv2d:
    """A 3x3 layer, padded by one: the kernels of its last input channel are dead, two others only look it.

    >>> layer = layer_with_dead_kernels(3, seed=0)
    >>> (layer.weight == 0).flatten(2).all(-1).sum(0)
    tensor([0, 0, 3])
    """
    layer = nn.Conv2d(channels, channels, 3, padding=1, bias=bias).requires_grad_(False).double()
    generator = torch.Generator().manual_seed(seed)
    layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator))
    if bias:
        layer.bias.copy_(torch.randn(channels, generator=generator))
    layer.weight[:, -1] = 0
    layer.weight[0, 0, 1, 1] = 0  # one zero makes no dead kernel
    layer.weight[1, 0] = torch.tensor([[1.0, 0.0, -1.0]] * 3)  # nor does a sum of zero
    return layer


class DeadKernelError(Exception):
    """What a convolution with a dead kernel raises while an answer is checked: it multiplies by that, too."""


class _WithoutDeadKernels(TorchFunctionMode):
    """Calls of torch's functions, of which convolutions with a dead kernel are refused."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if getattr(func, "__name__", "") in {"conv2d", "convolution"}:
            weight = args[1] if len(args) > 1 else kwargs["weight"]
            if not (weight != 0).flatten(2).any(-1).all():
                raise DeadKernelError
        return func(*args, **(kwargs or {}))


def _without_dead_kernels(answer: Answer) -> Answer:
    def asked(layer: nn.Conv2d, images: Tensor) -> Tensor:
        with _WithoutDeadKernels():
            return answer(layer, images)

    return asked


def _bias(layer: nn.Conv2d) -> Tensor:
    bias = torch.zeros(layer.out_channels).double() if layer.bias is None else layer.bias
    return bias.view(-1, 1, 1)


def _images(channels: int, last: float, seed: int) -> Tensor:
    images = torch.randn(2, channels, 4, 5, generator=torch.Generator().manual_seed(seed))
    images[:, -1] *= last
    return images.double()


@exercise
def check_living_convolution() -> Exercise:
    """8.3: `living_convolution(layer, images)`, what a 3x3 layer gives if dead kernels are left out."""

    def summed(padding=(1, 1, 1, 1), alive=lambda w: (w != 0).flatten(2).any(-1), turned=False) -> Answer:
        def convolve(layer: nn.Conv2d, images: Tensor) -> Tensor:
            height, width = images.shape[2:]
            weight = layer.weight.flip(2, 3) if turned else layer.weight
            seen, out = pad(images, padding), _bias(layer) + 0 * images[:, :1]
            for o, i in alive(weight).nonzero().tolist():
                for row in range(3):
                    for column in range(3):
                        part = seen[:, i, row : row + height, column : column + width]
                        out[:, o] += weight[o, i, row, column] * part
            return out

        return convolve

    right = summed()

    def exchanged(layer: nn.Conv2d, images: Tensor) -> Tensor:
        layer.weight.copy_(layer.weight.transpose(0, 1).clone())
        return right(layer, images)

    def last_only(layer: nn.Conv2d, images: Tensor) -> Tensor:
        alive = (layer.weight != 0).flatten(2).any(-1)
        layer.weight.mul_((alive & (alive.cumsum(1) == alive.sum(1, keepdim=True)))[..., None, None])
        return right(layer, images)

    mistakes = {
        "A convolution that holds dead kernels multiplies by them, too. Go through the living only.": (
            lambda layer, images: layer(images)
        ),
        "NaN: a dead kernel was multiplied, and zero times infinity is none. Go through the living only.": (
            summed(alive=lambda w: torch.ones(w.shape[:2]))
        ),
        "The bias is missing: each output begins with it.": (
            lambda layer, images: right(layer, images) - _bias(layer)
        ),
        "One zero weight makes no dead kernel: a kernel lives if *any* of its weights is not zero.": summed(
            alive=lambda w: (w != 0).flatten(2).all(-1)
        ),
        "A kernel whose weights add up to zero lives: ask each weight, not their sum.": summed(
            alive=lambda w: w.sum((2, 3)) != 0
        ),
        "The kernels are turned round: PyTorch's row 0 meets the row of pixels above, row 2 the one below.": (
            summed(turned=True)
        ),
        "The image is shifted by a pixel: pad one zero on every side, not two on one.": summed((0, 2, 0, 2)),
        "Each output keeps one kernel's part only: add them up.": last_only,
        "Output and input channel are exchanged: weight[o, i] reads channel i, adds to channel o.": exchanged,
    }
    cases = [
        (layer_with_dead_kernels(3, seed=1), _images(3, math.inf, seed=2)),
        (layer_with_dead_kernels(4, seed=3), _images(4, 1.0, seed=4)),
        (layer_with_dead_kernels(3, seed=5, bias=False), _images(3, math.inf, seed=6)),
    ]
    tolerance = 1e-3  # sums in another order round otherwise
    return Exercise(right, cases, mistakes, tolerance, seen_as=_without_dead_kernels)
