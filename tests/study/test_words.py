"""What pages say of the studies as a whole is what tables and files hold: the plans, the verdicts in short.

The parts about one set of images have files of their own beside this one.
"""

from __future__ import annotations

import re

import pandas as pd

from hgsr_lite.models import MODELS
from hgsr_lite.study.study import Study
from hgsr_lite.study.verdicts import GOALS
from hgsr_lite.table import PENALTY_FAMILIES
from hgsr_lite.training import RANKINGS
from tests.study.words import (
    BY_NEURON,
    STUDIES,
    SURE,
    WIDTHS,
    Words,
    against_cut,
    at_equal_shares,
    count,
    dense,
    furthest,
    leads,
    listed,
    made,
    may_be_luck,
    none_told,
    readme,
    roughly,
    runs_of,
    section,
    the,
)

SMALLER, DEAD, SMALL = GOALS
NARROW, HALF, WIDE = WIDTHS


def test_the_table_of_studies_names_every_file_with_the_number_of_runs_it_plans():
    said: dict[str, str] = {}
    for row in re.findall(r"^\| \[`\w+\.toml`\].+", readme(), flags=re.MULTILINE):
        names = re.findall(r"\]\((\w+\.toml)\)", row)
        counts = row.split(" | ")[2].replace(" each", "")
        said |= dict(
            zip(names, re.findall(r"[\d,]*\d", counts.replace(", ", " ")) * len(names), strict=False)
        )
    planned = {path.name: f"{len(Study.read(path).grid.recipes):,}" for path in STUDIES.glob("*.toml")}
    full = {name: count for name, count in planned.items() if name.startswith("cifar10_full_")}
    assert said == {name: planned[name] for name in planned.keys() - full.keys()}


def test_what_is_said_of_what_is_planned_is_what_the_files_plan():
    words = " ".join(readme().split())
    plans = pd.DataFrame(
        [recipe.fields() for recipe in Study.read(STUDIES / "cifar10_alexnet.toml").grid.recipes]
    )
    paths = plans[plans["fraction"].notna()]
    first, rest = paths[paths["seed"] == 0], paths[paths["seed"] > 0]
    assert set(first.groupby("proximal")["fraction"].nunique()) == {5}
    assert rest.groupby(["seed", "proximal"])["fraction"].nunique().to_dict() == {
        (1, False): 4, (1, True): 5, (2, False): 4, (2, True): 5,
    }  # fmt: skip
    assert set(paths.groupby(["seed", "proximal"])["penalty"].nunique()) == {11}
    assert set(plans.loc[plans["baseline"] == "random", "seed"]) == {0, 1, 2}
    assert (
        "proximal steps at five strengths, gradient steps at five on seed 0 and at four on the others"
        in words
    )
    for network, penalties in (("resnet18", 11), ("vgg11", 5)):
        planned = Study.read(STUDIES / f"cifar10_{network}.toml").grid.recipes
        assert len({recipe.fields().get("penalty") for recipe in planned} - {None}) == penalties
    starts = {name: spec.start for name, spec in MODELS.items()}
    assert starts == {"digits_cnn": "pytorch", "alexnet": "he", "vgg11": "he", "resnet18": "he"}
    assert "`digits_cnn` starts from PyTorch's initial weights, the other networks from He's" in words


def test_the_front_page_counts_the_runs_on_the_digits():
    text = (STUDIES.parent / "README.md").read_text(encoding="utf-8")
    (said,) = re.findall(r"\[([\d,]+) runs\]\(studies/README.md#what-the-digits-say\)", text)
    assert said == f"{sum(len(made(name)) for name in WIDTHS):,}"
    assert f"of one small network on digits, at {count(len(WIDTHS))} widths" in text


def test_p_below_which_a_difference_is_told_from_luck_is_the_one_that_the_words_go_by():
    assert f"*Told from luck* says: p below {SURE}," in section("What is fair")


