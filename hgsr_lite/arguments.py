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

_MOST_BITS = 10_000
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
    >>> shown(10**5000)
    'an int of 16610 bits'
    """
    if isinstance(given, int) and given.bit_length() > _MOST_BITS:  # Python writes no more than 4,300 digits
        return f"an int of {given.bit_length()} bits"
    return " ".join(_REPR.repr(given).split())


def plain(given: object) -> object:
    """A number of NumPy or PyTorch (an array or tensor without dimensions) as Python's; all else as it is.

    >>> import numpy as np, torch
    >>> plain(np.int64(3)), plain(torch.tensor(0.5)), plain("3")
    (3, 0.5, '3')
    """
    # A tensor on the meta device has a shape and no number.
    holds_one = getattr(given, "ndim", None) == 0 and not getattr(given, "is_meta", False)
    return given.item() if holds_one else given


def set_plain_(given: object) -> None:
    """Make a frozen dataclass's numbers Python's: then equal ones are equal, in files and as keys too."""
    for field in fields(given):
        object.__setattr__(given, field.name, plain(getattr(given, field.name)))


def as_number(given: object) -> float:
    """A real number of Python, NumPy or PyTorch (there: a tensor without dimensions) as a float, else NaN.

    True and False are no numbers here: where one is given, another argument was meant. A number beyond all
    floats is infinite.

    >>> import numpy as np, torch
    >>> as_number(np.float64(0.5)), as_number(torch.tensor(2)), as_number("2"), as_number(True)
    (0.5, 2.0, nan, nan)
    >>> as_number(-(10**400))
    -inf
    """
    given = plain(given)
    if not isinstance(given, Real) or isinstance(given, bool):
        return math.nan
    try:
        return float(given)
    except OverflowError:
        return math.copysign(math.inf, 1 if given > 0 else -1)


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
    >>> check_count("limit", 2**63)
    Traceback (most recent call last):
    ...
    ValueError: limit 9223372036854775808 is too large: give a whole number below 2**63
    """
    number = plain(given)
    if isinstance(number, bool) or not isinstance(number, Integral) or number < least:
        raise ValueError(f"{option} must be a whole number of at least {least}, not {shown(given)}")
    if number >= 2**63:  # what PyTorch's sizes and generators cannot take
        raise ValueError(f"{option} {shown(given)} is too large: give a whole number below 2**63")
    return int(number)


def check_seed(given: object) -> int:
    """Return a seed as Python's number; refuse what is no whole number from 0.

    >>> check_seed(2**64)
    Traceback (most recent call last):
    ...
    ValueError: seed 18446744073709551616 is too large: give a whole number below 2**63
    """
    return check_count("seed", given, 0)


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
    if "\0" in str(given):
        raise ValueError(f"{name} {shown(given)} holds a zero byte, which no file's name can")
    return Path(given)


def as_names(kind: str, names: object) -> tuple[str, ...]:
    """Return names given in any order as a tuple; a lone string would silently be read letter by letter.

    >>> as_names("include", "conv1")
    Traceback (most recent call last):
    ...
    TypeError: include='conv1' is one string: give a tuple of names, include=('conv1',)
    >>> as_names("include", [7])
    Traceback (most recent call last):
    ...
    TypeError: include must be names of layers, such as ('conv1',), not [7]
    """
    if isinstance(names, str):
        raise TypeError(f"{kind}={names!r} is one string: give a tuple of names, {kind}=({names!r},)")
    listed = tuple(names) if isinstance(names, Iterable) else None
    if listed is None or not all(isinstance(name, str) for name in listed):
        raise TypeError(f"{kind} must be names of layers, such as ('conv1',), not {shown(names)}")
    return listed


def available_cores() -> int:
    """Return how many CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
