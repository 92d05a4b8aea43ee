"""How an exercise is checked: by what the reader's function does on tensors it has not seen.

An exercise knows the right answer and the usual mistakes, each as a function. It runs the reader's function
on hidden inputs and compares results: any right implementation passes, and a wrong one that behaves
like a known mistake gets the hint that belongs to it. A check never raises: a notebook with untouched
exercises runs to its end.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

Answer = Callable[..., Any]
Case = tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class Exercise:
    """One exercise as data: the right answer, inputs to try it on, and the usual mistakes with their hints.

    `cases` holds tuples of arguments; they are handed over as copies, so that a function that changes its
    input spoils nothing. `mistakes` maps a hint to a function that makes the mistake; the first that behaves
    like the answer gives its hint. `tolerance` is relative; with `exact_zeros`, what must be 0 must be 0 to
    the last bit. `seen_as` turns a function into the one whose results are compared.

    Called with an answer, it prints the verdict and returns whether the answer passed. A stub that returns
    None or `...` is "not yet done".

    >>> doubling = Exercise(lambda x: 2 * x, [(torch.ones(2),)], {"You squared.": lambda x: x**2})
    >>> def doubled(x):
    ...     ...
    >>> doubling(doubled)
    doubled: not yet done. Replace the dots by your code and run the cell again.
    False
    >>> doubling(lambda x: x * x)
    your function: not right yet. You squared.
    False
    >>> doubling(lambda x: x + x)
    your function: right.
    True
    """

    right: Answer
    cases: Sequence[Case]
    mistakes: Mapping[str, Answer] = field(default_factory=dict)
    tolerance: float = 1e-5
    exact_zeros: bool = False
    seen_as: Callable[[Answer], Answer] = lambda answer: answer

    def __call__(self, answer: Answer) -> bool:
        """Compare `answer` with the right one on every case, print the verdict, return whether it passed."""
        name = getattr(answer, "__name__", "your function").replace("<lambda>", "your function")
        if not callable(answer):
            print(f"{name}: give the function itself, without calling it.")
            return False
        problem = self._first_problem(answer)
        print(f"{name}: {problem or 'right.'}")
        return problem is None

    def _first_problem(self, answer: Answer) -> str | None:
        given, wanted = self._results(answer), self._results(self.right)
        if all(result is None or result is Ellipsis for result in given):
            return "not yet done. Replace the dots by your code and run the cell again."
        wrong = [n for n, pair in enumerate(zip(given, wanted, strict=True)) if not self._same(*pair)]
        if not wrong:
            return None
        for hint, mistake in self.mistakes.items():
            if all(map(self._same, given, self._results(mistake))):
                return f"not right yet. {hint}"
        factor = _common_factor(given, wanted)
        if factor is not None:
            return f"not right yet. It is {factor:.4g} times the right result everywhere: a factor is off."
        return f"not right yet. {_describe(given[wrong[0]], wanted[wrong[0]])}"

    def _results(self, function: Answer) -> list[Any]:
        seen = self.seen_as(function)
        return [_run(seen, case) for case in self.cases]

    def _same(self, one: Any, other: Any) -> bool:
        return _same(one, other, self.tolerance, self.exact_zeros)


def exercise(make: Callable[[], Exercise]) -> Exercise:
    """Make an exercise from the function that describes it; a reader's random numbers stay as they were."""
    with torch.random.fork_rng(devices=[]):
        made = make()
    object.__setattr__(made, "__doc__", make.__doc__)
    return made


def _run(function: Answer, case: Case) -> Any:
    """The function's result, or the exception it raised as a result of its own."""
    try:
        inspect.signature(function).bind(*case)
    except TypeError as error:
        return TypeError(f"it must take {len(case)} argument(s): {error}")
    try:
        return function(*copy.deepcopy(case))
    except Exception as error:  # whatever the reader's code raises is theirs to see, as text
        return error


def _tensors(result: Any) -> list[Tensor] | None:
    """A result as a list of float64 tensors, or None where it is not made of numbers."""
    several = isinstance(result, tuple) or (
        isinstance(result, list) and any(isinstance(part, Tensor) for part in result)
    )
    parts = list(result) if several else [result]
    try:
        return [torch.as_tensor(part).detach().to("cpu", torch.float64) for part in parts]
    except (TypeError, ValueError, RuntimeError):
        return None


def _same(one: Any, other: Any, tolerance: float, exact_zeros: bool = False) -> bool:
    if isinstance(one, Exception) or isinstance(other, Exception):  # a mistake may be one that raises
        return type(one) is type(other)
    if isinstance(one, str | set | dict) or isinstance(other, str | set | dict):
        return type(one) is type(other) and one == other
    if tuple in (type(one), type(other)):  # several results: a list of them is as good as a tuple
        one, other = (tuple(result) if isinstance(result, list) else result for result in (one, other))
    left, right = _tensors(one), _tensors(other)
    if left is None or right is None or len(left) != len(right):
        return False
    near = {"rtol": tolerance, "atol": 0.0 if exact_zeros else tolerance * 1e-3, "equal_nan": True}
    return all(a.shape == b.shape and torch.allclose(a, b, **near) for a, b in zip(left, right, strict=True))


def _common_factor(given: Sequence[Any], wanted: Sequence[Any]) -> float | None:
    """The one number by which every result is off, if there is one."""
    ratios = []
    for one, other in zip(given, wanted, strict=True):
        left, right = _tensors(one), _tensors(other)
        if left is None or right is None or [a.shape for a in left] != [b.shape for b in right]:
            return None
        ratios += [(a / b)[b != 0].flatten() for a, b in zip(left, right, strict=True)]
    ratio = torch.cat(ratios)
    if ratio.numel() < 2 or not torch.allclose(ratio, ratio[0], rtol=1e-4) or abs(ratio[0] - 1) < 1e-3:
        return None
    return ratio[0].item()


def _describe(given: Any, wanted: Any) -> str:
    """What is wrong, in general terms, where no known mistake fits."""
    if isinstance(given, Exception):
        return f"It raised {type(given).__name__}: {given}"
    if given is None or given is Ellipsis:
        return "For some inputs it returns nothing: does every branch return?"
    left, right = _tensors(given), _tensors(wanted)
    if left is None or right is None:
        return f"It returned {type(given).__name__}, expected was {type(wanted).__name__}."
    if len(left) != len(right):
        return f"It returned {len(left)} value(s), expected were {len(right)}."
    for a, b in zip(left, right, strict=True):
        if a.shape != b.shape:
            return f"The result has shape {tuple(a.shape)}, expected was {tuple(b.shape)}: check the axes."
        if a.isnan().any() and not b.isnan().any():
            return "The result holds NaN: what happens where a norm is exactly zero?"
        if a.isinf().any() and not b.isinf().any():
            return "The result is infinite somewhere: what happens where a norm is exactly zero?"
    return "The shape fits, the numbers do not: try it on a layer small enough to work by hand."