def the_digits_in_short() -> str:
    (kernels,) = {furthest(name, DEAD).iloc[0]["method"] for name in WIDTHS}
    (channels,) = {furthest(name, SMALLER).iloc[0]["method"] for name in WIDTHS}
    least = []
    for name in WIDTHS:
        found = against_cut(name, DEAD, 0.8, "kernel")
        ahead = found[
            (found["method"] == kernels) & (found["step"] == "proximal") & (found["difference"] > 0)
        ]
        least.append(ahead["p (Holm)"].min())
    told = [p <= SURE for p in least]
    how = "not told from luck at any width"
    if any(told):
        how = f"told from luck{' narrowly' if min(least) > SURE / 5 else ''}, and "
        how += "at every width" if all(told) else "not at every width"
    follow = {frozenset(furthest(name, SMALLER)["method"].iloc[1:3]) for name in WIDTHS}
    assert follow == {frozenset({"hsqrt_gl", "hsqrt_gl12"})}
    three = [channels, "hsqrt_gl", "hsqrt_gl12"]
    over_cuts = pd.concat([against_cut(name, SMALLER, 0.5, "feature") for name in WIDTHS])
    none = none_told(over_cuts[over_cuts["method"].isin(three)])
    return (
        f"`digits_cnn` at [{count(len(WIDTHS))} widths](#what-the-number-of-channels-changes), "
        f"{count(made('digits')['seed'].nunique())} | `{kernels}` gets furthest; its lead over a cut by "
        f"size is {how} | plain `{channels}` gets furthest, {listed(three[1:])} next; "
        f"{'none is' if none else 'some are'} told from a cut of channels |"
    )


def the_example_in_short() -> str:
    example = "digits_example"
    assert round(made(example)["epochs"].iloc[0] / made("digits")["epochs"].iloc[0]) == 2, "twice the steps"
    kernels, channels = (furthest(example, goal, most=40) for goal in (DEAD, SMALLER))
    cut = channels[channels["step"] == "cut"].iloc[0]
    assert (cut["method"], cut["grouping"]) == ("random", "neuron"), "output channels at random"
    first = channels.iloc[0]
    apart = abs(first[SMALLER] - cut[SMALLER]) / (first["± "] + cut["± "])
    by_gradient = channels[channels["step"] == "gradient"].iloc[0]
    over_cuts = against_cut(example, DEAD, 0.8, "kernel"), against_cut(example, SMALLER, 0.75, "neuron")
    no = "no lead over a cut is" if all(map(none_told, over_cuts)) else "a lead over a cut is"
    return (
        f"digits, `digits_cnn`, twice the steps, {count(made(example)['seed'].nunique())} | "
        f"`{kernels.iloc[0]['method']}` gets furthest; at equal shares {no} told from luck | "
        f"`{first['method']}` gets {'as' if apart < 1 else 'not as'} far as a cut of output channels at "
        f"random; with gradient steps `{by_gradient['method']}` gets furthest of the penalties |"
    )


def alexnet_in_short() -> str:
    ahead, names = (
        leads("cifar10_strengths"),
        {"cut": "of the cut", "l1": "of `l1`", "gl12": "of plain `gl12`"},
    )
    *first, last = [names[name] for name, row in ahead.iterrows() if row["mean"] > 0 and row["p"] <= SURE]
    compared = against_cut("cifar10_alexnet", SMALLER, 0.5, "neuron")
    none = none_told(compared[compared["step"] != "cut"])
    seeds, new = (made(name)["seed"].nunique() for name in ("cifar10_alexnet", "cifar10_strengths"))
    assert not {*made("cifar10_alexnet")["seed"]} & {*made("cifar10_strengths")["seed"]}
    return (
        f"narrow AlexNet, {count(seeds)} and {count(new)} new ones | at 80 % dead `hsq_gl12` is ahead "
        f"{', '.join(first)} and {last} | {'no lead is seen' if none else 'a lead'} |"
    )


def vgg11_in_short() -> str:
    row = the(against_cut("cifar10_vgg11", DEAD, 0.8, "kernel"), method="hsq_gl12", **BY_NEURON)
    far = at_equal_shares("cifar10_vgg11", 0.8995)
    breaks = (far["cut"] < far[["penalty", "feature-wise"]].min(axis=1) - 0.05).all()
    apart = against_cut("cifar10_vgg11", SMALLER, 0.5, "neuron")["p (Holm)"].min() <= SURE
    return (
        f"VGG11, {count(len(far))} | `hsq_gl12` is "
        f"{'level with' if may_be_luck(row, 'p') else 'told from'} the cut at 80 %; beyond, the cut "
        f"{'breaks down' if breaks else 'does not break down'} | {'something' if apart else 'nothing'} is "
        "told apart |"
    )


