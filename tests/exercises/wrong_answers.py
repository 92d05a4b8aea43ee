"""One plausible wrong answer to each exercise, written as a reader might, with a part of the hint it gets."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy


def share_without_absolute_value(weight: Tensor, tolerance: float) -> float:
    return sum(value < tolerance for value in weight.flatten().tolist()) / weight.numel()


def small_of_one_sign(weight: Tensor, tolerance: float) -> Tensor:
    return weight * (weight >= tolerance)


def sums_of_rows(weight: Tensor) -> Tensor:
    return torch.stack([row.abs().sum() for row in weight])


def dropped_where_sums_vanish(weight: Tensor) -> tuple[Tensor, list[int]]:
    kept = [i for i in range(weight.shape[1]) if weight[:, i].sum() != 0]
    return weight[:, kept], kept


def ignored_as_if_plain(layer: nn.Module) -> Tensor:
    return torch.stack([layer.weight[:, i].abs().max() == 0 for i in range(layer.weight.shape[1])])


def exclusive_of_rows(weight: Tensor) -> Tensor:
    return sum(row.abs().sum() ** 2 for row in weight)


def step_that_overshoots(z: Tensor, step: float) -> Tensor:
    return torch.where(z > 0, z - step, torch.where(z < 0, z + step, z))


def ball_of_degree_one(weight: Tensor) -> Tensor:
    penalty = sum(weight[:, i].abs().sum().sqrt() for i in range(weight.shape[1]))
    return weight / penalty


def kernels_side_by_side(penalty):
    def exponent(weight):
        return math.log2(penalty(torch.tensor(weight)))

    outer = exponent([[[1.0], [1.0]]])
    degree = exponent([[[2.0]]])
    return degree / exponent([[[1.0, 1.0]]]), degree / outer, outer


def growth(penalty, weight):
    return float(penalty(weight + weight)) / float(penalty(weight))


def _sums(weight, grouping, norm, inner):
    norms = torch.linalg.vector_norm(weight.flatten(2), ord=norm, dim=2)
    dimension = ("feature", "neuron").index(grouping)
    return norms, norms.pow(inner).sum(dimension, keepdim=True)


def force_without_inner(weight, grouping, norm, inner, outer):
    norms, sums = _sums(weight, grouping, norm, inner)
    slope = torch.where(sums > 0, outer * sums ** (outer - 1), 0.0)
    return slope * torch.ones_like(norms)


def one_where(weight):
    sums = torch.stack([weight[:, i].abs().sum() for i in range(weight.shape[1])])
    return torch.where(sums > 0, sums**0.5, 0).sum()


def signed_share(weight, tolerance, relative):
    if relative:
        tolerance = tolerance * weight.pow(2).mean().sqrt()
    return (weight < tolerance).sum() / weight.numel()


def lands_on_zero(step, degree):
    return math.pow(degree * step, 1 / (2 - degree))


def turned_comparison(gradient, strength):
    return torch.linalg.vector_norm(gradient.flatten(2), dim=(0, 2)) > strength


def kernels_only(channels, in_channels):
    total, inputs = 0, in_channels
    for outputs in channels:
        total += inputs * outputs
        inputs = outputs
    return total


def no_momentum(size, lr, strength, force, momentum):
    steps = size / lr
    return steps / (strength * force)


def any_small(model, tolerance):
    found = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d) and module.weight.abs().min() < tolerance:
            found.append(name)
    return found


def good_on_average(parameters, accuracy, dense, allowed):
    good = [n for n in range(len(parameters)) if float(accuracy[n].mean()) >= float(dense.mean()) - allowed]
    return min(good, key=lambda n: parameters[n]) if good else -1


def beaten_in_all_only(figures):
    runs = figures.tolist()
    return [not any(all(x > y for x, y in zip(a, b, strict=True)) for a in runs) for b in runs]


def _soft(z, t):
    return torch.sign(z) * torch.relu(z.abs() - t)


def _block(z, t, dims):
    length = z.square().sum(dims, keepdim=True).sqrt()
    return z * torch.relu(1 - t / length.clamp(min=1e-30))


def shrink_before_the_gradient(weight, gradient, lr, strength, mix):
    weight = _block(_soft(weight, lr * strength * mix), lr * strength * (1 - mix), (0, 2))
    return weight - lr * gradient


def every_weight(weight, step):
    return nn.functional.softshrink(weight, step)


def where_the_cubic_ends(size, count):
    return 4 * size**1.5 * count**0.5 / 27**0.5


def steps_of_the_unshrunk(norms):
    larger = [sum(other for other in norms.tolist() if other > norm) for norm in norms.tolist()]
    return [
        norm / (2 * total) if total else math.inf for norm, total in zip(norms.tolist(), larger, strict=True)
    ]


def bias_alone(norm):
    return 1.0 * norm.bias


def own_bias_lost(layer, constants):
    image = constants.view(1, -1, 1, 1).expand(1, -1, *layer.kernel_size)
    return nn.functional.conv2d(image, layer.weight).flatten()


def every_kernel_with_a_zero_skipped(layer, images):
    out = torch.zeros(len(images), layer.out_channels, *images.shape[2:], dtype=images.dtype)
    if layer.bias is not None:
        out += layer.bias.view(-1, 1, 1)
    for o, i in layer.weight.all(dim=3).all(dim=2).nonzero().tolist():
        kernel = layer.weight[o : o + 1, i : i + 1]
        out[:, o] += nn.functional.conv2d(images[:, i : i + 1], kernel, padding=1)[:, 0]
    return out


def strength_upside_down(loss: list[Tensor], penalty: list[Tensor], fraction: float) -> float:
    def squares(gradients: list[Tensor]) -> float:
        return sum(float((gradient**2).sum()) for gradient in gradients)

    return fraction * (squares(penalty) / squares(loss)) ** 0.5


def swapped(kept: set[int], relevant: set[int]) -> tuple[float, float]:
    right = kept.intersection(relevant)
    return len(right) / len(relevant), (len(right) / len(kept) if kept else float("nan"))


def mask_of_values(weight: Tensor, share: float) -> Tensor:
    limit = weight.flatten().sort().values[round(share * weight.numel())]
    return weight >= limit


def half_width_of_many(values: Tensor) -> Tensor:
    return 1.96 * (values.var() / len(values)) ** 0.5


def most_accurate(sparsity: Tensor, validation: Tensor, dense: float, loss_allowed: float) -> int:
    best = max(range(len(validation)), key=lambda run: float(validation[run]))
    return best if validation[best] >= dense - loss_allowed else -1


def all_that_have_groups(norm: int, inner: float, outer: float) -> bool:
    return outer < 3


def never_told(network, data, regularizer, epochs, proximal):
    optimizer = torch.optim.SGD(network.parameters(), 0.02, momentum=0.9, weight_decay=5e-4)
    order = torch.Generator().manual_seed(0)
    for epoch in range(epochs):
        rate = optimizer.param_groups[0]["lr"] = 0.02 * 0.2 ** (3 * epoch // epochs)
        for batch in data.train.order(64, order):
            optimizer.zero_grad()
            cross_entropy(network(data.train.images[batch]), data.train.labels[batch]).backward()
            if not proximal:
                regularizer.add_gradient_()
            optimizer.step()
            if proximal:
                regularizer.prox_(rate)


def tenfold(strength: float, momentum: float) -> float:
    return strength * 10


WRONG = {
    "check_share_below": (share_without_absolute_value, "A weight of -2"),
    "check_zero_small": (small_of_one_sign, "Every negative weight"),
    "check_feature_sums": (sums_of_rows, "neuron-wise"),
    "check_drop_ignored_inputs": (dropped_where_sums_vanish, "1 and -1 cancel"),
    "check_ignored_inputs": (ignored_as_if_plain, "Right for plain convolutions"),
    "check_exclusive_sparsity": (exclusive_of_rows, "neuron-wise"),
    "check_lasso_step": (step_that_overshoots, "overshoot zero"),
    "check_to_unit_ball": (ball_of_degree_one, "degree 1"),
    "check_row_from_values": (kernels_side_by_side, "doubles for every penalty"),
    "check_sees_kernels": (all_that_have_groups, "not all see kernels"),
    "check_proximal_strength": (tenfold, "0.9 only"),
    "check_complete_the_loop": (never_told, "never told how far"),
    "check_measured_degree": (growth, "undo the power"),
    "check_kernel_force": (force_without_inner, "derivative of the inner power is missing"),
    "check_safe_gl12": (one_where, "never let the root see a zero"),
    "check_small_share": (signed_share, "compare absolute values"),
    "check_rebound_radius": (lands_on_zero, "lands on zero"),
    "check_group_stays_zero": (turned_comparison, "wrong way round"),
    "check_count_weights": (kernels_only, "nine weights"),
    "check_steps_to_zero": (no_momentum, "Momentum is missing"),
    "check_empty_layers": (any_small, "all of them must be small"),
    "check_smallest_sure": (good_on_average, "look at the lower end"),
    "check_on_the_front": (beaten_in_all_only, "equal in some figures"),
    "check_one_step": (shrink_before_the_gradient, "First the gradient step"),
    "check_shrink_kernels": (every_weight, "every weight"),
    "check_deadly_step": (where_the_cubic_ends, "zero wins earlier"),
    "check_emptying_steps": (steps_of_the_unshrunk, "survivors have shrunk"),
    "check_constant_behind": (bias_alone, "running mean is subtracted"),
    "check_folded_bias": (own_bias_lost, "own bias got lost"),
    "check_living_convolution": (every_kernel_with_a_zero_skipped, "One zero weight makes no dead"),
    "check_calibrated_strength": (strength_upside_down, "upside down"),
    "check_precision_and_recall": (swapped, "wrong way round"),
    "check_magnitude_mask": (mask_of_values, "absolute values"),
    "check_half_width": (half_width_of_many, "1.96"),
    "check_choose_sparsest": (most_accurate, "most accurate run"),
}
