"""The checks of notebooks 05 and 06: training with a penalty, and comparing fairly."""

from __future__ import annotations

import math
from typing import Any

import torch
from scipy.special import stdtrit
from torch import Tensor

from hgsr_lite.series.checks.engine import Answer, Exercise, exercise


def _drawn(seed: int, *shapes: tuple[int, ...]) -> list[Tensor]:
    """Random tensors, each on a scale of its own, as the gradients of a network's layers are."""
    generator = torch.Generator().manual_seed(seed)
    return [(n + 1) * torch.randn(shape, generator=generator) for n, shape in enumerate(shapes)]


@exercise
def check_calibrated_strength() -> Exercise:
    """5.1: `calibrated_strength(loss_gradients, penalty_gradients, fraction)` from one gradient per layer."""

    def norm(gradients: list[Tensor]) -> Tensor:
        return torch.cat([gradient.flatten() for gradient in gradients]).norm()

    def with_norm(measure):
        return lambda loss, penalty, fraction: fraction * measure(loss) / measure(penalty)

    def mean_of_ratios(loss, penalty, fraction):
        ratios = [one.norm() / other.norm() for one, other in zip(loss, penalty, strict=True)]
        return fraction * sum(ratios) / len(ratios)

    mistakes = {
        "The ratio is upside down: a penalty with a large gradient needs a small strength.": (
            lambda loss, penalty, fraction: fraction * norm(penalty) / norm(loss)
        ),
        "Where is the fraction? It scales the loss's norm.": (lambda loss, pen, _: norm(loss) / norm(pen)),
        "These are squared norms: the root is missing.": (with_norm(lambda g: norm(g) ** 2)),
        "You added the layers' norms up. One norm over all layers is wanted: add squares, then one root.": (
            with_norm(lambda g: sum(layer.norm() for layer in g))
        ),
        "You averaged the layers' ratios. One strength serves all layers: take one norm over all first.": (
            mean_of_ratios
        ),
    }
    small, large = ((3, 2, 4), (2, 3, 4)), ((4, 1, 9), (4, 4, 9), (2, 4, 1))
    cases = [
        (_drawn(1, *small), _drawn(2, *small[::-1]), 0.1),
        (_drawn(3, *large), _drawn(4, *large[::-1]), 2.0),
    ]
    return Exercise(with_norm(norm), cases, mistakes)


@exercise
def check_precision_and_recall() -> Exercise:
    """5.2: `precision_and_recall(kept, relevant)`, two sets of channels; the precision of nothing is NaN."""

    def right(kept: set[int], relevant: set[int]) -> tuple[float, float]:
        both = len(kept & relevant)
        return (both / len(kept) if kept else math.nan), both / len(relevant)

    def over_the_union(kept, relevant):
        share = len(kept & relevant) / len(kept | relevant)
        return share, share

    mistakes = {
        "They are the wrong way round: precision divides by what was kept, recall by what is relevant.": (
            lambda kept, relevant: right(kept, relevant)[::-1]
        ),
        "Each has a denominator of its own: what was kept, and what is relevant.": (over_the_union),
        "The precision of nothing is not 0: there is nothing to judge, return math.nan.": (
            lambda kept, relevant: right(kept, relevant) if kept else (0.0, 0.0)
        ),
        "The precision of nothing is not 1: there is nothing to judge, return math.nan.": (
            lambda kept, relevant: right(kept, relevant) if kept else (1.0, 0.0)
        ),
    }
    cases = [({0, 2, 3, 5}, {0, 1}), ({0}, {0}), ({1, 2}, {0}), (set(), {0, 1}), ({0, 1, 2, 3}, {0, 1, 2})]
    return Exercise(right, cases, mistakes)


def _sizes_kept(answer: Answer) -> Answer:
    """A mask's function, seen as the sizes of what it keeps: of equal weights any may go."""

    def sizes(weight: Tensor, share: float) -> Any:
        mask = answer(weight, share)
        if not (isinstance(mask, Tensor) and mask.shape == weight.shape):
            return mask
        if not ((mask == 0) | (mask == 1)).all():
            return mask
        return torch.where(mask.bool(), weight.abs(), -1.0).flatten().sort().values.view(weight.shape)

    return sizes


@exercise
def check_magnitude_mask() -> Exercise:
    """6.1: `magnitude_mask(weight, share)`, True for the weights that magnitude pruning keeps."""

    def kept(weight: Tensor, order: Tensor, share: float) -> Tensor:
        mask = torch.ones(weight.numel(), dtype=torch.bool)
        mask[order[: round(share * weight.numel())]] = False
        return mask.view(weight.shape)

    def right(weight: Tensor, share: float) -> Tensor:
        return kept(weight, weight.abs().flatten().argsort(), share)

    def limit(weight: Tensor, share: float) -> Tensor:
        """The largest size that goes; below all sizes if none does."""
        smallest = [torch.tensor(-1.0), *weight.abs().flatten().sort().values]
        return smallest[round(share * weight.numel())]

    mistakes = {
        "Without absolute values a large negative weight counts as the smallest of all.": (
            lambda weight, share: kept(weight, weight.flatten().argsort(), share)
        ),
        "Your mask throws the largest weights away.": (
            lambda weight, share: kept(weight, weight.abs().flatten().argsort(descending=True), share)
        ),
        "Your mask is True where a weight goes: it should be True where it stays.": (
            lambda w, s: ~right(w, s)
        ),
        "You cut the number of weights that go down to a whole one: round it.": (
            lambda weight, share: right(weight, int(share * weight.numel()) / weight.numel())
        ),
        "You kept the share that should go.": (lambda weight, share: right(weight, 1 - share)),
        "You compared sizes with the share itself: it is a share of the number of weights, so rank them.": (
            lambda weight, share: weight.abs() >= share
        ),
        "You took a share of the largest weight: it is a share of the number of weights, so rank them.": (
            lambda weight, share: weight.abs() >= share * weight.abs().max()
        ),
        "A limit sends all equal weights away together: rank the places (`argsort`) and count.": (
            lambda weight, share: weight.abs() > limit(weight, share)
        ),
        "A limit keeps all equal weights together: rank the places (`argsort`) and count.": (
            lambda weight, share: weight.abs() >= limit(weight, share + 1 / weight.numel())
        ),
        "A share of 0 cuts nothing, and of equal weights no more go than were asked for.": (
            lambda weight, share: weight.abs() > limit(weight, max(share, 1 / weight.numel()))
        ),
    }
    weights = _drawn(6, (4, 3, 9), (2, 5, 4), (5, 2, 3))
    cases = [*zip(weights, (0.5, 0.8, 0.2), strict=True), (_drawn(7, (1, 1, 7))[0], 0.25)]
    equal = torch.tensor([1.0, -1.0, 1.0, 2.0]).view(2, 2, 1)
    cases += [(equal, 0.25), (equal, 0.0)]
    return Exercise(right, cases, mistakes, seen_as=_sizes_kept)


