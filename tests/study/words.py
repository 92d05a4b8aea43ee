"""What tests of words share: parts of a page, phrases found in them, numbers as they are written."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

import pandas as pd
from scipy.stats import ttest_1samp, ttest_ind
from statsmodels.stats.multitest import multipletests

import hgsr_lite as hg
from hgsr_lite.study.analysis import at_levels, summary
from hgsr_lite.study.ends import path_ends
from hgsr_lite.study.intervals import confidence_half_width
from hgsr_lite.study.report import PATH, accuracy_at, differences, prepared
from hgsr_lite.study.tables import read_table
from hgsr_lite.study.verdicts import GOALS, TUNED, against_plain, choices, on_paths

STUDIES = Path(__file__).resolve().parents[2] / "studies"

FEATURE = {"grouping": "feature", "step": "proximal"}
NEURON = {"grouping": "neuron", "step": "proximal"}
BY_FEATURE = {"grouping": "feature", "step": "gradient"}
BY_NEURON = {"grouping": "neuron", "step": "gradient"}
BY_CHANNEL = {"grouping": "feature", "step": "cut"}
BY_OUTPUT = {"grouping": "neuron", "step": "cut"}
BY_KERNEL = {"grouping": "kernel", "step": "cut"}

WIDTHS = ("digits_narrow", "digits", "digits_wide")
"""A quarter of the width, half of it, all of it."""
SURE = 0.05
"""Above this p a difference may be luck."""

_NO_CLAIM = re.compile(r"`[^`]*`|\([^()\s]*[#/.][^()\s]*\)|\[below\]|\(below\)|CIFAR-10")
_CLAIM = re.compile(
    r"(?<!\w)\d[\d.,]*|±|\b(?:luck|told|furthest|highest|ahead|behind|above|below|better|worse|most)\b"
)
"""Numbers that are no part of a name, and the words in which the page judges."""


class Words:
    """Words in which phrases are found one behind the other, so that none can stand in another's place."""

    def __init__(self, text: str):
        self._ahead = " ".join(text.split())
        self._passed: list[str] = []

    def say(self, *phrases: str) -> None:
        """Each phrase stands behind the one before it."""
        for phrase in phrases:
            before, found, rest = self._ahead.partition(phrase)
            assert found, f"the tables say {phrase!r}, and these words do not: {self._ahead}"
            self._passed.append(before)
            self._ahead = rest

    def skip_to(self, phrase: str) -> None:
        """What stands before this phrase is read elsewhere."""
        _, found, self._ahead = self._ahead.partition(phrase)
        assert found, f"gone: {phrase!r}"

    def say_no_more(self) -> None:
        """Beside the phrases no number is said, and no judgement."""
        left = _NO_CLAIM.sub(" ", " … ".join([*self._passed, self._ahead]))
        unread = [left[max(0, found.start() - 40) : found.end() + 20] for found in _CLAIM.finditer(left)]
        assert not unread, f"no table has a say in: {unread}"


def readme() -> str:
    return (STUDIES / "README.md").read_text(encoding="utf-8")


def section(heading: str) -> str:
    """What stands under a heading of the page of the studies."""
    return readme().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def part(text: str, starts: Sequence[str], start: str) -> Words:
    """The words from one of these starts to the next; all of them stand in the text, in this order.

    So the parts together are the whole text, and nothing stands between two of them.
    """
    places = [text.find(each) for each in starts]
    assert min(places) >= 0, f"gone: {[each for each in starts if each not in text]}"
    assert places == sorted(places)
    place = starts.index(start)
    return Words(text[places[place] : (*places, len(text))[place + 1]])


def notebook(name: str) -> str:
    """The text of a notebook's cells, without code and outputs."""
    page = json.loads((STUDIES.parent / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))
    return "\n\n".join("".join(cell["source"]) for cell in page["cells"] if cell["cell_type"] == "markdown")


@cache
def made(study: str) -> pd.DataFrame:
    """The runs of a study, also those that diverged. Read once for all tests: change a copy."""
    return read_table(STUDIES / f"{study}.csv")


@cache
def runs_of(study: str) -> pd.DataFrame:
    """The runs of a study as its page takes them. Made once for all tests: change a copy."""
    return prepared(made(study))


@cache
def furthest(study: str, goal: str, most: int = 4) -> pd.DataFrame:
    """The paths that get furthest within one point of dense, and the cut that does."""
    return choices(runs_of(study), goal, most=most)


@cache
def at(study: str, gain: str, level: float) -> pd.DataFrame:
    """The mean accuracy of every path where so much is gone."""
    return accuracy_at(runs_of(study), gain, [level])


@cache
def hierarchy(study: str, gain: str, level: float) -> pd.DataFrame:
    """Each hierarchical penalty against its plain one where so much is gone."""
    found = against_plain(runs_of(study), gain, level)
    return found.rename(columns={"plain's reach": "plain reach"})


