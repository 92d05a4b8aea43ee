"""What the notebooks write out by hand is what the package computes, and their table of formulas is true.

Each cell tagged `formula` is run alone: after torch, math and the earlier formula cells of its notebook,
nothing else. A function called `hand_x`, or `x_by_hand`, is compared with the package's x: see `COMPARISONS`.
"""

from __future__ import annotations

import inspect
import math
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import nbformat
import pytest
import torch
from nbformat import NotebookNode
from torch import Tensor

import hgsr_lite as hg

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9A-Z]*_*.ipynb"))
HIERARCHY = ROOT / "notebooks" / "A_all_nine.ipynb"
SHAPES = [(3, 2, 2), (5, 4, 3, 3), (1, 6, 1), (6, 1, 2, 5)]
KEYS = "|".join(sorted(hg.PENALTIES, key=len, reverse=True))
Hand = Callable[..., Tensor]


def formula_cells(notebook: NotebookNode) -> list[str]:
    return [cell.source for cell in notebook.cells if "formula" in cell.metadata.get("tags", [])]


def hand_functions(cells: list[str]) -> dict[str, Hand]:
    """The functions that formula cells define, run in order in a namespace of their own."""
    namespace = {"torch": torch, "math": math}
    for source in cells:
        exec(compile(source, "<formula cell>", "exec"), namespace)
    return {hand_name(name): item for name, item in namespace.items() if inspect.isfunction(item)}


def hand_name(name: str) -> str:
    return f"hand_{name.removesuffix('_by_hand')}" if name.endswith("_by_hand") else name


ZEROS = {
    "an element": (0, 0, 0),
    "a kernel": (0, 0),
    "an input channel": (slice(None), 0),
    "an output channel": (0,),
    "the layer": (),
}


def random_weight(shape: tuple[int, ...], empty: str = "nothing") -> Tensor:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)
    if empty != "nothing":
        weight[ZEROS[empty]] = 0
    return weight


def same(hand: Tensor, package: Tensor, relative: float = 1e-9) -> None:
    torch.testing.assert_close(hand.detach(), package.detach(), rtol=relative, atol=relative / 10)


def call(function: Hand, weight: Tensor, grouping: str, *rest: float) -> Tensor:
    """A function of a penalty that knows no groups may leave the grouping out."""
    needed = len(inspect.signature(function).parameters)
    return function(weight, *rest) if needed == 1 + len(rest) else function(weight, grouping, *rest)


def same_value_and_gradient(function: Hand, penalty: hg.Penalty, weight: Tensor, *rest: float) -> None:
    weight.requires_grad_()
    value = call(function, weight, penalty.grouping, *rest)
    same(value, penalty.value(weight))
    same(torch.autograd.grad(value, weight)[0], penalty.gradient(weight))


def cases(*empties: str) -> Iterator[tuple[str, Tensor]]:
    for grouping in hg.GROUPINGS:
        for shape in SHAPES:
            for empty in empties or ("nothing",):
                yield grouping, random_weight(shape, empty)


def compare_value(function: Hand, key: str) -> None:
    for grouping, weight in cases():
        same_value_and_gradient(function, hg.Penalty(key, grouping), weight)


def compare_safe_value(function: Hand, key: str) -> None:
    for grouping, weight in cases("nothing", *ZEROS):
        same_value_and_gradient(function, hg.Penalty(key, grouping), weight)


def compare_method(name: str) -> Callable[[Hand, str], None]:
    def compare(function: Hand, key: str) -> None:
        for grouping, weight in cases():
            same(call(function, weight, grouping), getattr(hg.Penalty(key, grouping), name)(weight))

    return compare


def compare_prox(function: Hand, key: str) -> None:
    for grouping, weight in cases():
        for step in (0.01, 0.3, 2.0):
            prox = hg.Penalty(key, grouping).prox(weight, step)
            same(call(function, weight, grouping, step), prox, relative=1e-12)


