"""Every notebook and its solutions, each alone in an empty folder, in Colab's versions, from a git address.

`make test-colab` (`python -m hgsr_lite test-colab [--environment FOLDER] [--python PATH] [NOTEBOOK ...]`):
builds the environment where it is missing, commits the working tree to a bare repository on the disk, writes
that address into a copy of each notebook, and runs the copy by a kernel of that environment, with a stand-in
for `google.colab`. At the end it compares what is installed with what was there before: only additions are
allowed. Exit status 1 if a notebook stopped or anything moved.

Last figures, 27 November 2026, Python 3.13.0: 26 of 26 ran, 13 pages and their solutions, in some 18 minutes
beside other tests (halts left out); added hgsr-lite, moved nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from hgsr_lite.series import notebook_client
from hgsr_lite.series.launch import Home, with_launch
from hgsr_lite.series.run import find_notebooks

ROOT = Path(__file__).resolve().parents[2]
# Seen in August 2026; what Colab has beside these is taken in the newest version.
SESSION = ["ipywidgets==7.7.1", "ipykernel==6.17.1", "ipython==7.34.0", "anywidget==0.9.21"]
VERSIONS = [
    "torch==2.11.0", "torchvision==0.26.0", "numpy==2.1.3", "numba==0.61.2", "pandas==2.2.3", *SESSION,
]  # fmt: skip
BESIDE = [
    "matplotlib",
    "scipy",
    "scikit-learn",
    "statsmodels",
    "tqdm",
    "joblib",
    "psutil",
    "lazy_loader",
    "filelock",
]
PIP = "pip>=24.1"  # older ones refuse "NAME @ git+file:///...", which is how the repository is served here
PYTHONS = ("python3.13", "python3.12", "python3.11")
REPOSITORY = "lane/hgsr-lite"


def newest_python(candidates: Sequence[str] = PYTHONS) -> str:
    """The first of these that starts: a version manager puts names on the path that it has not chosen."""
    for path in chain.from_iterable(map(_places, candidates)):
        if subprocess.run([path, "-c", ""], capture_output=True).returncode == 0:
            return path
    raise SystemExit(f"none of {', '.join(candidates)} starts here: name one by --python PATH")


def _places(name: str) -> list[str]:
    """Where a Python of this name, or path, may lie: on the path, and in the folder of pyenv."""
    found = shutil.which(name)
    kept = Path.home().glob(f".pyenv/versions/{name.removeprefix('python')}.*/bin/{name}")
    return [found] * bool(found) + sorted(map(str, kept))


def build_environment(folder: Path, python: str) -> None:
    """Install Colab's versions into a new environment of this Python."""
    print(f"building {folder} with {python}: some minutes and 6 GB", flush=True)
    subprocess.run([python, "-m", "venv", folder], check=True)
    pip = [folder / "bin" / "python", "-I", "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, "--upgrade", PIP], check=True)
    subprocess.run([*pip, *VERSIONS, *BESIDE], check=True)


def remove_package(environment: Path) -> None:
    """Take out what an earlier run installed, compiled loops too: their folder would count as the package.

    Isolated: by PYTHONPATH pip would see the clone, and let the environment's own stand.
    """
    pip = [environment.absolute() / "bin" / "python", "-I", "-m", "pip"]
    subprocess.run([*pip, "uninstall", "--quiet", "--yes", "hgsr-lite"], check=True)
    for left in environment.glob("lib/python*/site-packages/hgsr_lite"):
        shutil.rmtree(left)


def serve(folder: Path) -> Home:
    """The working tree, committed to a repository of its own, as a git address."""
    tree, bare = folder / "tree", folder / f"{REPOSITORY}"
    for path in (tree, bare):
        shutil.rmtree(path, ignore_errors=True)
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True,
    ).stdout.split(b"\0")  # fmt: skip
    for name in map(os.fsdecode, filter(None, listed)):
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tree / name)
    git = ["git", "-c", "user.name=lane", "-c", "user.email=lane@localhost"]
    for command in (
        ["init", "--quiet", "--initial-branch=main"],
        ["add", "--all"],
        ["commit", "--quiet", "-m", "lane"],
    ):
        subprocess.run([*git, *command], cwd=tree, check=True)
    subprocess.run([*git, "clone", "--quiet", "--bare", tree, bare], check=True)
    return Home(REPOSITORY, served=folder.resolve().as_uri())


