"""The commands behind the Makefile, and without it: ``python -m hgsr_lite run``, ``lab``, ``test``, ..."""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hgsr_lite.series import run as series
from hgsr_lite.series.results import RESULTS_VARIABLE, commit_rows, read_results, results_table


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out one command; return the exit status, 1 with a clear message when it fails."""
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    if arguments.command in _TOOLS:
        return _call_tools(arguments.command, rest)
    if rest and arguments.command != "study":
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        if arguments.command == "study":  # its parser takes seconds to import
            arguments = _study_parser().parse_args(rest, arguments)
        return _COMMANDS[arguments.command](arguments)
    except (series.NotebookError, RuntimeError, ValueError) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"\n{_unwritable(error, hasattr(arguments, 'build'))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130


def _unwritable(error: OSError, has_build: bool) -> str:
    """A full disk, a file in place of a folder, a missing permission: what and where, in one line."""
    where = f": {error.filename}" if error.filename else ""
    option = " with --build" if has_build else ""
    return f"{error.strerror or error}{where}. Make room there, or give another folder{option}."


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m hgsr_lite", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = _command(commands, "run", "execute the notebooks into build/run and close with a table of figures")
    run.add_argument("--dataset", help="digits (default), mnist, cifar10, ... or a folder of images")
    run.add_argument("--device", help="cpu, cuda, ...; left out, each notebook takes the best there is")
    run.add_argument("--seed", type=int)
    run.add_argument("--epochs", type=int)
    run.add_argument("--at-once", type=int, help="notebooks side by side; left out: one a core, four at most")
    run.add_argument("--fast", action="store_true", default=None, help="every cell, with the least training")
    _command(commands, "execute", "run the notebooks from a clean kernel and write the outputs into them")
    _command(commands, "timings", "measure each notebook and write the figure into its header")
    for name, (purpose, *_) in _TOOLS.items():
        commands.add_parser(name, help=f"{purpose}; takes further options", add_help=False)
    commands.add_parser("warm", help="compile the loops and list the fonts, so that the first use is quick")
    badges = commands.add_parser(
        "badges", help="write where the series is published into notebooks and README"
    )
    badges.add_argument("--repository", default="", metavar="OWNER/NAME", help="left out: published nowhere")
    badges.add_argument("--branch", default="main", help="where links lead")
    badges.add_argument(
        "--version", default="", metavar="COMMIT", help="or tag that a page installs; left out: the newest"
    )
    badges.add_argument(
        "--site", default="", metavar="ADDRESS", help="of the static site; left out: there is none"
    )
    site = commands.add_parser("site", help="build the series as a static site into build/site")
    site.add_argument("--build", type=Path, default=Path("build"), help=argparse.SUPPRESS)
    commands.add_parser("study", help=_STUDY, add_help=False)
    return parser


def _study_parser() -> argparse.ArgumentParser:
    """Apart from the others: studies bring PyTorch, which the lab would wait for."""
    from hgsr_lite.study import command as study

    parser = argparse.ArgumentParser(prog="python -m hgsr_lite study", description=_STUDY)
    study.add_arguments(parser)
    return parser


def _command(commands: Any, name: str, purpose: str) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=purpose, description=purpose)
    command.add_argument("names", nargs="*", metavar="notebook", help="number or name; left out: all of them")
    command.add_argument("--notebooks", type=Path, default=Path("notebooks"), help=argparse.SUPPRESS)
    command.add_argument("--build", type=Path, default=Path("build"), help="folder for what is made (build)")
    return command


def _run(arguments: argparse.Namespace) -> int:
    paths = series.find_notebooks(arguments.notebooks, arguments.names)
    _warm(arguments)
    given = {name: getattr(arguments, name) for name in ("dataset", "device", "seed", "epochs", "fast")}
    parameters = {name.upper(): value for name, value in given.items() if value is not None}
    if "DATASET" in parameters and Path(parameters["DATASET"]).is_dir():
        # A kernel works in notebooks/, where a relative folder would mean another one.
        parameters["DATASET"] = str(Path(parameters["DATASET"]).resolve())
    started = time.perf_counter()
    _, results = series.run_series(paths, arguments.build, parameters, arguments.at_once)
    print(f"{'all together':<32}{time.perf_counter() - started:6.1f} s\n")
    print(results_table(results).to_string() if results else "No figures were recorded.")
    return 0


def _execute(arguments: argparse.Namespace) -> int:
    import nbformat

    from hgsr_lite.series.committed import clean

    folder = (arguments.build / "execute").resolve()
    handed_over = folder / "results.jsonl"
    with series.alone_in(folder):
        for path in _with_solutions(arguments):
            handed_over.unlink(missing_ok=True)
            with series.kernel_environment(arguments.build, **{RESULTS_VARIABLE: str(handed_over)}):
                executed, seconds = series.run_notebook(path, folder / path.name)
            nbformat.write(clean(executed, arguments.notebooks.resolve().parent), path)
            commit_rows(read_results(handed_over), arguments.notebooks / "scoreboard.csv")
            print(f"{path.stem:<32}{seconds:6.1f} s", flush=True)
    return 0


def _with_solutions(arguments: argparse.Namespace) -> list[Path]:
    paths = series.find_notebooks(arguments.notebooks, arguments.names)
    solutions = [path.parent / "solutions" / path.name for path in paths]
    return paths + [path for path in solutions if path.exists()]


def _timings(arguments: argparse.Namespace) -> int:
    import torch

    from hgsr_lite.series.committed import write_time_line

    def seconds(path: Path, device: str) -> float:
        parameters = {"DEVICE": device} if "DEVICE" in series.declared_parameters(path) else {}
        return series.run_notebook(path, arguments.build / "timings" / path.name, parameters)[1]

    cores = series.available_cores()
    with series.alone_in((arguments.build / "timings").resolve()):
        for path in series.find_notebooks(arguments.notebooks, arguments.names):
            gpu = None
            with series.kernel_environment(arguments.build):
                on_cpu = seconds(path, "cpu")
                if torch.cuda.is_available() and "DEVICE" in series.declared_parameters(path):
                    gpu = (torch.cuda.get_device_name(), seconds(path, "cuda"))
            print(f"{path.stem:<32}{write_time_line(path, on_cpu, cores, gpu)}", flush=True)
    return 0


def _site(arguments: argparse.Namespace) -> int:
    from hgsr_lite.series.site import build_site

    print(build_site(Path.cwd(), arguments.build.resolve()))
    return 0


def _warm(arguments: argparse.Namespace) -> int:
    from hgsr_lite.series.warm import warm

    warm()
    return 0


def _badges(arguments: argparse.Namespace) -> int:
    from hgsr_lite.series.launch import Home, write_everywhere
    from hgsr_lite.series.version import changed_since, newest_commit

    here, home = Path.cwd(), Home()
    if arguments.repository:
        version = arguments.version or newest_commit(here)
        home = Home(arguments.repository, arguments.branch, arguments.site, version)
    for path in write_everywhere(here, home):
        print(path)
    with contextlib.suppress(ValueError, FileNotFoundError):  # a tag that is set after this; no git here
        if home.version and (changed := changed_since(home.version, here)):
            print(f"pages install {home.version}, which lacks changes in", *changed, file=sys.stderr)
            print("commit them and call this again", file=sys.stderr)
    return 0


def _study(arguments: argparse.Namespace) -> int:
    from hgsr_lite.study import Study
    from hgsr_lite.study import command as study

    status = study.carry_out(arguments)
    if arguments.do == "report" and not status:
        from hgsr_lite.figures import draw_pictures

        for place in draw_pictures(Study.read(arguments.file, arguments.runs)):
            print(place)
    return status


def _call_tools(name: str, options: Sequence[str]) -> int:
    """Call one tool after the other, the last one with the options; stop at the first that fails."""
    _, *tools = _TOOLS[name]
    environment = _environment(name)
    for number, tool in enumerate(tools, start=1):
        given = [*tool, *options] if number == len(tools) else tool
        if status := _call([sys.executable, *given], environment):
            return status
    return 0


def _call(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Call a command; return its exit status. Ctrl-C reaches it too: wait until it has asked or tidied up."""
    with subprocess.Popen(command, env=environment) as called:
        while True:
            with contextlib.suppress(KeyboardInterrupt):
                return called.wait()