def each_row(compare: Callable[[Hand, hg.Penalty, Tensor, tuple], None]) -> Callable[[Hand], None]:
    """The comparison of a function of `(weight, grouping, norm, inner, outer)`, over all eleven penalties."""

    def over_all(function: Hand) -> None:
        for key, spec in hg.PENALTIES.items():
            for grouping, weight in cases():
                compare(function, hg.Penalty(key, grouping), weight, (spec.norm, spec.inner, spec.outer))

    return over_all


def compare_safe_gradient(function: Hand) -> None:
    for key, spec in hg.PENALTIES.items():
        for grouping, weight in cases("nothing", *ZEROS):
            hand = function(weight, grouping, spec.norm, spec.inner, spec.outer)
            same(hand, hg.Penalty(key, grouping).gradient(weight))


def compare_kernel_norms(function: Hand) -> None:
    for _, weight in cases():
        for norm in (1, 2):
            same(function(weight.flatten(2), norm), hg.kernel_norms(weight, norm))


def compare_group_sums(function: Hand) -> None:
    for grouping, weight in cases():
        sums = hg.kernel_norms(weight, 1).sum({"feature": 0, "neuron": 1}[grouping])
        same(function(weight.flatten(2), grouping), sums)


COMPARISONS: dict[str, Callable[..., None]] = {
    rf"hand_({KEYS})": compare_value,
    rf"hand_safe_({KEYS})": compare_safe_value,
    rf"hand_gradient_({KEYS})": compare_method("gradient"),
    rf"hand_force_({KEYS})": compare_method("force"),
    rf"hand_prox_({KEYS})": compare_prox,
    "hand_penalty": each_row(lambda hand, pen, w, row: same_value_and_gradient(hand, pen, w, *row)),
    "hand_gradient": each_row(lambda hand, pen, w, row: same(hand(w, pen.grouping, *row), pen.gradient(w))),
    "hand_force": each_row(lambda hand, pen, w, row: same(hand(w, pen.grouping, *row), pen.force(w))),
    "hand_safe_gradient": compare_safe_gradient,
    "hand_(?:kernel_)?norms": compare_kernel_norms,
    "hand_group_sums": compare_group_sums,
}
"""Name of a hand-written function (a pattern whose group is the penalty's key) -> how it is compared."""


def compare_by_name(name: str, function: Hand) -> None:
    for pattern, compare in COMPARISONS.items():
        found = re.fullmatch(pattern, name)
        if found:
            compare(function, *found.groups())
            return
    raise AssertionError(f"{name} is compared with nothing: name it after one of {', '.join(COMPARISONS)}")


@cache
def functions_by_notebook() -> dict[Path, dict[str, Hand]]:
    found = {path: formula_cells(nbformat.read(path, as_version=4)) for path in NOTEBOOKS}
    return {path: hand_functions(cells) for path, cells in found.items() if cells}


def hand_written() -> Iterator[object]:
    for path in NOTEBOOKS:
        source = "\n".join(formula_cells(nbformat.read(path, as_version=4)))
        for name in map(hand_name, re.findall(r"^def (\w+)", source, re.MULTILINE)):
            if name.startswith("hand_"):
                yield pytest.param(path, name, id=f"{path.stem}-{name}")


@pytest.mark.parametrize(("path", "name"), list(hand_written()))
def test_a_hand_written_formula_is_the_package(path: Path, name: str):
    compare_by_name(name, functions_by_notebook()[path][name])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_formula_cells_run_alone_and_hold_something_to_compare(path: Path):
    cells = formula_cells(nbformat.read(path, as_version=4))
    functions = hand_functions(cells)
    assert not cells or any(name.startswith("hand_") for name in functions), "no hand_... function"


def test_the_nine_group_penalties_are_all_written_out_by_hand():
    functions = functions_by_notebook()[HIERARCHY]
    assert {f"hand_{key}" for key in hg.PENALTIES if key not in ("l1", "l2")} <= set(functions)


def drifted_gl12(weight: Tensor, grouping: str) -> Tensor:
    return 1.001 * hg.Penalty("gl12", grouping)(weight)


