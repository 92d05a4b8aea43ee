"""Checks for the hierarchical penalties, notebook 03 and appendix A: degree, force, a row from values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hgsr_lite.penalties import Penalty, power
from hgsr_lite.series.checks.engine import Answer, Exercise, exercise
from hgsr_lite.table import PENALTIES

_SUMMED = {"feature": 0, "neuron": 1}


def random_weight(*shape: int, seed: int = 3) -> Tensor:
    """A normal weight that the reader has not seen, float64.

    >>> random_weight(3, 2, 4).dtype
    torch.float64
    """
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def written_out(answer: Answer) -> Answer:
    """The answer itself, unless it names `Penalty`: then one that says to write the formula out.

    >>> written_out(abs) is abs
    True
    """
    names = getattr(getattr(answer, "__code__", None), "co_names", ())
    if "Penalty" not in names:
        return answer

    def refused(*case: Any) -> None:
        raise ValueError("this asks hg.Penalty for the answer: write the formula out")

    return refused


def l2_norms(weight: Tensor) -> Tensor:
    """The Euclidean norm of every kernel.

    >>> l2_norms(torch.tensor([[[3.0, -4.0]]]))
    tensor([[5.]])
    """
    return weight.flatten(2).square().sum(2).sqrt()


def _l1_norms(weight: Tensor) -> Tensor:
    return weight.flatten(2).abs().sum(2)


@exercise
def check_sees_kernels() -> Exercise:
    """A.1: `answer(norm, inner, outer)` says whether the penalty of a row depends on the kernels' borders."""
    mistakes = {
        "Turn it round: where norm and inner exponent are equal, the kernels' borders vanish.": (
            lambda norm, inner, outer: norm == inner
        ),
        "The outer exponent comes after the sum over the group: it sees no kernel any more.": (
            lambda norm, inner, outer: outer == 2
        ),
        "An inner exponent of 1 hides the borders with the l1 norm only: sums of l2 norms see kernels.": (
            lambda norm, inner, outer: inner != 1
        ),
        "An inner exponent of 2 hides the borders with the l2 norm only.": (
            lambda norm, inner, outer: inner != 2
        ),
        "All group penalties of the table have groups, but not all see kernels inside them.": (
            lambda norm, inner, outer: True
        ),
    }
    rows = [(row.norm, row.inner, row.outer) for row in PENALTIES.values()]
    unseen = [(1, 2.0, 1.0), (2, 0.5, 1.0), (2, 2.0, 2.0), (1, 1.0, 0.25)]
    return Exercise(lambda norm, inner, outer: norm != inner, [*rows, *unseen], mistakes)


@exercise
def check_row_from_values() -> Exercise:
    """A.2: `answer(penalty)` is the row (norm, inner, outer) of an unknown one of the nine, feature-wise."""

    def four_values(penalty: Callable[[Tensor], Tensor]) -> tuple[Tensor, ...]:
        """The exponents of 2 by which P grows: kernel doubled, two in a group, (1, 1), two in two groups."""
        kernel = torch.tensor([[[1.0, 0.0]]], dtype=torch.float64)
        weights = (2 * kernel, kernel.expand(2, 1, 2), torch.ones_like(kernel), kernel.expand(1, 2, 2))
        return tuple(penalty(weight).log2() for weight in weights)

    def row(rule: Callable[..., tuple]) -> Callable:
        return lambda penalty: rule(*four_values(penalty))

    def without_logarithm(degree: Tensor, two: Tensor, ones: Tensor, apart: Tensor) -> tuple:
        return 2 ** (degree - ones), 2 ** (degree - two), 2**two

    mistakes = {
        "P then doubles for every penalty: put the two kernels in one group, that is in one column.": row(
            lambda degree, two, ones, apart: (degree / ones, degree / apart, apart)
        ),
        "Doubling weights gives 2^(pq); doubling kernels gives 2^q.": row(
            lambda degree, two, ones, apart: (degree / ones, degree / degree, degree)
        ),
        "Your inner exponent is the degree, p q: divide it by q.": row(
            lambda degree, two, ones, apart: (degree / ones, degree, two)
        ),
        "The norm 2^(1/r) of the kernel (1, 1) is raised to the degree: divide by it.": row(
            lambda degree, two, ones, apart: (1 / ones, degree / two, two)
        ),
        "Your norm is upside down: the kernel (1, 1) has the norm 2^(1/r), not 2^r.": row(
            lambda degree, two, ones, apart: (ones / degree, degree / two, two)
        ),
        "Those are ratios of values, powers of 2. The exponents are their logarithms to the base 2.": row(
            without_logarithm
        ),
        "Right numbers in another order: return (norm, inner, outer).": row(
            lambda degree, two, ones, apart: (degree / two, two, degree / ones)
        ),
    }
    cases = [(Penalty(key).value,) for key in PENALTIES if key not in ("l1", "l2")]
    right = row(lambda degree, two, ones, apart: (degree / ones, degree / two, two))
    return Exercise(right, cases, mistakes, tolerance=1e-4)


