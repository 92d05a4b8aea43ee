"""Networks with dead kernels, the same without them, and how far two networks are apart."""

from __future__ import annotations

import torch
import torchvision
from torch import Tensor, nn

import hgsr_lite as hg
from hgsr_lite.skipping.network import SkippingNetwork


def network(name: str, share: float = 0.9) -> nn.Module:
    """A network with random kernels dead, and batch norms that have seen something."""
    if name in hg.MODELS:
        model = hg.build_model(name, in_channels=3, num_classes=10, seed=0)
    else:
        torch.manual_seed(0)
        model = getattr(torchvision.models, name.split()[-1])(num_classes=10)
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.groups == 1:
            alive = torch.rand(module.weight.shape[:2], generator=generator) >= share
            alive[:, 0] |= ~alive.any(1)  # no channel dies of it: every layer is really compared
            module.weight.data *= alive[..., None, None] / (1 - share) ** 0.5
        elif isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
    return model.eval()


def distance(one: nn.Module, other: nn.Module, images: Tensor) -> float:
    with torch.no_grad():
        wanted, found = one(images), other(images)
    assert found.shape == wanted.shape
    return float((found - wanted).abs().max() / wanted.abs().max())


def skipping(name: str) -> tuple[nn.Module, SkippingNetwork]:
    """A network with three kernels in four dead, and the same without them, 16 images at a time."""
    model = hg.build_model(name, in_channels=3, num_classes=10, seed=0).eval()
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data *= 2 * (torch.rand(*module.weight.shape[:2], 1, 1, generator=generator) < 0.25)
    small, _ = hg.skip_dead_kernels(model, torch.randn(2, 3, 32, 32), repeats=0)
    small.tile = 16
    return model, small
