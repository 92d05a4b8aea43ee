"""Plausible wrong answers to the exercises of notebooks 09 and 10, each with a part of its hint."""

from __future__ import annotations

import torch
from torch import nn


def kernels_only(channels, in_channels):
    total, inputs = 0, in_channels
    for outputs in channels:
        total += inputs * outputs
        inputs = outputs
    return total


def with_biases(channels, in_channels):
    total, inputs = 0, in_channels
    for outputs in channels:
        total += sum(p.numel() for p in nn.Conv2d(inputs, outputs, 3).parameters())
        inputs = outputs
    return total


def never_moves_on(channels, in_channels):
    return sum(nn.Conv2d(in_channels, outputs, 3, bias=False).weight.numel() for outputs in channels)


def no_momentum(size, lr, strength, force, momentum):
    steps = size / lr
    return steps / (strength * force)


def momentum_slows(size, lr, strength, force, momentum):
    push = lr * strength * force
    return size / (push * (1 - momentum))


def no_strength(size, lr, strength, force, momentum):
    return size / (lr * force / (1 - momentum))


def any_small(model, tolerance):
    found = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d) and module.weight.abs().min() < tolerance:
            found.append(name)
    return found


def without_absolute(model, tolerance):
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d) and module.weight.max() < tolerance
    ]


def every_module_with_a_weight(model, tolerance):
    return [
        name.removesuffix(".weight")
        for name, parameter in model.named_parameters()
        if name.endswith("weight") and parameter.abs().max() < tolerance
    ]


def smallest_of_all(parameters, accuracy, least):
    return min(range(len(parameters)), key=lambda run: parameters[run])


def place_among_the_good(parameters, accuracy, least):
    good = [p for p, a in zip(parameters.tolist(), accuracy.tolist(), strict=True) if a >= least]
    return good.index(min(good))


def most_accurate(parameters, accuracy, least):
    return torch.sort(accuracy, descending=True).indices[0]


def beaten_in_both_only(accuracy, sparsity):
    runs = list(zip(accuracy.tolist(), sparsity.tolist(), strict=True))
    return torch.tensor([not any(x > a and y > s for x, y in runs) for a, s in runs])


def beats_itself(accuracy, sparsity):
    runs = list(zip(accuracy.tolist(), sparsity.tolist(), strict=True))
    return torch.tensor([not any(x >= a and y >= s for x, y in runs) for a, s in runs])


def only_the_ends(accuracy, sparsity):
    front = torch.zeros(len(accuracy), dtype=torch.bool)
    front |= accuracy >= accuracy.max()
    front |= sparsity >= sparsity.max()
    return front


def _soft(z, t):
    return torch.sign(z) * torch.relu(z.abs() - t)


def _block(z, t, dims):
    length = z.square().sum(dims, keepdim=True).sqrt()
    return z * torch.relu(1 - t / length.clamp(min=1e-30))


def shrink_before_the_gradient(weight, gradient, lr, strength, mix):
    weight = _block(_soft(weight, lr * strength * mix), lr * strength * (1 - mix), (0, 2))
    return weight - lr * gradient


def neuron_wise(weight, gradient, lr, strength, mix):
    z = weight - lr * gradient
    return _block(_soft(z, lr * strength * mix), lr * strength * (1 - mix), (1, 2))


def no_learning_rate(weight, gradient, lr, strength, mix):
    z = weight - lr * gradient
    return _block(_soft(z, strength * mix), strength * (1 - mix), (0, 2))


def group_before_l1(weight, gradient, lr, strength, mix):
    z = weight - lr * gradient
    return _soft(_block(z, lr * strength * (1 - mix), (0, 2)), lr * strength * mix)


def divides_by_zero(weight, gradient, lr, strength, mix):
    z = _soft(weight - lr * gradient, lr * strength * mix)
    length = z.square().sum((0, 2), keepdim=True).sqrt()
    return z * torch.relu(1 - lr * strength * (1 - mix) / length).masked_fill(length == 0, torch.nan)


WRONG = {
    "check_count_weights": [
        (kernels_only, "nine weights"),
        (with_biases, "leaves the biases alone"),
        (never_moves_on, "the layer before it"),
    ],
    "check_steps_to_zero": [
        (no_momentum, "Momentum is missing"),
        (momentum_slows, "not more"),
        (no_strength, "strength is missing"),
    ],
    "check_empty_layers": [
        (any_small, "all of them must be small"),
        (without_absolute, "compare absolute values"),
        (every_module_with_a_weight, "Only convolutions"),
    ],
    "check_smallest_good": [
        (smallest_of_all, "whatever its accuracy"),
        (place_among_the_good, "place in the whole list"),
        (most_accurate, "whatever its size"),
    ],
    "check_on_the_front": [
        (beaten_in_both_only, "equal in one figure"),
        (beats_itself, "beats itself"),
        (only_the_ends, "two ends"),
    ],
    "check_one_step": [
        (shrink_before_the_gradient, "First the gradient step"),
        (neuron_wise, "neuron-wise"),
        (no_learning_rate, "lack the learning rate"),
        (group_before_l1, "First the l1 part"),
        (divides_by_zero, "NaN"),
    ],
}
