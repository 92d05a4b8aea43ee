"""Plausible wrong answers to the exercises of notebooks 07 and 08, each with a part of its hint."""

from __future__ import annotations

import torch
from torch import nn


def every_weight(weight, step):
    return nn.functional.softshrink(weight, step)


def l1_lengths(weight, step):
    lengths = weight.abs().flatten(2).sum(2)
    factor = torch.relu(1 - step / lengths.clamp(min=1e-30))
    return weight * factor[..., None, None]


def whole_rows(weight, step):
    rows = [row * max(0.0, 1 - step / float(row.pow(2).sum() ** 0.5)) for row in weight]
    return torch.stack(rows)


def only_cut(weight, step):
    lengths = weight.pow(2).sum(dim=(2, 3), keepdim=True).sqrt()
    return weight * (lengths > step)


def zero_over_zero(weight, step):
    lengths = torch.linalg.matrix_norm(weight)
    return weight * torch.relu(lengths - step)[:, :, None, None] / lengths[:, :, None, None]


def where_the_cubic_ends(size):
    return 4 * size**1.5 / 27**0.5


def as_for_l1(size):
    return 1.0 * size


def linear_in_size(size):
    return size / 1.5


def the_other_way_round(size):
    return 1.5 * size.pow(2).pow(1 / 3)


def _largest_root(sizes, step):
    ordered = torch.sort(sizes, descending=True)[0]
    roots = [2 * step * ordered[:m].sum() / (1 + 2 * step * m) for m in range(1, len(ordered) + 1)]
    return max(roots)


def single_weights(kernels, step):
    return nn.functional.softshrink(kernels, float(_largest_root(kernels.abs().flatten(), step)))


def norms_threshold_on_weights(kernels, step):
    return nn.functional.softshrink(kernels, float(_largest_root(kernels.norm(dim=1), step)))


def one_length(kernels, step):
    return kernels * max(0.0, 1 - step / float(kernels.norm()))


def every_kernel_counts(kernels, step):
    norms = kernels.norm(dim=1)
    threshold = norms.sum() / (1 / (2 * step) + len(norms))
    factors = [1 - threshold / n if n > threshold else n * 0 for n in norms]
    return torch.stack(factors)[:, None] * kernels


def without_the_two(kernels, step):
    norms = kernels.norm(dim=1)
    threshold = _largest_root(norms, step / 2)
    return kernels * torch.nan_to_num(torch.relu(1 - threshold / norms))[:, None]


def norm_over_itself(kernels, step):
    norms = kernels.norm(dim=1)
    return kernels * torch.relu(norms - _largest_root(norms, step))[:, None] / norms[:, None]


def weights_only(layer, height, width):
    return (
        layer.in_channels // layer.groups * layer.out_channels * layer.kernel_size[0] * layer.kernel_size[1]
    )


def operations(layer, height, width):
    return sum(2 * w.numel() * height * width for w in [layer.weight])


def ignoring_groups(layer, height, width):
    rows, columns = layer.kernel_size
    return layer.in_channels * layer.out_channels * rows * columns * height * width


def one_input(layer, height, width):
    return layer.out_channels * layer.weight[0, 0].numel() * height * width


def bias_alone(norm):
    return 1.0 * norm.bias


def sign_of_the_mean(norm):
    return norm.running_mean / torch.sqrt(norm.running_var + norm.eps) * norm.weight + norm.bias


def without_scale(norm):
    return (0 - norm.running_mean) / torch.sqrt(norm.running_var + norm.eps) + norm.bias


def by_the_variance(norm):
    return (0 - norm.running_mean) / (norm.running_var + norm.eps) * norm.weight + norm.bias


def eps_beside_the_root(norm):
    return (0 - norm.running_mean) / (torch.sqrt(norm.running_var) + norm.eps) * norm.weight + norm.bias


def own_bias_lost(layer, constants):
    image = constants.view(1, -1, 1, 1).expand(1, -1, *layer.kernel_size)
    return nn.functional.conv2d(image, layer.weight).flatten()


def subtracted(layer, constants):
    contribution = (layer.weight * constants.view(1, -1, 1, 1)).sum(dim=(1, 2, 3))
    return -contribution if layer.bias is None else layer.bias - contribution


def averaged(layer, constants):
    contribution = (layer.weight.flatten(2).mean(2) * constants).sum(1)
    return contribution if layer.bias is None else layer.bias + contribution


def constants_added_first(layer, constants):
    contribution = layer.weight.flatten(1).sum(1) * float(constants.sum())
    return contribution if layer.bias is None else layer.bias + contribution


WRONG = {
    "check_shrink_kernels": [
        (every_weight, "every weight"),
        (l1_lengths, "l1 norm"),
        (whole_rows, "each output channel"),
        (only_cut, "must shrink too"),
        (zero_over_zero, "NaN at the zero kernel"),
    ],
    "check_deadly_step": [
        (where_the_cubic_ends, "zero wins earlier"),
        (as_for_l1, "soft-threshold's answer"),
        (linear_in_size, "how does t grow"),
        (the_other_way_round, "turn it round"),
    ],
    "check_shrink_group": [
        (single_weights, "thresholded single weights"),
        (norms_threshold_on_weights, "took it off each weight"),
        (one_length, "group lasso"),
        (every_kernel_counts, "all kernels count"),
        (without_the_two, "brings a factor 2"),
        (norm_over_itself, "NaN at a zero kernel"),
    ],
    "check_layer_macs": [
        (weights_only, "Those are the weights"),
        (operations, "one MAC is both"),
        (ignoring_groups, "groups > 1"),
        (one_input, "each *pair* of channels"),
    ],
    "check_constant_behind": [
        (bias_alone, "running mean is subtracted"),
        (sign_of_the_mean, "sign of the mean"),
        (without_scale, "scale is missing"),
        (by_the_variance, "divided by the variance"),
        (eps_beside_the_root, "under the root"),
    ],
    "check_folded_bias": [
        (own_bias_lost, "own bias got lost"),
        (subtracted, "subtracted the contribution"),
        (averaged, "averaged over the kernel"),
        (constants_added_first, "constants were added up first"),
    ],
}
