"""Plausible wrong answers to the exercises of notebooks 05 and 06, each with a part of the hint it gets."""

from __future__ import annotations

import torch
from torch import Tensor


def strength_upside_down(loss: list[Tensor], penalty: list[Tensor], fraction: float) -> float:
    def squares(gradients: list[Tensor]) -> float:
        return sum(float((gradient**2).sum()) for gradient in gradients)

    return fraction * (squares(penalty) / squares(loss)) ** 0.5


def strength_of_squares(loss: list[Tensor], penalty: list[Tensor], fraction: float) -> float:
    return fraction * sum(float((g * g).sum()) for g in loss) / sum(float((g * g).sum()) for g in penalty)


def strength_of_added_norms(loss: list[Tensor], penalty: list[Tensor], fraction: float) -> float:
    return fraction * sum(map(torch.linalg.norm, loss)) / sum(map(torch.linalg.norm, penalty))


def strength_without_fraction(loss: list[Tensor], penalty: list[Tensor], fraction: float) -> float:
    return (sum((g**2).sum() for g in loss) / sum((g**2).sum() for g in penalty)) ** 0.5


def ramp_without_end(strength: float, progress: float, warmup: float) -> float:
    return strength if warmup == 0 else strength / warmup * progress


def ramp_over_everything(strength: float, progress: float, warmup: float) -> float:
    return strength * progress if warmup > 0 else strength


def ramp_that_divides_by_zero(strength: float, progress: float, warmup: float) -> float:
    share = progress / warmup
    return strength if share > 1 else strength * share


def switch_instead_of_ramp(strength: float, progress: float, warmup: float) -> float:
    return 0.0 if progress < warmup else strength


def kept_rows(weight: Tensor, tolerance: float) -> Tensor:
    return weight.abs().amax(dim=(1, 2)) >= tolerance


def dead_instead_of_kept(weight: Tensor, tolerance: float) -> Tensor:
    return weight.abs().amax(dim=(0, 2)) < tolerance


def kept_by_sum(weight: Tensor, tolerance: float) -> Tensor:
    return torch.stack([weight[:, i].abs().sum() >= tolerance for i in range(weight.shape[1])])


def kept_if_positive(weight: Tensor, tolerance: float) -> Tensor:
    return torch.stack([weight[:, i].max() >= tolerance for i in range(weight.shape[1])])


def swapped(kept: set[int], relevant: set[int]) -> tuple[float, float]:
    right = kept.intersection(relevant)
    return len(right) / len(relevant), (len(right) / len(kept) if kept else float("nan"))


def zero_precision_of_nothing(kept: set[int], relevant: set[int]) -> tuple[float, float]:
    right = sum(channel in relevant for channel in kept)
    return right / max(len(kept), 1), right / len(relevant)


def precision_that_divides_by_zero(kept: set[int], relevant: set[int]) -> tuple[float, float]:
    right = sum(channel in relevant for channel in kept)
    return right / len(kept), right / len(relevant)


def mask_of_values(weight: Tensor, share: float) -> Tensor:
    limit = weight.flatten().sort().values[round(share * weight.numel())]
    return weight >= limit


def mask_of_small(weight: Tensor, share: float) -> Tensor:
    limit = weight.abs().flatten().sort().values[round(share * weight.numel())]
    return weight.abs() < limit


def mask_by_size(weight: Tensor, share: float) -> Tensor:
    return weight.abs() >= share * weight.abs().flatten().sort().values[-1]


def half_width_of_many(values: Tensor) -> Tensor:
    return 1.96 * (values.var() / len(values)) ** 0.5


def half_width_of_single_runs(values: Tensor) -> Tensor:
    from scipy.stats import t

    return float(t.isf(0.025, len(values) - 1)) * values.std()


def standard_error(values: Tensor) -> Tensor:
    centred = values - values.mean()
    return (centred.square().sum() / (len(values) - 1) / len(values)).sqrt()


def half_width_with_biased_deviation(values: Tensor) -> Tensor:
    from scipy.stats import t

    return float(t.isf(0.025, len(values) - 1)) * (values.var(correction=0) / len(values)).sqrt()


def most_accurate(sparsity: Tensor, validation: Tensor, dense: float, loss_allowed: float) -> int:
    best = max(range(len(validation)), key=lambda run: float(validation[run]))
    return best if validation[best] >= dense - loss_allowed else -1


def sparsest_of_all(sparsity: Tensor, validation: Tensor, dense: float, loss_allowed: float) -> int:
    return max(range(len(sparsity)), key=lambda run: float(sparsity[run]))


def place_among_the_accurate(sparsity: Tensor, validation: Tensor, dense: float, loss_allowed: float) -> int:
    kept = [float(s) for s, v in zip(sparsity, validation, strict=True) if v >= dense - loss_allowed]
    return kept.index(max(kept)) if kept else -1


def first_where_none_is_accurate(
    sparsity: Tensor, validation: Tensor, dense: float, loss_allowed: float
) -> int:
    allowed = (validation >= dense - loss_allowed).float()
    return int((sparsity * allowed).argmax())


WRONG = {
    "check_calibrated_strength": [
        (strength_upside_down, "upside down"),
        (strength_of_squares, "squared norms"),
        (strength_of_added_norms, "added the layers' norms up"),
        (strength_without_fraction, "fraction"),
    ],
    "check_warmed_up": [
        (ramp_without_end, "goes on rising"),
        (ramp_over_everything, "over all of training"),
        (ramp_that_divides_by_zero, "ZeroDivisionError"),
        (switch_instead_of_ramp, "jumps"),
    ],
    "check_kept_channels": [
        (kept_rows, "output channels"),
        (dead_instead_of_kept, "turn it round"),
        (kept_by_sum, "group's sum"),
        (kept_if_positive, "absolute values"),
    ],
    "check_precision_and_recall": [
        (swapped, "wrong way round"),
        (zero_precision_of_nothing, "precision of nothing is not 0"),
        (precision_that_divides_by_zero, "ZeroDivisionError"),
    ],
    "check_magnitude_mask": [
        (mask_of_values, "absolute values"),
        (mask_of_small, "True where it stays"),
        (mask_by_size, "share of the largest weight"),
    ],
    "check_half_width": [
        (half_width_of_many, "1.96"),
        (half_width_of_single_runs, "spread of single runs"),
        (standard_error, "standard error"),
        (half_width_with_biased_deviation, "divide by n - 1"),
    ],
    "check_choose_sparsest": [
        (most_accurate, "most accurate run"),
        (sparsest_of_all, "sparsest run of all"),
        (place_among_the_accurate, "among the accurate runs only"),
        (first_where_none_is_accurate, "return -1"),
    ],
}
