"""The recall quiz at the end of each page: a few questions, answered by a click or a number.

The questions are data (`recall.toml`). A quiz needs no widgets and, once shown, no running kernel: every
choice opens to its verdict and its reason, in Jupyter as in a static page.
"""

from __future__ import annotations

import html
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from hgsr_lite.arguments import choose


@dataclass(frozen=True)
class Question:
    """A question with its choices, each with the reason why it is right or wrong.

    `right` is the number of the right choice, counted from 1. `holds` is an expression that is true if the
    right answer is: the tests evaluate it, so that a quiz cannot teach what the package contradicts.
    """

    ask: str
    choices: tuple[str, ...]
    reasons: tuple[str, ...]
    right: int
    holds: str = ""

    def verdict(self, choice: int) -> str:
        """What a reader is told who takes this choice, counted from 1."""
        if not isinstance(choice, int) or not 1 <= choice <= len(self.choices):
            raise ValueError(f"choice {choice!r} is not there: give a number from 1 to {len(self.choices)}")
        return f"{'Right' if choice == self.right else 'Not so'}. {self.reasons[choice - 1]}"


class Quiz:
    """The questions of one page: show it and click, or call `answer`."""

    def __init__(self, questions: Sequence[Question]) -> None:
        self.questions = tuple(questions)

    def answer(self, question: int, choice: int) -> None:
        """Print whether a choice is right, and why; both are counted from 1.

        >>> Quiz([Question("1 + 1?", ("2", "3"), ("Count.", "One too many."), right=1)]).answer(1, 2)
        Not so. One too many.
        """
        if not isinstance(question, int) or not 1 <= question <= len(self.questions):
            raise ValueError(f"question {question!r} is not there: give 1 to {len(self.questions)}")
        print(self.questions[question - 1].verdict(choice))

    def __repr__(self) -> str:
        lines = ["Answer with a number: questions.answer(question, choice)"]
        for number, question in enumerate(self.questions, 1):
            lines.append(f"{number}. {question.ask}")
            lines += [f"   {place}) {choice}" for place, choice in enumerate(question.choices, 1)]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """Every choice is a line that opens: plain HTML, so it works by mouse and keyboard, anywhere."""
        parts = ["<p>Click a choice to open its verdict.</p>"]
        for number, question in enumerate(self.questions, 1):
            parts.append(f"<p><strong>{number}.</strong> {_marked(question.ask)}</p>")
            for place, choice in enumerate(question.choices, 1):
                parts.append(
                    f"<details style='margin-left:1.5em'><summary>{_marked(choice)}</summary>"
                    f"<p style='margin-left:1.5em'>{_marked(question.verdict(place))}</p></details>"
                )
        return "\n".join(parts)


def quiz(page: str) -> Quiz:
    """The quiz of a page, by its number or letter, such as `"03"` or `"A"`.

    >>> len(quiz("03").questions) >= 3
    True
    """
    return Quiz([_question(raw) for raw in all_questions()[choose("page", page, all_questions())]])


@cache
def all_questions() -> dict[str, list[dict[str, Any]]]:
    """Page -> its questions as they stand in the file."""
    return tomllib.loads(files("hgsr_lite.series").joinpath("recall.toml").read_text("utf-8"))


def _question(raw: dict[str, Any]) -> Question:
    choices, reasons = zip(*raw["choices"], strict=True)
    return Question(raw["ask"], choices, reasons, raw["right"], raw.get("holds", ""))


def _marked(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text, quote=False))
