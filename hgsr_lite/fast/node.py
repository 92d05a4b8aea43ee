"""A term of many weights as one node of autograd's graph."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

AddTo = Callable[[list[Tensor], list[Tensor]], Tensor]
"""`(weights, gradients) -> value`: adds the term's gradient at the weights to the gradients."""


def term(add_to: AddTo, weights: list[Tensor]) -> Tensor:
    """The term's value, differentiable once; its gradient is at hand when its value is.

    >>> def add_to(weights, gradients):
    ...     gradients[0] += 2 * weights[0]
    ...     return weights[0].square().sum()
    >>> weight = torch.ones(2, requires_grad=True)
    >>> term(add_to, [weight]).backward()
    >>> weight.grad
    tensor([2., 2.])
    """
    return _Term.apply(add_to, *weights)[0]


class _Term(torch.autograd.Function):
    """One node for all weights together."""

    @staticmethod
    def forward(add_to: AddTo, *weights: Tensor) -> tuple[Tensor, ...]:
        gradients = [*map(torch.zeros_like, weights)]
        return add_to([*weights], gradients), *gradients

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
        if torch.is_grad_enabled():  # asked with create_graph=True: a constant would be silently wrong there
            gradients = [*map(_Once.apply, gradients, ctx.saved_tensors[half:])]
        return None, *gradients


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
