"""A term of many weights as one node of autograd's graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

AddTo = Callable[[list[Tensor], list[Tensor], float], Tensor]
"""`(weights, gradients, factor)`: adds factor times the term's gradient at the weights to the gradients, and
returns factor times the term's value.
"""


def term(add_to: AddTo, weights: list[Tensor], value: Callable[[], Tensor] | None = None) -> Tensor:
    """The term's value, differentiable once.

    Its gradient is at hand when its value is; or, with a function for the value alone, it is computed on the
    way back, times its factor in a loss: half the memory moved, and none held in between.

    >>> def add_to(weights, gradients, factor):
    ...     gradients[0] += 2 * factor * weights[0]
    ...     return factor * weights[0].square().sum()
    >>> weight = torch.ones(2, requires_grad=True)
    >>> term(add_to, [weight]).backward()
    >>> term(add_to, [weight], lambda: torch.tensor(2.0)).mul(3).backward()
    >>> weight.grad
    tensor([8., 8.])
    """
    return _Term.apply(add_to, *weights)[0] if value is None else _Later.apply(add_to, value, *weights)


class _Term(torch.autograd.Function):
    """One node for all weights together."""

    @staticmethod
    def forward(add_to: AddTo, *weights: Tensor) -> tuple[Tensor, ...]:
        gradients = [*map(torch.zeros_like, weights)]
        return add_to([*weights], gradients, 1.0), *gradients

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(*output[1:], *inputs[1:])

    @staticmethod
    def backward(ctx, factor: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        half = len(ctx.saved_tensors) // 2
        gradients = ctx.saved_tensors[:half]
        # As in `(loss + term).backward()`. A GPU would have to be waited for to know it.
        if factor.device.type != "cpu" or factor != 1:
            gradients = torch._foreach_mul(gradients, factor)
        return None, *_once(gradients, ctx.saved_tensors[half:])


class _Later(torch.autograd.Function):
    """One node for all weights together, whose gradient is computed when it is asked for."""

    @staticmethod
    def forward(add_to: AddTo, value: Callable[[], Tensor], *weights: Tensor) -> Tensor:
        return value()

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.add_to = inputs[0]
        ctx.save_for_backward(*inputs[2:])

    @staticmethod
    def backward(ctx, factor: Tensor) -> tuple[Tensor | None, ...]:
        weights = [*ctx.saved_tensors]
        gradients = [*map(torch.zeros_like, weights)]
        again = torch.is_grad_enabled()
        with torch.no_grad():
            ctx.add_to(weights, gradients, 1.0 if again else factor.item())
        if again:  # so that the factor too is part of what is differentiated
            gradients = torch._foreach_mul(gradients, factor)
        return None, None, *_once(gradients, weights)


def _once(gradients: Sequence[Tensor], weights: Sequence[Tensor]) -> Sequence[Tensor]:
    """The gradients; asked for with create_graph=True, such that say so when they are differentiated again.

    A constant would be silently wrong there.
    """
    return [*map(_Once.apply, gradients, weights)] if torch.is_grad_enabled() else gradients


class _Once(torch.autograd.Function):
    """A gradient that depends on its weight, and says so when it is to be differentiated again."""

    @staticmethod
    def forward(gradient: Tensor, weight: Tensor) -> Tensor:
        return gradient.clone()

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        pass

    @staticmethod
    def backward(ctx, *_: Tensor) -> tuple[Tensor | None, ...]:
        raise RuntimeError(
            "a Regularizer's term cannot be differentiated twice: add strength * penalty(layer.weight) of "
            "its layers to the loss instead"
        )
