"""The forms in which PyTorch runs a dense convolution or network, and how often the living kernels fit in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from hgsr_lite.skipping import DenseNetwork, compiled_for

LIVING, CSR = "living kernels", "im2col and CSR"


@contextmanager
def threads(count: int) -> Iterator[None]:
    """As many threads, within."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def kill_kernels_(layer: nn.Conv2d, share: float, generator: torch.Generator) -> None:
    """Set a share of a layer's kernels to zero, drawn at random."""
    layer.weight.data[torch.rand(layer.weight.shape[:2], generator=generator) < share] = 0


def called_on(network: DenseNetwork, images: Tensor) -> Callable[[], Tensor]:
    """A dense form on images that lie as it wants them."""
    ordered = images.contiguous(memory_format=network.memory_format)
    return lambda: network.network(ordered)


def compiled(network: nn.Module, images: Tensor) -> DenseNetwork:
    """A dense network under `torch.compile`, with nothing compiled before: after eight forms it refuses."""
    torch.compiler.reset()
    return compiled_for(network, images)


def carry_weights_(network: nn.Module, forms: Iterable[nn.Module]) -> None:
    """Give dense forms of a network, or of another like it, its weights."""
    for form in forms:
        for old, new in zip(form.parameters(), network.parameters(), strict=True):
            old.copy_(new)


def compared(seconds: dict[str, np.ndarray]) -> dict[str, float | str]:
    """Milliseconds of the best dense form, of the living kernels, and how often these fit into that."""
    medians = {name: 1e3 * float(np.median(values)) for name, values in seconds.items()}
    living, csr = medians.pop(LIVING), medians.pop(CSR, float("nan"))
    best = min(medians, key=medians.__getitem__)
    return {
        "dense form": best, "dense ms": medians[best], "CSR ms": csr, "living ms": living,
        "times as fast": medians[best] / living,
    }  # fmt: skip