def resnet18_in_short() -> str:
    kernels, channels = furthest("cifar10_resnet18", DEAD), furthest("cifar10_resnet18", SMALLER)
    found = at_equal_shares("cifar10_resnet18", 0.745)
    ahead = [
        name for name, way in (("hsq_gl12", "penalty"), ("gl12", "gl12")) if (found[way] > found["cut"]).all()
    ]
    assert {*ahead} <= {*kernels["method"]}
    penalties = channels[channels["step"] != "cut"]
    (other,) = {*penalties["method"]} - {*ahead}
    assert {*ahead} < {*penalties["method"]}, "the same two"
    no_loss = (penalties["test accuracy"] >= dense("cifar10_resnet18")["mean"]).all()
    return (
        f"CIFAR-10, ResNet18, {count(len(found))} | at {roughly(0.745)} dead `{ahead[0]}` and plain "
        f"`{ahead[1]}` are ahead of the cut, on both seeds | the same two, and `{other}`, at "
        f"{'no' if no_loss else 'some'} loss |"
    )


def resnet18_on_the_digits_in_short() -> str:
    kernels, channels = furthest("digits_resnet18", DEAD), furthest("digits_resnet18", SMALLER)
    first = channels.iloc[0]
    assert kernels[DEAD].idxmax() == len(kernels) - 1, "the cut gets furthest"
    cut = kernels.iloc[-1]
    assert (cut["method"], cut["grouping"]) == ("magnitude", "kernel")
    runs = runs_of("digits_resnet18")
    mine = runs[(runs["method"] == first["method"]) & (runs["amount"] == first["amount"])]
    mine = mine[(mine["grouping"] == first["grouping"]) & (mine["step"] == first["step"])]
    removed = mine.set_index("seed")[SMALLER]
    return (
        f"digits, ResNet18, {count(len(removed))} | a cut of kernels by size gets furthest | hardly any at "
        f"a bearable loss: `{first['method']}` in {count((removed > 0.01).sum())} seed of "
        f"{count(len(removed))} |"
    )


def mnist_in_short() -> str:
    kernels, channels = furthest("mnist_alexnet", DEAD), furthest("mnist_alexnet", SMALLER)
    plain = {keys[0] for keys in PENALTY_FAMILIES.values()} | {*RANKINGS, "l1", "l2"}
    first = "hierarchical" if not {*kernels["method"].iloc[:4]} & plain else "plain"
    compared = against_cut("mnist_alexnet", DEAD, 0.8, "kernel")
    cut = channels.iloc[-1]
    assert channels[SMALLER].idxmax() == len(channels) - 1, "removes most"
    assert (cut["method"], cut["grouping"]) == ("magnitude", "neuron")
    return (
        f"narrow AlexNet, {count(made('mnist_alexnet')['seed'].nunique())} | {first} penalties get "
        f"furthest; {'no lead is' if none_told(compared) else 'a lead is'} told from luck | a cut of "
        "output channels removes most |"
    )


def test_the_verdicts_in_short_are_the_tables():
    words = Words(section("In short"))
    words.say(
        "| images, network, seeds | whole kernels dead | parameters gone, with their channels |",
        the_digits_in_short(),
        the_example_in_short(),
        alexnet_in_short(),
        vgg11_in_short(),
        resnet18_in_short(),
        resnet18_on_the_digits_in_short(),
        mnist_in_short(),
        f"for dead kernels `{furthest('digits', DEAD).iloc[0]['method']}` is the one to try first, for "
        f"channels {' or '.join(f'`{name}`' for name in ('gl12', 'hsqrt_gl'))} with a plain cut beside it.",
    )
    words.say_no_more()
    assert {*furthest("digits", SMALLER)["method"].iloc[:3]} >= {"gl12", "hsqrt_gl"}
