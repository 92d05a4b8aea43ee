"""The README reads true: its picture is notebook 00's, its code runs, its links lead somewhere."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import nbformat
import pytest

from hgsr_lite.__main__ import _parser

REPOSITORY = Path(__file__).resolve().parents[2]
README = (REPOSITORY / "README.md").read_text()


def test_the_picture_is_the_one_that_notebook_00_draws():
    notebook = nbformat.read(REPOSITORY / "notebooks" / "00_start_here.ipynb", as_version=4)
    pictures = [
        base64.b64decode(output["data"]["image/png"])
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if "image/png" in output.get("data", {})
    ]
    assert (REPOSITORY / "notebooks" / "images" / "kernels.png").read_bytes() in pictures


@pytest.mark.trains
def test_the_ten_lines_run_as_they_stand(capsys, monkeypatch):
    code, _ = re.findall(r"```python\n(.*?)```", README, re.S)
    monkeypatch.setenv("TQDM_DISABLE", "1")
    exec(compile(code.replace("epochs=40", "epochs=2"), "<README>", "exec"), {})
    said = capsys.readouterr().out
    assert "test accuracy" in said
    assert "sparsity at tolerance" in said


def test_every_target_is_a_command_of_the_same_name_and_the_makefile_adds_nothing():
    makefile = (REPOSITORY / "Makefile").read_text()
    targets = dict(re.findall(r"^([a-z-]+):.*  ## .*\n((?:\t.*\n)*)", makefile, re.M))
    for target in targets.keys() - {"help", "setup", "clean", "distclean"}:
        (line,) = targets[target].splitlines()
        assert line.startswith(f"\t@$(PY) -m hgsr_lite {target}"), line


def test_every_command_is_named():
    (choices,) = (action.choices for action in _parser()._actions if action.dest == "command")
    (line,) = re.findall(r"-m hgsr_lite lab +# or: (.*)", README)
    assert set(choices) == {"lab", *line.split(", ")}


def test_windows_is_told_the_same_three_lines():
    told = re.search(r"```bash\n(python3 -m venv.*?)```", README, re.S)[1]
    windows = re.search(r"```bat\n:: Windows\n(.*?)```", README, re.S)[1]
    said = re.sub(r" +# or: .*", "", told).replace("python3 -m", "py -3.12 -m")
    assert windows == said.replace(".venv/bin/python", r".venv\Scripts\python")


def test_versions_that_it_names_are_the_tested_ones():
    pins = (REPOSITORY / "constraints.txt").read_text().splitlines()
    assert set(re.findall(r"\b[a-z]+==[\d.]+\d", README)) <= set(pins)


def test_every_file_it_points_to_exists():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if not link.startswith("https://")]
    assert len(links) > 12
    for link in links:
        file, _, heading = link.partition("#")
        assert (REPOSITORY / file).exists(), link
        assert not heading or heading in _headings(REPOSITORY / file), link


def _headings(page: Path) -> set[str]:
    """Addresses of a Markdown page's headings, by the rule of the hosts that show it."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    return {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}
