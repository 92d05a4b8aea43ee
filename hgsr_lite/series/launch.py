"""Where the series is published, written into every notebook and the README: a launch row and a setup block.

`make badges REPO=owner/name` writes them. As long as no repository is named, the row leads to this machine
only and the setup block says so: no address stands there that leads nowhere.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from string import Template

import nbformat
from nbformat import NotebookNode

from hgsr_lite.series.committed import source_hash
from hgsr_lite.series.site import page_name

HOSTED = ("torch", "torchvision", "numpy", "pandas", "IPython", "ipykernel", "ipywidgets")
"""What a hosted notebook service has installed and the setup block leaves exactly as it is, as imported."""
ROW = re.compile(r"^\*\*Run:\*\* .*$", re.MULTILINE)
README_ROW = re.compile(r"<!-- launch: .*? -->\n.*?\n<!-- end of launch -->", re.DOTALL)
_LINK = re.compile(r"\]\(([\w./]+\.(?:ipynb|md))[)#]")
_FIRST, _LAST = "# Setup: ", "# The notebook's own imports"
_REFUSE = """    raise ModuleNotFoundError(
        "hgsr_lite is not installed here: install it as its README says, then `make lab` opens this"
    )
"""
# By pip itself, not by %pip, which asks for a restart whatever it installs. The list ends in a comma, so that
# a formatter leaves an address of any length on its line.
_INSTALL = Template("""    import subprocess
    import sys
    from importlib.metadata import version

    print("Installing hgsr_lite, about a minute; nothing needs a restart.")
    hosted = $hosted
    needed = [
        *(f"{name}=={version(name)}" for name in hosted if importlib.util.find_spec(name)),
        "hgsr-lite[notebooks] @ $address",
    ]
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", *needed], check=True)
""")


@dataclass(frozen=True)
class Home:
    """Where the series is published: the repository `owner/name`, who serves it, the static site's address.

    Links lead to a `branch`, which moves on. `version`, a tag or commit, is what a page installs; empty: the
    branch as it is then. An empty `repository` stands for none. Raises `ValueError` for a repository that is
    not of the form `owner/name`.

    >>> Home("ann/sparse", version="v1").git
    'git+https://github.com/ann/sparse@v1'
    """

    repository: str = ""
    branch: str = "main"
    site: str = ""
    version: str = ""
    served: str = "https://github.com"

    def __post_init__(self) -> None:
        if self.repository and not re.fullmatch(r"[\w.-]+/[\w.-]+", self.repository):
            raise ValueError(f"repository {self.repository!r} is not of the form owner/name")
        for kind, name in (("branch", self.branch), ("version", self.version or self.branch)):
            if not re.fullmatch(r"[\w./-]+", name):
                raise ValueError(f"{kind} {name!r} is no name of a branch, tag or commit")

    @property
    def git(self) -> str:
        """What pip installs from."""
        return f"git+{self.served}/{self.repository}@{self.version or self.branch}"

    def page(self, path: str) -> str:
        """Where a page of the repository is read: on the site if there is one, else in the repository.

        >>> Home("ann/sparse").page("notebooks/glossary.md")
        'https://github.com/ann/sparse/blob/main/notebooks/glossary.md'
        >>> Home("ann/sparse", site="https://ann.example/sparse/").page("notebooks/glossary.md")
        'https://ann.example/sparse/glossary.html'
        """
        if self.site:
            return f"{self.site.rstrip('/')}/{page_name(path)}"
        return f"{self.served}/{self.repository}/blob/{self.branch}/{path}"


def linked_pages(notebook: NotebookNode, path: str) -> list[str]:
    """The pages that the notebook at `path` links to, as paths in the repository: each once, in order.

    >>> cell = nbformat.v4.new_markdown_cell("[force](glossary.md#force), [03](03_b.ipynb), [02](02_a.ipynb)")
    >>> linked_pages(nbformat.v4.new_notebook(cells=[cell]), "notebooks/01_c.ipynb")
    ['notebooks/02_a.ipynb', 'notebooks/03_b.ipynb', 'notebooks/glossary.md']
    """
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    folder = posixpath.dirname(path)
    return sorted({posixpath.normpath(f"{folder}/{link}") for link in _LINK.findall(text)})


def launch_row(home: Home, path: str, links: Sequence[str] = ()) -> str:
    """The line of a header cell that says where the notebook at `path` runs, and where its `links` lead.

    >>> launch_row(Home(), "notebooks/05_train.ipynb").partition(";")[0]
    '**Run:** here with `make lab`, then *Run → Run All Cells*'
    >>> launch_row(Home("ann/sparse"), "notebooks/05_train.ipynb").split("/blob/")[0]
    '**Run:** [Colab](https://colab.research.google.com/github/ann/sparse'
    """
    here = _local_way(path)
    if not home.repository:
        return f"**Run:** {here}"
    ways = [*_hosted_ways(home, path), here]
    leading = ", ".join(f"[{_title(path)}]({home.page(path)})" for path in ("README.md", *links))
    alone = f"In a copy alone, links to other pages lead nowhere; here they are: {leading}."
    return f"**Run:** {' · '.join(ways)} {alone}"


def _local_way(path: str) -> str:
    """On the reader's own machine; `make run` knows pages, not their solutions."""
    page = _title(path)
    opened = "here with `make lab`, then *Run → Run All Cells*"
    if page == "solutions":
        return f"{opened}; without make, `python -m hgsr_lite lab`."
    return (
        f"{opened}; as a command, `make run ARGS={page}`; "
        f"without make, `python -m hgsr_lite lab` and `python -m hgsr_lite run {page}`."
    )


