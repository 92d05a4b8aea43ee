"""Tables of the repository that a page reads, wherever the page lies: beside the package if not around it."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, files
from pathlib import Path


def shipped(name: str) -> Path:
    """A table of the repository by its path, from the repository around the package or as installed with it.

    Raises `ValueError` where it is in neither: a page then says so, instead of showing something smaller.

    >>> shipped("studies/digits.csv").name
    'digits.csv'
    """
    around = Path(__file__).resolve().parents[2] / name
    if around.is_file():
        return around
    try:
        installed = files("hgsr-lite") or []
    except PackageNotFoundError:
        installed = []
    for file in installed:
        if file.as_posix().endswith(f"share/hgsr-lite/{name}"):
            return Path(file.locate())
    raise ValueError(
        f"{name} did not come with this installation of hgsr-lite: install it from its repository"
    )
