"""What the page of the studies says of MNIST is the table's."""

from __future__ import annotations

import pandas as pd

from hgsr_lite.study.study import Study
from hgsr_lite.study.verdicts import GOALS, QUESTIONS, TUNED, bearable, choices
from hgsr_lite.table import PENALTY_FAMILIES
from tests.study.words import (
    BY_KERNEL,
    BY_NEURON,
    STUDIES,
    SURE,
    Words,
    against_cut,
    along,
    at,
    count,
    dense,
    furthest,
    gone,
    hierarchy,
    kept,
    lead,
    luck,
    made,
    may_be_luck,
    none_told,
    p_of,
    part,
    percent,
    runs_of,
    section,
    the,
)

STUDY = "mnist_alexnet"
STARTS = ("All ", "- **Kernels.**", "- **Parameters.**", "- **The hierarchy as such.**", "- Seed 0 alone")
SMALLER, DEAD, SMALL = GOALS
ITS_PLACE = "`{0[method]}`, {0[grouping]}-wise at {0[amount]:g}"
"""A path and the amount at which it gets furthest."""


def said(start: str) -> Words:
    return part(section("What MNIST says").lstrip(), STARTS, start)


def test_what_is_said_of_the_runs_on_mnist_is_the_table_s():
    words, table = said("All "), made(STUDY)
    assert len(table) == len(Study.read(STUDIES / f"{STUDY}.toml").grid.recipes)
    ((epochs, finetune),) = set(zip(table["epochs"], table["finetune"], strict=True))
    on_cpu = table["device"].str.startswith("cpu")
    assert set(table.loc[on_cpu, "seed"]) == {0}
    assert not table["proximal"].any(), "gradient steps"
    words.say(
        f"All {len(table)} runs of the narrow AlexNet are made",
        f"{count(table['seed'].nunique())} seeds, gradient steps: {epochs} epochs and {finetune} of "
        f"fine-tuning. {(~on_cpu).sum()} come from an H200, {on_cpu.sum()}, all of them of seed 0, from a "
        f"CPU. Dense: {percent(dense(STUDY))} on the test part.",
    )
    words.say_no_more()


def test_what_is_said_of_kernels_on_mnist_is_the_table_s():
    words, runs = said("- **Kernels.**"), runs_of(STUDY)
    *found, cut = (row for _, row in furthest(STUDY, DEAD, most=5).iterrows())
    first, second, third, fourth, fifth = found
    plain = {keys[0] for keys in PENALTY_FAMILIES.values()}
    assert [row["method"] in plain for row in found] == [False] * 4 + [True]
    assert first[DEAD] - first["± "] < fifth[DEAD], "their order may be luck"
    paths = runs[runs["fraction"].notna() & ~(runs["l1_mix"] > 0)]
    (amounts,) = set(paths.groupby(["method", "grouping"])["fraction"].nunique())
    assert (cut["method"], cut["grouping"]) == ("magnitude", "kernel"), "cutting kernels by size"
    shares = runs.loc[(runs["method"] == "magnitude") & (runs["unit"] == "kernel"), "share"].unique()
    mildest, following = sorted(shares)[:2]
    assert cut["amount"] == mildest
    means = runs[(runs["unit"] == "kernel") & (runs["share"] == following) & (runs["method"] == "magnitude")]
    assert not bearable(runs, means.groupby("start")[TUNED[0]].mean()).any(), "the next is too much"
    words.say(
        f"Within one point of dense, by validation, {ITS_PLACE.format(first)}, gets furthest, with "
        f"{gone(first)} % of the kernels dead, at {kept(first)}. Then come {ITS_PLACE.format(second)}, "
        f"{gone(second)} at {kept(second)}, {ITS_PLACE.format(third)}, {gone(third)} at {kept(third)}, "
        f"{ITS_PLACE.format(fourth)}, {gone(fourth)} at {kept(fourth)}, and plain "
        f"{ITS_PLACE.format(fifth)}, {gone(fifth)} at {kept(fifth)}. Their order may be luck; each had "
        f"{count(amounts)} strengths. Cutting kernels by size gets to {gone(cut)} at {kept(cut)}, the "
        f"mildest share that was tried; the next, {100 * following:.0f} %, is too much.",
    )
    eighty, by_kernel = at(STUDY, DEAD, 0.8), against_cut(STUDY, DEAD, 0.8, "kernel")
    star, its_cut = the(eighty, method="hsq_gl12", **BY_NEURON), the(eighty, method="magnitude", **BY_KERNEL)
    assert eighty["mean"].max() == star["mean"], "the highest mean"
    ahead = the(by_kernel, method="hsq_gl12", **BY_NEURON)
    apart = along(runs, 0.8, "hsq_gl12", *BY_NEURON.values()) - along(
        runs, 0.8, "magnitude", *BY_KERNEL.values()
    )
    assert (apart > 0).all(), "in every seed"
    words.say(
        "At 80 % dead `hsq_gl12`, neuron-wise, has the highest mean of the paths that get there in all "
        f"seeds, {percent(star)}; the cut has {percent(its_cut)}. It is ahead of the cut in every seed, by "
        f"{lead(ahead)} points ({p_of(ahead, 'p')} by itself, {p_of(ahead)[2:]} after Holm over the "
        f"{len(by_kernel)} rows of that table{': may be luck' if may_be_luck(ahead) else ''}).",
    )
    words.say_no_more()