@cache
def against_cut(study: str, gain: str, level: float, unit: str) -> pd.DataFrame:
    """Every path against cutting this unit by size where so much is gone."""
    return differences(runs_of(study), gain, level, unit)


def dense(study: str) -> pd.Series:
    """The mean accuracy of the dense networks, with the first weights of the paths."""
    runs = runs_of(study)
    start = on_paths(runs)["start"].mode().item()
    return summary(runs[(runs["method"] == "dense") & (runs["start"] == start)], TUNED[1], ["start"]).iloc[0]


def the(table: pd.DataFrame, **names) -> pd.Series:
    """The one row of these names."""
    found = table[(table[list(names)] == pd.Series(names)).all(axis=1)]
    assert len(found) == 1
    return found.iloc[0]


def best_cut(found: pd.DataFrame) -> pd.Series:
    cuts = found[found["step"] == "cut"].dropna(subset="mean")
    return cuts.loc[cuts["mean"].idxmax()]


def best_penalty(found: pd.DataFrame) -> pd.Series:
    penalties = found[found["step"] != "cut"].dropna(subset="mean")
    return penalties.loc[penalties["mean"].idxmax()]


def along(runs: pd.DataFrame, level: float, *path: str, gain: str = "dead kernels") -> pd.Series:
    """Accuracy by seed where a path (method, grouping, step) has this share, of dead kernels or another."""
    names = ["method", "grouping", "step"]
    mine = runs[(runs[names] == pd.Series(path, names)).all(axis=1)]
    found = at_levels(mine, [level], gain=gain, chosen_by=TUNED[0], reported=TUNED[1], path=PATH)
    return found.set_index("seed")[TUNED[1]]


def interval(values: pd.Series) -> pd.Series:
    """The mean over seeds, with half of its 95 % interval and the p of its being none at all."""
    half = confidence_half_width(pd.Series([values.std()]), pd.Series([values.count()]))[0]
    return pd.Series({"mean": values.mean(), "±": half, "p": ttest_1samp(values, 0).pvalue})


WAYS_ON_CIFAR10 = {
    "cut": ("magnitude", "kernel", "cut"),
    "l1": ("l1", "feature", "gradient"),
    "gl12": ("gl12", "feature", "gradient"),
    "feature-wise": ("hsq_gl12", "feature", "gradient"),
    "penalty": ("hsq_gl12", "neuron", "gradient"),
}
"""The paths that are compared on CIFAR-10, and ..."""
IN_WORDS = {
    "dense": "dense",
    "cut": "kernels cut by size",
    "l1": "`l1`",
    "gl12": "`gl12`, feature-wise",
    "feature-wise": "`hsq_gl12`, feature-wise",
    "penalty": "`hsq_gl12`, neuron-wise",
}
"""... what the tables call them."""


@cache
def at_equal_shares(study: str, level: float = 0.7995) -> pd.DataFrame:
    """Where so many kernels are dead: the accuracy of dense and of each of those paths, by seed."""
    runs = runs_of(study)
    runs = runs[runs["start"] == "he"]
    tried = set(runs[["method", "grouping", "step"]].itertuples(index=False, name=None))
    found = {
        name: along(on_paths(runs), level, *way) for name, way in WAYS_ON_CIFAR10.items() if way in tried
    }
    whole = runs[runs["method"] == "dense"].set_index("seed")[TUNED[1]]
    return pd.DataFrame({"dense": whole, **found})


def leads(study: str) -> pd.DataFrame:
    """The lead of `hsq_gl12`, neuron-wise, over the cut, `l1` and `gl12` at 80 % dead; p after Holm."""
    found = at_equal_shares(study)
    rows = {name: interval(found["penalty"] - found[name]) for name in ("cut", "l1", "gl12")}
    table = pd.DataFrame(rows).T
    table["p"] = multipletests(table["p"], method="holm")[1]
    return table


@cache
def leads_at_widths() -> tuple[list[float], float]:
    """Of leads at two widths, how surely they differ (Welch): by question at best, and of all nine.

    The questions: `hsq_gl12` over the cut of kernels, neuron-wise and feature-wise; `gl12` over `hsq_gl12` at
    half of the parameters.
    """
    tables = [runs_of(study) for study in WIDTHS]
    cut, most = WAYS_ON_CIFAR10["cut"], "parameters removed"
    asked = [
        [along(runs, 0.8, "hsq_gl12", unit, "proximal") - along(runs, 0.8, *cut) for runs in tables]
        for unit in ("neuron", "feature")
    ]
    asked.append(
        [
            along(runs, 0.5, "gl12", "feature", "proximal", gain=most)
            - along(runs, 0.5, "hsq_gl12", "feature", "proximal", gain=most)
            for runs in tables
        ]
    )
    apart = [
        [ttest_ind(each[one], each[other], equal_var=False).pvalue for one, other in ((0, 1), (0, 2), (1, 2))]
        for each in asked
    ]
    least = [multipletests(three, method="holm")[1].min() for three in apart]
    return least, multipletests([p for three in apart for p in three], method="holm")[1].min()


