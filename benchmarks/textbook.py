"""The penalties as a textbook would write them: plain autograd, formula by formula.

This is what the package is measured and tested against. It is right away from zero and gives NaN
gradients at zero kernels or groups, which is why the package does not work this way.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hgsr_lite import PENALTIES


def textbook_penalty(weight: Tensor, key: str, grouping: str) -> Tensor:
    """The penalty of a plain convolution weight `(out, in, *kernel)`, differentiated by autograd."""
    spec = PENALTIES[key]
    kernels = weight.flatten(2)
    if (spec.norm, spec.inner) == (2, 2.0):
        inner = kernels.square().sum(2)  # a squared l2 norm is written without its root
    else:
        norms = kernels.abs().sum(2) if spec.norm == 1 else kernels.square().sum(2).sqrt()
        inner = _raise(norms, spec.inner)
    return _raise(inner.sum({"feature": 0, "neuron": 1}[grouping]), spec.outer).sum()


def _raise(base: Tensor, exponent: float) -> Tensor:
    return {0.5: torch.sqrt, 1.0: lambda same: same, 2.0: torch.square}[exponent](base)


def textbook_model_penalty(model: nn.Module, key: str, grouping: str) -> Tensor:
    """The sum over every convolution of a model, layer by layer."""
    weights = [module.weight for module in model.modules() if isinstance(module, nn.Conv2d)]
    return torch.stack([textbook_penalty(weight, key, grouping) for weight in weights]).sum()
