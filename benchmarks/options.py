"""The options that every benchmark takes."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def options_of(
    program: str,
    purpose: str,
    quick: str,
    arguments: Sequence[str] | None = None,
    device: str = "cpu",
    more: Mapping[str, Mapping[str, Any]] | None = None,
) -> argparse.Namespace:
    """`--quick`, explained by `quick`, `--out`, by default the device's results, and `more` of its own.

    The folder is made here: a place that cannot be written is found before anything is measured.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {program}", description=purpose.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--out", type=Path, default=RESULTS / device, help="folder for what is written")
    for name, described in (more or {}).items():
        parser.add_argument(name, **described)
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    return options
