"""Value, force, gradient and proximal step in the page are those of the package."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from hgsr_lite import GROUPINGS, PENALTIES, Penalty
from hgsr_lite.live.modules import one_text

CLOSED = ("gl", "hsqrt_gl", "hsq_gl", "es", "gl12", "l1", "l2")
SHAPE = (5, 4, 9)
STEPS = (0.003, 0.05, 0.4, 3.0)
COMPUTE = """
  const layer = { outputs: given.shape[0], inputs: given.shape[1], elements: given.shape[2] };
  return given.cases.map(({ row, grouping, steps, l1Step }) => {
    const gradient = new Float64Array(given.weight.length);
    live.addGradient(row, grouping, given.weight, layer, 1, gradient);
    const landed = steps.map((step) => {
      const moved = Float64Array.from(given.weight);
      live.proximalStep(row, grouping, moved, layer, step, l1Step);
      return [...moved];
    });
    const value = live.penaltyValue(row, grouping, given.weight, layer);
    const force = [...live.forces(row, grouping, given.weight, layer)];
    return { value, gradient: [...gradient], force, landed, closed: live.hasClosedProx(row) };
  });
"""


def row(key: str) -> dict[str, Any]:
    return {"key": key, **vars(PENALTIES[key])}


@pytest.fixture(scope="module")
def weight() -> torch.Tensor:
    """A layer with zero weights, a zero kernel, and a zero group of each grouping."""
    weight = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weight[0, 1, :4] = weight[2, 2] = weight[:, 3] = weight[4] = 0
    return weight


@pytest.fixture
def in_page(in_node, weight: torch.Tensor) -> dict[tuple[str, str], Any]:
    """Each penalty and grouping -> what the page computes."""
    names = [(key, grouping) for key in PENALTIES for grouping in GROUPINGS]
    cases = [
        {"row": row(key), "grouping": grouping, "steps": STEPS if key in CLOSED else [], "l1Step": 0.1}
        for key, grouping in names
    ]
    given = {"shape": SHAPE, "weight": weight.flatten().tolist(), "cases": cases}
    return dict(zip(names, in_node("penalty.js", COMPUTE, given), strict=True))


def test_value_force_and_gradient_of_every_penalty(in_page, weight: torch.Tensor):
    for (key, grouping), found in in_page.items():
        penalty = Penalty(key, grouping)
        assert found["value"] == pytest.approx(penalty.value(weight).item(), rel=1e-10), key
        assert found["force"] == pytest.approx(penalty.force(weight).flatten().tolist(), rel=1e-10), key
        assert found["gradient"] == pytest.approx(penalty.gradient(weight).flatten().tolist(), rel=1e-10), key


def test_the_proximal_step_of_every_penalty_with_a_closed_form(in_page, weight: torch.Tensor):
    for (key, grouping), found in in_page.items():
        assert found["closed"] == (key in CLOSED)
        for step, landed in zip(STEPS, found["landed"], strict=False):
            wanted = Penalty(key, grouping).prox(weight, step, l1_step=0.1).flatten()
            assert landed == pytest.approx(wanted.tolist(), rel=1e-9, abs=1e-12), (key, grouping, step)
            assert [value == 0 for value in landed] == (wanted == 0).tolist()


def test_a_penalty_without_a_closed_form_is_refused_in_words(in_node):
    body = """
      try { live.proximalStep(given, "feature", [1], { outputs: 1, inputs: 1, elements: 1 }, 1); }
      catch (error) { return error.message; }"""
    assert "no closed proximal step" in in_node("penalty.js", body, row("hsq_es"))


def test_the_page_keeps_no_table_of_its_own():
    assert not any(f'"{key}"' in one_text("training.js") for key in PENALTIES)
