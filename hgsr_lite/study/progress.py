"""How far a study is, in words: what is there, where it was made, what cannot be believed, how to mend it."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tqdm import tqdm


@dataclass(frozen=True)
class Progress:
    """How far a study is: its runs, those that are there, those among them that diverged, what is damaged.

    `damaged` maps a place to what is wrong there and how to mend it; `elsewhere` says how many of the runs
    that are there were made under other conditions than here (see `made_elsewhere`).
    """

    runs: int
    done: int
    diverged: int
    damaged: dict[str, str]
    foreign: int
    elsewhere: str

    def __str__(self) -> str:
        lines = [f"{self.done} of {self.runs} runs, {self.diverged} of them diverged"]
        if self.foreign:
            lines.append(f"{self.foreign} runs of other settings or images lie beside them")
        return "\n".join([*lines, *self.notes()])

    def notes(self) -> list[str]:
        """What to know before going on, a line each: runs that were made elsewhere, and what is damaged."""
        return [self.elsewhere] * bool(self.elsewhere) + in_lines(self.damaged)


def in_lines(damaged: Mapping[str, str]) -> list[str]:
    """What is damaged, a line each.

    >>> in_lines({"digits.csv, line 7, run 0123": "cut off. Take the table back"})
    ['not believed: digits.csv, line 7, run 0123: cut off. Take the table back']
    """
    return [f"not believed: {place}: {why}" for place, why in damaged.items()]


def say(lines: Iterable[str]) -> None:
    """Write lines to standard error, beside a bar and not through it."""
    for line in lines:
        tqdm.write(line, file=sys.stderr)


def made_elsewhere(made: Iterable[Mapping[str, str]], here: Mapping[str, str]) -> str:
    """How many runs were made under other conditions than `here`, and under which; nothing if none was.

    Only what is known of both is compared.

    >>> runs = [{"torch": "torch 2.11", "machine": "a GPU"}, {"torch": "torch 2.11"}, {"torch": "torch 2.10"}]
    >>> made_elsewhere(runs, {"torch": "torch 2.11", "machine": "a processor"})
    '2 runs were made with other versions or on another device than here: 1 with a GPU; 1 with torch 2.10'
    """
    counts = Counter(
        ", ".join(run[name] for name, value in here.items() if run.get(name, value) != value) for run in made
    )
    del counts[""]
    if not counts:
        return ""
    groups = "; ".join(f"{count} with {others}" for others, count in counts.most_common())
    return f"{counts.total()} runs were made with other versions or on another device than here: {groups}"
