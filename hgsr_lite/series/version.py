"""Which version of the repository a published page installs, and whether it still fits the pages."""

from __future__ import annotations

import subprocess
from pathlib import Path

INSTALLED = (
    "hgsr_lite",
    "studies",
    "notebooks/scoreboard.csv",
    "requirements-package.txt",
    "requirements-notebooks.txt",
    "pyproject.toml",
)
"""What an installation from the repository brings, or follows."""


def newest_commit(repository: Path) -> str:
    """The commit that a clone is at. Raises `ValueError` where there is none.

    >>> import tempfile
    >>> newest_commit(Path(tempfile.gettempdir()))
    Traceback (most recent call last):
    ValueError: no commit to name here: give one by --version, or run this in a clone
    """
    asked = _git(repository, "rev-parse", "HEAD")
    if asked.returncode:
        raise ValueError("no commit to name here: give one by --version, or run this in a clone")
    return asked.stdout.strip()


def changed_since(version: str, repository: Path) -> list[str]:
    """The files in a clone that an installation of `version` would bring as they were then, or not at all.

    Raises `ValueError` for a version that the clone does not have: a tag that is still to come, say.

    >>> import tempfile
    >>> changed_since("v1", Path(tempfile.gettempdir()))
    Traceback (most recent call last):
    ValueError: this clone has no version 'v1'
    """
    if _git(repository, "rev-parse", "--verify", "--quiet", f"{version}^{{commit}}").returncode:
        raise ValueError(f"this clone has no version {version!r}")
    return _git(repository, "diff", "--name-only", version, "--", *INSTALLED).stdout.splitlines()


def _git(repository: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", *command], cwd=repository, capture_output=True, text=True)