def same_value_other_gradient(weight: Tensor, grouping: str) -> Tensor:
    return hg.Penalty("es", grouping).value(weight) + 0 * weight.sum()


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("hand_gl12", drifted_gl12),
        ("hand_es", same_value_other_gradient),
        ("hand_gradient_gl", lambda weight, grouping: hg.Penalty("gl", "feature").gradient(weight)),
        ("hand_force_hsq_gl", lambda weight, grouping: 2 * hg.Penalty("hsq_gl", grouping).force(weight)),
        ("hand_prox_l1", lambda weight, step: weight.sign() * (weight.abs() - step)),
        ("hand_penalty", lambda weight, grouping, norm, inner, outer: weight.abs().sum()),
        ("hand_kernel_norms", lambda weight, norm: weight.flatten(2).abs().sum(2)),
        ("hand_es_again", lambda weight, grouping: hg.Penalty("es", grouping)(weight)),
    ],
)
def test_a_drifted_or_unknown_formula_is_noticed(name: str, function: Hand):
    with pytest.raises(AssertionError):
        compare_by_name(name, function)


def test_a_formula_that_breaks_at_zero_is_not_called_safe():
    def textbook(weight: Tensor, grouping: str) -> Tensor:
        dimension = {"feature": 0, "neuron": 1}[grouping]
        return weight.flatten(2).abs().sum(2).sqrt().sum(dimension).square().sum()

    compare_by_name("hand_hsq_gl12", textbook)
    with pytest.raises(AssertionError):
        compare_by_name("hand_safe_hsq_gl12", textbook)


def test_a_formula_cell_that_needs_more_than_torch_is_noticed():
    with pytest.raises(NameError):
        hand_functions(["LIMIT = hg.PENALTIES"])


def table_rows() -> list[dict[str, str]]:
    """The rows of the tables in appendix A whose last column names a test, and in its head the file."""
    found = []
    for cell in nbformat.read(HIERARCHY, as_version=4).cells:
        header: list[str] = []
        for line in cell.source.splitlines() if cell.cell_type == "markdown" else ():
            fields = [field.strip() for field in line.strip().strip("|").split("|")] if "|" in line else []
            if fields and fields[-1].startswith("held by"):
                header = [*fields[:-1], "held by"]
                file = code(fields[-1])
            elif header and len(fields) == len(header) and not set(line) <= set("|-: "):
                row = dict(zip(header, fields, strict=True))
                found.append(row | {"held by": f"{file}::{code(row['held by'])}"})
            elif not fields:
                header = []
    return found


def code(field: str) -> str:
    """What stands in backticks; a long name may be broken in two, `name` `[parameter]`."""
    return "".join(re.findall(r"`([^`]+)`", field))


ROWS = table_rows()
each_table_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: next(iter(row.values())))


def test_the_table_has_a_row_for_each_of_the_nine():
    nine = {key for key in hg.PENALTIES if key not in ("l1", "l2")}
    assert nine <= {code(row.get("penalty", "")) for row in ROWS}


@each_table_row
def test_a_rows_hand_written_function_is_there_and_its_call_gives_its_penalty(row: dict[str, str]):
    assert code(row["by hand"]) in {"", *functions_by_notebook()[HIERARCHY]}
    result = eval(code(row["package"]), {"hg": hg})
    if "penalty" in row:
        assert result == hg.Penalty(code(row["penalty"]))


@each_table_row
def test_a_rows_equation_is_the_packages(row: dict[str, str]):
    if "penalty" in row:
        written = row["equation"].strip("$").replace(r"\lVert ", r"\|").replace(r" \rVert", r"\|")
        assert written == hg.PENALTIES[code(row["penalty"])].latex


@pytest.mark.slow
def test_every_test_named_in_the_table_exists_and_passes():
    named = sorted({row["held by"] for row in ROWS})
    assert all(re.fullmatch(r"tests/\w+/\w+\.py::test_\w+(\[[\w-]+\])?", name) for name in named)
    options = ["-q", "--no-header", "-p", "no:cacheprovider", "-p", "no:xdist", "-W", "ignore"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *named], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