def _environment(tool: str) -> dict[str, str]:
    """One thread: the networks here are too small to share one. In the lab a reader's own number holds."""
    one = {"OMP_NUM_THREADS": "1"}
    return {"test": {**os.environ, **one}, "lab": {**one, **os.environ}}.get(tool, dict(os.environ))


_STUDY = "make the runs of a study, say how far it is, collect its table"
_FIRST = (
    "/lab/tree/notebooks/00_start_here.ipynb"  # pages link to studies/ beside notebooks/, so both are shown
)
_STREET = "from importlinter.cli import lint_imports_command; lint_imports_command()"  # it has no `-m` form
_LINT = (
    ["-m", "ruff", "check"],
    ["-m", "ruff", "format", "--check"],
    ["-m", "codespell_lib"],
    ["-c", _STREET],
)
_TOOLS = {
    "lab": (
        "open the notebooks in JupyterLab, on this machine only",
        ["-m", "jupyterlab", "--ip=127.0.0.1", "--notebook-dir=.", f"--LabApp.default_url={_FIRST}"],
    ),
    "lint": ("style, spelling, and the order in which rooms import each other", *_LINT),
    "test": (
        "lint, then all tests; the 25 slowest are listed",
        *_LINT,
        ["-m", "pytest", "--durations=25", "--numprocesses=2", "--dist=worksteal"],
    ),
    "test-colab": ("each notebook alone in Colab's versions", ["-m", "tests.lanes.colab"]),
    "test-classic": ("live figures in the classic Notebook, ipywidgets 7", ["-m", "tests.lanes.classic"]),
    "mutants": ("put faults into the files that decide: is each noticed?", ["-m", "tests.lanes.mutants"]),
    "test-arithmetic": (
        "what trains or claims a figure, under four kinds of arithmetic",
        ["-m", "tests.lanes.arithmetic"],
    ),
    "bench": (
        "time penalties, training, dead kernels and live figures, side by side",
        ["-m", "benchmarks.bench"],
    ),
}
"""Name -> purpose, and what Python is called with, one tool after the other."""
_COMMANDS = {
    "warm": _warm,
    "badges": _badges,
    "run": _run,
    "execute": _execute,
    "timings": _timings,
    "site": _site,
    "study": _study,
}


if __name__ == "__main__":
    sys.exit(main())
