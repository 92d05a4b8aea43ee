"""Plausible wrong answers to the exercises of notebooks 03 and 04, each with a part of its hint."""

from __future__ import annotations

import math

import torch


def feature_wise(weight):
    norms = torch.linalg.vector_norm(weight.flatten(2), dim=2)
    return (norms.sum(dim=0) ** 2).sum()


def absolute_values(weight):
    per_kernel = weight.reshape(weight.shape[0], weight.shape[1], -1).abs().sum(-1)
    return per_kernel.sum(1).pow(2).sum()


def no_kernels(weight):
    return (weight**2).sum()


def forgotten_square(weight):
    return torch.linalg.vector_norm(weight.flatten(2), dim=2).sum()


def number_a_group(weight):
    return torch.linalg.vector_norm(weight.flatten(2), dim=2).sum(1) ** 2


def growth(penalty, weight):
    return float(penalty(weight + weight)) / float(penalty(weight))


def natural_logarithm(penalty, weight):
    return math.log(penalty(weight + weight)) - math.log(penalty(weight))


def upside_down(penalty, weight):
    return math.log2(penalty(weight)) - math.log2(penalty(weight + weight))


def _sums(weight, grouping, norm, inner):
    norms = torch.linalg.vector_norm(weight.flatten(2), ord=norm, dim=2)
    dimension = ("feature", "neuron").index(grouping)
    return norms, norms.pow(inner).sum(dimension, keepdim=True)


def force_without_inner(weight, grouping, norm, inner, outer):
    norms, sums = _sums(weight, grouping, norm, inner)
    return outer * sums ** (outer - 1) * torch.ones_like(norms)


def force_without_factors(weight, grouping, norm, inner, outer):
    norms, sums = _sums(weight, grouping, norm, inner)
    pull = sums ** (outer - 1) * norms ** (inner - 1)
    return torch.where(norms == 0, 0.0 if inner < 1 else pull, pull)


def force_without_guard(weight, grouping, norm, inner, outer):
    norms, sums = _sums(weight, grouping, norm, inner)
    return (outer * inner) * (sums ** (outer - 1) * norms ** (inner - 1))


def force_in_the_other_groups(weight, grouping, norm, inner, outer):
    turned = "neuron" if grouping == "feature" else "feature"
    norms, sums = _sums(weight, turned, norm, inner)
    pull = (outer * inner) * (sums ** (outer - 1) * norms ** (inner - 1))
    return torch.where(norms == 0, 0.0 if inner < 1 else pull, pull)


def single_where(x):
    return torch.where(x == 0, torch.zeros_like(x), x**0.5)


def padded_root(x):
    return (x + 1e-12) ** 0.5


def clamped_root(x):
    return torch.clamp(x, min=1e-8) ** 0.5


def signed_share(weight, tolerance, relative):
    if relative:
        tolerance = tolerance * weight.pow(2).mean().sqrt()
    return (weight < tolerance).sum() / weight.numel()


def deviation_share(weight, tolerance, relative):
    if relative:
        tolerance = tolerance * weight.std()
    return (weight.abs() < tolerance).sum().item() / weight.numel()


def absolute_share(weight, tolerance, relative):
    return (weight.abs() < tolerance).float().mean()


def small_count(weight, tolerance, relative):
    if relative:
        tolerance = tolerance * weight.pow(2).mean().sqrt()
    return int((weight.abs() < tolerance).sum())


def lands_on_zero(step, degree):
    return math.pow(degree * step, 1 / (2 - degree))


def slope_without_degree(step, degree):
    return math.exp(math.log(step / 2) / (2 - degree))


def root_not_taken(step, degree):
    return degree * step / 2


def turned_comparison(gradient, strength):
    return torch.linalg.vector_norm(gradient.flatten(2), dim=(0, 2)) > strength


def largest_entry(gradient, strength):
    return gradient.flatten(2).abs().amax(dim=(0, 2)) <= strength


def squared_length(gradient, strength):
    return (gradient**2).flatten(2).sum(dim=(0, 2)) <= strength


def output_channels(gradient, strength):
    return torch.linalg.vector_norm(gradient.flatten(1), dim=1) <= strength


WRONG = {
    "check_squared_group_lasso": [
        (feature_wise, "which is feature-wise"),
        (absolute_values, "exclusive sparsity"),
        (no_kernels, "bag of weights"),
        (forgotten_square, "has not been squared"),
        (number_a_group, "one number a group"),
    ],
    "check_measured_degree": [
        (growth, "undo the power"),
        (natural_logarithm, "divide by the logarithm"),
        (upside_down, "upside down"),
    ],
    "check_kernel_force": [
        (force_without_inner, "derivative of the inner power is missing"),
        (force_without_factors, "multiply by p and q"),
        (force_without_guard, "put 0 there"),
        (force_in_the_other_groups, "wrong way round"),
    ],
    "check_safe_root": [
        (torch.sqrt, "infinite"),
        (single_where, "backward still asks the root"),
        (padded_root, "With 1e-12 added"),
        (clamped_root, "Clamped at 1e-08"),
    ],
    "check_small_share": [
        (signed_share, "compare absolute values"),
        (deviation_share, "takes the mean off"),
        (absolute_share, "changes nothing"),
        (small_count, "divide by the number"),
    ],
    "check_rebound_radius": [
        (lands_on_zero, "lands on zero"),
        (slope_without_degree, "factor d is missing"),
        (root_not_taken, "Take its root"),
    ],
    "check_group_stays_zero": [
        (turned_comparison, "wrong way round"),
        (largest_entry, "plain l1 norm"),
        (squared_length, "root is missing"),
        (output_channels, "input channels"),
    ],
}
