"""The notebook series as a job: each notebook in a kernel of its own."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from hgsr_lite.arguments import available_cores, check_count
from hgsr_lite.series.results import RESULTS_VARIABLE, read_results

if TYPE_CHECKING:
    import nbformat

TRACEBACK_LINES = 10
MOST_AT_ONCE = 4  # notebooks side by side: a kernel takes about a gigabyte of memory
START_TIMEOUT = 180  # seconds: a busy machine takes its time to start a kernel
_TERMINAL_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class NotebookError(RuntimeError):
    """A notebook stopped; the message names notebook and cell and ends with the traceback's last lines."""


def find_notebooks(folder: str | Path, names: Sequence[str] = ()) -> list[Path]:
    """Return the notebooks of a folder in reading order, appendices last, or those that ``names`` picks.

    A name is the number or letter (``"05"``, ``"A"``), the stem or the file name. Raises ``ValueError`` for a
    folder without numbered notebooks and for a name that fits none of them.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("01_groups", "00_start", "draft"):
    ...         _ = (Path(folder) / f"{name}.ipynb").write_text("{}")
    ...     print([path.stem for path in find_notebooks(folder)])
    ...     print([path.stem for path in find_notebooks(folder, ["01"])])
    ['00_start', '01_groups']
    ['01_groups']
    """
    folder = Path(folder)
    paths = sorted(folder.glob("[0-9A-Z]*_*.ipynb"))
    if not paths:
        raise ValueError(f"No numbered notebooks in {folder}: run this where notebooks/ is.")
    keys = {key: path for path in paths for key in (path.stem.split("_")[0], path.stem, path.name)}
    for name in names:
        if name not in keys:
            near = difflib.get_close_matches(name, keys, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise ValueError(f"No notebook {name!r}. There are: {', '.join(p.stem for p in paths)}.{hint}")
    chosen = {keys[name] for name in names} or set(paths)
    return [path for path in paths if path in chosen]


def declared_parameters(path: str | Path) -> dict[str, Any]:
    """Return what a notebook's ``parameters`` cell assigns, by name, as papermill reads it."""
    import papermill

    try:
        return dict(papermill.inspect_notebook(str(path)))
    except ValueError as error:
        raise ValueError(f"{Path(path).name}: {error} `make execute` writes it.") from None


def parameters_by_notebook(paths: Sequence[Path], wanted: Mapping[str, Any]) -> dict[Path, dict[str, Any]]:
    """Give every notebook those of the ``wanted`` parameters that it declares.

    Raises ``ValueError`` for a parameter that none of them declares.
    """
    declared = {path: declared_parameters(path) for path in paths} if wanted else {}
    for name in wanted:
        if not any(name in names for names in declared.values()):
            known = sorted(set().union(*declared.values()))
            raise ValueError(f"No notebook declares the parameter {name}. Declared: {', '.join(known)}.")
    return {
        path: {name: value for name, value in wanted.items() if name in declared[path]} if wanted else {}
        for path in paths
    }


@contextlib.contextmanager
def kernel_environment(build: str | Path, **extra: str) -> Iterator[None]:
    """Let kernels start from this environment's Python, blind to a reader's own Jupyter settings.

    Configuration, kernel lists and run-time files lie in ``build/jupyter`` as long as the context lasts, so
    that a kernel called ``python3`` in somebody's home folder is never taken for ours, and no style or
    start-up file changes a figure. ``extra`` sets further variables.
    """
    home = Path(build).resolve() / "jupyter"
    folders = {
        "JUPYTER_CONFIG_DIR": home / "config",
        "JUPYTER_DATA_DIR": home / "data",
        "JUPYTER_RUNTIME_DIR": home / "runtime",
        "IPYTHONDIR": home / "ipython",
        "MPLCONFIGDIR": home / "matplotlib",
    }
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    before = dict(os.environ)
    for name in ("JUPYTER_PATH", "JUPYTER_CONFIG_PATH", "PYTHONSTARTUP"):
        os.environ.pop(name, None)
    os.environ.update({name: str(folder) for name, folder in folders.items()})
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"
    # Whether loops are compiled yet is this machine's matter: outputs that are kept or compared leave it out.
    os.environ["HGSR_QUIET"] = "1"
    # The networks of the series are so small that several threads spend more time meeting than working.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.update(extra)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def run_notebook(
    path: str | Path, output: str | Path, parameters: Mapping[str, Any] | None = None
) -> tuple[nbformat.NotebookNode, float]:
    """Run one notebook from top to bottom in a fresh kernel; return it executed, and the seconds it took.

    The kernel works in the notebook's own folder. The executed notebook is written to ``output``, also as far
    as it came when a cell fails: then ``NotebookError`` says which one. Call it inside `kernel_environment`.
    """
    import papermill

    from hgsr_lite.series import notebook_client

    path, output = Path(path).resolve(), Path(output).resolve()
    output.parent.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    try:
        executed = papermill.execute_notebook(
            str(path),
            str(output),
            dict(parameters or {}),
            kernel_name="python3",
            cwd=str(path.parent),
            progress_bar=False,
            start_timeout=START_TIMEOUT,
            config=notebook_client.CONFIG,
        )
    except papermill.PapermillExecutionError as error:
        raise NotebookError(_failure(path, error, bool(parameters))) from None
    except (RuntimeError, TimeoutError) as error:  # the kernel died, or never answered
        raise NotebookError(f"{path.name} stopped: {str(error).strip().splitlines()[-1]}") from None
    return executed, time.perf_counter() - start


