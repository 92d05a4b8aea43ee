"""How strongly a loss pulls at weights: what a penalty's strength is calibrated by."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.func import functional_call

from hgsr_lite.arguments import shown


def loss_gradient_norm(
    model: nn.Module,
    weights: list[nn.Parameter],
    images: Tensor,
    labels: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
) -> float:
    """The norm, over all the weights together, of the loss's gradient on one batch.

    Neither weights, gradients, batch norm statistics nor the random state are changed. Raises `ValueError`
    for a batch that the model or the loss does not take.
    """
    batch = [part for part in (images, labels) if isinstance(part, Tensor) and part.ndim]
    if len(batch) < 2 or not len(labels) == len(images) > 0:
        raise ValueError("images and labels must be tensors of one length, at least 1: give a batch of both")
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    devices = [images.device] if images.is_cuda else []
    with torch.random.fork_rng(devices=devices), torch.enable_grad():
        try:
            value = loss(functional_call(model, buffers, (images,)), labels)
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            raise ValueError(
                f"cannot calibrate: model or loss does not take this batch ({error}); give images as the "
                "model takes them and labels as the loss does (cross_entropy: whole class numbers from 0)"
            ) from error
    if not isinstance(value, Tensor) or value.numel() != 1 or not value.requires_grad:
        raise ValueError(
            f"cannot calibrate: the loss gave {shown(value)}, not one number (a tensor) that depends on the "
            "model's scores; give a function such as torch.nn.functional.cross_entropy"
        )
    return gradient_norm(torch.autograd.grad(value.sum(), weights))


def gradient_norm(gradients: Iterable[Tensor]) -> float:
    """The norm of all gradients together, in float64."""
    return torch.stack([gradient.double().square().sum() for gradient in gradients]).sum().sqrt().item()
