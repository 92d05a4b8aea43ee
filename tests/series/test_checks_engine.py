"""The judge of the exercises: fair to any right answer, helpful to a wrong one, never in the way."""

from __future__ import annotations

import pytest
import torch

from hgsr_lite.series.checks.engine import Exercise

CASES = [(torch.tensor([[3.0, -4.0], [0.0, 0.0]]),), (torch.tensor([[1.0, 2.0], [2.0, 4.0]]),)]


def row_norms(weight):
    return weight.square().sum(1).sqrt()


def untouched(weight):
    """A stub."""


def verdict(capsys, answer, **options):
    passed = Exercise(row_norms, CASES, {"Is the root there?": lambda w: w.square().sum(1)}, **options)(
        answer
    )
    return passed, capsys.readouterr().out


@pytest.mark.parametrize(
    "answer",
    [
        row_norms,
        lambda w: torch.linalg.vector_norm(w, dim=1),
        lambda w: [sum(x * x for x in row) ** 0.5 for row in w.tolist()],
        lambda w: w.double().norm(dim=1),
    ],
)
def test_any_right_implementation_passes(capsys, answer):
    passed, said = verdict(capsys, answer)
    assert passed
    assert "right." in said


def test_two_results_may_come_as_a_list(capsys):
    halves = Exercise(lambda x: (x / 2, -x), [(1.0,)])
    assert halves(lambda x: [x / 2, -x])
    assert not halves(lambda x: [-x, x / 2])


def test_an_untouched_stub_is_not_yet_done(capsys):
    passed, said = verdict(capsys, untouched)
    assert not passed
    assert said.startswith("untouched: not yet done")


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda w: (w * w).sum(dim=1), "Is the root there?"),
        (lambda w: w.square().sum(0, keepdim=True).sqrt(), "shape (1, 2), expected was (2,)"),
        (lambda w: 2 * row_norms(w), "2 times the right result"),
        (
            lambda w: row_norms(w) / row_norms(w) * row_norms(w),
            "NaN: what happens where a norm is exactly zero",
        ),
        (lambda w: row_norms(w) + 1 / row_norms(w), "infinite somewhere"),
        (lambda w: w.abs().amax(1), "The shape fits, the numbers do not"),
        (lambda w: w.no_such_method(), "It raised AttributeError"),
        (lambda: 3, "it must take 1 argument"),
        (lambda w: "5", "It returned str"),
        (lambda w: row_norms(w) if w[0, 0] > 2 else None, "does every branch return"),
        (3, "give the function itself"),
    ],
)
def test_a_wrong_answer_gets_the_hint_that_fits_and_never_an_exception(capsys, answer, hint):
    passed, said = verdict(capsys, answer)
    assert not passed
    assert hint in said


def test_an_answer_that_changes_its_input_does_not_spoil_the_cases(capsys):
    def greedy(weight):
        norms = row_norms(weight)
        weight.zero_()
        return norms

    assert verdict(capsys, greedy)[0]
    assert verdict(capsys, row_norms)[0]
