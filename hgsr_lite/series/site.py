"""The series, glossary, reference, studies and benchmarks as a static site whose pages need no network."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

_ROOMS = ("studies/README.md", "benchmarks/README.md")
"""Pages that on the site are called after their folder."""


def heading_slug(heading: str) -> str:
    """The address of a heading as JupyterLab makes it, so that one link works there and on the site.

    The glossary's links follow the rule for Markdown files, which drops a slash.

    >>> heading_slug("5. Removal, with proof"), heading_slug("group l1/2")
    ('5.-Removal,-with-proof', 'group-l12')
    """
    return heading.replace(" ", "-").replace("/", "")


def page_name(path: str) -> str:
    """Where a page of the repository lies on the site.

    >>> [page_name(path) for path in ("README.md", "studies/README.md", "notebooks/solutions/05_a.ipynb")]
    ['index.html', 'studies.html', 'solutions/05_a.html']
    """
    if path == "README.md":
        return "index.html"
    if path in _ROOMS:
        return f"{path.partition('/')[0]}.html"
    return f"{path.removeprefix('notebooks/').removeprefix('studies/').rpartition('.')[0]}.html"


def lay_out(repository: Path, sources: Path) -> None:
    """Gather in `sources` all that Sphinx reads: `site/`, notebooks with solutions, studies, benchmarks.

    Links between pages work unchanged, because pages keep their places relative to one another.
    """
    shutil.rmtree(sources, ignore_errors=True)
    shutil.copytree(repository / "site", sources)
    notebooks = repository / "notebooks"
    pages = [*notebooks.glob("*.ipynb"), notebooks / "glossary.md", *(repository / "studies").glob("*.md")]
    pages.append(repository / "benchmarks" / "README.md")
    for path in pages:
        name = page_name(path.relative_to(repository).as_posix()).replace(".html", path.suffix)
        text = path.read_text(encoding="utf-8")
        for room in _ROOMS:
            text = text.replace(f"](../{room}", f"]({room.partition('/')[0]}.md")
        text = text.replace("](../studies/", "](").replace("](../notebooks/", "](")
        (sources / name).write_text(text, encoding="utf-8")
    for folder in ("images", "solutions"):
        shutil.copytree(notebooks / folder, sources / folder)
    shutil.copytree(repository / "benchmarks" / "results", sources / "results")
    solutions = sorted(path.stem for path in (sources / "solutions").glob("*.ipynb"))
    contents = "\n".join(["# Solutions", "", "```{toctree}", *solutions, "```", ""])
    (sources / "solutions" / "index.md").write_text(contents, encoding="utf-8")
    for path in (repository / "studies").iterdir():
        if path.suffix in (".csv", ".toml", ".png"):
            shutil.copy(path, sources)


def build_site(repository: Path, build: Path) -> Path:
    """Build the site into `build/site` and return its front page; warnings of broken links are errors.

    Raises `RuntimeError` where Sphinx fails; its own words are printed above it.
    """
    sources, pages = build / "site-source", build / "site"
    lay_out(repository, sources)
    options = ["--quiet", "--fail-on-warning", "--keep-going", "--jobs", "auto"]
    command = [sys.executable, "-m", "sphinx", *options, "-b", "html", str(sources), str(pages)]
    if subprocess.run(command, cwd=repository).returncode:
        raise RuntimeError("the site was not built: Sphinx says why above")
    return pages / "index.html"
