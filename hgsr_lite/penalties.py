"""A penalty as a function of a weight: value, gradient, force and proximal operator of one row of the table.

penalty(W) = sum over groups g of ( sum over kernels k in g of ||w_k||_r ^ p ) ^ q
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hgsr_lite.arguments import choose
from hgsr_lite.groups import (
    GROUPINGS,
    Layout,
    kernel_stack,
    stack_norms,
    sum_dtype,
    weight_of_stack,
)
from hgsr_lite.proximal import prox
from hgsr_lite.table import PENALTIES, PenaltySpec


def power(base: Tensor, exponent: float) -> Tensor:
    """`base ** exponent` for base >= 0, with 0 instead of infinity at a zero base.

    That choice makes the gradient at zero the zero subgradient: finite everywhere.

    >>> power(torch.tensor([0., 4.]), -0.5)
    tensor([0.0000, 0.5000])
    """
    raised = base.pow(exponent)
    return raised.masked_fill(base == 0, 0.0) if exponent < 0 else raised


@dataclass(frozen=True)
class Penalty:
    """One penalty with one grouping, as a function of a weight.

        penalty(W) = sum_g ( sum_{k in g} ||w_k||_r ^ p ) ^ q

    `key` is a key of `PENALTIES`; `grouping` is `"feature"` (a group holds the kernels that read one
    input channel) or `"neuron"` (the kernels that make one output channel). Source: Mitsuno, Miyao,
    Kurita, IJCNN 2020, arXiv 2004.04394; no factor 1/2 anywhere, as in the authors' released code.

    Weights may be of shape `(out, in, *kernel)` or `(out, in)`, of any floating dtype, memory format
    and device; give `layout` for grouped and transposed convolutions. Raises `ValueError` for an
    unknown key or grouping and `TypeError` for a weight that is no floating-point tensor.

    >>> weight = torch.tensor([[[3., -4.], [0., 0.]]], requires_grad=True)
    >>> penalty = Penalty("gl", grouping="feature")
    >>> penalty(weight)
    tensor(5., grad_fn=<_PenaltyFunctionBackward>)
    >>> penalty.gradient(weight.detach())
    tensor([[[ 0.6000, -0.8000],
             [ 0.0000,  0.0000]]])
    """

    key: str
    grouping: str = "feature"

    def __post_init__(self) -> None:
        choose("penalty", self.key, PENALTIES)
        choose("grouping", self.grouping, GROUPINGS)

    @property
    def spec(self) -> PenaltySpec:
        """This penalty's row of the table."""
        return PENALTIES[self.key]

    def __call__(self, weight: Tensor, layout: Layout = Layout()) -> Tensor:
        """The penalty's value, a differentiable scalar with a finite gradient everywhere.

        float32 for half-precision weights (a sum of squares soon passes float16's 65504), else the
        weight's dtype. The second derivative is refused: at zero it does not exist.
        """
        return _PenaltyFunction.apply(weight, self, layout)

    def value(self, weight: Tensor, layout: Layout = Layout()) -> Tensor:
        """The value without autograd."""
        with torch.no_grad():
            _, sums = self._norms_and_sums(kernel_stack(weight, layout))
            return sums.pow(self.spec.outer).sum().to(sum_dtype(weight.dtype))

    def gradient(self, weight: Tensor, layout: Layout = Layout()) -> Tensor:
        """The closed-form gradient, of the weight's shape and dtype; 0 where a norm is 0.

            dP/dw = q S_g^(q-1) * p n_k^(p-1) * d n_k / d w,   S_g = sum_{k in g} n_k^p

        with d n_k / d w = sign(w) for the l1 norm and w / n_k for the l2 norm. Computed in float64, so that
        the scale of the weights does not matter: exact to rounding for weights from 1e-38 to 1e38. What is
        too large for the type saturates at its largest finite value in float16; elsewhere it is infinite.

        >>> Penalty("es").gradient(torch.tensor([[1., -2.]]))
        tensor([[ 2., -4.]])
        """
        return self.value_and_gradient(weight, layout)[1]

    def force(self, weight: Tensor, layout: Layout = Layout()) -> Tensor:
        """How hard the penalty pulls at each kernel's norm: `(output channels, input channels)`.

            force_k = dP / d n_k = q S_g^(q-1) * p n_k^(p-1)

        For the l2 norm this is the length of the gradient of a kernel, for the l1 norm the absolute
        value of each of its non-zero entries. 0 at a zero kernel wherever the formula is infinite.

        >>> Penalty("hsq_gl12", "neuron").force(torch.tensor([[[4.], [1.]]]))
        tensor([[1.5000, 3.0000]])
        """
        with torch.no_grad():
            norms, sums = self._norms_and_sums(kernel_stack(weight, layout))
            force = self._coefficient(norms, sums, self.spec.inner - 1).flatten(0, 1)
            return force.to(sum_dtype(weight.dtype))

    def prox(self, weight: Tensor, step: float, layout: Layout = Layout(), l1_step: float = 0.0) -> Tensor:
        """The proximal operator: the nearest point that the penalty likes better, with exact zeros.

            argmin over V of  0.5 |V - W|^2 + step * penalty(V) + l1_step * |V|_1

        Shapes, exactness, errors and sources as in `hgsr_lite.proximal.prox`.

        >>> Penalty("l1").prox(torch.tensor([[3., -1., 0.5]]), step=1.0)
        tensor([[2., 0., 0.]])
        """
        return prox(self.spec, self.grouping, weight, step, layout, l1_step)

    def _norms_and_sums(self, stack: Tensor) -> tuple[Tensor, Tensor]:
        norms = stack_norms(stack, self.spec.norm)
        return norms, norms.pow(self.spec.inner).sum(GROUPINGS[self.grouping], keepdim=True)

    def _coefficient(self, norms: Tensor, sums: Tensor, inner_exponent: float) -> Tensor:
        """One number per kernel: q S^(q-1) p n^inner_exponent."""
        spec = self.spec
        return (spec.outer * power(sums, spec.outer - 1)) * (spec.inner * power(norms, inner_exponent))

    def of_kernels(self, kernels: Tensor, norms: Tensor, sums: Tensor, factor: Tensor | float) -> Tensor:
        """The gradient of kernels `(..., elements)`, times `factor`, from their norms and groups' sums.

        `norms` and `sums` (S_g of each kernel's group) have, or broadcast to, the kernels' shape without its
        last dimension; so does `factor`.
        """
        # d n / d w is w / n for the l2 norm: its 1/n lowers the exponent instead of dividing by 0.
        coefficient = self._coefficient(norms, sums, self.spec.inner - self.spec.norm) * factor
        direction = kernels.sign() if self.spec.norm == 1 else kernels
        wide = coefficient.unsqueeze(-1) * direction
        if kernels.dtype == torch.float16:
            largest = torch.finfo(kernels.dtype).max
            wide = wide.clamp(-largest, largest)
        return wide.to(kernels.dtype)

    def value_and_gradient(
        self, weight: Tensor, layout: Layout = Layout(), factor: Tensor | float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """The value in float64, and the gradient times `factor`, with the norms taken once for both.

        >>> Penalty("es").value_and_gradient(torch.tensor([[1., -2.]]))
        (tensor(5., dtype=torch.float64), tensor([[ 2., -4.]]))
        """
        with torch.no_grad():
            stack = kernel_stack(weight, layout)
            norms, sums = self._norms_and_sums(stack)
            gradient = self.of_kernels(stack, norms, sums, factor)
            return sums.pow(self.spec.outer).sum(), weight_of_stack(gradient, layout, weight.shape)


class _PenaltyFunction(torch.autograd.Function):
    """The value with the closed form as its backward, so that no 0/0 can arise in autograd."""

    generate_vmap_rule = True

    @staticmethod
    def forward(weight: Tensor, penalty: Penalty, layout: Layout) -> Tensor:
        return penalty.value(weight, layout)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        weight, ctx.penalty, ctx.layout = inputs
        ctx.save_for_backward(weight)

    @staticmethod
    def backward(ctx, grad_output: Tensor):
        (weight,) = ctx.saved_tensors
        return _GradientFunction.apply(weight, grad_output, ctx.penalty, ctx.layout), None, None


class _GradientFunction(torch.autograd.Function):
    """The closed form as a node of its own, so that a second derivative is refused, never silently 0."""

    generate_vmap_rule = True

    @staticmethod
    def forward(weight: Tensor, factor: Tensor, penalty: Penalty, layout: Layout) -> Tensor:
        return penalty.value_and_gradient(weight, layout, factor)[1]

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        pass

    @staticmethod
    def backward(ctx, grad_output: Tensor):
        raise RuntimeError(
            "a penalty cannot be differentiated twice: its second derivative does not exist at zero; "
            "detach the gradient, or write the formula in plain autograd for weights away from zero"
        )
