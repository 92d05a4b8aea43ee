"""Faults put into the method's files one at a time: does a test notice?

`make mutants ARGS=zeros` (`python -m hgsr_lite mutants [FILE ...]`): copies the package and its tests into
`build/mutants`, lets cosmic-ray change one operator, number or flag after the other there, and calls the
file's own tests each time. Closes with the share that was noticed and the changes that were not. A file takes
from ten minutes to some hours. Exit status 1 if a change was not noticed.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TESTS = {
    "groups": ("test_groups", "test_penalties"),
    "table": ("test_penalties", "test_twelfth_row"),
    "proximal": ("test_proximal", "test_twelfth_row"),
    "penalties": ("test_penalties", "test_twelfth_row"),
    "regularizer": ("test_regularizer",),
    "zeros": ("test_zeros",),
}
"""The files of the method, and the tests in `tests/method` that are to notice."""
# One neighbour of each operator: what notices `a * b` for `a / b` notices `a >> b`. Annotations are no code.
_LEFT_OUT = [
    r"core/ReplaceBinaryOperator_(?!(Add_Sub|Sub_Add|Mul_Div|Div_Mul|Pow_Mul|BitAnd_BitOr)$).*",
    r"core/ReplaceComparisonOperator_"
    r"(?!(Lt_LtE|LtE_Lt|Gt_GtE|GtE_Gt|Eq_NotEq|NotEq_Eq|Is_IsNot|IsNot_Is|In_NotIn|NotIn_In)$).*",
]
_SECONDS = 300.0


def settings(name: str) -> str:
    """What cosmic-ray is told about one file, as TOML."""
    tests = " ".join(f"tests/method/{test}.py" for test in TESTS[name])
    command = f"{sys.executable} -m pytest {tests} -x -q -n0 -p no:cacheprovider"
    return "\n".join(
        [
            "[cosmic-ray]",
            f'module-path = "hgsr_lite/{name}.py"',
            f"timeout = {_SECONDS}",
            "excluded-modules = []",
            f"test-command = {json.dumps(command)}",
            "[cosmic-ray.distributor]",
            'name = "local"',
            "[cosmic-ray.filters.operators-filter]",
            f"exclude-operators = {json.dumps(_LEFT_OUT)}",
        ]
    )


def copy_of_the_tree(place: Path) -> None:
    """The package and its tests in a folder of their own, made anew: the changed files are never ours."""
    shutil.rmtree(place, ignore_errors=True)
    for name in ("hgsr_lite", "tests", "studies", "benchmarks"):  # tests compare with what is timed
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", place)


def survivors(session: Path) -> tuple[int, list[str]]:
    """How many changes were tried, and those that no test noticed: line, kind, text before and after."""
    query = (
        "SELECT start_pos_row, operator_name, test_outcome, diff FROM mutation_specs "
        "JOIN work_results USING (job_id) WHERE worker_outcome != 'SKIPPED' ORDER BY start_pos_row"
    )
    with sqlite3.connect(session) as database:
        rows = database.execute(query).fetchall()
    left = []
    for line, kind, outcome, diff in rows:
        if outcome != "KILLED":
            changed = [
                text for text in (diff or "").splitlines() if text[:1] in "+-" and text[1:3] not in "++--"
            ]
            left.append("\n    ".join([f"line {line}: {kind.removeprefix('core/')}", *changed]))
    return len(rows), left


def try_file(name: str, place: Path) -> list[str]:
    """Change one file in every way; print and return what was not noticed."""
    config, session = f"{name}.toml", f"{name}.sqlite"
    (place / config).write_text(settings(name))
    path = os.pathsep.join([str(place), os.environ.get("PYTHONPATH", "")])  # the copy before the package
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    for command in (
        ["cosmic_ray.cli", "baseline", config],  # tests that fail without a fault would notice every one
        ["cosmic_ray.cli", "init", config, session],
        ["cosmic_ray.tools.filters.operators_filter", session, config],
        ["cosmic_ray.cli", "exec", config, session],
    ):
        subprocess.run([sys.executable, "-m", *command], cwd=place, env=environment, check=True)
    tried, left = survivors(place / session)
    print(f"{name}: {tried - len(left)} of {tried} noticed", *left, sep="\n  ", flush=True)
    return left


def main(names: Sequence[str] = tuple(sys.argv[1:])) -> int:
    """Try the files named, or all six."""
    unknown = [name for name in names if name not in TESTS]
    if unknown:
        print(f"no file {', '.join(unknown)}: choose of {', '.join(TESTS)}", file=sys.stderr)
        return 2
    place = ROOT / "build" / "mutants"
    copy_of_the_tree(place)
    left = [try_file(name, place) for name in names or TESTS]
    return int(any(left))


if __name__ == "__main__":
    sys.exit(main())
