"""Every notebook keeps the skeleton: what a reader may count on finding in each of them.

A rule is a generator of complaints about one notebook. Each rule is also broken on purpose, on a small
notebook made here, to see that it would be noticed.
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pytest
from nbformat import NotebookNode

from hgsr_lite.series.committed import source_hash
from hgsr_lite.series.launch import ROW, Home, launch_row, own_code, setup_block

ROOT = Path(__file__).resolve().parents[2]
SERIES = sorted((ROOT / "notebooks").glob("[0-9A-Z]*_*.ipynb"))
SOLUTIONS = sorted((ROOT / "notebooks" / "solutions").glob("*.ipynb"))
LARGEST_FILE = 1_500_000
MEDIAN_LINES, MOST_LINES = 8, 25
MOST_WORDS, MOST_CELLS, MOST_LOOP_LINES = 2500, 45, 16
LOOPS = {"00": ".backward()", "05": "add_gradient_()", "07": "prox_("}
"""Pages that show the training loop in plain PyTorch, and the line that is new in each."""

Rule = Callable[[NotebookNode, Path], Iterator[str]]
MACHINE_PATH = re.compile(r"(?:/(?:root|work|tmp|opt|home/\w+|Users/\w+)|[A-Z]:\\\\Users)[/\\][\w.]")
LINK = re.compile(r"(?<!!)\[(?:[^\[\]]|\[[^\]]*\])*\]\(\s*<?([^)\s>]+)>?[^)]*\)|(?:href|src)=[\"']([^\"']+)")
IMAGE = re.compile(r"!\[([^\]]*)\]\(|<img\b(?![^>]*\balt=[\"'][^\"'])")
NOT_PROSE = re.compile(r"```.*?```|`[^`\n]*`|\$\$.*?\$\$", re.DOTALL)


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def markdown(notebook: NotebookNode) -> str:
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def tagged(notebook: NotebookNode, tag: str) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]


def code_lines(cell: NotebookNode) -> int:
    """Lines of the page's own: the setup block is the same everywhere, and read once."""
    lines = (line.strip() for line in own_code(cell.source).splitlines())
    return sum(bool(line) and not line.startswith("#") for line in lines)


def header_tells_what_why_and_how_long(notebook: NotebookNode, path: Path) -> Iterator[str]:
    first = notebook.cells[0]
    if first.cell_type != "markdown" or "header" not in first.metadata.get("tags", []):
        yield "the first cell is not a markdown cell tagged 'header'"
        return
    page = path.stem.split("_")[0]
    wanted = {
        f"a first line '# {page} · Title'": rf"\A# {page} · \S",
        "'**Prerequisites:** ...'": r"^\*\*Prerequisites:\*\* \S",
        "a time from `make timings`": r"^\*\*Runs in:\*\* \d+ s on \d+ CPU cores(?:; GPU: \d+ s on .+)?\.$",
    }
    for what, pattern in wanted.items():
        if not re.search(pattern, first.source, re.MULTILINE):
            yield f"the header lacks {what}"
    objectives = re.search(r"^\*\*Objectives\*\*.*\n\s*((?:(?:[-*] |  ).*\n?)*)", first.source, re.MULTILINE)
    count = len(re.findall(r"^[-*] ", objectives[1], re.MULTILINE)) if objectives else 0
    if not 3 <= count <= 5:
        yield f"the header lists {count} objectives under '**Objectives**', not 3 to 5"


def first_cell_says_where_it_runs(notebook: NotebookNode, _path: Path) -> Iterator[str]:
    if len(ROW.findall(notebook.cells[0].source)) != 1:
        yield "not one launch row '**Run:** ...' in the first cell"


def setup_comes_before_plain_parameters(notebook: NotebookNode, _path: Path) -> Iterator[str]:
    code = code_cells(notebook)
    for position, tag in enumerate(("setup", "parameters")):
        if len(tagged(notebook, tag)) != 1 or tagged(notebook, tag)[0] not in code:
            yield f"there is not exactly one code cell tagged {tag!r}"
        elif code.index(tagged(notebook, tag)[0]) != position:
            yield f"the cell tagged {tag!r} is not code cell number {position + 1}"
    for cell in tagged(notebook, "parameters"):
        for line in cell.source.splitlines():
            if line.strip() and not re.match(r"[A-Z][A-Z_]* = [^#]+(  # .*)?$|#", line):
                yield f"the parameters cell holds more than plain assignments: {line!r}"


