"""Two networks compared in float64: what the outputs of the smaller one must not do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hgsr_lite.coupling import InDouble, eval_branches, first_line, tensors, training_branches

PROOF_LIMIT = 1e-10
"""Largest change of output, relative to the largest output, that an exact removal may show in float64."""


@dataclass(frozen=True)
class OutputChange:
    """The largest change of any output: absolute, and relative to the largest output of the original."""

    absolute: float
    relative: float

    @classmethod
    def between(cls, expected: list[Tensor], found: list[Tensor]) -> OutputChange:
        """Over all outputs; infinite if their shapes differ, or where only one is a number."""
        if [tensor.shape for tensor in found] != [tensor.shape for tensor in expected]:
            return cls(float("inf"), float("inf"))
        absolute = largest = 0.0
        for one, other in zip(expected, found, strict=True):
            if one.numel():
                moved = torch.where(one == other, 0.0, (one.double() - other.double()).abs())
                absolute = max(absolute, float(moved.nan_to_num(torch.inf).max()))
                largest = max(largest, float(one.double().abs().max()))
        return cls(absolute, absolute / largest if 0 < largest < torch.inf else absolute)


@dataclass(frozen=True)
class _Case:
    images: Tensor
    mode: Callable[[nn.Module], AbstractContextManager]
    expected: list[Tensor]


class Proof:
    """The outputs of a network, in float64, that a smaller one must give again.

    Cases: the `example`, `random` images of its shape, random images `twice as high` where the network takes
    them, and the `training branches` on the example, each layer computing as in eval mode. A case in which
    the network itself fails, or says something else each time, is left out.
    """

    def __init__(self, model: nn.Module, example: Tensor) -> None:
        self.name = type(model).__name__
        example = example.detach().double()
        self.cases: dict[str, _Case] = {}
        try:
            self._add("example", model, example, eval_branches)
        except Exception as error:  # the network's own, of whatever type
            raise ValueError(
                f"{self.name} does not take an example of shape {tuple(example.shape)}: {first_line(error)}"
            ) from error
        wanted = [("random", random_like(example), eval_branches)]
        if example.ndim > 2:
            tall = torch.cat([example[:1], example[:1]], 2)
            wanted.append(("twice as high", random_like(tall), eval_branches))
        wanted.append(("training branches", example[:2], training_branches))
        for what, images, mode in wanted:
            try:
                self._add(what, model, images, mode)
            except Exception:  # the network's own: this case is none of its uses
                continue

    def _add(self, what: str, model: nn.Module, images: Tensor, mode: Callable) -> None:
        first, again = (_outputs(model, images, mode) for _ in range(2))
        if OutputChange.between(first, again).absolute == 0:
            self.cases[what] = _Case(images, mode, first)
        elif what == "example":
            raise RuntimeError("its outputs differ from one run to the next")

    def changes(self, smaller: nn.Module) -> dict[str, OutputChange]:
        """How far the outputs of a smaller network are from the original's, case by case."""
        return {
            what: OutputChange.between(case.expected, _outputs(smaller, case.images, case.mode))
            for what, case in self.cases.items()
        }

    def fault(self, smaller: nn.Module, exact: bool, cases: Iterable[str]) -> str:
        """Why a smaller network does not stand for the original in these cases; "" if it does.

        Without `exact` it need only run and give outputs of the same shapes.
        """
        for what in cases:
            case = self.cases[what]
            try:
                found = _outputs(smaller, case.images, case.mode)
            except Exception as error:  # the forward's own: it holds sizes that no longer fit
                return f"without some of them its forward fails: {first_line(error)}"
            change = OutputChange.between(case.expected, found)
            if change.relative == torch.inf:
                return f"without some of them an output has another shape or is not finite ({what})"
            if not change.relative <= (PROOF_LIMIT if exact else torch.finfo().max):
                return f"without some of them an output moves by {change.relative:.1e} ({what})"
        return ""


def _outputs(model: nn.Module, images: Tensor, mode: Callable) -> list[Tensor]:
    with torch.no_grad(), mode(model), InDouble():
        return [tensor.detach().clone() for tensor in tensors(model(images))]


def random_like(images: Tensor) -> Tensor:
    """Random images, the same in every call."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(images.shape, generator=generator).to(images)


_HOOKS = [
    f"_{kind}{which}"
    for kind in ("forward", "forward_pre", "backward", "backward_pre")
    for which in ("_hooks", "_hooks_with_kwargs", "_hooks_always_called")
]


@contextmanager
def without_hooks(model: nn.Module) -> Iterator[None]:
    """A context in which no hook of the model is called."""
    taken = [
        (module, name, getattr(module, name), type(getattr(module, name))())
        for module in model.modules()
        for name in _HOOKS
        if getattr(module, name, None)
    ]
    for module, name, _, empty in taken:
        setattr(module, name, empty)
    try:
        yield
    finally:
        for module, name, hooks, _ in taken:
            setattr(module, name, hooks)
