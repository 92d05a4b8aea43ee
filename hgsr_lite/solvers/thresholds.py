"""Where to put the soft threshold: one solver for each pair of exponents.

The sign of a weight plays no part in any penalty, so every solver here works on magnitudes
`a = |w|`, arranged as (groups, kernels, elements), and looks for `v` between 0 and `a`. With
A_k = sum of the v of kernel k, the penalty t * (sum_k A_k^p)^q depends on v only through the A_k.
Setting the derivative to zero gives

    v = max(a - threshold_k, 0),     threshold_k = t q P^(q-1) p A_k^(p-1),     P = sum_k A_k^p

so each prox is a soft threshold, one number per kernel. All that remains is to find that number, and
one fact makes it easy. With the m largest magnitudes summing to S_m,

    sum of max(a - threshold, 0) = max over m of (S_m - m threshold),

so an equation in the threshold is solved for each m at once after one sort.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class SortedKernels:
    """The magnitudes of each kernel in falling order, with what the solvers need of the m largest.

    All of shape (groups, kernels, elements), `counts` (elements,): m = 1, 2, ... elements.

    >>> kernels = SortedKernels.of(torch.tensor([[[1., 3.]]]))
    >>> kernels.values, kernels.sums, kernels.squares
    (tensor([[[3., 1.]]]), tensor([[[3., 4.]]]), tensor([[[ 9., 10.]]]))
    """

    values: Tensor
    sums: Tensor
    squares: Tensor
    counts: Tensor

    @classmethod
    def of(cls, magnitudes: Tensor) -> SortedKernels:
        """Sort once; every later step is arithmetic on the result."""
        values = magnitudes.sort(-1, descending=True).values
        counts = torch.arange(1, values.shape[-1] + 1, device=values.device, dtype=values.dtype)
        return cls(values, values.cumsum(-1), values.square().cumsum(-1), counts)

    def of_groups(self, groups: Tensor) -> SortedKernels:
        """The rows of some groups only, chosen by an index or a mask."""
        return SortedKernels(self.values[groups], self.sums[groups], self.squares[groups], self.counts)

    def in_order(self, order: Tensor) -> SortedKernels:
        """The kernels of each group in another order, `order` of shape (groups, kernels, 1)."""
        tables = (self.values, self.sums, self.squares)
        return SortedKernels(*(table.take_along_dim(order, 1) for table in tables), self.counts)

    def thresholds_for(self, inverse: Tensor) -> tuple[Tensor, Tensor]:
        """Solve `inverse * threshold = sum max(a - threshold, 0)`, with the number of v above zero.

        For fixed m the root is S_m / (inverse + m); the left side rises and the right side is the
        largest of falling lines, so the root is the largest of those roots.
        """
        threshold, best = (self.sums / (inverse + self.counts)).max(-1, keepdim=True)
        return threshold, self.counts[best]


def lasso_threshold(kernels: SortedKernels, step: Tensor) -> Tensor:
    """t * A, the lasso: the threshold is t itself."""
    return step


def exclusive_threshold(kernels: SortedKernels, step: Tensor) -> Tensor:
    """t * A^2, exclusive sparsity: threshold = 2 t A = max over m of 2 t S_m / (1 + 2 t m)."""
    return kernels.thresholds_for(1 / (2 * step))[0]


def rooted_exclusive_threshold(kernels: SortedKernels, step: Tensor) -> Tensor:
    """t * sqrt(sum_k A_k^2), a norm; its dual norm is F(0) = sqrt(sum_k max_k^2).

    threshold_k = t A_k / P, so with x = P / t every kernel solves `x threshold_k = A_k`, and the
    thresholds themselves must have Euclidean norm F(x) = t. F falls from the dual norm at x = 0: if
    that is at most t, x = 0 and each threshold is the kernel's largest magnitude, so v = 0.
    Otherwise Newton's method on 1/F(x) = 1/t from x = 0. Each 1/threshold_k = min over m of
    (x + m) / S_m is concave in x and 1/F is a concave power mean of them, so the steps rise to the
    root without passing it, and the last ones double the digits.
    """
    x = torch.zeros_like(step)
    for _ in range(60):
        thresholds, counts = kernels.thresholds_for(x)
        squares = thresholds.square()
        total = squares.sum(1, keepdim=True)
        slope = (squares / (x + counts)).sum(1, keepdim=True)
        change = torch.where(slope > 0, (total.sqrt() / step - 1) * total / slope, 0.0).clamp(min=0)
        x = x + change
        if not (change > 4 * torch.finfo(x.dtype).eps * x).any():
            break
    return kernels.thresholds_for(x)[0]


def squared_exclusive_threshold(kernels: SortedKernels, step: Tensor) -> Tensor:
    """t * (sum_k A_k^2)^2: threshold_k = c A_k with the one number c = 4 t P of the group.

    For a given c, A_k = max over m of S_m / (1 + c m). Newton's method on

        P(c)^(-1/2) - 2 sqrt(t / c) = 0,

    concave and rising in c for the reason given above, starts from the smaller of two upper bounds,
    4 t P(0) and the cube root of 4 t sum_k max_k^2 (A_k is at most max_k / c). After the first step it
    rises to the root.
    """
    largest = kernels.values[..., :1].square().sum(1, keepdim=True)
    total = kernels.sums[..., -1:].square().sum(1, keepdim=True)
    c = torch.minimum(4 * step * total, (4 * step * largest).pow(1 / 3))
    c = torch.where(c > 0, c, 1.0)
    for _ in range(60):
        ratios = kernels.sums / (1 + c * kernels.counts)
        sums, best = ratios.max(-1, keepdim=True)
        counts = kernels.counts[best]
        squares = sums.square()
        total = squares.sum(1, keepdim=True)
        slope = total.pow(-1.5) * (squares * counts / (1 + c * counts)).sum(1, keepdim=True)
        root = (step / c).sqrt()
        newton = c - (total.rsqrt() - 2 * root) / (slope + root / c)
        # From an upper bound far off, the tangent may cross below zero.
        following = torch.where(total > 0, torch.maximum(newton, c / 8), c)
        done = not ((following - c).abs() > 4 * torch.finfo(c.dtype).eps * c).any()
        c = following
        if done:
            break
    return c * (kernels.sums / (1 + c * kernels.counts)).amax(-1, keepdim=True)
