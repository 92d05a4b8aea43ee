"""The table behind "Proximal steps on a GPU" in README.md; it needs a CUDA GPU.

    python -m benchmarks.proximal

takes proximal steps on each network's weights with the GPU's own operators and by way of the CPU, in turn,
and writes results/cuda/proximal.csv: medians and quartiles of a step, in milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

import hgsr_lite as hg
from benchmarks.measurements import DEVICE, SMALL_AND_LARGE, Row, interleaved, rows_of, write_gpu_table
from hgsr_lite.fast import copied_prox, plain_prox_

ROUNDS = 7
STEP = 1e-7
"""So small that the weights stay what they are through all rounds."""


def rows() -> list[Row]:
    """One row a network, penalty and way."""
    found = []
    for network, build in SMALL_AND_LARGE.items():
        layers = hg.Regularizer(build().to(DEVICE), "gl").layers
        weights, layouts = [layer.weight.detach() for layer in layers], [layer.layout for layer in layers]
        count = sum(map(torch.Tensor.numel, weights))
        for key in ("l1", "gl", "gl12", "hsqrt_es", "hsq_gl12"):
            parts = (hg.Penalty(key, "neuron"), weights, layouts)
            variants: dict[str, Callable[[], int]] = {
                "the GPU's operators": partial(plain_prox_, *parts, STEP),
                "by way of the CPU": partial(copied_prox(*parts), STEP),
            }
            seconds = interleaved(variants, ROUNDS)
            against = "the GPU's operators"
            found += rows_of("proximal step", seconds, against, network=network, weights=count, penalty=key)
    return found


if __name__ == "__main__":
    write_gpu_table("proximal.csv", rows)
