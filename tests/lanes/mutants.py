"""Faults put into the method's files one at a time: does a test notice?

`make mutants ARGS=zeros` (`python -m hgsr_lite mutants [FILE ...]`): cosmic-ray changes one operator, number
or flag after the other, in memory; the tests that call the changed function are run until one fails.
Closes with the share that was noticed and the changes that were not; those that no test can notice are listed
in `equivalent.toml`, with the reason. Exit status 1 if another change was not noticed. A file of the method
takes one to three minutes on a quiet core, after one for its tests without a fault.
"""

from __future__ import annotations

import os
import sys
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.lanes import trials
from tests.lanes.faults import Fault, changed_functions, faults_of

ROOT = Path(__file__).resolve().parents[2]
OWN = ("hgsr_lite", "tests", "benchmarks", "__main__")
"""What must not be loaded before the faults are made."""


@dataclass(frozen=True)
class Room:
    """Files, and the tests that are to notice what changes in them."""

    files: tuple[str, ...]
    tests: tuple[str, ...]


_METHOD = ("groups", "table", "proximal", "penalties", "regularizer", "zeros")
_REMOVAL = (
    "ranking",
    "proof",
    "surgery",
    "compaction",
    "compaction_refusals",
    "pruning",
    "what_a_proof_covers",
    "what_a_user_keeps",
    "carrying",
)
_STUDY = ("driver", "runs", "report", "grid", "analysis", "comparable")
ROOMS = (
    Room(
        _METHOD,
        (
            *(f"tests/method/test_{name}.py" for name in ("groups", "penalties", "twelfth_row", "proximal")),
            *(f"tests/method/test_{name}.py" for name in ("regularizer", "zeros")),
            *(f"hgsr_lite/{name}.py" for name in _METHOD),
        ),
    ),
    Room(  # other people's networks are left out: they take up to a minute each
        ("removal/surgery", "removal/proof", "removal/ranking"),
        (*(f"tests/removal/test_{name}.py" for name in _REMOVAL), "hgsr_lite/removal"),
    ),
    Room(("data/splits", "data/parts"), ("tests/data", "hgsr_lite/data")),
    Room(
        ("study/engine", "study/runs", "study/tables"),
        (*(f"tests/study/test_{name}.py" for name in _STUDY), "hgsr_lite/study"),
    ),
)
FILES = tuple(name for room in ROOMS for name in room.files)


@dataclass(frozen=True)
class Verdict:
    """What became of a fault: noticed (by what), survived, or no verdict, because the process was lost.

    A test that runs for a minute has failed; what runs on beyond that hangs, and may do so without the fault.
    """

    fault: Fault
    kind: str
    by: str
    seconds: float


def judge(fault: Fault, trial: Callable[[], str | None], limit: float) -> Verdict:
    """Run tests in a fork: it tells the first that fails, nothing if all pass, None if there are none."""
    started = time.perf_counter()
    try:
        failed = trials.in_a_fork(trial, limit)
        kind, by = ("survived", "") if failed == "" else ("noticed", failed or "the import")
    except TimeoutError:
        kind, by = "no verdict", f"still running after {limit:.0f} s"
    except trials.NoAnswerError as error:
        kind, by = "no verdict", str(error)
    print("." if kind == "noticed" else kind[0], end="", file=sys.stderr, flush=True)
    return Verdict(fault, kind, by, time.perf_counter() - started)


def _limit(tests: Sequence[trials.Timed]) -> float:
    """How long tests may take, by what they take without a fault."""
    return 90 + 3 * sum(test.seconds for test in tests)


def _path(name: str) -> Path:
    return ROOT / "hgsr_lite" / f"{name}.py"


def _try_in_functions(
    session: trials.Session, path: Path, faults: Sequence[Fault], tests: Sequence[trials.Timed]
) -> list[Verdict]:
    """The verdicts on the faults that show only when a function is called."""
    found = []
    for fault in faults:
        functions = changed_functions(path, fault.text)
        places = {(str(path), place) for place in functions or ()}
        if functions is None or places & session.on_import:
            continue
        chosen = [test for test in tests if places & test.calls]

        def trial(functions=functions, chosen=tuple(chosen)) -> str:
            session.put_into_functions(path, functions)
            return session.first_to_fail([test.name for test in chosen])

        found.append(judge(fault, trial, _limit(chosen)))
    return found


