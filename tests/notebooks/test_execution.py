"""Every notebook runs from top to bottom: on each kind of data, and to the outputs that were committed.

On the digits, nbval runs every page whole; the solutions' cells are run by `tests/exercises`.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest

from hgsr_lite.series import run as series

ROOT = Path(__file__).resolve().parents[2]
SERIES = sorted((ROOT / "notebooks").glob("[0-9A-Z]*_*.ipynb"))
SOLUTIONS = sorted((ROOT / "notebooks" / "solutions").glob("[0-9A-Z]*_*.ipynb"))
DECLARED = {path: series.declared_parameters(path) for path in [*SERIES, *SOLUTIONS]}
WRONG = {"DATASET": "digit", "DEVICE": "gpu9", "SEED": "seven", "EPOCHS": 0}
by_stem = pytest.mark.parametrize("path", SERIES, ids=lambda path: path.stem)
pytestmark = pytest.mark.notebook


def declaring(name: str) -> list[Path]:
    return [path for path in SERIES if name in DECLARED[path]]


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("build")


def run_fast(path: Path, build: Path, **parameters: Any) -> None:
    known = {name: value for name, value in {"FAST": True, **parameters}.items() if name in DECLARED[path]}
    with series.kernel_environment(build):
        series.run_notebook(path, build / path.parent.name / path.name, known)


@pytest.mark.data
@pytest.mark.parametrize("path", declaring("DATASET"), ids=lambda path: path.stem)
def test_runs_on_mnist(path: Path, build: Path, mnist_root: str):
    run_fast(path, build, DATASET="mnist")


@pytest.mark.parametrize("path", declaring("DATASET"), ids=lambda path: path.stem)
def test_runs_on_a_folder_of_images(path: Path, build: Path, image_folder: Path):
    run_fast(path, build, DATASET=str(image_folder))


def test_solutions_run_where_they_lie(build: Path):
    run_fast(SOLUTIONS[0], build)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        pytest.param(path, name, id=f"{path.stem}-{name}")
        for name in WRONG
        # The data set is read by nearly every notebook; the other three are checked where they come first.
        for path in (declaring(name) if name == "DATASET" else declaring(name)[:1])
    ],
)
def test_a_wrong_parameter_gives_one_clear_line(path: Path, name: str, build: Path):
    with pytest.raises(series.NotebookError) as caught:
        run_fast(path, build, **{name: WRONG[name]})
    told = re.search(r"^ *(?:ValueError|TypeError): (.*)\Z", str(caught.value), re.MULTILINE | re.DOTALL)
    assert told, str(caught.value)
    assert str(WRONG[name]) in told[1]
    assert told[1].count("\n") <= 1


def nbval(path: Path, folder: Path, build: Path) -> subprocess.CompletedProcess[str]:
    """Compare a notebook's checked cells with their committed outputs, with FAST set behind its parameters.

    The checked cells do not depend on FAST; with it the comparison takes seconds.
    """
    notebook = nbformat.read(path, as_version=4)
    parameters = [i for i, c in enumerate(notebook.cells) if "parameters" in c.metadata.get("tags", [])]
    for place in parameters:
        notebook.cells.insert(place + 1, nbformat.v4.new_code_cell("FAST = True"))
    for sibling in path.parent.iterdir():
        if sibling.name != path.name:
            (folder / sibling.name).symlink_to(sibling)
    nbformat.write(notebook, folder / path.name)
    options = [
        "--nbval-lax",
        "--nbval-current-env",
        "--nbval-kernel-startup-timeout=180",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "-q",
    ]
    with series.kernel_environment(build):
        return subprocess.run(
            [sys.executable, "-m", "pytest", "-c", "/dev/null", "--rootdir", ".", *options, path.name],
            cwd=folder,
            capture_output=True,
            text=True,
        )


@pytest.mark.trains
@by_stem
def test_runs_on_digits_and_its_checked_cells_give_the_committed_outputs(
    path: Path, tmp_path: Path, build: Path
):
    done = nbval(path, tmp_path, build)
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.parametrize(
    ("committed", "last", "status"),
    [("2", "", 0), ("3", "", 1), ("2", "1 / 0", 1)],
    ids=["it fits", "another output", "a later cell that fails"],
)
def test_what_no_longer_fits_or_runs_is_noticed(
    committed: str, last: str, status: int, tmp_path: Path, build: Path, write_notebook
):
    path = write_notebook(
        tmp_path / "source" / "00_sum.ipynb",
        ("FAST = False", "parameters"),
        ("1 + FAST", "nbval-check-output"),
        last,
    )
    notebook = nbformat.read(path, as_version=4)
    result = nbformat.v4.new_output("execute_result", data={"text/plain": committed}, execution_count=2)
    notebook.cells[1].update(outputs=[result], execution_count=2)
    nbformat.write(notebook, path)
    folder = tmp_path / "copy"
    folder.mkdir()
    assert nbval(path, folder, build).returncode == status
