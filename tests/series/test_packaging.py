"""What `pip install` from the repository's address brings, and what stays out."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest
from packaging.requirements import Requirement

REPOSITORY = Path(__file__).resolve().parents[2]
FILES = {
    None: ["requirements-package.txt"],
    "notebooks": ["requirements-notebooks.txt"],
    "series": ["requirements-series.txt"],
    "study": ["requirements-study.txt"],
    "test": ["requirements-dev.txt", "requirements-study.txt"],
}
# Seen in August 2026.
COLAB = {
    "torch": "2.11.0",
    "torchvision": "0.26.0",
    "numpy": "2.1.3",
    "numba": "0.61.2",
    "pandas": "2.2.3",
    "ipywidgets": "7.7.1",
    "ipykernel": "6.17.1",
    "ipython": "7.34.0",
    "anywidget": "0.9.21",
}


def requirements(name: str) -> list[Requirement]:
    lines = (line.partition("#")[0].strip() for line in (REPOSITORY / name).read_text().splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith("-")]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel of a clone, built as pip builds it from a git address."""
    folder = tmp_path_factory.mktemp("wheel")
    files = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        check=True,
    ).stdout.split(b"\0")
    for name in map(os.fsdecode, filter(None, files)):
        if name.startswith(("hgsr_lite/", "studies/", "notebooks/scoreboard")) or "/" not in name:
            copy = folder / "clone" / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            if (REPOSITORY / name).is_file():  # one that was deleted may still be listed
                copy.write_bytes((REPOSITORY / name).read_bytes())
    build = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    subprocess.run(
        [sys.executable, "-c", build, str(folder)], cwd=folder / "clone", check=True, capture_output=True
    )
    return zipfile.ZipFile(next(folder.glob("*.whl")))


def test_each_extra_has_its_file_and_the_plain_install_lacks_what_runs_the_series(wheel):
    (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    found = message_from_bytes(wheel.read(name)).get_all("Requires-Dist")
    by_extra: dict[str | None, set[str]] = {}
    for requirement in map(Requirement, found):
        extra = re.search(r"extra == ['\"](\w+)", str(requirement.marker))
        by_extra.setdefault(extra[1] if extra else None, set()).add(requirement.name.lower())
    for extra, files in FILES.items():
        wanted = {requirement.name.lower() for file in files for requirement in requirements(file)}
        # setuptools writes an underscore as the distribution's own name has it
        assert {name.replace("_", "-") for name in by_extra[extra]} == {
            name.replace("_", "-") for name in wanted
        }
    assert not by_extra[None] & {"papermill", "jupyterlab", "ipywidgets", "pytest"}


def test_the_tables_that_pages_read_come_along(wheel):
    shipped = {name.rpartition("/")[2] for name in wheel.namelist() if "share/hgsr-lite/studies/" in name}
    assert shipped == {path.name for path in (REPOSITORY / "studies").glob("*.csv")}
    assert any(name.endswith("share/hgsr-lite/notebooks/scoreboard.csv") for name in wheel.namelist())


def test_requirements_txt_names_the_three_parts():
    named = re.findall(r"^-r (.+)$", (REPOSITORY / "requirements.txt").read_text(), re.MULTILINE)
    assert named == [FILES[extra][0] for extra in (None, "notebooks", "series")]


def test_nothing_that_colab_has_would_be_changed():
    bounds = {
        requirement.name: requirement.specifier
        for file in FILES[None] + FILES["notebooks"]
        for requirement in requirements(file)
    }
    for name, version in COLAB.items():
        assert bounds[name].contains(version), f"{name} {version} does not meet {bounds[name]}"
    assert not bounds.keys() & {"papermill", "jupyterlab"}


def test_every_requirement_is_pinned_in_the_constraints():
    pins = {
        requirement.name.lower().replace("_", "-"): requirement
        for requirement in requirements("constraints.txt")
    }
    for file in sorted(REPOSITORY.glob("requirements-*.txt")):
        for requirement in requirements(file.name):
            pin = pins.get(requirement.name.lower().replace("_", "-"))
            assert pin is not None, f"{file.name}: {requirement.name} has no pin"
            (version,) = (clause.version for clause in pin.specifier)
            assert requirement.specifier.contains(version), f"{file.name}: {pin} does not meet {requirement}"