def _title(path: str) -> str:
    """What a page is called in a row: its number, or one word."""
    place = PurePosixPath(path)
    if place.stem == "README":
        return place.parent.name or "all notebooks"
    return "solutions" if place.parent.name == "solutions" else place.stem.split("_")[0]


def _hosted_ways(home: Home, path: str) -> Iterator[str]:
    at = f"{home.repository}/blob/{home.branch}"
    yield f"[Colab](https://colab.research.google.com/github/{at}/{path}) (GPU)"
    binder = f"https://mybinder.org/v2/gh/{home.repository}/{home.branch}"
    yield f"[Binder]({binder}?urlpath=lab/tree/{path}) (CPU, two notebooks at most)"
    if home.site:
        yield f"[to read]({home.page(path)})"


def setup_block(home: Home) -> str:
    """The lines at the top of a notebook's first code cell that install the package where it is missing."""
    purpose, missing = "nothing to do where the package is installed.", _REFUSE
    if home.repository:
        purpose = "on Colab, add the package and what it lacks; what is installed stays as it is."
        missing = _INSTALL.substitute(hosted=json.dumps(HOSTED), address=home.git)
    asked = 'import importlib.util\n\nif importlib.util.find_spec("hgsr_lite") is None:'
    return f"{_FIRST}{purpose}\n{asked}\n{missing}\n{_LAST}\n"


def own_code(source: str) -> str:
    """A cell's code without the setup block, which is the same in every notebook.

    >>> own_code(setup_block(Home()) + "import torch")
    'import torch'
    """
    return source.partition(f"{_LAST}\n")[2] if source.startswith(_FIRST) else source


def with_launch(notebook: NotebookNode, home: Home, path: str) -> NotebookNode:
    """Write row and block into the notebook at `path`, in place; outputs that belonged to its code still do.

    The block computes nothing, so no output depends on it.
    """
    outputs_fit = notebook.metadata.get("hgsr", {}).get("source_hash") == source_hash(notebook)
    header = notebook.cells[0]
    header.source = ROW.sub(lambda _: launch_row(home, path, linked_pages(notebook, path)), header.source)
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    first.source = setup_block(home) + own_code(first.source)
    if outputs_fit:
        notebook.metadata["hgsr"]["source_hash"] = source_hash(notebook)
    return notebook


def readme_row(home: Home) -> str:
    """The README's launch row between its two marks, which also say for which repository it was written."""
    named = [home.repository, home.branch, home.version or home.branch, home.site]
    mark = f"<!-- launch: {' '.join(filter(None, named)) if home.repository else 'nowhere'} -->"
    hosted = _hosted_ways(home, "notebooks/00_start_here.ipynb") if home.repository else ()
    ways = " · ".join([*hosted, "the commands below, on your own machine."])
    return f"{mark}\n**Start now:** {ways}\n<!-- end of launch -->"


def home_of(readme: str) -> Home:
    """The repository that a README's launch row was written for."""
    found = re.search(r"<!-- launch: (\S+)(?: (\S+) (\S+) ?(\S*))? -->", readme)
    if found is None:
        raise ValueError(
            "README.md has no line <!-- launch: ... -->: `make badges` writes between such marks"
        )
    repository, branch, version, site = found.groups()
    return Home() if repository == "nowhere" else Home(repository, branch, site, version)


def write_everywhere(repository: Path, home: Home) -> Iterator[Path]:
    """Write rows and blocks into all notebooks, solutions and the README; yield the files that changed."""
    readme = repository / "README.md"
    new = README_ROW.sub(lambda _: readme_row(home), readme.read_text("utf-8"))
    home_of(new)
    if new != readme.read_text("utf-8"):
        readme.write_text(new, "utf-8")
        yield readme
    for path in sorted((repository / "notebooks").glob("**/*_*.ipynb")):
        if path.parent.name.startswith("."):  # JupyterLab's copies
            continue
        before = path.read_text("utf-8")
        place = path.relative_to(repository).as_posix()
        after = nbformat.writes(with_launch(nbformat.reads(before, as_version=4), home, place)) + "\n"
        if after != before:
            path.write_text(after, "utf-8")
            yield path
