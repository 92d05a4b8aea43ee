"""Plausible wrong answers to the exercises of notebooks 00 to 02, each with a part of the hint it gets."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def share_without_absolute_value(weight: Tensor, tolerance: float) -> float:
    return sum(value < tolerance for value in weight.flatten().tolist()) / weight.numel()


def share_as_count(weight: Tensor, tolerance: float) -> int:
    return int(((weight > -tolerance) & (weight < tolerance)).sum())


def share_of_exact_zeros(weight: Tensor, tolerance: float) -> float:
    return 1 - weight.count_nonzero().item() / weight.numel()


def small_of_one_sign(weight: Tensor, tolerance: float) -> Tensor:
    return weight * (weight >= tolerance)


def small_shrunk(weight: Tensor, tolerance: float) -> Tensor:
    return nn.functional.softshrink(weight, tolerance)


def small_as_mask(weight: Tensor, tolerance: float) -> Tensor:
    return ~(weight.abs() < tolerance)


def sums_of_rows(weight: Tensor) -> Tensor:
    return torch.stack([row.abs().sum() for row in weight])


def sums_with_cancelling(weight: Tensor) -> Tensor:
    return torch.stack([weight[:, i].sum() for i in range(weight.shape[1])])


def sums_of_l2_norms(weight: Tensor) -> Tensor:
    return weight.square().flatten(2).sum(2).sqrt().sum(0)


def dropped_where_sums_vanish(weight: Tensor) -> tuple[Tensor, list[int]]:
    kept = [i for i in range(weight.shape[1]) if weight[:, i].sum() != 0]
    return weight[:, kept], kept


def dropped_rows(weight: Tensor) -> tuple[Tensor, list[int]]:
    kept = [o for o in range(weight.shape[0]) if weight[o].count_nonzero()]
    return weight[kept], kept


def dropped_with_any_zero_kernel(weight: Tensor) -> tuple[Tensor, list[int]]:
    norms = weight.abs().sum(dim=(2, 3))
    kept = [i for i in range(weight.shape[1]) if norms[:, i].min() > 0]
    return weight[:, kept], kept


def ignored_as_if_plain(layer: nn.Module) -> Tensor:
    return torch.stack([layer.weight[:, i].abs().max() == 0 for i in range(layer.weight.shape[1])])


def ignored_without_groups(layer: nn.Module) -> Tensor:
    stored_first = isinstance(layer, nn.ConvTranspose2d)
    weight = layer.weight.transpose(0, 1) if stored_first else layer.weight
    return weight.abs().amax(dim=(0, 2, 3)) == 0


def read_instead_of_ignored(layer: nn.Module) -> Tensor:
    if isinstance(layer, nn.ConvTranspose2d):
        return layer.weight.flatten(1).any(1)
    parts = layer.weight.chunk(layer.groups)
    return torch.cat([part.transpose(0, 1).flatten(1).any(1) for part in parts])


def exclusive_of_rows(weight: Tensor) -> Tensor:
    return sum(row.abs().sum() ** 2 for row in weight)


def exclusive_without_square(weight: Tensor) -> Tensor:
    return sum(weight[:, i].abs().sum() for i in range(weight.shape[1]))


def exclusive_of_kernels(weight: Tensor) -> Tensor:
    return sum(kernel.abs().sum() ** 2 for row in weight for kernel in row)


def step_that_overshoots(z: Tensor, step: float) -> Tensor:
    return torch.where(z > 0, z - step, torch.where(z < 0, z + step, z))


def step_that_loses_the_sign(z: Tensor, step: float) -> Tensor:
    return torch.relu(z.abs() - step)


def step_that_only_cuts(z: Tensor, step: float) -> Tensor:
    return z * (z.abs() > step)


def ball_of_degree_one(weight: Tensor) -> Tensor:
    penalty = sum(weight[:, i].abs().sum().sqrt() for i in range(weight.shape[1]))
    return weight / penalty


def ball_with_the_root(weight: Tensor) -> Tensor:
    penalty = sum(weight[:, i].abs().sum().sqrt() for i in range(weight.shape[1]))
    return weight / penalty**0.5


def ball_of_the_l1_norm(weight: Tensor) -> Tensor:
    return nn.functional.normalize(weight.flatten(), p=1, dim=0).view_as(weight)


WRONG = {
    "check_share_below": [
        (share_without_absolute_value, "A weight of -2"),
        (share_as_count, "how many"),
        (share_of_exact_zeros, "exact zeros only"),
    ],
    "check_zero_small": [
        (small_of_one_sign, "Every negative weight"),
        (small_shrunk, "became smaller too"),
        (small_as_mask, "where the weights are large"),
    ],
    "check_feature_sums": [
        (sums_of_rows, "neuron-wise"),
        (sums_with_cancelling, "cancelled"),
        (sums_of_l2_norms, "l2 norm"),
    ],
    "check_drop_ignored_inputs": [
        (dropped_where_sums_vanish, "1 and -1 cancel"),
        (dropped_rows, "dropped output channels"),
        (dropped_with_any_zero_kernel, "one of its kernels"),
    ],
    "check_ignored_inputs": [
        (ignored_as_if_plain, "Right for plain convolutions"),
        (ignored_without_groups, "groups > 1"),
        (read_instead_of_ignored, "does read"),
    ],
    "check_exclusive_sparsity": [
        (exclusive_of_rows, "neuron-wise"),
        (exclusive_without_square, "square is missing"),
        (exclusive_of_kernels, "Each kernel is squared"),
    ],
    "check_lasso_step": [
        (step_that_overshoots, "overshoot zero"),
        (step_that_loses_the_sign, "sign back"),
        (step_that_only_cuts, "keep their value"),
    ],
    "check_to_unit_ball": [
        (ball_of_degree_one, "degree 1"),
        (ball_with_the_root, "root of the penalty"),
        (ball_of_the_l1_norm, "ball of the l1 norm"),
    ],
}
