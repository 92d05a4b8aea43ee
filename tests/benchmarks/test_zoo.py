"""The table of other people's networks is whole, nothing in it is wrong, and what is said of it is in it."""

from __future__ import annotations

import re

import pandas as pd
import pytest

from benchmarks import zoo


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return pd.read_csv(zoo.TABLE)


def test_every_network_has_its_row_and_none_is_wrong_crashed_or_out_of_time(table):
    assert table.network.tolist() == list(zoo.zoo())
    assert {*table.outcome} <= {"removed", "left alone", "refused", "not tried"}
    tried = table[table.outcome != "not tried"]
    assert (tried.outcome == "removed").mean() >= 0.9
    assert (tried["largest change"] <= zoo.PROOF_LIMIT).all()
    assert tried.network.str.startswith("timm").sum() >= 30
    assert not tried.why.isna().any()


def test_the_paragraph_says_what_the_table_holds(table):
    (said,) = re.findall(
        r"\*\*Networks that nobody.*", zoo.TABLE.parents[1].joinpath("README.md").read_text()
    )
    tried = table[table.outcome != "not tried"]
    share = tried["share of dead channels removed"]
    for words in (
        f"Of {len(table)} networks {len(table) - len(tried)} were not tried",
        f"Of the other {len(tried)}, {(tried.outcome == 'removed').sum()} were cut",
        f"and {(tried.outcome == 'left alone').sum()} left alone",
        f"In {(share == 1).sum()} all dead channels went",
        f"it was {share.mean():.0%} of them".replace("%", " %"),
        f"was {tried['largest change'].max():.0e} of the largest",
        f"The slowest took {tried.seconds.max():.0f} s, the median {tried.seconds.median():.0f} s",
    ):
        assert words in said, words


@pytest.mark.parametrize("count", [1, 2, 3, 4, 64])
def test_one_channel_of_every_four_dies_and_none_of_fewer(count):
    assert zoo.dead_of(count).sum() == count // 4
