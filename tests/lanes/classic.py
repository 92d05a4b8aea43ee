"""The live figures in the classic Notebook, with Colab's ipywidgets and anywidget, in a real browser.

`make test-classic` (`python -m hgsr_lite test-classic [OPTION OF PYTEST ...]`): builds the environment where
it is missing, then runs `tests/browser/classic_notebook.py`. The environment has the old front end and the
old session alone; PyTorch and all else it takes from the environment that runs this, which saves 6 GB. Exit
status: pytest's.

Last figures, 26 November 2026, Python 3.11.7: 12 of 12 passed, in 4 minutes on two busy cores.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from tests.lanes.colab import PIP, SESSION

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = ROOT / "build" / "classic" / "environment"
PYTHON = ENVIRONMENT / "bin" / "python"
NOTEBOOK = "notebook==6.5.7"  # the last of its line; from 7 on it is JupyterLab in another dress
TESTS = "tests/browser/classic_notebook.py"


def build_environment() -> None:
    """Install the old front end; what it lacks is found in the environment of this process."""
    print(f"building {ENVIRONMENT}: a minute and 0.2 GB", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", ENVIRONMENT], check=True)
    pip = [PYTHON, "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, "--upgrade", PIP], check=True)
    subprocess.run([*pip, NOTEBOOK, *SESSION], check=True)
    own = subprocess.run(
        [PYTHON, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip
    # Last, so that the steps before have looked at nothing but their own; a finished environment has it.
    (Path(own) / "beside.pth").write_text(sysconfig.get_path("purelib") + "\n")


def is_built() -> bool:
    """Whether the environment is there, to its last step."""
    return any(ENVIRONMENT.glob("lib/python*/site-packages/beside.pth"))


def main(arguments: Sequence[str] = tuple(sys.argv[1:])) -> int:
    """Run the lane; return its exit status."""
    if not is_built():
        build_environment()
    return subprocess.call([sys.executable, "-m", "pytest", TESTS, *arguments], cwd=ROOT)


if __name__ == "__main__":
    sys.exit(main())
