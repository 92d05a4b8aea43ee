"""What decides a run's course beside network, data and penalty: its budget, its optimizer, its precision."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from hgsr_lite.arguments import (
    as_number,
    check_count,
    check_flag,
    check_seed,
    check_tolerance,
    choose,
    set_plain_,
)

OPTIMIZERS = ("sgd", "adam")


@dataclass(frozen=True)
class Settings:
    """Everything that decides a run's course, by default as the authors do it.

    A checkpoint belongs to exactly one of these. On their meaning see `fit`.
    """

    epochs: int = 10
    seed: int = 0
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    batch_size: int = 128
    optimizer: str = "sgd"
    proximal: bool = False
    augment: bool = False
    tolerance: float = 1e-3
    relative: bool = False
    bfloat16: bool = False

    def __post_init__(self) -> None:
        set_plain_(self)

    def check(self) -> None:
        """Refuse settings that cannot work, before anything is trained."""
        choose("optimizer", self.optimizer, OPTIMIZERS)
        check_count("epochs", self.epochs)
        check_count("batch_size", self.batch_size)
        check_seed(self.seed)
        check_tolerance(self.tolerance)
        for flag in ("proximal", "augment", "relative", "bfloat16"):
            check_flag(flag, getattr(self, flag))
        if not 0 < as_number(self.lr) < math.inf:
            raise ValueError(f"lr {self.lr!r} must be a finite number > 0: the authors take 0.01")
        if not 0 <= as_number(self.momentum) < 1:
            raise ValueError(f"momentum {self.momentum!r} must be from 0 to below 1: the authors take 0.9")
        if not 0 <= as_number(self.weight_decay) < math.inf:
            raise ValueError(
                f"weight_decay {self.weight_decay!r} must be a finite number >= 0: the authors take 5e-4"
            )
        if self.proximal and self.optimizer == "adam":
            raise ValueError(
                "proximal=True with optimizer='adam' would be wrong: Adam scales each weight's step by "
                "itself, so one scalar step no longer solves the proximal problem; use optimizer='sgd'"
            )

    def make_optimizer(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        """The optimizer these settings ask for."""
        if self.optimizer == "adam":
            return torch.optim.Adam(parameters, self.lr, weight_decay=self.weight_decay)
        return torch.optim.SGD(parameters, self.lr, momentum=self.momentum, weight_decay=self.weight_decay)

    def autocast(self, device: torch.device) -> torch.autocast:
        """Convolutions and linear layers in bfloat16, if these settings ask for it."""
        return torch.autocast(device.type, torch.bfloat16, enabled=self.bfloat16)

    def as_wanted(self, images: Tensor) -> Tensor:
        """Images in the memory format that training is fastest with."""
        return (
            images.contiguous(memory_format=torch.channels_last) if self.bfloat16 else in_quick_format(images)
        )

    def lr_in(self, epoch: int) -> float:
        """The authors' schedule: times 0.2 after each third of the run; epochs count from 1."""
        return self.lr * 0.2 ** (3 * (epoch - 1) // self.epochs)


def in_quick_format(images: Tensor) -> Tensor:
    """Images in the memory format that float32 networks take least time with: on a CPU, channels last.

    Max-pools gain most (`benchmarks/formats.py`). Grey images are the same in both formats, and stay as they
    are.
    """
    if images.device.type != "cpu" or images.ndim != 4 or not torch.backends.mkldnn.is_available():
        return images
    return images.contiguous(memory_format=torch.channels_last)