def two_questions_have_hidden_answers(notebook: NotebookNode, _path: Path) -> Iterator[str]:
    questions = tagged(notebook, "predict")
    if len(questions) < 2:
        yield f"{len(questions)} 'predict' questions, not at least 2"
    for cell in questions:
        if cell.cell_type != "markdown" or not re.search(r"<details>\s*<summary>.+</summary>", cell.source):
            yield f"a 'predict' cell hides no answer in <details>: {cell.source[:60]!r}"


def two_exercises_have_check_and_solution(notebook: NotebookNode, path: Path) -> Iterator[str]:
    exercises = tagged(notebook, "exercise")
    if len(exercises) < 2:
        yield f"{len(exercises)} cells tagged 'exercise', not at least 2"
    linked = f"](solutions/{path.name}" in markdown(notebook)
    for exercise in exercises:
        after = notebook.cells[notebook.cells.index(exercise) :]
        code = [i for i, cell in enumerate(after) if cell.cell_type == "code"][:2]
        check = next((i for i in code if "check_" in after[i].source), None)
        if check is None:
            yield f"no check_... call in or behind the exercise {exercise.source[:60]!r}"
        elif not linked and not any("<details>" in cell.source for cell in after[check + 1 : check + 3]):
            yield f"no hidden solution behind the exercise {exercise.source[:60]!r}"


def recap_is_a_table(notebook: NotebookNode, _path: Path) -> Iterator[str]:
    if not any(re.search(r"^\|[ :|-]+\|$", cell.source, re.MULTILINE) for cell in tagged(notebook, "recap")):
        yield "no cell tagged 'recap' with a table"


def last_cell_leads_to_the_neighbours(notebook: NotebookNode, path: Path) -> Iterator[str]:
    last = notebook.cells[-1]
    if last.cell_type != "markdown" or "navigation" not in last.metadata.get("tags", []):
        yield "the last cell is not a markdown cell tagged 'navigation'"
        return
    series = sorted(path.parent.glob("[0-9A-Z]*_*.ipynb"))
    place = series.index(path)
    for neighbour in series[max(0, place - 1) : place] + series[place + 1 : place + 2]:
        if f"]({neighbour.name})" not in last.source:
            yield f"the last cell does not link to {neighbour.name}"


def running_text(notebook: NotebookNode) -> str:
    """What a reader reads as sentences: no launch row, formulas, tables, code, link targets or tags."""
    text = NOT_PROSE.sub(" ", ROW.sub(" ", markdown(notebook)))
    text = re.sub(r"\$[^$\n]*\$|^\|.*$|\]\([^)]*\)|<[^>]+>", " ", text, flags=re.MULTILINE)
    return text


def page_is_not_too_long(notebook: NotebookNode, path: Path) -> Iterator[str]:
    words, cells = len(re.findall(r"[^\W\d_]+", running_text(notebook))), len(notebook.cells)
    if words > MOST_WORDS:
        yield f"{words} words of running text, more than {MOST_WORDS}"
    if cells > MOST_CELLS:
        yield f"{cells} cells, more than {MOST_CELLS}"


def quiz_stands_before_the_recap(notebook: NotebookNode, path: Path) -> Iterator[str]:
    found = tagged(notebook, "quiz")
    if len(found) != 1 or f'quiz("{path.stem.split("_")[0]}")' not in found[0].source:
        yield "no cell tagged 'quiz' that shows this page's quiz"
    elif not any("<details" in str(o.get("data", {}).get("text/html", "")) for o in found[0].outputs):
        yield "the quiz has no output to click: run `make execute`"
    elif "recap" not in notebook.cells[notebook.cells.index(found[0]) + 1].metadata.get("tags", []):
        yield "the quiz does not stand before the recap"


