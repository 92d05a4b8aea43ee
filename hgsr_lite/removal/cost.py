"""What a network costs: parameters, multiply-accumulates, and the time it really takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from statistics import median

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from hgsr_lite.training import eval_mode

SETTLING = 5e-3
"""Seconds of calls after which a network finds its weights and its code in the caches."""


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
    all; the first two rounds warm up and do not count. What takes less than five milliseconds is called for
    so long before each run that counts: a network that is used batch after batch does not pay for what
    another one left in the caches. With `repeats=0` nothing runs and every time is NaN.

    >>> sorted(latency({"net": nn.Linear(2, 2)}, torch.ones(1, 2), repeats=3))
    ['net']
    """
    if repeats == 0:
        return dict.fromkeys(models, float("nan"))
    calls = {name: partial(model, example_input) for name, model in models.items()}
    with torch.inference_mode(), ExitStack() as modes:
        for model in models.values():
            modes.enter_context(eval_mode(model))
        times = seconds_in_turn(calls, repeats, example_input.device, SETTLING)
    return {name: median(taken) for name, taken in times.items()}


def seconds_in_turn(
    calls: Mapping[str, Callable[[], object]], rounds: int, device: torch.device, settling: float = 0.0
) -> dict[str, list[float]]:
    """Seconds of every call in every round, in turn, after two rounds of warm-up.

    A call that takes less than `settling` seconds is repeated for so long before the one that counts.

    >>> found = seconds_in_turn({"sum": lambda: sum(range(9))}, 3, torch.device("cpu"))
    >>> len(found["sum"]), min(found["sum"]) > 0
    (3, True)
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds + 2):
        for name, call in calls.items():
            settled = time.perf_counter() + settling
            while min(times[name], default=0.0) < settling and time.perf_counter() < settled:
                _seconds_of(call, device)
            times[name].append(_seconds_of(call, device))
    return {name: taken[2:] for name, taken in times.items()}


def _seconds_of(call: Callable[[], object], device: torch.device) -> float:
    wait_for(device)
    start = time.perf_counter()
    call()
    wait_for(device)
    return time.perf_counter() - start


def wait_for(device: torch.device) -> None:
    """An accelerator works on while Python runs ahead: a clock must wait for it.

    >>> wait_for(torch.device("cpu"))
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