def of_amount(method: str, amount: float, value: str, **where: str) -> pd.Series:
    """The mean over seeds of a value at one amount of a path on the digits."""
    runs = runs_of("digits")
    runs = runs[(runs["method"] == method) & (runs["amount"] == amount)]
    return summary(runs[(runs[list(where)] == pd.Series(where)).all(axis=1)], value, ["method"]).iloc[0]


def steps_of_training() -> int:
    """How many steps a run on the digits takes before it is fine-tuned."""
    (settings,) = (
        made("digits")[["epochs", "batch_size", "images validation"]].drop_duplicates().to_numpy()[:1]
    )
    images = len(hg.load_data("digits", validation=settings[2]).train.images)
    return int(settings[0] * math.ceil(images / settings[1]))


def before_and_after_fine_tuning() -> list[list[str]]:
    """The validation accuracies of `gl12` at its end and of dense: before the fine-tuning, and after it."""
    end, runs = the(furthest("digits", "parameters removed"), method="gl12", **FEATURE), runs_of("digits")
    whole = runs[runs["method"] == "dense"]
    found = {
        value: (of_amount("gl12", end["amount"], value, **FEATURE)["mean"], whole[value].mean())
        for value in ("validation accuracy after zeroing", TUNED[0])
    }
    return [[f"{100 * share:.1f}" for share in pair] for pair in found.values()]


def lost_at_the_ends(name: str) -> float:
    """How many points the test accuracy lies below dense where the penalties' paths end, in the mean."""
    ends, runs = path_ends(made(name)), runs_of(name)
    ends = ends[ends["step"] != "cut"]
    means = runs.groupby([*PATH, "amount"])[TUNED[1]].mean()
    at_ends = [means[(*row[:4], row[5])] for row in ends.itertuples(index=False)]
    return 100 * (dense(name)["mean"] - sum(at_ends) / len(at_ends))


def verdict_on_kernels() -> str:
    """Whether `hsq_gl12` is ahead of the cut by more than luck, in either grouping."""
    found = against_cut("digits", "dead kernels", 0.8, "kernel")
    rows = [the(found, method="hsq_gl12", **where) for where in (FEATURE, NEURON)]
    told = sum(row["difference"] > 0 and not may_be_luck(row) for row in rows)
    return {2: "a lead", 1: "a lead, perhaps", 0: "no lead"}[told]


def percent(row: pd.Series, value: str = "mean", half: str = "±") -> str:
    return f"{100 * abs(row[value]):.1f} ± {100 * row[half]:.1f}"


def gone(row: pd.Series) -> str:
    """How much is gone, of one that gets furthest."""
    return percent(row, next(goal for goal in GOALS if goal in row), "± ")


def kept(row: pd.Series) -> str:
    """What accuracy it has left."""
    return percent(row, "test accuracy")


def lead(row: pd.Series) -> str:
    """How far ahead it is, or behind."""
    return percent(row, "difference")


def side(row: pd.Series) -> str:
    return "above" if row["difference"] > 0 else "*below*"


def p_of(row: pd.Series, name: str = "p (Holm)") -> str:
    return f"p {row[name]:.3f}"


def may_be_luck(row: pd.Series, name: str = "p (Holm)") -> bool:
    return bool(row[name] > SURE)


def luck(row: pd.Series, name: str = "p (Holm)") -> str:
    """The p of a difference, and what the page says of it where it is no small one."""
    return p_of(row, name) + (": may be luck" if may_be_luck(row, name) else "")


def none_told(rows: pd.DataFrame, name: str = "p (Holm)") -> bool:
    """No row is ahead by more than luck."""
    return not ((rows["difference"] > 0) & (rows[name] <= SURE)).any()


def count(number: int) -> str:
    """A small number as a word."""
    return [
        "none",
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "eleven",
        "twelve",
        "thirteen",
    ][number]


_ROUGHLY = {
    0.2: "a fifth",
    0.25: "a quarter",
    1 / 3: "a third",
    0.5: "half",
    2 / 3: "two thirds",
    0.75: "three quarters",
    0.8: "four fifths",
    0.9: "nine tenths",
}


def roughly(share: float) -> str:
    """The simple fraction that is nearest."""
    return _ROUGHLY[min(_ROUGHLY, key=lambda simple: abs(simple - share))]


def listed(names: Iterable[str]) -> str:
    """`one`, `two` and `three`."""
    *first, last = [f"`{name}`" for name in names]
    return f"{', '.join(first)} and {last}" if first else last


def signed(row: pd.Series) -> str:
    """A difference with its sign."""
    return ("−" if round(100 * row["difference"], 1) < 0 else "") + lead(row)


def told(row: pd.Series) -> str:
    """What a difference is, by its p."""
    if may_be_luck(row):
        return "may be luck"
    return "told from luck" + (", narrowly" if row["p (Holm)"] > SURE / 5 else "")
