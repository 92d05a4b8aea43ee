"""`python -m hgsr_lite study run | status | collect | report | ends FILE`."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

from hgsr_lite.arguments import available_cores, check_count
from hgsr_lite.study.ends import find_ends, further_grids, path_ends, searched
from hgsr_lite.study.job import WrongVersionsError
from hgsr_lite.study.progress import say
from hgsr_lite.study.report import write_report
from hgsr_lite.study.study import Study


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The study command's own arguments."""
    does = ("run", "status", "collect", "report", "ends")
    parser.add_argument("do", choices=does, help="ends: train on until each path's end is found")
    parser.add_argument(
        "file", type=Path, metavar="FILE", help="the study, a TOML file: see studies/README.md"
    )
    parser.add_argument("--runs", type=Path, help="folder of the run files; left out: runs/NAME beside FILE")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="a Dask scheduler, say tcp://host:8786")
    parser.add_argument(
        "--workers", type=_workers, help="runs at once, without a scheduler; left out: one a core"
    )
    parser.add_argument(
        "--device", default="cpu", help="cpu (default) or cuda, also for --dry-run and status"
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="train nothing: say how many runs are missing and how long they take; of ends, what is found",
    )


def _workers(text: str) -> int:
    """A whole number of at least 1; what else is given is named, as argparse wants it."""
    try:
        return check_count("workers", int(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number of at least 1") from error


def carry_out(arguments: argparse.Namespace) -> int:
    """Carry out a study command; the exit status: 0, 1 where runs failed, 130 after Ctrl-C."""
    study = Study.read(arguments.file, arguments.runs)
    if arguments.do == "status":
        print(study.status(arguments.device))
        return 0
    if arguments.do == "collect":
        print(f"{len(study.collect())} runs in {study.table}")
        return 0
    if arguments.do == "report":
        print(write_report(study))
        return 0
    ends = arguments.do == "ends"
    if arguments.dry_run:
        return _say_ends(study) if ends else _dry_run(study, arguments.workers, arguments.device)
    make = partial(find_ends, study) if ends else study.make
    try:
        outcome = make(arguments.scheduler, arguments.workers, arguments.device)
    except WrongVersionsError as error:
        print(error, file=sys.stderr)
        return 1
    to = sys.stderr if ends else sys.stdout  # what the search for the ends prints is for the study's file
    made = f"{outcome.written} runs written to {study.folder.path}, {outcome.diverged} of them diverged"
    print(made, file=to)
    for name, reason in outcome.failed.items():
        print(f"not made: {name}: {reason}", file=to)
    if outcome.interrupted:
        print("interrupted: the same command goes on", file=sys.stderr)
        return 130
    if outcome.failed:
        return 1
    if ends:
        _say_ends(study)
        print(further_grids(study), end="")
    return 0


def _say_ends(study: Study) -> int:
    """Say where each path's end lies, as far as it is found (standard error)."""
    ends = path_ends(searched(study))
    say([ends.to_string(index=False), f"{(ends['found'] == 'yes').sum()} of {len(ends)} ends are found"])
    return 0


def _dry_run(study: Study, workers: int | None, device: str) -> int:
    count = len(study.missing())
    hours = study.predicted_seconds(device) / 3600
    workers = workers or available_cores()
    time = f"{_rounded(hours)} hours of one core, {_rounded(hours / workers)} hours with {workers} at once"
    if device != "cpu":
        time = f"{_rounded(hours)} hours on {device} one after the other, less with several at once"
    print(f"{count} of {len(study.grid.recipes)} runs are missing: about {time}, if nothing else runs")
    return 0


def _rounded(hours: float) -> str:
    """Two digits that count: a probe of some steps says no more.

    >>> _rounded(1473.2), _rounded(0.01234)
    ('1,500', '0.012')
    """
    return f"{float(f'{hours:.2g}'):,g}"
