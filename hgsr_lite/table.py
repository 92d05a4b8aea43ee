"""Eleven penalties as eleven rows of one table.

Every penalty is one formula with three numbers: the norm `r` of a kernel, the exponent `p` inside
the group and the exponent `q` outside it,

    penalty(W) = sum over groups g of ( sum over kernels k in g of ||w_k||_r ^ p ) ^ q

so its value, its gradient and its degree p * q follow from the row alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType

from hgsr_lite.arguments import check_number


def _latex_exponent(exponent: float) -> str:
    """An exponent as a power: nothing for 1, a short fraction where it is one.

    >>> _latex_exponent(1.0), _latex_exponent(2.0), _latex_exponent(1 / 3)
    ('', '^2', '^{1/3}')
    """
    short = Fraction(exponent).limit_denominator(100)
    text = str(short) if float(short) == exponent else f"{exponent:g}"
    return "" if exponent == 1 else f"^{text}" if len(text) == 1 else f"^{{{text}}}"


@dataclass(frozen=True)
class PenaltySpec:
    """One row of the table: what a penalty is called, and the three numbers that make it.

    `norm` is 1 or 2, `inner` the exponent p of a kernel's norm, `outer` the exponent q of the group's
    sum, finite numbers above 0: checked, with `ValueError`, when a row is made. A row that is added to
    `PENALTIES` has its value, gradient, force and degree at once, in whatever version knows its exponents;
    a proximal step it has if there is a solver for them.

    >>> PENALTIES["hsq_gl12"].degree
    1.0
    >>> print(PENALTIES["hsq_gl12"].latex)
    \\sum_g \\left( \\sum_{k \\in g} \\|w_k\\|_1^{1/2} \\right)^2
    """

    title: str
    norm: int
    inner: float
    outer: float

    def __post_init__(self) -> None:
        if self.norm not in (1, 2):
            raise ValueError(
                f"norm {self.norm!r} of {self.title!r}: a kernel has an l1 and an l2 norm, give 1 or 2"
            )
        for name in ("inner", "outer"):
            exponent = check_number(
                f"{name} of {self.title!r}",
                getattr(self, name),
                "the paper takes 1/2, 1 and 2",
                above_zero=True,
            )
            object.__setattr__(self, name, exponent)

    @property
    def degree(self) -> float:
        """The d in penalty(t W) = t^d penalty(W)."""
        return self.inner * self.outer

    @property
    def latex(self) -> str:
        """The formula for a notebook; the square of an l2 norm reads as such."""
        inner, outer = _latex_exponent(self.inner), _latex_exponent(self.outer)
        return rf"\sum_g \left( \sum_{{k \in g}} \|w_k\|_{self.norm}{inner} \right){outer}"


PENALTIES: dict[str, PenaltySpec] = {
    "gl": PenaltySpec("group lasso", 2, 2.0, 0.5),
    "hsqrt_gl": PenaltySpec("hierarchical square-rooted group lasso", 2, 1.0, 0.5),
    "hsq_gl": PenaltySpec("hierarchical squared group lasso", 2, 1.0, 2.0),
    "es": PenaltySpec("exclusive sparsity", 1, 1.0, 2.0),
    "hsqrt_es": PenaltySpec("hierarchical square-rooted exclusive sparsity", 1, 2.0, 0.5),
    "hsq_es": PenaltySpec("hierarchical squared exclusive sparsity", 1, 2.0, 2.0),
    "gl12": PenaltySpec("group l1/2", 1, 1.0, 0.5),
    "hsqrt_gl12": PenaltySpec("hierarchical square-rooted group l1/2", 1, 0.5, 0.5),
    "hsq_gl12": PenaltySpec("hierarchical squared group l1/2", 1, 0.5, 2.0),
    "l1": PenaltySpec("lasso", 1, 1.0, 1.0),
    "l2": PenaltySpec("squared l2", 2, 2.0, 1.0),
}
"""Key -> row, in the order of the paper's table; `l1` and `l2` do not depend on the grouping."""


PENALTY_FAMILIES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "group lasso": ("gl", "hsqrt_gl", "hsq_gl"),
        "exclusive sparsity": ("es", "hsqrt_es", "hsq_es"),
        "group l1/2": ("gl12", "hsqrt_gl12", "hsq_gl12"),
    }
)
"""The nine group penalties: family -> plain, hierarchical square-rooted, hierarchical squared."""
