"""The analysis of a study: fronts, levels, volumes and paired differences do what their words say."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hgsr_lite.study.analysis import against, at_levels, front, hypervolume, summary

shares = st.floats(0, 1, allow_subnormal=False)
points = st.lists(st.tuples(shares, shares), min_size=1, max_size=12)


def columns(cloud):
    return [gain for gain, _ in cloud], [quality for _, quality in cloud]


@given(points)
def test_no_point_of_a_front_is_beaten_and_every_other_point_is(cloud):
    gains, qualities = columns(cloud)
    on = front(gains, qualities).tolist()
    for place, (gain, quality) in enumerate(cloud):
        at_least = [other for other in on if gains[other] >= gain and qualities[other] >= quality]
        if place in on:
            assert at_least == [place]
        else:
            assert at_least
    assert [gains[place] for place in on] == sorted(gains[place] for place in on)


def test_a_missing_number_is_not_on_the_front():
    assert front([0.5, np.nan, 0.9], [0.9, 1.0, np.nan]).tolist() == [0]


@given(points)
def test_the_volume_is_the_share_of_the_square_that_is_dominated(cloud):
    gains, qualities = columns(cloud)
    steps = (np.arange(200) + 0.5) / 200
    covered = np.zeros((200, 200), bool)
    for gain, quality in cloud:
        covered |= (steps[:, None] <= gain) & (steps[None, :] <= quality)
    assert hypervolume(gains, qualities) == pytest.approx(covered.mean(), abs=0.011)


@given(points, points)
def test_a_further_point_never_makes_the_volume_smaller(cloud, more):
    assert hypervolume(*columns(cloud + more)) >= hypervolume(*columns(cloud)) - 1e-12


def path_table() -> pd.DataFrame:
    rows = []
    for seed in range(3):
        for gain, validation, test in [
            (0.2, 0.99, 0.98),
            (0.6, 0.97, 0.96 - 0.01 * seed),
            (0.5, 0.60, 1.00),  # beaten on the validation part: what it does on the test part must not count
            (0.8, 0.91, 0.90),
        ]:
            rows.append(("gl", "feature", seed, gain, validation, test))
    names = ["method", "grouping", "seed", "below tolerance"]
    return pd.DataFrame(
        rows, columns=[*names, "validation accuracy after zeroing", "test accuracy after zeroing"]
    )


def test_a_level_is_read_from_the_test_part_at_places_chosen_on_the_validation_part():
    found = at_levels(path_table(), [0.1, 0.4, 0.7, 0.9])
    first = found[found["seed"] == 0]["test accuracy after zeroing"].tolist()
    assert first[:3] == pytest.approx([0.98, 0.97, 0.93])
    assert np.isnan(first[3])
    assert len(found) == 12


def test_a_mean_over_some_of_the_seeds_is_not_given_for_all():
    table = pd.DataFrame({"level": [0.5] * 3 + [0.9] * 3, "y": [1.0, 2.0, 3.0, 1.0, np.nan, 3.0]})
    found = summary(table, "y", ["level"]).set_index("level")
    assert found.loc[0.5, "mean"] == 2.0
    assert found.loc[0.5, "±"] == pytest.approx(
        4.302653 / np.sqrt(3), rel=1e-5
    )  # t(0.975, 2) times 1 / sqrt 3
    assert np.isnan(found.loc[0.9, "mean"])
    assert np.isnan(found.loc[0.9, "±"])
    assert found["seeds"].tolist() == [3, 3]


def test_differences_are_paired_over_seeds_and_corrected_for_their_number():
    generator = np.random.default_rng(0)
    seed_effect = generator.normal(0, 0.2, 6)
    rows = []
    for method, shift in [("l1", 0.0), ("better", 0.05), ("alike", 0.0), ("same", None)]:
        noise = generator.normal(0, 0.005, 6) if shift is not None else 0.0
        values = seed_effect + (shift or 0.0) + noise if method != "same" else rows[:6]
        for seed in range(6):
            value = values[seed][3] if method == "same" else values[seed]
            rows.append((method, "feature", seed, value))
    table = pd.DataFrame(rows, columns=["method", "grouping", "seed", "accuracy"])
    found = against(table, "accuracy", {"method": "l1", "grouping": "feature"}).set_index("method")
    assert found.loc["better", "difference"] == pytest.approx(0.05, abs=0.01)
    assert found.loc["better", "±"] < 0.02  # seeds differ by 0.2: unpaired it could not be seen
    assert found.loc["better", "p (Holm)"] == pytest.approx(3 * found.loc["better", "p"])
    assert found.loc["better", "p (Holm)"] < 0.05 < found.loc["alike", "p (Holm)"]
    assert found.loc["same", "difference"] == 0
    assert found.loc["same", "p"] == 1


def test_an_unknown_baseline_is_named():
    table = pd.DataFrame({"method": ["gl"], "grouping": ["feature"], "seed": [0], "accuracy": [1.0]})
    with pytest.raises(ValueError, match="no path"):
        against(table, "accuracy", {"method": "dense", "grouping": "feature"})


def test_an_unknown_column_is_named_with_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'below tolerance'"):
        at_levels(path_table(), [0.5], gain="below tolerence")
