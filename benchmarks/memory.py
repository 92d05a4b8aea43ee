"""What a Binder session needs: bytes that are installed, and the most memory that each page's Python holds.

`python -m benchmarks.memory [NUMBER ...]` prints both for the environment that runs it (Linux): for Binder's
figures one that `binder/postBuild` filled. Each page runs all its cells in a fresh kernel on one thread.
"""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from hgsr_lite.series import notebook_client
from hgsr_lite.series.run import find_notebooks, kernel_environment

ROOT = Path(__file__).resolve().parents[1]
PEAK = "print(*(line for line in open('/proc/self/status') if line.startswith('VmHWM')))"
"""The peak that Linux keeps for a process, in kB."""


def installed_bytes() -> int:
    """Bytes of the installed packages."""
    folder = Path(sysconfig.get_path("purelib"))
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())


def peak_bytes(path: Path) -> int:
    """The most memory that a page's Python held while all its cells ran."""
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(PEAK))
    NotebookClient(
        notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}},
        config=notebook_client.CONFIG,
    ).execute()  # fmt: skip
    return 1024 * int(notebook.cells[-1].outputs[0].text.split()[1])


def main(numbers: Sequence[str]) -> None:
    """Print a line for what is installed, and a line a page."""
    print(f"{'installed':<32}{installed_bytes() / 1e9:6.2f} GB")
    with kernel_environment(ROOT / "build"):
        for path in find_notebooks(ROOT / "notebooks", numbers):
            print(f"{path.stem:<32}{peak_bytes(path) / 1e9:6.2f} GB", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
