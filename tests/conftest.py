"""What tests of every kind share: real data where it is at hand, notebooks made on the spot."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import hypothesis
import nbformat
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import ttest_1samp

from tests.lanes.arithmetic import TRAINS

if not torch.cuda.is_available():
    # Triton's kernels then run in its interpreter; it asks for this once, when it is first imported.
    os.environ.setdefault("TRITON_INTERPRET", "1")

# A job started in the background ignores Ctrl-C, and so would all that it starts; some tests send one.
signal.signal(signal.SIGINT, signal.default_int_handler)

REPOSITORY = Path(__file__).resolve().parent.parent

# A shared machine makes single examples slow now and then; that says nothing about the code.
hypothesis.settings.register_profile("hgsr", deadline=None, print_blob=True)
hypothesis.settings.load_profile("hgsr")


def pytest_configure(config: pytest.Config) -> None:
    """Leave the examples of the one module out that needs Triton, where there is none.

    Not by --doctest-ignore-import-errors: a test file that cannot be imported would be skipped, not failed.
    """
    if find_spec("triton") is None:
        config.option.ignore = [*(config.option.ignore or []), "hgsr_lite/fast/gpu/one_launch.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the examples in docstrings that train: they can carry no marker themselves."""
    for item in items:
        if isinstance(item, pytest.DoctestItem):
            source = "".join(example.source for example in item.dtest.examples)
            if TRAINS.search(source):
                item.add_marker("trains")


@pytest.fixture(scope="session")
def surely() -> Callable[[Sequence[float]], tuple[float, float]]:
    """Between which values the mean over all seeds lies, given some: the 95 % interval (Student's t).

    What is trained ends elsewhere for another seed, and on another processor. So a test asserts where this
    interval lies, with a margin some times wider than the interval was when it was measured; accuracies of
    networks trained side by side are paired by seed, and only their differences judged.
    """

    def interval(values: Sequence[float]) -> tuple[float, float]:
        found = ttest_1samp(values, 0).confidence_interval(0.95)
        return float(found.low), float(found.high)

    return interval


@pytest.fixture(scope="session")
def mnist_root() -> str:
    """The folder that holds MNIST, from $HGSR_DATA."""
    root = os.environ.get("HGSR_DATA", "")
    if not (Path(root) / "MNIST" / "raw").is_dir():
        pytest.skip("MNIST is not in $HGSR_DATA: set it to a folder that torchvision unpacked MNIST into")
    return root


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of small colour images in train/ and test/: three classes, told apart by their stripes."""
    root = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for part, count in (("train", 24), ("test", 8)):
        for label, name in enumerate(("across", "down", "plain")):
            folder = root / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                image = generator.integers(0, 80, (24, 24, 3), dtype=np.uint8)
                if label < 2:
                    np.moveaxis(image, label, 0)[number % 3 :: 3] += 150
                Image.fromarray(image).save(folder / f"{number:02d}.png")
    return root


@pytest.fixture
def write_notebook() -> Callable[..., Path]:
    """Write a notebook of code cells; a cell is its source, or (source, tag)."""

    def write(path: Path, *cells: str | tuple[str, str]) -> Path:
        notebook = nbformat.v4.new_notebook()
        notebook.metadata["kernelspec"] = {
            "display_name": "Python 3",
            "language": "python",
            "name": "python3",
        }
        for number, cell in enumerate(cells):
            source, *tags = (cell,) if isinstance(cell, str) else cell
            new = nbformat.v4.new_code_cell(source, id=f"cell-{number}", metadata={"tags": tags})
            notebook.cells.append(new)
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, path)
        return path

    return write