def stand_in(folder: Path) -> None:
    """A `google.colab` that a kernel has imported before its first cell, as there."""
    package = folder / "google" / "colab"
    package.mkdir(parents=True, exist_ok=True)
    (package / "__init__.py").write_text("")
    (folder / "sitecustomize.py").write_text("import google.colab\n")


def installed(python: Path) -> dict[str, str]:
    """Name -> version of everything in the environment."""
    listed = subprocess.run(
        [python, "-I", "-m", "pip", "list", "--format=json"], check=True, capture_output=True
    ).stdout
    return {entry["name"]: entry["version"] for entry in json.loads(listed)}


def run_alone(path: Path, home: Home, python: Path, folder: Path) -> tuple[str, float]:
    """Run a copy of a notebook alone in an empty folder; return what stopped it ('' if nothing), seconds."""
    place = path.relative_to(ROOT)
    alone = folder / "alone" / place.with_suffix("")
    shutil.rmtree(alone, ignore_errors=True)
    alone.mkdir(parents=True)
    notebook = with_launch(nbformat.read(path, as_version=4), home, place.as_posix())
    spec = folder / "kernels" / "colab"
    spec.mkdir(parents=True, exist_ok=True)
    command = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    environment = {
        "PYTHONPATH": str(folder), "IPYTHONDIR": str(folder / "ipython"),
        "HGSR_DATA": str(folder / "data"), "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    }  # fmt: skip
    (spec / "kernel.json").write_text(
        json.dumps({"argv": command, "display_name": "Colab", "language": "python", "env": environment})
    )
    started = time.perf_counter()
    client = NotebookClient(
        notebook, timeout=900, kernel_name="colab", resources={"metadata": {"path": str(alone)}},
        config=notebook_client.CONFIG,
    )  # fmt: skip
    client.km = client.create_kernel_manager()
    client.km.kernel_spec_manager = KernelSpecManager(kernel_dirs=[str(folder / "kernels")])
    stopped = ""
    try:
        client.execute()
    except CellExecutionError as error:
        stopped = f"{error.ename}: {error.evalue}"
    finally:
        nbformat.write(notebook, alone / path.name)
    return stopped, time.perf_counter() - started


def moved(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """What is gone or has another version; additions are no movement."""
    return [f"{name} {old} -> {after.get(name)}" for name, old in before.items() if after.get(name) != old]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the lane; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.lanes.colab", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="notebook", help="number or name; left out: all of them")
    parser.add_argument("--environment", type=Path, default=ROOT / "build" / "colab" / "environment")
    parser.add_argument("--python", help="to build it with; left out: the newest on the path that starts")
    given = parser.parse_args(arguments)
    folder = ROOT / "build" / "colab"
    os.environ.pop("OMP_NUM_THREADS", None)  # a reader has not set it
    folder.mkdir(parents=True, exist_ok=True)
    python = given.environment.absolute() / "bin" / "python"
    if not python.exists():
        build_environment(given.environment, newest_python([given.python] if given.python else PYTHONS))
    remove_package(given.environment)
    home = serve(folder)
    stand_in(folder)
    pages = find_notebooks(ROOT / "notebooks", given.names)
    pages += [page.parent / "solutions" / page.name for page in pages]
    before, failed = installed(python), 0
    for path in pages:
        stopped, seconds = run_alone(path, home, python, folder)
        failed += bool(stopped)
        name = path.relative_to(ROOT / "notebooks").with_suffix("").as_posix()
        print(f"{name:<42}{seconds:6.1f} s  {stopped or 'ran'}", flush=True)
    after = installed(python)
    print("added:", ", ".join(f"{name} {after[name]}" for name in sorted(after.keys() - before.keys())))
    changed = moved(before, after)
    print("moved:", ", ".join(changed) or "nothing")
    print(f"{len(pages) - failed} passed, {failed} failed")
    return int(bool(failed or changed))


if __name__ == "__main__":
    sys.exit(main())
