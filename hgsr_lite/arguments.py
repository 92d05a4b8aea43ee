"""What every argument check shares: a choice, a number, a share, a flag; and how many cores.

A number may come from Python, NumPy or PyTorch: all checks that return one return Python's own.
"""

from __future__ import annotations

import difflib
import math
import os
import reprlib
from collections.abc import Iterable
from dataclasses import fields
from numbers import Integral, Real
from pathlib import Path

_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 80


def choose(kind: str, given: object, allowed: Iterable[str]) -> str:
    """Return `given` if it is one of `allowed`, else say what is allowed and what comes nearest.

    >>> choose("grouping", "feature", ["feature", "neuron"])
    'feature'
    >>> choose("grouping", "Featur", ["feature", "neuron"])
    Traceback (most recent call last):
    ...
    ValueError: unknown grouping 'Featur': choose one of feature, neuron (did you mean 'feature'?)
    """
    names = list(allowed)
    if isinstance(given, str) and given in names:
        return given
    near = nearest(given, names)
    hint = f" (did you mean {near!r}?)" if near else ""
    raise ValueError(f"unknown {kind} {shown(given)}: choose one of {', '.join(names)}{hint}")


def nearest(given: object, names: Iterable[str]) -> str | None:
    """The name most like the given one, capitals or not; None where none is like it.

    >>> nearest("SGD", ["sgd", "adam"])
    'sgd'
    """
    by_lower_case = {name.lower(): name for name in names}
    near = difflib.get_close_matches(str(given).lower(), by_lower_case, n=1)
    return by_lower_case[near[0]] if near else None


def shown(given: object) -> str:
    """How a message shows what was given: on one line, a long one with its middle left out.

    >>> shown(list(range(1000)))
    '[0, 1, 2, 3, 4, 5, ...]'
    """
    return " ".join(_REPR.repr(given).split())


def plain(given: object) -> object:
    """A number of NumPy or PyTorch (an array or tensor without dimensions) as Python's; all else as it is.

    >>> import numpy as np, torch
    >>> plain(np.int64(3)), plain(torch.tensor(0.5)), plain("3")
    (3, 0.5, '3')
    """
    return given.item() if getattr(given, "ndim", None) == 0 else given


def set_plain_(given: object) -> None:
    """Make a frozen dataclass's numbers Python's: then equal ones are equal, in files and as keys too."""
    for field in fields(given):
        object.__setattr__(given, field.name, plain(getattr(given, field.name)))


def as_number(given: object) -> float:
    """A real number of Python, NumPy or PyTorch (there: a tensor without dimensions) as a float, else NaN.

    True and False are no numbers here: where one is given, another argument was meant.

    >>> import numpy as np, torch
    >>> as_number(np.float64(0.5)), as_number(torch.tensor(2)), as_number("2"), as_number(True)
    (0.5, 2.0, nan, nan)
    """
    given = plain(given)
    return float(given) if isinstance(given, Real) and not isinstance(given, bool) else math.nan


def check_number(name: str, given: object, advice: str, *, above_zero: bool = False) -> float:
    """Return a finite number of at least 0 (or above 0) as a float; the advice says how to mend another.

    >>> check_number("strength", -1, "start near 1e-4")
    Traceback (most recent call last):
    ...
    ValueError: strength -1 is not a finite number >= 0: start near 1e-4
    """
    number = as_number(given)
    if not (math.isfinite(number) and (number > 0 if above_zero else number >= 0)):
        least = "> 0" if above_zero else ">= 0"
        raise ValueError(f"{name} {shown(given)} is not a finite number {least}: {advice}")
    return number


def check_count(option: str, given: object, least: int = 1) -> int:
    """Return a whole number of at least `least` as Python's; refuse any other.

    >>> check_count("limit", 0)
    Traceback (most recent call last):
    ...
    ValueError: limit must be a whole number of at least 1, not 0
    """
    number = plain(given)
    if isinstance(number, bool) or not isinstance(number, Integral) or number < least:
        raise ValueError(f"{option} must be a whole number of at least {least}, not {shown(given)}")
    return int(number)


def check_seed(given: object) -> int:
    """Return a seed as Python's number; refuse what PyTorch's generators cannot take.

    >>> check_seed(2**64)
    Traceback (most recent call last):
    ...
    ValueError: seed 18446744073709551616 is too large: give a whole number below 2**63
    """
    seed = check_count("seed", given, 0)
    if seed >= 2**63:
        raise ValueError(f"seed {seed} is too large: give a whole number below 2**63")
    return seed


def check_share(name: str, share: object) -> float:
    """Return a share as a float; refuse what lies outside 0..1.

    >>> check_share("amount", 1.5)
    Traceback (most recent call last):
    ...
    ValueError: amount 1.5 is outside 0..1: it is a share, 0 for none and 1 for all
    """
    number = as_number(share)
    if not 0 <= number <= 1:
        raise ValueError(f"{name} {shown(share)} is outside 0..1: it is a share, 0 for none and 1 for all")
    return number


def check_tolerance(tolerance: object) -> float:
    """Return a tolerance as a float; refuse what is no finite number of at least 0."""
    return check_number("tolerance", tolerance, "the authors take 1e-3")


def check_flag(name: str, given: object) -> None:
    """Refuse what is neither True nor False.

    >>> check_flag("relative", 0.1)
    Traceback (most recent call last):
    ...
    TypeError: relative must be True or False, not 0.1
    """
    if not isinstance(given, bool):
        raise TypeError(f"{name} must be True or False, not {shown(given)}")


def as_path(name: str, given: object) -> Path:
    """Return a path given as a text or a `Path`; refuse any other.

    >>> as_path("root", 3)
    Traceback (most recent call last):
    ...
    TypeError: root must be a path, a str or a Path, not 3
    """
    if not isinstance(given, str | os.PathLike):
        raise TypeError(f"{name} must be a path, a str or a Path, not {shown(given)}")
    return Path(given)


def available_cores() -> int:
    """Return how many CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
