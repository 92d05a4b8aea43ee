"""Says once what is happening while numba compiles: silence of a minute looks like a hang."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

AFTER = 2.0
"""Seconds after which a first call is long enough to be explained."""
MESSAGE = (
    "hgsr_lite compiles its loops for this machine: up to a minute, some minutes if it is busy; the next "
    "start finds them ready (`python -m hgsr_lite warm` does it beforehand)."
)
QUIET = "HGSR_QUIET"
"""Environment variable; set to 1, nothing is said: for outputs that are kept or compared."""
Given, Result = ParamSpec("Given"), TypeVar("Result")
_said = threading.Event()


def explained(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """The same function; if its first call is longer than `AFTER`, a line on stderr says why, once a process.

    >>> explained(max)(1, 2)
    2
    """
    compiled = threading.Event()

    def call(*arguments: Given.args, **options: Given.kwargs) -> Result:
        if compiled.is_set() or _said.is_set():
            return function(*arguments, **options)
        timer = threading.Timer(AFTER, _explain)
        timer.daemon = True
        timer.start()
        try:
            return function(*arguments, **options)
        finally:
            timer.cancel()
            compiled.set()

    return call


def _explain() -> None:
    if not _said.is_set() and os.environ.get(QUIET) != "1":
        _said.set()
        print(MESSAGE, file=sys.stderr, flush=True)