@exercise
def check_half_width() -> Exercise:
    """6.2: `half_width(values)`, half the 95 % interval of a mean over a few seeds."""

    def with_factor(factor, correction=1, power=0.5):
        return lambda v: factor(len(v)) * v.std(correction=correction) / len(v) ** power

    def quantile(level: float = 0.975, lost: int = 1):
        return lambda n: float(stdtrit(n - lost, level))

    mistakes = {
        "1.96 is right for many values: for a few, the factor is Student's t.": (with_factor(lambda n: 1.96)),
        "That is the spread of single runs: the mean of n runs varies less, by the root of n.": (
            with_factor(quantile(), power=0.0)
        ),
        "Your deviation divides by n; the mean came from the same values, so divide by n - 1.": (
            with_factor(quantile(), correction=0)
        ),
        "That is the whole width: half of it stands behind the ± sign.": (lambda v: 2 * right(v)),
        "That is a 90 % interval: the 5 % left over lie at both ends, 2.5 % at each.": (
            with_factor(quantile(0.95))
        ),
        "n values leave n - 1 degrees of freedom.": (with_factor(quantile(lost=0))),
        "You divided by n, not by its root.": (with_factor(quantile(), power=1.0)),
        "That is the standard error: the factor from Student's t is missing.": (with_factor(lambda n: 1.0)),
    }
    right = with_factor(quantile())
    cases = [(torch.tensor([1.0, 2.0, 3.0]),), (_drawn(7, (5,))[0],), (0.9 + 0.01 * _drawn(8, (4,))[0],)]
    return Exercise(right, cases, mistakes, tolerance=1e-3)


@exercise
def check_choose_sparsest() -> Exercise:
    """6.3: `choose_sparsest(sparsity, validation, dense, loss_allowed)`: a run's place in the list, or -1.

    The sparsest of the runs whose validation accuracy is at most `loss_allowed` below the dense one's.
    """

    def sparsest(sparsity: Tensor, allowed: Tensor, nothing: int = -1) -> int:
        return int(sparsity.masked_fill(~allowed, -1.0).argmax()) if bool(allowed.any()) else nothing

    def among_the_accurate(sparsity, validation, dense, loss_allowed):
        allowed = validation >= dense - loss_allowed
        return int(sparsity[allowed].argmax()) if bool(allowed.any()) else -1

    mistakes = {
        "That is the most accurate run: wanted is the sparsest of those that are accurate enough.": (
            lambda s, v, dense, loss: int(v.argmax()) if bool((v >= dense - loss).any()) else -1
        ),
        "That is the sparsest run of all, accurate or not.": (lambda s, v, dense, loss: int(s.argmax())),
        "Your number counts among the accurate runs only: give the run's place in the whole list.": (
            among_the_accurate
        ),
        "That is the least sparse of the accurate runs.": (
            lambda s, v, dense, loss: sparsest(1 - s, v >= dense - loss)
        ),
        "Where no run is accurate enough, none should be reported: return -1.": (
            lambda s, v, dense, loss: sparsest(s, v >= dense - loss, nothing=0)
        ),
        "A run exactly at the limit is accurate enough: use >=.": (
            lambda s, v, dense, loss: sparsest(s, v > dense - loss)
        ),
        "The loss allowed counts from the dense network's accuracy, not from 1.": (
            lambda s, v, dense, loss: sparsest(s, v >= 1 - loss)
        ),
    }
    # Binary fractions, so that a run lies exactly at the limit.
    sparsity = torch.tensor([0.125, 0.5, 0.9375, 0.8125, 0.75])
    validation = torch.tensor([0.9375, 0.96875, 0.5, 0.875, 0.90625])
    cases = [
        (sparsity, validation, 0.96875, 0.0625),
        (sparsity, validation, 0.96875, 0.09375),
        (sparsity, validation, 0.96875, 0.5),
        (sparsity.flip(0), validation.flip(0), 0.96875, 0.0625),
        (torch.tensor([0.5, 0.75]), torch.tensor([0.5, 0.25]), 0.96875, 0.0625),
        (sparsity, validation, 0.875, 0.0625),
    ]

    def right(s: Tensor, v: Tensor, dense: float, loss: float) -> int:
        return sparsest(s, v >= dense - loss)

    return Exercise(right, cases, mistakes)
