"""What every argument check shares: a choice, a whole number, a share, a tolerance; and how many cores."""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Iterable
from numbers import Integral


def choose(kind: str, given: object, allowed: Iterable[str]) -> str:
    """Return `given` if it is one of `allowed`, else say what is allowed and what comes nearest.

    >>> choose("grouping", "feature", ["feature", "neuron"])
    'feature'
    >>> choose("grouping", "featur", ["feature", "neuron"])
    Traceback (most recent call last):
    ...
    ValueError: unknown grouping 'featur': choose one of feature, neuron (did you mean 'feature'?)
    """
    names = list(allowed)
    if isinstance(given, str) and given in names:
        return given
    near = difflib.get_close_matches(str(given), names, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    raise ValueError(f"unknown {kind} {given!r}: choose one of {', '.join(names)}{hint}")


def check_count(option: str, given: object, least: int = 1) -> None:
    """Refuse what is no whole number of at least `least`.

    >>> check_count("limit", 0)
    Traceback (most recent call last):
    ...
    ValueError: limit must be a whole number of at least 1, not 0
    """
    if isinstance(given, bool) or not isinstance(given, Integral) or given < least:
        raise ValueError(f"{option} must be a whole number of at least {least}, not {given!r}")


def check_share(name: str, share: float) -> float:
    """Return a share as a float; refuse what lies outside 0..1."""
    if not (isinstance(share, int | float) and 0 <= share <= 1):
        raise ValueError(f"{name} {share!r} is outside 0..1: it is a share, 0 for none and 1 for all")
    return float(share)


def check_tolerance(tolerance: float) -> None:
    """Refuse a tolerance that is no finite number of at least 0."""
    if not (isinstance(tolerance, int | float) and math.isfinite(tolerance) and tolerance >= 0):
        raise ValueError(f"tolerance {tolerance!r} is not a finite number >= 0: the authors take 1e-3")


def available_cores() -> int:
    """Return how many CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
