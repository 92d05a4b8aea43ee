"""A row added to the table from outside works at once, as far as its exponents are known."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError

import pytest
import torch
from torch import nn

from hgsr_lite import PENALTIES, Penalty, Regularizer
from hgsr_lite.table import PenaltySpec

ROWS = {
    "known to every version": PenaltySpec("twelfth", 1, 0.5, 1.0),
    "with a new exponent": PenaltySpec("twelfth", 1, 1.5, 2.0),
    "dividing by an l2 norm's square root": PenaltySpec("twelfth", 2, 0.5, 2.0),
    "of kernels without groups": PenaltySpec("twelfth", 2, 1.0, 1.0),
}
SOLVED = ("dividing by an l2 norm's square root", "of kernels without groups")


@pytest.fixture(params=ROWS)
def row(request, monkeypatch):
    monkeypatch.setitem(PENALTIES, "twelfth", ROWS[request.param])
    return request.param


def normal(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_its_value_gradient_force_and_degree_work_at_once(row):
    spec, weight, penalty = ROWS[row], normal(4, 3, 3, 3), Penalty("twelfth", "feature")
    norms = torch.linalg.vector_norm(weight, spec.norm, (2, 3))
    assert penalty(weight).item() == pytest.approx((norms**spec.inner).sum(0).pow(spec.outer).sum().item())
    assert torch.autograd.gradcheck(penalty, weight.clone().requires_grad_())
    assert penalty(2 * weight).item() == pytest.approx(2**spec.degree * penalty(weight).item())
    slopes = penalty.gradient(weight)
    assert torch.allclose(
        penalty.force(weight), torch.linalg.vector_norm(slopes, math.inf if spec.norm == 1 else 2, (2, 3))
    )
    assert "twelfth" in penalty.spec.title
    assert penalty.spec.latex.startswith(r"\sum_g")


@pytest.mark.parametrize("grouping", ["feature", "neuron"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_on_a_model_its_gradient_is_right_and_the_compiled_version_steps_aside_if_it_must(
    row, grouping, dtype
):
    model = nn.Sequential(nn.Conv2d(3, 9, 3), nn.Conv2d(9, 4, 1)).to(dtype)
    reg = Regularizer(model, "twelfth", grouping=grouping, strength=0.5)
    assert reg.backend == (
        "compiled" if row in ("known to every version", "of kernels without groups") else "plain"
    )
    value = reg.add_gradient_()
    assert value.item() == pytest.approx(sum(0.5 * reg.penalty(layer.weight).item() for layer in reg.layers))
    for layer in reg.layers:
        wanted = 0.5 * reg.penalty.gradient(layer.weight.double())
        torch.testing.assert_close(layer.weight.grad.double(), wanted, rtol=1e-5, atol=1e-7)


def test_its_proximal_step_is_solved_or_says_clearly_that_there_is_no_solver(row):
    model = nn.Sequential(nn.Conv2d(3, 4, 3))
    reg = Regularizer(model, "twelfth", strength=0.01)
    before = model[0].weight.detach().clone()
    if row not in SOLVED:
        for step in (lambda: reg.prox_(0.1), lambda: reg.penalty.prox(before, 0.1)):
            numbers = f"p = {ROWS[row].inner:g}, q = {ROWS[row].outer:g};"
            with pytest.raises(ValueError, match=f"'twelfth' has no proximal step: .* exponents {numbers}"):
                step()
        assert torch.equal(model[0].weight, before)
        return
    reg.prox_(1.0)
    expected = reg.penalty.prox(before.double(), 0.01)
    torch.testing.assert_close(model[0].weight.detach().double(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("grouping", ["feature", "neuron"])
@pytest.mark.parametrize("outer", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("inner", [0.5, 1.0])
def test_the_proximal_step_of_kernels_measured_by_l2_is_never_above_a_search(
    monkeypatch, inner, outer, grouping
):
    if (inner, outer) == (0.5, 1.0):
        pytest.skip("these exponents have no solver")
    monkeypatch.setitem(PENALTIES, "twelfth", PenaltySpec("twelfth", 2, inner, outer))
    penalty = Penalty("twelfth", grouping)
    for number in range(20):
        weight, step = normal(2, 2, 3) * (1 + number / 10), 0.02 * 1.3**number
        moved = penalty.prox(weight, step)
        # Each kernel only shrinks: the search is over four factors.
        factors = torch.linspace(0, 1, 21, dtype=torch.float64)
        grid = torch.stack(torch.meshgrid(*[factors] * 4, indexing="ij"), -1).reshape(-1, 2, 2, 1)
        norms = torch.linalg.vector_norm(weight, dim=-1) * grid.squeeze(-1)
        sums = norms.pow(inner).sum(1 if grouping == "feature" else 2).pow(outer).sum(1)
        lowest = (0.5 * ((grid - 1) * weight).square().sum((1, 2, 3)) + step * sums).min()
        reached = 0.5 * (moved - weight).square().sum() + step * penalty(moved)
        assert reached <= lowest + 1e-9


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ((3, 1.0, 1.0), "norm 3 of 'bad': a kernel has an l1 and an l2 norm"),
        ((1, 0.0, 1.0), "inner of 'bad' 0.0 is not a finite number > 0"),
        ((1, 1.0, -2.0), "outer of 'bad' -2.0 is not a finite number > 0"),
        ((1, 1.0, math.nan), "outer of 'bad' nan is not a finite number > 0"),
        ((1, "2", 1.0), "inner of 'bad' '2' is not a finite number > 0"),
    ],
)
def test_a_rows_numbers_are_checked_where_it_is_made(numbers, message):
    with pytest.raises(ValueError, match=message):
        PenaltySpec("bad", *numbers)


def test_a_row_is_a_record_that_nothing_changes_afterwards():
    with pytest.raises(FrozenInstanceError):
        PENALTIES["gl"].outer = 2.0
