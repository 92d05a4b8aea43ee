"""The README reads true: its picture is notebook 00's, its code runs, its links lead somewhere."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import nbformat
import pytest

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
