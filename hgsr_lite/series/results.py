"""The scoreboard of the series: what each page makes of the running example, accuracy beside size."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hgsr_lite.series.tables import shipped

if TYPE_CHECKING:
    import pandas
    from torch import Tensor, nn

    from hgsr_lite.training import History

RESULTS_VARIABLE = "HGSR_RESULTS"
TABLE = "notebooks/scoreboard.csv"
"""The rows of the committed pages; `python -m hgsr_lite execute` writes those of the pages that it runs."""
TOLERANCE = 1e-3


def scoreboard(
    page: str, networks: Mapping[str, tuple[History, nn.Module]], images: Tensor
) -> pandas.DataFrame:
    """The committed rows of the pages before `page`, and one for each of these networks, measured now.

    `networks` maps what was done to the history of the training, whose test accuracies are shown, and to the
    network. In a copy of it the weights below 0.001 become zero and the dead channels go, checked on `images`
    (N, C, H, W): *parameters left* and *MACs left* (multiply-accumulates for one image) are what remains;
    *in living kernels* and *MACs in living kernels* leave dead kernels out of that as well, as
    `skip_dead_kernels` does. The rows are handed to the closing table of `make run`: a line each to the file
    that `$HGSR_RESULTS` names, if it names one.

    >>> import hgsr_lite as hg
    >>> from hgsr_lite.series import example_network
    >>> data = hg.load_data("digits", device="cpu", limit=60)
    >>> network = example_network(data)
    >>> history = hg.fit(network, data, epochs=1, progress=False)
    >>> scoreboard("00", {"dense": (history, network)}, data.test.images[:4])["parameters left"].tolist()
    ['56,554']
    """
    rows = [_measured(page, name, *trained, images) for name, trained in networks.items()]
    target = os.environ.get(RESULTS_VARIABLE)
    if target:
        with open(target, "a", encoding="utf-8") as lines:
            lines.writelines(json.dumps(row) + "\n" for row in rows)
    return results_table([*(row for row in committed_rows() if row["page"] < page), *rows])


def _measured(page: str, name: str, history: History, model: nn.Module, images: Tensor) -> dict[str, Any]:
    from hgsr_lite.removal import compact
    from hgsr_lite.zeros import sparsity, zero_below_

    zeroed = copy.deepcopy(model).eval()
    zero_below_(zeroed, TOLERANCE)
    small, report = compact(zeroed, images, repeats=0)
    places = _places(small, images[:1])
    dead = {
        layer.name: layer.dead_kernels * layer.weights // layer.kernels for layer in sparsity(small, 0).layers
    }
    return {
        "page": page,
        "network": name,
        "accuracy": history.test.accuracy,
        "accuracy_after_zeroing": history.test.accuracy_after_zeroing,
        "parameters": report.after.parameters,
        "in_living_kernels": report.after.parameters - sum(dead.values()),
        "macs": report.after.macs,
        "macs_in_living_kernels": report.after.macs - sum(dead[name] * places[name] for name in dead),
    }


def _places(model: nn.Module, image: Tensor) -> dict[str, int]:
    """At how many places of an image each convolution, by its name, multiplies by its weights."""
    import torch

    found: dict[nn.Module, int] = {}

    def note(layer: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        found[layer] = output[0, 0].numel()

    convolutions = {name: m for name, m in model.named_modules() if isinstance(m, torch.nn.Conv2d)}
    hooks = [layer.register_forward_hook(note) for layer in convolutions.values()]
    with torch.no_grad():
        model(image)
    for hook in hooks:
        hook.remove()
    return {name: found[layer] for name, layer in convolutions.items()}


def committed_rows() -> list[dict[str, Any]]:
    """The rows of the committed table, in the order of the pages."""
    import pandas

    return pandas.read_csv(shipped(TABLE), dtype={"page": str}).to_dict("records")


def commit_rows(rows: Iterable[Mapping[str, Any]], table: str | Path) -> None:
    """Put the rows of some pages in the place of those that the table has of the same pages."""
    import pandas

    new, table = pandas.DataFrame(list(rows)), Path(table)
    if new.empty:
        return
    if table.exists():
        before = pandas.read_csv(table, dtype={"page": str})
        new = pandas.concat([before[~before["page"].isin(new["page"])], new])
    new.sort_values("page", kind="stable").to_csv(table, index=False)


def read_results(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a run, in the order of the pages; none if no notebook handed any over."""
    path = Path(path)
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []
    return sorted(rows, key=lambda row: row["page"])


def results_table(rows: Sequence[Mapping[str, Any]]) -> pandas.DataFrame:
    """Rows as a reader sees them: `make run` closes with this table, too.

    >>> row = {"page": "00", "network": "dense", "accuracy": 0.99, "accuracy_after_zeroing": 0.98,
    ...        "parameters": 56554, "in_living_kernels": 1234, "macs": 903808, "macs_in_living_kernels": 5678}
    >>> results_table([row]).iloc[0].tolist()
    ['dense', '99.0 %', '98.0 %', '56,554', '1,234', '903,808', '5,678']
    """
    import pandas

    columns = {
        "network": ("network", "{}"),
        "test accuracy": ("accuracy", "{:.1%}"),
        "after zeroing": ("accuracy_after_zeroing", "{:.1%}"),
        "parameters left": ("parameters", "{:,}"),
        "in living kernels": ("in_living_kernels", "{:,}"),
        "MACs left": ("macs", "{:,}"),
        "MACs in living kernels": ("macs_in_living_kernels", "{:,}"),
    }
    shown = [[form.format(row[key]).replace("%", " %") for key, form in columns.values()] for row in rows]
    return pandas.DataFrame(
        shown, index=pandas.Index([row["page"] for row in rows], name="page"), columns=list(columns)
    )