def _try_on_import(
    given: Sequence[str], path: Path, faults: Sequence[Fault], tests: Sequence[trials.Timed]
) -> list[Verdict]:
    """The verdicts on faults in what a file does when it is imported."""
    rank = {test.name: number for number, test in enumerate(tests)}

    def quickest_first(session: trials.Session) -> str:
        return session.first_to_fail(sorted(session.items, key=lambda name: rank.get(name, 0)))

    def trial(fault: Fault) -> str | None:
        trials.be_quiet()
        trials.import_with(path, fault.text)
        return trials.Session(quickest_first).run(given)

    return [judge(fault, lambda fault=fault: trial(fault), _limit(tests)) for fault in faults]


def try_room(given: Sequence[str], faults: Mapping[str, Sequence[Fault]]) -> dict[str, list[Verdict]]:
    """Put faults into files (name -> faults) and call the tests `given`; name -> verdicts."""
    trials.load_all_but(given, OWN)

    def in_functions(session: trials.Session) -> tuple[list[trials.Timed], dict[str, list[Verdict]]]:
        tests = sorted(trials.in_a_fork(session.timed), key=lambda test: test.seconds)
        return tests, {
            name: _try_in_functions(session, _path(name), each, tests) for name, each in faults.items()
        }

    files = frozenset(str(_path(name)) for name in faults)
    tests, verdicts = trials.in_a_fork(lambda: trials.Session(in_functions, files).run(given))
    for name, each in faults.items():
        done = {verdict.fault for verdict in verdicts[name]}
        left = [fault for fault in each if fault not in done]
        verdicts[name] += _try_on_import(given, _path(name), left, tests)
    return verdicts


def entries() -> list[dict[str, str]]:
    """What is listed as equivalent: file, line before, line after, reason."""
    return tomllib.loads(Path(__file__).with_name("equivalent.toml").read_text())["fault"]


def equivalent(name: str) -> dict[tuple[str, str], str]:
    """The changes of a file that no test can notice: lines before and after -> the reason."""
    return {(each["before"], each["after"]): each["reason"] for each in entries() if each["file"] == name}


def report(name: str, verdicts: Sequence[Verdict], listed: int) -> bool:
    """Print what became of a file's faults; true if each was noticed."""
    left = sorted((each for each in verdicts if each.kind != "noticed"), key=lambda each: each.fault.line)
    survived = sum(each.kind == "survived" for each in left)
    print(
        f"{name}: noticed {len(verdicts) - len(left)} of {len(verdicts) + listed}, "
        f"{listed} equivalent (listed), "
        f"{survived} survived, {len(left) - survived} without a verdict; "
        f"{sum(each.seconds for each in verdicts):.0f} s",
        *(f"{each.fault}" + f"\n    {each.kind}: {each.by}" * bool(each.by) for each in left),
        sep="\n  ",
        flush=True,
    )
    return not left


def main(names: Sequence[str] = tuple(sys.argv[1:])) -> int:
    """Try the files named, or all."""
    unknown = [name for name in names if name not in FILES]
    if unknown:
        print(f"no file {', '.join(unknown)}: choose of {', '.join(FILES)}", file=sys.stderr)
        return 2
    os.environ |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}  # a fork has one thread, and no GPU
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    good = True
    for room in ROOMS:
        chosen = [name for name in room.files if name in (names or FILES)]
        faults = {name: faults_of(_path(name).read_text()) for name in chosen}
        if not faults:
            continue
        tried = {
            name: [fault for fault in each if (fault.before, fault.after) not in equivalent(name)]
            for name, each in faults.items()
        }
        verdicts = trials.in_a_fork(lambda given=room.tests, tried=tried: try_room(given, tried))
        for name, each in verdicts.items():
            good &= report(name, each, len(faults[name]) - len(each))
        good &= _all_there(faults)
    return int(not good)


def _all_there(faults: Mapping[str, Sequence[Fault]]) -> bool:
    """Whether what is listed as equivalent is still among the faults; what is not is printed."""
    gone = [
        f"{name}: {before} -> {after}"
        for name, each in faults.items()
        for before, after in equivalent(name).keys() - {(fault.before, fault.after) for fault in each}
    ]
    if gone:
        print("listed in equivalent.toml, and no fault any more:", *gone, sep="\n  ")
    return not gone


if __name__ == "__main__":
    sys.exit(main())
