"""Every number in the prose is shown: by a cell of the page, by a formula in it, or by a committed table."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "notebooks").rglob("[0-9A-Z]*_*.ipynb"))
STUDIES = (ROOT / "studies" / "README.md").read_text("utf-8")
"""Every number in these words is taken from the tables again by the tests of the study."""
BENCHMARKS = (ROOT / "benchmarks" / "README.md").read_text("utf-8").partition("## Dead kernels")[2]
"""And in these, by the tests of the benchmarks."""
WORKED_IN_THE_TEXT = {
    "02": {"0.05"},  # the question's own step
    "04": {"17.29", "44,000"},  # page 03's value; 1/4 n^(-3/4) at 1e-7
    "06": {"1.96", "2.5"},  # the normal quantile, and the share outside on each side
    # the weight decay, CIFAR-10's images and steps, a first weight, and what these make
    "09": {"0.0005", "0.0013", "35,000", "45,000", "35,200"},
    "10": {"9.1056", "9.1077"},  # the objective at the two points that the line before works out
    "B": {"1.53125"},  # the solution that its line derives
}
"""Numbers that no cell prints, because the sentence derives them: page, numbers."""
NUMBER = re.compile(r"(?<![\w./#])(?:\d{1,3}(?:,\d{3})+|\d+\.\d+|\d+)(?![\w/]|\.\d)")
IN_OUTPUTS = re.compile(r"\d{1,3}(?:,\d{3})+|\d+\.?\d*(?:e[+-]?\d+)?")
FORMULA = r"\$\$.*?\$\$|\$[^$\n]*\$|`[^`\n]*`"
NO_CLAIM = re.compile(
    r"```.*?```|" + FORMULA + r"|\]\([^)]*\)|<[^>]+>|\*\*References[^\n]*|arXiv \S+|^#+ [^\n]*"
    r"|(?:[Nn]otebooks?|[Ss]ections?|Exercise) \[?\S+|\b(?:19|20)\d\d\b",
    re.DOTALL | re.MULTILINE,
)
SMALL = 200
"""Whole numbers up to here that are no percentages are counts and names: three penalties, page 08."""


def value(number: str) -> float:
    return float(number.replace(",", ""))


def shown(notebook: nbformat.NotebookNode) -> set[float]:
    """The numbers in code, outputs, formulas and code in the text; of the studies, if the page names them."""
    texts = []
    for cell in notebook.cells:
        texts += [cell.source] if cell.cell_type == "code" else re.findall(FORMULA, cell.source, re.DOTALL)
        for output in cell.get("outputs", []):
            texts.append(str(output.get("text", "")))
            data = output.get("data", {})
            texts += [
                re.sub(r"<style.*?</style>", "", str(data[k]), flags=re.S) for k in data if k[:5] == "text/"
            ]
    if any("studies/" in cell.source for cell in notebook.cells):
        texts.append(STUDIES)
    if any("benchmarks/README.md#dead-kernels" in cell.source for cell in notebook.cells):
        texts.append(BENCHMARKS.partition("\n## ")[0])
    return {value(number) for number in IN_OUTPUTS.findall(" ".join(texts))}


def unshown(notebook: nbformat.NotebookNode) -> Iterator[str]:
    known = shown(notebook)
    for cell in notebook.cells:
        if cell.cell_type != "markdown" or "header" in cell.metadata.get("tags", []):
            continue
        text = NO_CLAIM.sub(" ", cell.source)
        for found in NUMBER.finditer(text):
            number, percent = found[0], text[found.end() :].lstrip().startswith("%")
            digits = len(number.partition(".")[2])
            if number.isdigit() and not percent and int(number) <= SMALL:
                continue
            same = {round(y * factor, digits) for y in known for factor in ((1, 100) if percent else (1,))}
            if value(number) not in same:
                yield number


@pytest.mark.parametrize(
    "path", PAGES, ids=lambda path: str(path.relative_to(ROOT / "notebooks").with_suffix(""))
)
def test_every_number_in_the_prose_is_shown(path: Path):
    worked = WORKED_IN_THE_TEXT.get(path.stem.split("_")[0], set())
    missing = [number for number in unshown(nbformat.read(path, as_version=4)) if number not in worked]
    assert not missing, f"no cell, formula or committed table shows {', '.join(missing)}"


def test_a_number_that_is_worked_in_a_text_still_stands_there():
    for page, numbers in WORKED_IN_THE_TEXT.items():
        texts = [nbformat.read(path, as_version=4) for path in PAGES if path.stem.split("_")[0] == page]
        found = {number for notebook in texts for number in unshown(notebook)}
        assert numbers <= found, f"page {page}: {numbers - found} need no exception"


@pytest.mark.parametrize(
    ("prose", "missing"),
    [
        ("It reaches 98.7 %.", []),
        ("It reaches 98.6 %.", ["98.6"]),
        ("## 1. A heading\n\nBehind it, 98.6 %.", ["98.6"]),
        ("Of 6,176 kernels 5,422 die.", ["5,422"]),
        ("About 99 % are right; all three ways.", []),
        ("As $0.25$ says, a quarter: 0.25.", []),
        ("Published in 2020 ([arXiv 2004.04394](https://arxiv.org)).", []),
    ],
)
def test_a_number_that_nobody_shows_is_noticed(prose: str, missing: list[str]):
    notebook = nbformat.v4.new_notebook()
    output = nbformat.v4.new_output("stream", text="accuracy 0.987 of 6,176 kernels")
    notebook.cells = [
        nbformat.v4.new_markdown_cell(prose),
        nbformat.v4.new_code_cell("run()", outputs=[output]),
    ]
    assert list(unshown(notebook)) == missing
