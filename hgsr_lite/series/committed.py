"""What a committed notebook keeps of a run: outputs that fit its code, and nothing of the machine."""

from __future__ import annotations

import hashlib
import json
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
WIDGET_STATE = "application/vnd.jupyter.widget-state+json"
LIVE_FIGURE = "application/vnd.hgsr-lite.live+json"
KEPT_CELL_METADATA = ("alt", "tags")
TIME_LINE = re.compile(r"^\*\*Runs in:\*\* .*$", re.MULTILINE)
_MEMORY_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_KERNEL_FILE = re.compile(r"\S*ipykernel_\d+/\d+\.py")
_STYLED_TABLE = re.compile(r'<table id="(T_\w+)"')
_LIVE_STATE = re.compile(
    r'<img alt="(?P<alt>[^"]*)"[^>]*src="data:image/png;base64,(?P<png>[^"]*)"></div>\s*'
    r'<script type="application/json" data-hgsr-state="\w+" data-figure="(?P<module>\w+\.js)">'
    r"(?P<state>.*?)</script>",
    re.DOTALL,
)
_INSTALLED_PACKAGES = re.compile(r"[^\s'\"<>]*/site-packages/")


def source_hash(notebook: NotebookNode) -> str:
    """Return a short fingerprint of a notebook's code cells: outputs belong to code with the same one.

    >>> cell = nbformat.v4.new_code_cell("1 + 1")
    >>> source_hash(nbformat.v4.new_notebook(cells=[cell]))
    '72fce59447a01f48'
    """
    code = "\0".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    return hashlib.sha256(code.encode()).hexdigest()[:16]


def clean(notebook: NotebookNode, root: str | Path) -> NotebookNode:
    """Return an executed notebook as it is committed: the same from every machine, wherever it can be.

    Dropped: widget state (a still picture out of the widget takes its place), the module of a live figure
    (its still picture and its state stay), progress bars, time stamps, memory addresses, the random ids of
    styled tables, and paths under ``root``, the home folder and the installed packages.
    """
    notebook = nbformat.from_dict(notebook)
    widgets = notebook.metadata.get("widgets", {}).get(WIDGET_STATE, {}).get("state", {})
    for cell in notebook.cells:
        cell.metadata = NotebookNode(
            {key: cell.metadata[key] for key in KEPT_CELL_METADATA if cell.metadata.get(key)}
        )
        if cell.cell_type == "code":
            stills = [still for output in cell.outputs for still in _stills(output, widgets)]
            cell.outputs = [tidy for output in stills for tidy in _tidy(output, Path(root))]
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
            "hgsr": {"source_hash": source_hash(notebook)},
        }
    )
    return notebook


def _stills(output: NotebookNode, widgets: Mapping[str, Any]) -> Iterator[NotebookNode]:
    """Yield an output itself, the pictures shown by the widget it holds, or what a live figure shows."""
    data = output.get("data", {})
    view, live = data.get(WIDGET_VIEW), _LIVE_STATE.search(data.get("text/html", ""))
    if live:
        yield _live_still(live)
    elif view is None:
        yield output
    else:
        yield from _pictures(view["model_id"], widgets)


def _live_still(live: re.Match[str]) -> NotebookNode:
    """A live figure without its module, which is the package's: the still picture beside its state."""
    state = json.loads(live["state"])
    state.pop("place", None)  # drawn anew by each run
    data = {"image/png": live["png"], LIVE_FIGURE: {"figure": live["module"], "state": state}}
    return nbformat.v4.new_output("display_data", data=data)


def _pictures(model: str, widgets: Mapping[str, Any]) -> Iterator[NotebookNode]:
    entry = widgets.get(model, {})
    state = entry.get("state", {})
    for output in state.get("outputs", []):
        if "image/png" in output.get("data", {}):
            yield nbformat.v4.new_output("display_data", data={"image/png": output["data"]["image/png"]})
    if entry.get("model_name") == "ImageModel":
        for buffer in entry.get("buffers", []):
            yield nbformat.v4.new_output("display_data", data={"image/png": buffer["data"]})
    for child in state.get("children", []):
        yield from _pictures(child.removeprefix("IPY_MODEL_"), widgets)


def _tidy(output: NotebookNode, root: Path) -> Iterator[NotebookNode]:
    if output.output_type == "stream":
        lines = output.text.split("\n")
        if output.name == "stderr":
            lines = [line for line in lines if "\r" not in line]
        output.text = _anonymous("\n".join(line.rpartition("\r")[2] for line in lines), root)
        if output.text.strip():
            yield output
        return
    for kind, content in output.get("data", {}).items():
        if kind.startswith("text/"):
            output.data[kind] = _with_stable_id(_anonymous(content, root))
    yield output


def _with_stable_id(html: str) -> str:
    """The same table with an id that follows from what it shows: pandas draws a new one for each run."""
    table = _STYLED_TABLE.search(html)
    if table is None:
        return html
    shown = html.replace(table[1], "")
    return html.replace(table[1], f"T_{hashlib.sha256(shown.encode()).hexdigest()[:5]}")


def _anonymous(text: str, root: Path) -> str:
    text = _KERNEL_FILE.sub("this notebook", text)
    text = _INSTALLED_PACKAGES.sub("site-packages/", text)
    for folder in (root.resolve(), Path(sys.prefix), Path.home(), Path(tempfile.gettempdir())):
        if folder != folder.parent:  # a home at the file system's root would take every slash with it
            text = text.replace(f"{folder}/", "").replace(str(folder), ".")
    return _MEMORY_ADDRESS.sub("", text)


def time_line(old: str, cpu_seconds: float, cores: int, gpu: tuple[str, float] | None = None) -> str:
    """Return a header cell's time line with new figures; a GPU's earlier figure stays until measured again.

    A device that was not measured is not named.

    >>> time_line("**Runs in:** unknown.", 24.6, 2)
    '**Runs in:** 25 s on 2 CPU cores.'
    >>> time_line("**Runs in:** 25 s on 2 CPU cores; GPU: 9 s on one Model X.", 31.2, 2)
    '**Runs in:** 31 s on 2 CPU cores; GPU: 9 s on one Model X.'
    """
    earlier = re.search(r"; GPU: .*(?=\.$)", old.strip())
    on_gpu = earlier[0] if earlier else ""
    if gpu is not None:
        on_gpu = f"; GPU: {_seconds(gpu[1])} on one {gpu[0]}"
    return f"**Runs in:** {_seconds(cpu_seconds)} on {cores} CPU cores{on_gpu}."


def _seconds(value: float) -> str:
    return f"{max(1, round(value))} s"


def write_time_line(path: str | Path, cpu_seconds: float, cores: int, gpu: tuple[str, float] | None) -> str:
    """Write measured times into the ``**Runs in:**`` line of a notebook's header cell; return the new line.

    Raises ``ValueError`` if the notebook has no such line.
    """
    notebook = nbformat.read(path, as_version=4)
    header = next((cell for cell in notebook.cells if "header" in cell.metadata.get("tags", [])), None)
    found = TIME_LINE.search(header.source) if header else None
    if found is None:
        raise ValueError(f"{Path(path).name} has no line starting '**Runs in:** ' in a cell tagged 'header'.")
    line = time_line(found[0], cpu_seconds, cores, gpu)
    header.source = header.source[: found.start()] + line + header.source[found.end() :]
    nbformat.write(notebook, path)
    return line
