"""What trains, and what claims a figure, under four kinds of arithmetic that one processor can be set to.

`make test-arithmetic` (`python -m hgsr_lite test-arithmetic [SETTING ...] [OPTION OF PYTEST ...]`): the tests
marked `trains`, once for each setting, in processes of their own. Instructions and threads decide in which
order numbers are added up, so every run ends elsewhere by rounding, as it would on another processor. What
passes here in one setting and fails in another hangs on luck. Exit status 1 if a setting fails.

The settings - wide, mixed, crossed, narrow - are rows of an orthogonal array: every two values of two
variables meet in one of them.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import takewhile

NAMES = ("ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY", "OMP_NUM_THREADS")
SETTINGS = {
    "wide": ("AVX2", "avx2", "1"),
    "mixed": ("AVX2", "default", "2"),
    "crossed": ("SSE41", "avx2", "2"),
    "narrow": ("SSE41", "default", "1"),
}
TRAINS = re.compile(r"\b(fit|fit_many|make_run|run_fast|prune)\(|optimizer\.step\(|bench\.train\(")
"""What a test that trains says somewhere: it must be marked, which `tests/house` holds."""
TWO_PROCESSES = ("--numprocesses=2", "--dist=worksteal")
NO_TESTS = 5
"""Pytest's exit status where no test was chosen."""


def run(setting: str, options: Sequence[str]) -> int:
    """The exit status of pytest in one setting."""
    environment = {**os.environ, **dict(zip(NAMES, SETTINGS[setting], strict=True))}
    command = [sys.executable, "-m", "pytest", "-m", "trains", *TWO_PROCESSES, *options]
    return subprocess.call(command, env=environment)


def main(arguments: Sequence[str] = tuple(sys.argv[1:])) -> int:
    """Run the settings that come first, or all four; what follows is pytest's. Close with a line for each."""
    chosen = list(takewhile(SETTINGS.__contains__, arguments))
    options, lines, failed = arguments[len(chosen) :], [], False
    for name in chosen or SETTINGS:
        values = " ".join(f"{key}={value}" for key, value in zip(NAMES, SETTINGS[name], strict=True))
        print(f"\n{name}: {values}", flush=True)
        started = time.perf_counter()
        status = run(name, options)
        failed |= status != 0
        said = {0: "passed", NO_TESTS: "no test chosen"}.get(status, "FAILED")
        lines.append(f"{name:<8} {said:<14} {time.perf_counter() - started:6.0f} s   {values}")
    print("", *lines, sep="\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