def loop_is_seen_before_fit(notebook: NotebookNode, path: Path) -> Iterator[str]:
    wanted = LOOPS.get(path.stem.split("_")[0])
    if wanted is None:
        return
    before = "\n".join(cell.source for cell in code_cells(notebook)).partition("hg.fit(")[0]
    loops = [cell.source for cell in tagged(notebook, "loop") if "optimizer.step()" in cell.source]
    if not any(wanted in loop and loop in before for loop in loops):
        yield f"no cell tagged 'loop' with optimizer.step() and {wanted!r} before the first hg.fit"
    if any(code_lines(cell) > MOST_LOOP_LINES for cell in tagged(notebook, "loop")):
        yield f"a loop of more than {MOST_LOOP_LINES} lines is no loop in view"


def a_kernel_is_a_piece_of_a_weight(notebook: NotebookNode, _path: Path) -> Iterator[str]:
    text = " ".join(running_text(notebook).split())
    for found in re.finditer(
        r"(?:running|restart\w*|clean|no|a) kernel (?:runs|is needed)|running kernel", text
    ):
        yield f"'kernel' for a Python session: {text[found.start() - 30 : found.end() + 10]!r}"


def some_outputs_are_checked(notebook: NotebookNode, _path: Path) -> Iterator[str]:
    cells = tagged(notebook, "nbval-check-output")
    if not any(cell.get("outputs") for cell in cells):
        yield "no cell with an output is tagged 'nbval-check-output'"


def cells_are_short(notebook: NotebookNode, _path: Path) -> Iterator[str]:
    counts = [code_lines(cell) for cell in code_cells(notebook)]
    if statistics.median(counts) > MEDIAN_LINES:
        yield f"a median of {statistics.median(counts)} code lines a cell, more than {MEDIAN_LINES}"
    for cell, count in zip(code_cells(notebook), counts, strict=True):
        if count > MOST_LINES:
            yield f"a cell of {count} code lines, more than {MOST_LINES}: {cell.source[:60]!r}"


def images_have_alt_text(notebook: NotebookNode, _path: Path) -> Iterator[str]:
    for cell in code_cells(notebook):
        drawn = any(kind.startswith("image/") for o in cell.outputs for kind in o.get("data", {}))
        alt = cell.metadata.get("alt", "")
        if drawn and not (isinstance(alt, str) and len(alt) >= 20):
            yield f"a figure without alt text in the cell's metadata: {cell.source[:60]!r}"
    for image in IMAGE.finditer(NOT_PROSE.sub("", markdown(notebook))):
        if not (image[1] or "").strip():
            yield f"an image without alt text: {image[0]!r}"


def cells_ran_once_in_order(notebook: NotebookNode, _path: Path) -> Iterator[str]:
    counts = [cell.execution_count for cell in code_cells(notebook)]
    if counts != list(range(1, len(counts) + 1)):
        yield f"execution counts {counts}, not 1 to {len(counts)}: run `make execute`"


def outputs_are_free_of_errors_and_machine(notebook: NotebookNode, _path: Path) -> Iterator[str]:
    for cell in code_cells(notebook):
        for output in cell.outputs:
            if output.output_type == "error":
                yield f"an error among the outputs: {output.ename}: {output.evalue}"
            if output.get("name") == "stderr":
                yield f"a warning among the outputs: {output.text!r}"
            data = {k: v for k, v in output.get("data", {}).items() if not k.startswith("image/")}
            found = MACHINE_PATH.search(json.dumps([output.get("text", ""), data]))
            if found:
                yield f"a path of one machine in an output: {found[0]!r}"


def outputs_belong_to_the_code(notebook: NotebookNode, _path: Path) -> Iterator[str]:
    if notebook.metadata.get("hgsr", {}).get("source_hash") != source_hash(notebook):
        yield "the code has changed since its outputs were made: run `make execute`"


