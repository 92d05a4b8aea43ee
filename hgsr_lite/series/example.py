"""The running example of the series: one network, one budget, one set of seeds.

They are defined here and nowhere else. A page that departs from it says why.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from hgsr_lite.data import Data
from hgsr_lite.models import build_model

NETWORK = "digits_cnn"
SEEDS = (0, 1, 2, 3, 4)
EPOCHS = 20
STRENGTH = 1e-4
"""Of `hsq_gl12`, feature-wise, with gradient steps, on the digits."""


def example_network(data: Data, seed: int = 0, *, width: float = 1.0) -> nn.Module:
    """The running example's network, untrained, for these images and on their device.

    >>> import hgsr_lite as hg
    >>> sum(p.numel() for p in example_network(hg.load_data("digits", device="cpu")).parameters())
    56554
    """
    sizes = {"in_channels": data.in_channels, "num_classes": data.num_classes, "width": width}
    return build_model(NETWORK, **sizes, seed=seed).to(data.device)


def example_budget(epochs: int = EPOCHS, seed: int = 0, *, fast: bool = False) -> dict[str, Any]:
    """The running example's budget, as keywords of `fit`; `fast` trains for two epochs at most.

    >>> example_budget()
    {'epochs': 20, 'seed': 0, 'lr': 0.02, 'batch_size': 64}
    """
    return {"epochs": min(epochs, 2) if fast else epochs, "seed": seed, "lr": 0.02, "batch_size": 64}
