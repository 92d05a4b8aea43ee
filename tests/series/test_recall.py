"""The recall quizzes: every page has one, every choice its reason, and no answer contradicts the package."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

import hgsr_lite as hg
from hgsr_lite.series.recall import Question, Quiz, all_questions, quiz

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
PAGES = sorted(path.name.split("_")[0] for path in NOTEBOOKS.glob("[0-9A-Z]*_*.ipynb"))
SMALL = Quiz([Question("1 < 2?", ("yes", "no"), ("It is `less`.", "Count again."), right=1)])


@pytest.mark.parametrize("page", PAGES)
def test_a_page_has_three_to_five_questions_with_a_reason_for_each_choice(page):
    questions = quiz(page).questions
    assert 3 <= len(questions) <= 5
    for question in questions:
        assert 2 <= len(question.choices) == len(question.reasons) <= 4
        assert 1 <= question.right <= len(question.choices)
        assert all(question.choices)
        assert all(question.reasons)


@pytest.mark.parametrize(
    "claim", [raw["holds"] for questions in all_questions().values() for raw in questions if "holds" in raw]
)
def test_what_a_right_answer_claims_is_so(claim):
    assert eval(claim, {"hg": hg, "torch": torch, "math": math})


def test_a_choice_is_answered_at_once_with_its_reason(capsys):
    SMALL.answer(1, 1)
    assert capsys.readouterr().out == "Right. It is `less`.\n"
    SMALL.answer(1, 2)
    assert capsys.readouterr().out == "Not so. Count again.\n"


@pytest.mark.parametrize("numbers", [(0, 1), (2, 1), (1, 0), (1, 3), (1, "yes")])
def test_a_number_that_is_not_there_is_refused(numbers):
    with pytest.raises(ValueError, match="is not there"):
        SMALL.answer(*numbers)


def test_without_a_kernel_every_choice_opens_to_its_verdict():
    shown = SMALL._repr_html_()
    assert shown.count("<details") == 2
    assert "<summary>yes</summary>" in shown
    assert "Right. It is <code>less</code>." in shown
    assert "1 &lt; 2?" in shown


def test_a_text_terminal_shows_question_and_numbers():
    assert "1. 1 < 2?" in repr(SMALL)
    assert "2) no" in repr(SMALL)