def file_is_small_and_valid(notebook: NotebookNode, path: Path) -> Iterator[str]:
    if path.stat().st_size >= LARGEST_FILE:
        yield f"{path.stat().st_size / 1e6:.1f} MB, more than {LARGEST_FILE / 1e6} MB"
    try:
        nbformat.validate(notebook)
    except nbformat.ValidationError as error:
        yield f"not a valid notebook: {error.message}"
    stray = set(notebook.metadata) - {"kernelspec", "language_info", "hgsr"}
    if stray:
        yield f"metadata that `make execute` would not write: {sorted(stray)}"


def read_markdown(path: Path) -> str:
    return markdown(nbformat.read(path, as_version=4))


def anchors(path: Path) -> set[str]:
    read = read_markdown if path.suffix == ".ipynb" else Path.read_text
    text = read(path)
    found = set(re.findall(r"<a (?:id|name)=[\"']([^\"']+)", text))
    for heading in re.findall(
        r"^#{1,6} +(.+?) *$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE
    ):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").replace("*", "")
        # JupyterLab keeps a heading's capitals and signs; a repository's page writes it small and without.
        found |= {plain.replace(" ", "-"), re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")}
    return found


def broken_links(text: str, path: Path) -> Iterator[str]:
    for groups in LINK.findall(NOT_PROSE.sub("", text)):
        link = unquote(groups[0] or groups[1])
        if re.match(r"(https?|mailto|attachment|data):", link):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        if not target.exists():
            yield f"a link to {link!r}, which is not there"
        elif anchor and target.suffix in (".md", ".ipynb") and anchor not in anchors(target):
            yield f"a link to {link!r}: no such heading there"


def links_resolve(notebook: NotebookNode, path: Path) -> Iterator[str]:
    yield from broken_links(markdown(notebook), path)


EVERYWHERE: list[Rule] = [
    first_cell_says_where_it_runs,
    cells_are_short,
    images_have_alt_text,
    cells_ran_once_in_order,
    outputs_are_free_of_errors_and_machine,
    outputs_belong_to_the_code,
    file_is_small_and_valid,
    links_resolve,
]
IN_THE_SERIES: list[Rule] = [
    header_tells_what_why_and_how_long,
    setup_comes_before_plain_parameters,
    two_questions_have_hidden_answers,
    two_exercises_have_check_and_solution,
    recap_is_a_table,
    last_cell_leads_to_the_neighbours,
    some_outputs_are_checked,
    page_is_not_too_long,
    quiz_stands_before_the_recap,
    loop_is_seen_before_fit,
    a_kernel_is_a_piece_of_a_weight,
    *EVERYWHERE,
]
CASES = [
    pytest.param(path, rule, id=f"{path.relative_to(ROOT / 'notebooks').with_suffix('')}-{rule.__name__}")
    for paths, rules in ((SERIES, IN_THE_SERIES), (SOLUTIONS, EVERYWHERE))
    for path in paths
    for rule in rules
]


@pytest.mark.parametrize(("path", "rule"), CASES)
def test_notebook_keeps(path: Path, rule: Rule):
    complaints = list(rule(nbformat.read(path, as_version=4), path))
    assert not complaints, "\n".join(complaints)


PAGES = [
    page
    for folder in ("", "notebooks", "notebooks/solutions", "benchmarks", "studies", "tests")
    for page in sorted((ROOT / folder).glob("*.md"))
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_of_a_page_resolve(page: Path):
    complaints = list(broken_links(page.read_text("utf-8"), page))
    assert not complaints, "\n".join(complaints)


HEADER = """# 01 · Groups

**Run:** `make lab`

**Runs in:** 12 s on 2 CPU cores.

**Objectives**
- see a group
- name a group
- empty a group

**Prerequisites:** none"""
ANSWER = "What comes out?\n\n<details><summary>Answer</summary>\n\nTwo.\n\n</details>"
STUB = "def double(x):\n    return None"


def good_notebook() -> NotebookNode:
    def text(source: str, *tags: str) -> NotebookNode:
        return nbformat.v4.new_markdown_cell(source, metadata={"tags": list(tags)})

    def code(source: str, *tags: str) -> NotebookNode:
        return nbformat.v4.new_code_cell(source, metadata={"tags": list(tags)})

    notebook = nbformat.v4.new_notebook()
    notebook.cells = [
        text(HEADER, "header"),
        code("import hgsr_lite as hg", "setup"),
        code('DATASET = "digits"\nSEED = 0', "parameters"),
        text(ANSWER, "predict"),
        code("1 + 1", "nbval-check-output"),
        text(ANSWER + "\n\nSee [a kernel](glossary.md#kernel-map) and [recap](#Recap).", "predict"),
        code(STUB, "exercise"),
        code("check_double(double)"),
        code(STUB.replace("double", "triple"), "exercise"),
        code("check_triple(triple)"),
        text("Worked: [solutions](solutions/01_groups.ipynb)"),
        code('quiz("01")', "quiz"),
        text("## Recap\n\n| word | meaning |\n| --- | --- |\n| kernel | one filter |", "recap"),
        text("[Previous](00_start.ipynb) · [Next](02_norms.ipynb)", "navigation"),
    ]
    for count, cell in enumerate(code_cells(notebook), start=1):
        cell.execution_count = count
    two = nbformat.v4.new_output("execute_result", data={"text/plain": "2"}, execution_count=3)
    tagged(notebook, "nbval-check-output")[0].outputs = [two]
    clicked = nbformat.v4.new_output("execute_result", data={"text/html": "<details>"}, execution_count=8)
    tagged(notebook, "quiz")[0].outputs = [clicked]
    notebook.metadata["hgsr"] = {"source_hash": source_hash(notebook)}
    return notebook


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "solutions").mkdir()
    (tmp_path / "glossary.md").write_text("# Glossary\n\n### Kernel map\n")
    for name in ("00_start.ipynb", "02_norms.ipynb", "solutions/01_groups.ipynb", "01_groups.ipynb"):
        nbformat.write(good_notebook(), tmp_path / name)
    return tmp_path / "01_groups.ipynb"


def picture(notebook: NotebookNode) -> None:
    notebook.cells[4].outputs = [nbformat.v4.new_output("display_data", data={"image/png": "AAAA"})]


def text_output(text: str) -> Callable[[NotebookNode], None]:
    def change(notebook: NotebookNode) -> None:
        notebook.cells[4].outputs = [nbformat.v4.new_output("stream", text=text)]

    return change


def warning(notebook: NotebookNode) -> None:
    notebook.cells[4].outputs = [nbformat.v4.new_output("stream", name="stderr", text="slow")]


def source(cell: int, old: str, new: str) -> Callable[[NotebookNode], None]:
    def change(notebook: NotebookNode) -> None:
        assert old in notebook.cells[cell].source
        notebook.cells[cell].source = notebook.cells[cell].source.replace(old, new)

    return change


def untag(cell: int) -> Callable[[NotebookNode], None]:
    return lambda notebook: notebook.cells[cell].metadata.update(tags=[])


BROKEN = [
    (header_tells_what_why_and_how_long, untag(0), "tagged 'header'"),
    (header_tells_what_why_and_how_long, source(0, "# 01", "# 02"), "# 01"),
    (header_tells_what_why_and_how_long, source(0, "12 s on 2 CPU cores", "about a minute"), "make timings"),
    (header_tells_what_why_and_how_long, source(0, "- see a group\n", ""), "2 objectives"),
    (first_cell_says_where_it_runs, source(0, "**Run:**", "Run:"), "launch row"),
    (header_tells_what_why_and_how_long, source(0, "**Prerequisites:** none", ""), "Prerequisites"),
    (setup_comes_before_plain_parameters, untag(1), "'setup'"),
    (setup_comes_before_plain_parameters, source(2, "SEED = 0", "SEED = make()\nx = 2"), "x = 2"),
    (two_questions_have_hidden_answers, untag(3), "1 'predict'"),
    (two_questions_have_hidden_answers, source(3, "<details>", ""), "hides no answer"),
    (two_exercises_have_check_and_solution, untag(6), "1 cells tagged 'exercise'"),
    (two_exercises_have_check_and_solution, source(7, "check_", "try_"), "no check_"),
    (two_exercises_have_check_and_solution, source(10, "solutions/", "answers/"), "no hidden solution"),
    (recap_is_a_table, source(12, "| --- | --- |\n", ""), "'recap'"),
    (last_cell_leads_to_the_neighbours, untag(13), "'navigation'"),
    (last_cell_leads_to_the_neighbours, source(13, "02_norms", "03_norms"), "02_norms.ipynb"),
    (some_outputs_are_checked, untag(4), "nbval-check-output"),
    (page_is_not_too_long, source(10, "Worked", "word " * 2600), "words of running text"),
    (page_is_not_too_long, lambda n: n.cells.extend([n.cells[3]] * 40), "cells, more than"),
    (quiz_stands_before_the_recap, untag(11), "no cell tagged 'quiz'"),
    (quiz_stands_before_the_recap, source(11, "01", "02"), "this page's quiz"),
    (quiz_stands_before_the_recap, lambda n: n.cells[11].update(outputs=[]), "no output to click"),
    (a_kernel_is_a_piece_of_a_weight, source(10, "Worked", "Needs a running kernel"), "Python session"),
    (cells_are_short, source(4, "1 + 1", "x = 1\n" * 26), "26 code lines"),
    (images_have_alt_text, picture, "without alt text"),
    (images_have_alt_text, source(10, "Worked", "![](kernel.png)"), "without alt text"),
    (cells_ran_once_in_order, lambda n: n.cells[4].update(execution_count=9), "execution counts"),
    (outputs_are_free_of_errors_and_machine, text_output("saved in /" + "home/ada/x"), "/home/ada/x"),
    (outputs_are_free_of_errors_and_machine, warning, "a warning among the outputs"),
    (outputs_belong_to_the_code, source(4, "1 + 1", "1 + 2"), "make execute"),
    (file_is_small_and_valid, lambda n: n.metadata.update(widgets={}), "widgets"),
    (links_resolve, source(5, "glossary.md#kernel-map", "glossary.md#colonel"), "no such heading"),
    (links_resolve, source(5, "glossary.md", "dictionary.md"), "not there"),
    (links_resolve, source(5, "#Recap", "#Encore"), "no such heading"),
]


@pytest.mark.parametrize("rule", IN_THE_SERIES)
def test_a_good_notebook_passes(rule: Rule, place: Path):
    assert list(rule(good_notebook(), place)) == []


@pytest.mark.parametrize(("rule", "breaks", "complaint"), BROKEN)
def test_a_broken_notebook_is_noticed(rule: Rule, breaks: Callable, complaint: str, place: Path):
    notebook = good_notebook()
    breaks(notebook)
    assert complaint in "\n".join(rule(notebook, place))


def test_neither_row_nor_block_makes_a_page_longer(place: Path):
    notebook = good_notebook()
    words, lines = running_text(notebook).split(), code_lines(notebook.cells[1])
    home = Home("ann/sparse", site="https://ann.example/")
    notebook.cells[0].source = ROW.sub(launch_row(home, f"notebooks/{place.name}"), notebook.cells[0].source)
    notebook.cells[1].source = setup_block(home) + notebook.cells[1].source
    assert (running_text(notebook).split(), code_lines(notebook.cells[1])) == (words, lines)


def test_every_rule_has_been_broken():
    assert {rule for rule, _, _ in BROKEN} | {loop_is_seen_before_fit} == set(IN_THE_SERIES)


def test_a_page_that_trains_before_its_loop_is_noticed(place: Path):
    notebook, page = good_notebook(), place.with_name("07_exact.ipynb")
    loop = nbformat.v4.new_code_cell(
        "loss.backward()\noptimizer.step()\nr.prox_(lr)", metadata={"tags": ["loop"]}
    )
    notebook.cells.insert(4, loop)
    assert not list(loop_is_seen_before_fit(notebook, page))
    notebook.cells.insert(3, nbformat.v4.new_code_cell("hg.fit(model, data)"))
    assert "before the first hg.fit" in "\n".join(loop_is_seen_before_fit(notebook, page))
