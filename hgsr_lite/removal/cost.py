"""What a network costs: parameters, multiply-accumulates, and the time it really takes."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from hgsr_lite.training import eval_mode


@dataclass(frozen=True)
class Cost:
    """Parameters, multiply-accumulates for one image, and seconds for one batch (NaN if not measured)."""

    parameters: int
    macs: int
    seconds: float


def parameters(model: nn.Module) -> int:
    """How many numbers a model learns; a parameter shared by two layers counts once.

    >>> parameters(nn.Conv2d(3, 8, 3))
    224
    """
    return sum(parameter.numel() for parameter in model.parameters())


def macs(model: nn.Module, example_input: Tensor) -> int:
    """Multiply-accumulates of the convolutions and matrix products for one image.

    Counted from the operations that really run; batch norms, activations, pooling and biases are left
    out, as is usual. The model is asked in eval mode, and left as it was.

    >>> macs(nn.Conv2d(3, 8, 3), torch.ones(5, 3, 10, 10)) == 3 * 8 * 9 * 8 * 8
    True
    """
    with torch.no_grad(), eval_mode(model), FlopCounterMode(display=False) as counter:
        model(example_input)
    return counter.get_total_flops() // 2 // len(example_input)


def latency(models: dict[str, nn.Module], example_input: Tensor, repeats: int = 20) -> dict[str, float]:
    """Seconds for one forward pass of each model on this example, the median of `repeats` runs.

    The models are in eval mode meanwhile. They take turns, so that a machine that slows down slows them
    all; the first two rounds warm up and do not count. With `repeats=0` nothing runs and every time is NaN.

    >>> sorted(latency({"net": nn.Linear(2, 2)}, torch.ones(1, 2), repeats=3))
    ['net']
    """
    times: dict[str, list[float]] = {name: [] for name in models}
    with torch.inference_mode(), ExitStack() as modes:
        for model in models.values():
            modes.enter_context(eval_mode(model))
        for _ in range(repeats + 2 if repeats else 0):
            for name, model in models.items():
                wait_for(example_input.device)
                start = time.perf_counter()
                model(example_input)
                wait_for(example_input.device)
                times[name].append(time.perf_counter() - start)
    return {name: median(taken[2:]) if taken else float("nan") for name, taken in times.items()}


def wait_for(device: torch.device) -> None:
    """An accelerator works on while Python runs ahead: a clock must wait for it.

    >>> wait_for(torch.device("cpu"))
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
