"""The committed tables that the pages read can be made again: a run of each kind, trained anew."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

import hgsr_lite as hg
from studies import run_removal as removal

STUDIES = Path(__file__).resolve().parents[2] / "studies"


@pytest.fixture(scope="module")
def data():
    return hg.load_data("digits", device="cpu", validation=0.25)


@pytest.mark.parametrize(
    "case",
    [
        removal.Case("random", "cut", 0.6, 0.5, True, 0),
        removal.Case("gl12", "proximal", 0.5, 0.5, False, 0),
        removal.Case("gl12", "gradient", 0.5, 0.5, False, 0),
    ],
    ids=lambda case: f"{case.method}-{case.step}",
)
def test_a_row_of_the_removal_table_comes_out_again(case, data):
    """Another processor rounds otherwise: a tenth in size and four points of accuracy are allowed."""
    table = pd.read_csv(STUDIES / "removal_digits.csv")
    same = (table[list(vars(case))] == pd.Series(vars(case))).all(axis=1)
    (row,) = table[same].to_dict("records")
    again = removal.measure(removal.train(case, data), data)
    assert again["parameters left"] == pytest.approx(row["parameters left"], abs=0.1)
    assert again["test accuracy"] == pytest.approx(row["test accuracy"], abs=0.04)


def test_the_removal_table_holds_each_case_once_and_none_that_was_not_planned():
    table = pd.read_csv(STUDIES / "removal_digits.csv")
    names = list(removal.Case.__dataclass_fields__)
    assert not table.duplicated(names).any()
    for seed, rows in table.groupby("seed"):
        planned = removal.cases(seed) if seed < removal.FULL_SEEDS else removal.fewer_cases(seed)
        assert {removal.Case(*row) for row in rows[names].itertuples(index=False)} <= set(planned)
