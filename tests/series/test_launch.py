"""Launch rows and setup blocks agree with one another, lead somewhere, and work for a lone notebook."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from subprocess import PIPE, STDOUT

import nbformat
import pytest

from hgsr_lite.__main__ import main
from hgsr_lite.series import tables
from hgsr_lite.series.committed import source_hash
from hgsr_lite.series.header import banner
from hgsr_lite.series.launch import (
    HOSTED,
    Home,
    home_of,
    launch_row,
    readme_row,
    setup_block,
    with_launch,
    write_everywhere,
)
from hgsr_lite.series.run import find_notebooks
from hgsr_lite.series.site import lay_out, page_name
from hgsr_lite.series.tables import shipped
from hgsr_lite.series.version import changed_since

ROOT = Path(__file__).resolve().parents[2]
SERIES = find_notebooks(ROOT / "notebooks")
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[!.]*_*.ipynb")) + sorted(
    (ROOT / "notebooks" / "solutions").glob("*_*.ipynb")
)
PLACES = pytest.mark.parametrize(
    "path", NOTEBOOKS, ids=lambda path: str(path.relative_to(ROOT / "notebooks"))
)
SOMEWHERE = Home("ann/sparse", "v1", "https://ann.example/sparse/", version="0a1b2c3")


def in_repository(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@PLACES
def test_a_notebook_and_the_readme_name_the_same_place(path):
    home = home_of((ROOT / "README.md").read_text("utf-8"))
    committed = nbformat.read(path, as_version=4)
    again = with_launch(nbformat.read(path, as_version=4), home, in_repository(path))
    assert again == committed, "run `make badges` with the repository's name, or without one"


@pytest.mark.parametrize("path", SERIES, ids=lambda path: path.stem)
def test_the_command_in_a_launch_row_runs_that_notebook(path):
    row = nbformat.read(path, as_version=4).cells[0].source
    for given in re.findall(r"`make run ARGS=(\S+)`", row):
        assert find_notebooks(path.parent, [given]) == [path]


@PLACES
def test_a_message_sends_no_reader_to_a_line_that_is_not_there(path):
    cells = nbformat.read(path, as_version=4).cells
    setup = next(cell.source for cell in cells if cell.cell_type == "code")
    for line in re.findall(r"the line (\w+), above", setup):
        assert f"**{line}:**" in cells[0].source


def test_without_a_repository_no_address_stands_anywhere():
    readme = (ROOT / "README.md").read_text("utf-8")
    assert readme_row(home_of(readme)) in readme
    assert "http" not in setup_block(Home()) + readme_row(Home())


@pytest.mark.parametrize("home", [Home(), SOMEWHERE], ids=["nowhere", "somewhere"])
def test_the_local_way_is_named_wherever_the_series_is_published(home):
    assert "the commands below, on your own machine" in readme_row(home)
    for place in ("notebooks/05_train.ipynb", "notebooks/solutions/05_train.ipynb"):
        assert "here with `make lab`" in launch_row(home, place)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks", ignore=shutil.ignore_patterns(".*"))
    (tmp_path / "notebooks" / ".ipynb_checkpoints").mkdir()  # as JupyterLab leaves them: no pages of ours
    shutil.copy(
        NOTEBOOKS[0], tmp_path / "notebooks" / ".ipynb_checkpoints" / "00_start_here-checkpoint.ipynb"
    )
    shutil.copy(ROOT / "README.md", tmp_path)
    return tmp_path


def test_badges_write_every_row_with_addresses_that_exist_and_can_be_taken_back(copy, monkeypatch, capsys):
    monkeypatch.chdir(copy)
    committed = home_of((copy / "README.md").read_text("utf-8"))
    assert list(write_everywhere(copy, committed)) == []
    assert main(["badges"]) == 0  # a fork's pages are published ones
    capsys.readouterr()
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    options = [f"--branch={SOMEWHERE.branch}", f"--site={SOMEWHERE.site}", f"--version={SOMEWHERE.version}"]
    assert main(["badges", f"--repository={SOMEWHERE.repository}", *options]) == 0
    changed = capsys.readouterr().out.split()
    assert len(changed) == len(NOTEBOOKS) + 1
    for file in [ROOT / "README.md", *NOTEBOOKS]:
        text = (copy / in_repository(file)).read_text("utf-8")
        place = in_repository(file if file in NOTEBOOKS else NOTEBOOKS[0])
        assert f"https://colab.research.google.com/github/ann/sparse/blob/v1/{place})" in text
        assert f"https://mybinder.org/v2/gh/ann/sparse/v1?urlpath=lab/tree/{place})" in text
        assert f"[to read](https://ann.example/sparse/{page_name(place)})" in text
        for name in re.findall(r"ann/sparse/(?:blob/)?v1(?:/|\?urlpath=lab/tree/)([\w./]+)", text):
            assert (ROOT / name).exists(), name
    assert home_of((copy / "README.md").read_text("utf-8")) == SOMEWHERE
    assert main(["badges", f"--repository={SOMEWHERE.repository}", *options]) == 0
    assert capsys.readouterr().out == ""
    assert main(["badges"]) == 0
    assert {path: path.read_bytes() for path in before} == before


def called(folder: Path, *arguments: str) -> None:
    """Call `python -m ...` in a copy of the repository, with that copy's package and tests."""
    done = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=folder, text=True, stdout=PIPE, stderr=STDOUT,
        env={**os.environ, "PYTHONPATH": str(folder)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.fixture(
    scope="module", params=["", "https://ann.example/sparse/"], ids=["without a site", "with a site"]
)
def published(request, tmp_path_factory) -> Path:
    """The whole repository, published under names of some length: rows and blocks must bear them."""
    ignored = shutil.ignore_patterns(".git", ".venv", "build", "runs", "__pycache__", ".*_cache", ".ipynb_*")
    copy = shutil.copytree(ROOT, tmp_path_factory.mktemp("published") / "copy", ignore=ignored)
    place = ["--repository=ann-of-the-long-name/sparse-networks", "--branch=v1/main"]
    called(copy, "hgsr_lite", "badges", *place, f"--site={request.param}", f"--version={'0a1b2c3d' * 5}")
    return copy


def test_a_published_copy_keeps_the_style(published):
    called(published, "hgsr_lite", "lint")


@pytest.mark.slow
def test_a_published_copy_passes_the_tests_of_its_pages(published):
    files = [
        "notebooks/test_skeleton.py",
        "notebooks/test_numbers.py",
        "series/test_launch.py",
        "series/test_readme.py",
    ]
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", "not slow and not trains"]
    called(published, "pytest", *options, "-k", "not published", *(f"tests/{file}" for file in files))


def addresses_of_a_lone_copy(path: Path, home: Home) -> list[str]:
    row = with_launch(nbformat.read(path, as_version=4), home, in_repository(path)).cells[0].source
    return re.findall(r"\]\((https:[^)]+)\)", row.partition("In a copy alone")[2])


@PLACES
def test_every_page_that_a_lone_copy_links_to_has_an_address_in_its_row(path):
    cells = nbformat.read(path, as_version=4).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    linked = re.findall(r"\]\((?!https?:)([^)#\s]+\.(?:md|ipynb))[)#]", text)
    named = [
        ROOT / address.partition("/blob/main/")[2]
        for address in addresses_of_a_lone_copy(path, Home("ann/sparse"))
    ]
    assert {ROOT / "README.md", *((path.parent / link).resolve() for link in linked)} == set(named)
    assert all(place.is_file() for place in named)
    assert len(set(named)) == len(named)
    assert len(named) > (3 if path in SERIES else 1)


def test_where_there_is_a_site_a_lone_copy_leads_to_its_pages(tmp_path):
    lay_out(ROOT, tmp_path / "source")
    sources = [path.relative_to(tmp_path / "source") for path in (tmp_path / "source").rglob("*.*")]
    pages = {path.with_suffix(".html").as_posix() for path in sources if path.suffix in (".md", ".ipynb")}
    for path in NOTEBOOKS:
        addresses = addresses_of_a_lone_copy(path, SOMEWHERE)
        assert addresses
        assert {address.removeprefix(SOMEWHERE.site) for address in addresses} <= pages


def test_outputs_that_belong_to_the_code_still_do_and_stale_ones_stay_stale():
    notebook = nbformat.read(NOTEBOOKS[0], as_version=4)
    notebook.metadata["hgsr"]["source_hash"] = source_hash(notebook)
    with_launch(notebook, SOMEWHERE, in_repository(NOTEBOOKS[0]))
    assert notebook.metadata["hgsr"]["source_hash"] == source_hash(notebook)
    notebook.metadata["hgsr"]["source_hash"] = "stale"
    with_launch(notebook, Home(), in_repository(NOTEBOOKS[0]))
    assert notebook.metadata["hgsr"]["source_hash"] == "stale"


@pytest.mark.parametrize("home", [Home(), SOMEWHERE], ids=["nowhere", "somewhere"])
def test_the_block_does_nothing_where_the_package_is_installed(home):
    done = subprocess.run([sys.executable, "-c", setup_block(home)], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_lone_notebook_without_a_repository_says_what_to_do(tmp_path):
    done = subprocess.run(
        [sys.executable, "-S", "-c", setup_block(Home())],
        cwd=tmp_path,
        env={},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "hgsr_lite is not installed here: install it as its README says" in done.stderr


def test_a_lone_notebook_installs_the_package_and_holds_what_the_service_has(tmp_path):
    (tmp_path / "pip.py").write_text("import sys\nopen('given', 'w').write('|'.join(sys.argv[1:]))\n")
    code = setup_block(SOMEWHERE).replace('find_spec("hgsr_lite")', 'find_spec("no_such_package")')
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert "nothing needs a restart" in done.stdout
    command, quietly, *held, package = (tmp_path / "given").read_text().split("|")
    assert (command, quietly) == ("install", "-q")
    assert package == "hgsr-lite[notebooks] @ git+https://github.com/ann/sparse@0a1b2c3"
    assert held == [f"{name}=={version(name)}" for name in HOSTED]


def test_an_installation_that_fails_stops_the_page(tmp_path):
    (tmp_path / "pip.py").write_text("raise SystemExit('no network')\n")
    code = setup_block(SOMEWHERE).replace('find_spec("hgsr_lite")', 'find_spec("no_such_package")')
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert "no network" in done.stderr


def git(folder: Path, *command: str) -> str:
    given = ["git", "-c", "user.name=ann", "-c", "user.email=ann@localhost", *command]
    return subprocess.run(given, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def commit_all(folder: Path, message: str) -> str:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "-m", message)
    return git(folder, "rev-parse", "HEAD")


def test_what_a_page_installs_is_the_newest_commit_and_does_not_move(copy, monkeypatch, capsys):
    monkeypatch.chdir(copy)
    assert main(["badges", "--repository=ann/sparse"]) == 1
    assert "no commit to name" in capsys.readouterr().err
    git(copy, "init", "--quiet")
    commit = commit_all(copy, "pages")
    assert main(["badges", "--repository=ann/sparse"]) == 0
    page = (copy / "notebooks" / "00_start_here.ipynb").read_text("utf-8")
    assert f"git+https://github.com/ann/sparse@{commit}" in page


def what_an_installation_lacks(repository: Path) -> list[str]:
    """The files that have changed since the version that the pages of a repository install."""
    version = home_of((repository / "README.md").read_text("utf-8")).version
    if not version:
        pytest.skip("published nowhere: no page names a version")
    asked = ["git", "rev-parse", "--is-shallow-repository", "--show-prefix"]
    if subprocess.run(asked, cwd=repository, capture_output=True, text=True).stdout.split() != ["false"]:
        pytest.skip("the history of this repository is not here, or not all of it")
    return changed_since(version, repository)


def test_pages_install_the_package_that_fits_them():
    assert what_an_installation_lacks(ROOT) == [], "commit these, then run `make badges` as before"


def test_a_package_that_has_moved_on_is_noticed(copy, tmp_path_factory, monkeypatch, capsys):
    monkeypatch.chdir(copy)
    (copy / "hgsr_lite").mkdir()
    (copy / "hgsr_lite" / "zeros.py").write_text("near = 1e-3\n")
    git(copy, "init", "--quiet")
    commit_all(copy, "pages and package")
    assert main(["badges", "--repository=ann/sparse"]) == 0
    commit_all(copy, "published")
    assert what_an_installation_lacks(copy) == []
    assert capsys.readouterr().err == ""

    (copy / "hgsr_lite" / "zeros.py").write_text("near = 1e-4\n")
    assert main(["badges", "--repository=ann/sparse"]) == 0
    assert "which lacks changes in hgsr_lite/zeros.py\ncommit them" in capsys.readouterr().err
    commit_all(copy, "another package")
    assert what_an_installation_lacks(copy) == ["hgsr_lite/zeros.py"]

    shallow = tmp_path_factory.mktemp("shallow")
    git(copy, "clone", "--quiet", "--depth=1", copy.as_uri(), str(shallow))
    with pytest.raises(pytest.skip.Exception, match="history"):
        what_an_installation_lacks(shallow)
    assert main(["badges", "--repository=ann/sparse"]) == 0
    commit_all(copy, "published again")
    assert what_an_installation_lacks(copy) == []


@pytest.mark.parametrize("wrong", [{"repository": "no-slash"}, {"repository": "a/b", "branch": "two words"}])
def test_an_impossible_place_is_refused(wrong):
    with pytest.raises(ValueError, match=r"is not of the form owner/name|is no name of a branch"):
        Home(**wrong)


def test_colab_without_a_gpu_is_told_how_to_take_one(monkeypatch):
    assert "GPU" not in banner("cpu")
    monkeypatch.setitem(sys.modules, "google.colab", sys)
    assert ("Runtime > Change runtime type" in banner("cpu")) != __import__("torch").cuda.is_available()


def test_a_table_is_found_beside_an_installed_package_and_its_absence_is_an_error(tmp_path, monkeypatch):
    assert shipped("studies/digits.csv") == ROOT / "studies" / "digits.csv"
    site = tmp_path / "lib" / "site-packages"
    (site / "hgsr_lite-1.dist-info").mkdir(parents=True)
    (tmp_path / "share" / "hgsr-lite" / "studies").mkdir(parents=True)
    table = tmp_path / "share" / "hgsr-lite" / "studies" / "small.csv"
    table.write_text("a\n1\n")
    (site / "hgsr_lite-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: hgsr-lite\n")
    (site / "hgsr_lite-1.dist-info" / "RECORD").write_text("../../share/hgsr-lite/studies/small.csv,,\n")
    monkeypatch.setattr(tables, "__file__", str(site / "hgsr_lite" / "series" / "tables.py"))
    monkeypatch.setattr(sys, "path", [str(site), *sys.path])
    assert shipped("studies/small.csv").read_text() == table.read_text()
    with pytest.raises(ValueError, match=r"none\.csv did not come with this installation"):
        shipped("studies/none.csv")