def test_what_is_said_of_parameters_on_mnist_is_the_table_s():
    words, found = said("- **Parameters.**"), furthest(STUDY, SMALLER)
    penalty, cut = found.iloc[0], found.iloc[-1]
    assert (cut["method"], cut["grouping"]) == ("magnitude", "neuron"), "output channels by size"
    assert cut[SMALLER] > penalty[SMALLER], "removes most"
    told = not none_told(against_cut(STUDY, SMALLER, 0.5, "neuron"))
    words.say(
        f"Within that point a cut of output channels by size removes most, {gone(cut)} % of them at "
        f"{kept(cut)}; of the penalties {ITS_PLACE.format(penalty)}, {gone(penalty)} at {kept(penalty)}. "
        f"With half removed {'something' if told else 'nothing'} is told from that cut.",
    )
    words.say_no_more()


def test_what_is_said_of_the_hierarchy_on_mnist_is_the_table_s():
    words, (_, _, (gain, level)) = said("- **The hierarchy as such.**"), QUESTIONS
    every = pd.concat([hierarchy(STUDY, *question) for question in QUESTIONS]).sort_values("p (Holm)")
    behind = the(hierarchy(STUDY, gain, level), method="hsqrt_es", **BY_NEURON)
    assert every.iloc[0]["p (Holm)"] == behind["p (Holm)"]
    assert behind["difference"] < 0
    rest = every["p (Holm)"].iloc[1]
    assert gain == SMALL
    words.say(
        f"`hsqrt_es`, neuron-wise, is {lead(behind)} points "
        f"{'*below*' if behind['difference'] < 0 else 'above'} `{behind['instead of']}` at "
        f"{100 * level:.0f} % small weights ({luck(behind)}); otherwise no hierarchical penalty is told "
        f"from the plain one of its family (p {rest:.3f} at best, after Holm within each question).",
    )
    assert rest > SURE
    words.say_no_more()


def test_what_is_said_of_seed_0_of_mnist_is_the_table_s():
    words, runs = said("- Seed 0 alone"), runs_of(STUDY)
    alone = choices(runs[runs["seed"] == 0], DEAD).iloc[0]
    assert furthest(STUDY, DEAD).iloc[0]["method"] != alone["method"], "three seeds do not say so"
    words.say(
        f"Seed 0 alone, which was all there was at first, had `{alone['method']}` furthest in kernels, as "
        f"on CIFAR-10, with {100 * alone[DEAD]:.1f} % of them dead. Three seeds do not say so: one seed is "
        "a lead.",
    )
    words.say_no_more()