def _failure(path: Path, error: Any, parameters_injected: bool) -> str:
    import nbformat

    cells = nbformat.read(path, as_version=4).cells
    tagged = [i for i, cell in enumerate(cells) if "parameters" in cell.metadata.get("tags", [])]
    position = error.cell_index + 1
    # papermill puts a cell of its own behind the tagged one, which the reader's file does not have.
    if parameters_injected and error.cell_index > (tagged[0] if tagged else -1):
        position -= 1
    first_line = next((line for line in error.source.splitlines() if line.strip()), "")
    lines = _TERMINAL_COLOUR.sub("", "\n".join(error.traceback)).rstrip().splitlines()
    return "\n".join(
        [
            f"{path.name} stopped in cell {position} (In [{error.exec_count}]: {first_line.strip()})",
            *(f"    {line}" for line in lines[-TRACEBACK_LINES:]),
        ]
    )


def run_series(
    paths: Sequence[Path],
    build: str | Path,
    parameters: Mapping[str, Any] | None = None,
    at_once: int | None = None,
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Run the notebooks of one folder into ``build/run``; return their seconds and the recorded figures.

    They start in order, ``at_once`` side by side (left out: one a core, four at most), each with one thread.
    One progress bar over the notebooks; each prints the time it took. After the first failure none is
    started any more; once those under way have ended, it is raised as `NotebookError`.
    """
    from tqdm import tqdm

    if at_once is None:
        at_once = min(available_cores(), MOST_AT_ONCE)
    check_count("at_once", at_once)
    folder = Path(build).resolve() / "run"
    results = folder / "results.jsonl"
    given = parameters_by_notebook(paths, parameters or {})
    waiting, running, seconds = list(paths), {}, {}
    with (
        alone_in(folder),
        kernel_environment(build, **{RESULTS_VARIABLE: str(results)}),
        tqdm(total=len(paths), unit="notebook", dynamic_ncols=True) as bar,
        ThreadPoolExecutor(at_once) as pool,
        _without_kernels_left_behind(),
        # papermill takes the whole process to a notebook's folder and back: no harm if it is there already.
        contextlib.chdir(paths[0].parent),
    ):
        results.unlink(missing_ok=True)
        while waiting or running:
            while waiting and len(running) < at_once:
                path = waiting.pop(0)
                started = pool.submit(_run_in_thread, path.name, folder / path.name, given[path])
                running[started] = path.stem
            bar.set_description(", ".join(running.values()))
            for ended in wait(running, return_when=FIRST_COMPLETED).done:
                name = running.pop(ended)
                seconds[name] = ended.result()[1]
                bar.update()
                bar.write(f"{name:<32}{seconds[name]:6.1f} s")
    return seconds, read_results(results)


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Make a folder, and refuse a second run that would write into it: notebooks and figures would mix."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        # The operating system lets go of it with the process, however that ends.
        with FileLock(folder / ".lock", timeout=0):
            yield
    except Timeout:
        raise ValueError(
            f"Another run is writing into {folder}: wait for its end, or give another folder with --build."
        ) from None


def _run_in_thread(*arguments: Any) -> tuple[nbformat.NotebookNode, float]:
    """`run_notebook`, closing the event loop that talking to a kernel opens in each thread."""
    try:
        return run_notebook(*arguments)
    finally:
        with contextlib.suppress(RuntimeError):  # it never came so far as to open one
            asyncio.get_event_loop().close()


@contextlib.contextmanager
def _without_kernels_left_behind() -> Iterator[None]:
    """On Ctrl-C, end the kernels under way, which do not hear of it, instead of waiting for them."""
    try:
        yield
    except KeyboardInterrupt:
        import psutil

        for kernel in psutil.Process().children():
            kernel.kill()
        raise