@exercise
def check_measured_degree() -> Exercise:
    """3.2: `answer(penalty, weight)` measures the d in penalty(t W) = t^d penalty(W)."""

    def cubed(weight: Tensor) -> Tensor:
        return weight.abs().sum() ** 3

    def growth(penalty: Callable, weight: Tensor) -> Tensor:
        return penalty(2 * weight) / penalty(weight)

    mistakes = {
        "That is how many times the penalty has grown. The degree is the exponent: undo the power.": growth,
        "Nearly: divide by the logarithm of the factor that scaled the weight.": lambda *case: growth(
            *case
        ).log(),
        "Nearly: divide by the base-10 logarithm of the factor that scaled the weight.": lambda *case: growth(
            *case
        ).log10(),
        "The ratio is upside down: the scaled weight's penalty belongs on top.": lambda *case: (
            -growth(*case).log2()
        ),
    }
    penalties = [Penalty("hsqrt_gl12"), Penalty("hsq_es", "neuron"), Penalty("hsq_gl12"), cubed]
    cases = [(penalty, random_weight(3, 4, 2)) for penalty in penalties]
    return Exercise(lambda *case: growth(*case).log2(), cases, mistakes, tolerance=1e-4)


@exercise
def check_kernel_force() -> Exercise:
    """3.1: `answer(weight, grouping, norm, inner, outer)` is each kernel's force, 0 at zero kernels."""

    def norms_and_sums(weight: Tensor, grouping: str, norm: int, inner: float) -> tuple[Tensor, Tensor]:
        norms = _l1_norms(weight) if norm == 1 else l2_norms(weight)
        return norms, norms.pow(inner).sum(_SUMMED[grouping], keepdim=True).expand_as(norms)

    def inner_slope(weight: Tensor, grouping: str, norm: int, inner: float, outer: float) -> Tensor:
        norms, _ = norms_and_sums(weight, grouping, norm, inner)
        return inner * power(norms, inner - 1)

    def outer_slope(weight: Tensor, grouping: str, norm: int, inner: float, outer: float) -> Tensor:
        _, sums = norms_and_sums(weight, grouping, norm, inner)
        return outer * power(sums, outer - 1)

    def right(*case) -> Tensor:
        return outer_slope(*case) * inner_slope(*case)

    def unguarded(weight: Tensor, grouping: str, norm: int, inner: float, outer: float) -> Tensor:
        norms, sums = norms_and_sums(weight, grouping, norm, inner)
        return outer * sums.pow(outer - 1) * inner * norms.pow(inner - 1)

    def group_unguarded(weight: Tensor, grouping: str, norm: int, inner: float, outer: float) -> Tensor:
        _, sums = norms_and_sums(weight, grouping, norm, inner)
        return outer * sums.pow(outer - 1) * inner_slope(weight, grouping, norm, inner, outer)

    mistakes = {
        "The derivative of the inner power is missing: p n^(p-1), one number per kernel.": outer_slope,
        "The derivative of the outer power is missing: q S^(q-1), one number per group.": inner_slope,
        "Nearly: each power brings its exponent down in front: multiply by p and q.": lambda *case: (
            right(*case) / (case[3] * case[4])
        ),
        "Away from zero this is right. At norm 0 a negative power is infinite: put 0 there.": unguarded,
        "An empty group has S = 0: guard its negative power like the kernel's.": group_unguarded,
        "0 belongs where the exponent is negative, only there: n^0 is 1, and a zero kernel is pulled.": (
            lambda weight, *rest: right(weight, *rest) * (weight != 0).flatten(2).any(2)
        ),
        "Your groups are the wrong way round: feature-wise sums over the output channels.": lambda *case: (
            right(case[0], "neuron" if case[1] == "feature" else "feature", *case[2:])
        ),
        "Your kernels are measured with the other norm: 1 is the sum of absolute values.": lambda *case: (
            right(*case[:2], 3 - case[2], *case[3:])
        ),
    }
    with_zero_kernel = random_weight(3, 2, 4)
    with_zero_kernel[1, 0] = 0
    with_empty_group = random_weight(3, 2, 4, seed=6)
    with_empty_group[:, 1] = 0
    cases = [
        (with_empty_group, "feature", 1, 0.5, 0.5),
        (random_weight(3, 2, 4, seed=5), "feature", 1, 0.5, 2.0),
        (with_zero_kernel, "neuron", 1, 0.5, 0.5),
        (random_weight(2, 4, 3, 3), "neuron", 2, 1.0, 2.0),
        (with_zero_kernel, "feature", 2, 2.0, 0.5),
        (with_zero_kernel, "feature", 1, 1.0, 2.0),
    ]
    return Exercise(right, cases, mistakes, seen_as=written_out)
