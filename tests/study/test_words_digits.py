"""What the page of the studies says of the digits, at every width and with ResNet18, is the tables'."""

from __future__ import annotations

import tomllib

import pandas as pd

import hgsr_lite as hg
from hgsr_lite.study.ends import NEAR, path_ends
from hgsr_lite.study.report import PATH, differences, prepared
from hgsr_lite.study.shown_paths import curves, is_baseline
from hgsr_lite.study.study import Study
from hgsr_lite.study.tables import with_paths
from hgsr_lite.study.verdicts import GOALS, LOSS_ALLOWED, TUNED, accuracy_at, against_plain, choices
from hgsr_lite.table import PENALTIES
from hgsr_lite.training import RANKINGS
from tests.study.words import (
    BY_CHANNEL,
    BY_NEURON,
    FEATURE,
    NEURON,
    STUDIES,
    SURE,
    WIDTHS,
    Words,
    against_cut,
    along,
    at,
    at_equal_shares,
    before_and_after_fine_tuning,
    best_cut,
    best_penalty,
    count,
    dense,
    furthest,
    gone,
    hierarchy,
    interval,
    kept,
    lead,
    leads,
    leads_at_widths,
    lost_at_the_ends,
    luck,
    made,
    may_be_luck,
    of_amount,
    p_of,
    part,
    percent,
    roughly,
    runs_of,
    section,
    side,
    steps_of_training,
    the,
    verdict_on_kernels,
)

STARTS = (
    "All ",
    "**The abstract's claims**",
    "![Test accuracy after fine-tuning against the share of parameters removed.",
    "![Test accuracy after fine-tuning against the share of dead kernels.",
    "**Which penalty should I take?**",
    "**The window is narrow.**",
    "**Where the paths end.**",
    "**How exact is an end?**",
    "Surprises.",
    "Not shown:",
)
"""The parts of the words about the digits: a test for each."""
OF_WIDTHS = (
    "The same network",
    "- **The order stays**",
    "- **Against a cut",
    "- Over the plain",
    "- **On the",
)
"""And of those about other widths and another network."""
NARROW, HALF, WIDE = WIDTHS
SMALLER, DEAD, SMALL = GOALS


def of_the_digits(start: str) -> Words:
    return part(section("What the digits say").lstrip(), STARTS, start)


def of_the_widths(start: str) -> Words:
    return part(section("What the number of channels changes").lstrip(), OF_WIDTHS, start)


def test_what_is_said_of_the_runs_on_the_digits_is_the_table_s():
    table, words = made("digits"), of_the_digits("All ")
    diverged = table[table["diverged"]]
    assert set(zip(diverged["method"], diverged["proximal"], strict=True)) == {("hsq_es", False)}
    assert table.groupby("seed").size().tolist() == [453] * 5
    assert len(table) == len(Study.read(STUDIES / "digits.toml").grid.recipes)
    words.say(
        f"All {len(table):,} runs are made: {count(table['seed'].nunique())} seeds; {len(diverged)} "
        f"diverged, `hsq_es` with gradient steps at {diverged['amount'].min():,.0f} and more",
        "with half of the 95 % interval",
        f"Dense, with the same budget: {percent(dense('digits'))} on the test part.",
    )
    words.say_no_more()


def of_kernels() -> list[str]:
    """The first claim, for kernels."""
    first = furthest("digits", DEAD).iloc[0]
    rows = against_cut("digits", DEAD, 0.8, "kernel")
    by_feature, by_neuron = (the(rows, method="hsq_gl12", **where) for where in (FEATURE, NEURON))
    plain = the(hierarchy("digits", DEAD, 0.8), method="hsq_gl12", **FEATURE)
    half, narrow = (the(hierarchy(name, DEAD, 0.5), method="hsq_gl12", **FEATURE) for name in (HALF, NARROW))
    elsewhere = leads("cifar10_strengths")
    ahead = [name for name, row in elsewhere.iterrows() if row["mean"] > 0 and row["p"] <= SURE]
    assert ahead == ["cut", "l1", "gl12"], "of the cut, of `l1` and of `gl12`"
    vgg11, mnist = (
        the(against_cut(name, DEAD, 0.8, "kernel"), method="hsq_gl12", **BY_NEURON)
        for name in ("cifar10_vgg11", "mnist_alexnet")
    )
    seeds = count(made("cifar10_strengths")["seed"].nunique())
    return [
        f"whole kernels: **{verdict_on_kernels()}**, for `{first['method']}` |",
        f"it gets furthest of all within {count(round(100 * LOSS_ALLOWED))} point of dense: {gone(first)} "
        f"of the kernels dead at {kept(first)}, {first['grouping']}-wise with {first['step']} steps.",
        f"At 80 % dead it is {lead(by_feature)} points {side(by_feature)} cutting kernels by size "
        f"(feature-wise; {luck(by_feature)} after Holm, over the {len(rows)} rows of that table), "
        f"neuron-wise {lead(by_neuron)} ({luck(by_neuron)}), against a cut made at once.",
        f"`{plain['instead of']}`, {'gets' if plain['plain reach'] == 5 else 'does not get'} there in "
        "every seed;",
        f"at half of the kernels the two {'cannot be' if may_be_luck(half) else 'can be'} told apart "
        f"({lead(half)}, {p_of(half)}); at a quarter of the width they "
        f"are{' not' if may_be_luck(narrow) else ''} (",
        "On CIFAR-10, neuron-wise with gradient steps, it is ahead of the cut, of `l1` and of `gl12` at "
        f"80 % dead, on {seeds} seeds that had no say in the question;",
        f"in VGG11 it is {'level with' if may_be_luck(vgg11, 'p') else 'told from'} the cut there, "
        f"on MNIST its lead {'may be luck' if may_be_luck(mnist) else 'is told from luck'} (",
    ]


def of_channels() -> list[str]:
    """The first claim, for channels, and for exclusive sparsity."""
    half, quarter, kernels = (
        the(hierarchy("digits", *question), method="hsqrt_gl", **FEATURE)
        for question in ((SMALLER, 0.5), (SMALLER, 0.25), (DEAD, 0.5))
    )
    wide = the(hierarchy(WIDE, SMALLER, 0.5), method="hsqrt_gl", **FEATURE)
    assert min(row["difference"] for row in (half, quarter, kernels, wide)) > 0, "a lead"
    assert half["reach"] == 5, "in every seed"
    assert quarter["reach"] == quarter["plain reach"] == 5, "where all get"
    told = {"at half width": half, "at the full width": wide}
    where = [name for name, row in told.items() if not may_be_luck(row)]
    small = furthest("digits", SMALLER)
    first = small.iloc[0]
    next_ones = [the(small, method=name, **FEATURE) for name in ("hsqrt_gl", "hsqrt_gl12")]
    assert set(small["method"].iloc[1:3]) == {"hsqrt_gl", "hsqrt_gl12"}
    three = [first, *next_ones]
    over_plain = "no" if first["method"] == "gl12" else "yes"
    degrees = [PENALTIES[row["method"]].inner * PENALTIES[row["method"]].outer for row in three]
    assert max(degrees) == 0.5, "all three are of degree ½ or less"
    by_size = [
        the(against_cut("digits", SMALLER, 0.5, "feature"), method=name, **FEATURE)
        for name in ("gl12", "hsqrt_gl")
    ]
    assert side(by_size[0]) == side(by_size[1])
    assert may_be_luck(by_size[0]) == may_be_luck(by_size[1])
    authors = the(hierarchy("digits", SMALLER, 0.25), method="hsq_gl12", **FEATURE)
    exclusive = [
        the(hierarchy("digits", DEAD, 0.5), method=name, **FEATURE) for name in ("hsqrt_es", "hsq_es")
    ]
    assert [(row["reach"], row["plain reach"]) for row in exclusive] == [(0, 5), (0, 5)]
    return [
        f"**over the plain group lasso, a lead, told from luck {' and '.join(where)}; over the plain `gl12`, "
        f"{over_plain}** |",
        "`hsqrt_gl`, feature-wise with proximal steps, gets to half of the parameters in every seed, `gl` "
        f"in {count(half['plain reach'])} of {count(half['reach'])}, and in those "
        f"{count(half['plain reach'])} it is {lead(half)} points {side(half)} `gl` ({luck(half)}); at a "
        f"quarter, where all get, {lead(quarter)} ({luck(quarter)}), at half of the kernels "
        f"{lead(kernels)} ({luck(kernels)}).",
        f"`{first['method']}`, plain, gets furthest within one point, {gone(first)} of the parameters, "
        f"before `hsqrt_gl` and `hsqrt_gl12` with {gone(three[1])} and {gone(three[2])} ({kept(three[0])}, "
        f"{kept(three[1])} and {kept(three[2])} on the test part); all three are of degree ½ or less.",
        f"At half of the parameters `gl12` and `hsqrt_gl` are {lead(by_size[0])} and {lead(by_size[1])} "
        f"points {side(by_size[0])} cutting input channels by size ({p_of(by_size[0])} and "
        f"{luck(by_size[1])}).",
        f"At a quarter `hsq_gl12`, the authors' choice, is {lead(authors)} points {side(authors)} `gl12` "
        f"({luck(authors)}):",
        "exclusive sparsity: **no** | `es`, feature-wise with proximal steps, gets to half dead kernels "
        "in all seeds, `hsqrt_es` and `hsq_es` in none.",
    ]


def of_structure_and_width() -> list[str]:
    """The second claim."""
    by_neuron, by_feature = (
        [the(against_cut(name, DEAD, 0.8, "kernel"), method="hsq_gl12", **where) for name in (NARROW, HALF)]
        for where in (NEURON, FEATURE)
    )
    longer = "longer" if by_neuron[0]["difference"] > by_neuron[1]["difference"] > 0 else "shorter"
    deficit = "deficit" if by_feature[0]["difference"] < 0 < by_feature[1]["difference"] else "lead"
    together = leads_at_widths()[1]
    on_cifar10 = leads("cifar10_strengths")
    assert ((on_cifar10["mean"] > 0) & (on_cifar10["p"] <= SURE)).all(), "there in the narrow AlexNet"
    vgg11 = the(against_cut("cifar10_vgg11", DEAD, 0.8, "kernel"), method="hsq_gl12", **BY_NEURON)
    further = at_equal_shares("cifar10_vgg11", 0.8995)
    assert vgg11["difference"] < 0 < (further["penalty"] - further["cut"]).min(), "only further out"
    times = made("cifar10_vgg11")["parameters"].iloc[0] / made("cifar10_alexnet")["parameters"].iloc[0]
    resnet18 = furthest("cifar10_resnet18", DEAD)
    names = [*dict.fromkeys(resnet18["method"])]
    assert resnet18["step"].iloc[-1] == "cut"
    assert resnet18["dead kernels"].idxmax() == 0, "ahead of the cuts"
    half = [the(at("digits", SMALLER, 0.5), method="hsqrt_gl", **where) for where in (FEATURE, NEURON)]
    return [
        f"**on the number of channels: a lead, {'no verdict' if together > SURE else 'told from luck'}** |",
        f"at a quarter of the width the lead of `hsq_gl12` over cutting kernels by size is {longer} "
        f"neuron-wise, and feature-wise turns into a {deficit}; compared with each other these leads "
        f"{'may be luck' if together > SURE else 'are told apart'} (",
        "On CIFAR-10 the lead at 80 % dead is there in the narrow AlexNet; in VGG11, with "
        f"{count(round(times))} times its parameters, it is "
        f"{'not seen' if vgg11['difference'] < 0 else 'seen'} there, only further out; in ResNet18, on "
        f"{count(made('cifar10_resnet18')['seed'].nunique())} seeds, `{names[0]}` and plain `{names[1]}` "
        "get furthest, ahead of the cuts (",
        f"at half of the parameters `hsqrt_gl` has {percent(half[0])} feature-wise and {percent(half[1])} "
        "neuron-wise.",
    ]


def of_accuracy() -> list[str]:
    """The third claim."""
    narrow, half, wide = (furthest(name, SMALLER).iloc[0] for name in WIDTHS)
    lost = [dense(name)["mean"] - row["test accuracy"] for name, row in ((NARROW, narrow), (HALF, half))]
    verdict = "yes" if lost[1] <= LOSS_ALLOWED else "no"
    wider = "more" if wide[SMALLER] > half[SMALLER] else "less"
    most = at("digits", SMALLER, 0.75)
    cut = best_cut(most)
    assert (cut["method"], cut["grouping"]) == ("magnitude", "neuron"), "output channels by size"
    by_size, at_random = (the(most, method=name, **BY_CHANNEL) for name in ("magnitude", "random"))
    return [
        f"**{verdict}, up to {roughly(half[SMALLER])}** of the parameters at half width; wider, {wider}; "
        f"narrow, [{'not ' if lost[0] > LOSS_ALLOWED else ''}without loss]",
        f"at three quarters removed the penalty highest on test has {percent(best_penalty(most))}; cutting "
        f"input channels by size has {percent(by_size)}, at random {percent(at_random)}, the cut highest "
        f"on test, output channels by size, {percent(cut)}. |",
    ]


def test_the_abstract_s_claims_are_judged_by_the_tables():
    words = of_the_digits("**The abstract's claims**")
    words.say("*more adequately* |", *of_kernels(), *of_channels())
    words.say("*depending on the structure and the number of channels* |", *of_structure_and_width())
    words.say("*keeping high performance* |", *of_accuracy())
    words.say_no_more()


def last_level(rows: pd.DataFrame, least: float) -> float:
    """Up to which share a curve is at least so accurate throughout."""
    below = rows.loc[rows["mean"] < least, "level"].min()
    return rows.loc[~(rows["level"] >= below), "level"].max()


def test_the_picture_of_parameters_is_told_as_it_is_drawn():
    words = of_the_digits(STARTS[2])
    shown, whole = curves(runs_of("digits"), SMALLER), dense("digits")["mean"]
    cuts = {name: rows for name, rows in shown.items() if is_baseline(name)}
    keep = {name.split(",")[0]: rows for name, rows in shown.items() if name.endswith("proximal")}
    (other,) = (name for name in shown.keys() - cuts.keys() if not name.endswith("proximal"))
    assert other == "hsq_gl12, neuron-wise, gradient"
    up_to = min(last_level(rows, whole) for rows in keep.values())
    ends = sorted(rows["level"].iloc[-1] for rows in keep.values())
    (fallen,) = (name for name, rows in keep.items() if rows["mean"].iloc[-1] < whole - 2 * LOSS_ALLOWED)
    assert {*cuts} == {"cut input channels by size", "cut input channels at random"}

    def mean(lines: dict[str, pd.DataFrame]) -> pd.Series:
        return pd.concat([rows.set_index("level")["mean"] for rows in lines.values()]).groupby("level").mean()

    behind = (mean(keep) - mean(cuts)).loc[: up_to - 0.01]
    last = {rows["level"].iloc[-1] for rows in cuts.values()}
    assert min(-rows["mean"].diff().iloc[-1] for rows in cuts.values()) > 0.1, "and fall steeply at the end"
    words.say(
        f"{count(len(keep)).capitalize()} penalties with proximal steps keep the dense network's accuracy "
        f"up to about {roughly(up_to)} of the parameters and end at {100 * ends[0]:.0f} to "
        f"{100 * ends[-1]:.0f} per cent, {fallen} after a fall, hsq_gl12 with gradient steps at "
        f"{roughly(shown[other]['level'].iloc[-1])}; the cuts of input channels, by size or at random, "
        f"stay about {'a point' if round(100 * behind.mean()) == 1 else 'points'} "
        f"{'below' if behind.min() > 0 else 'above'} them up to there, go on to {100 * max(last):.0f} per "
        "cent and fall steeply at the end.](digits_parameters_removed.png)"
    )
    words.say_no_more()


def test_the_picture_of_kernels_is_told_as_it_is_drawn():
    words = of_the_digits(STARTS[3])
    shown, whole = curves(runs_of("digits"), DEAD), dense("digits")["mean"]
    first, *others = (name for name in shown if not is_baseline(name))
    assert first == "hsq_gl12, neuron-wise, proximal"
    assert all(name.endswith(", feature-wise, proximal") for name in others)
    others.sort(key=lambda name: shown[name]["level"].iloc[-1])
    ends = [shown[name]["level"].iloc[-1] for name in others]
    near = {roughly(last_level(shown[name], whole - LOSS_ALLOWED)) for name in others}
    assert len(near) == 1
    by_size, at_random = (shown[f"cut kernels {how}"] for how in ("by size", "at random"))
    behind = whole - by_size.set_index("level")["mean"].loc[ends]
    assert (100 * behind).round().eq(1).all(), "about a point below dense there"
    early, late = (last_level(rows, whole - LOSS_ALLOWED) for rows in (at_random, by_size))
    assert early < late - 0.2, "falls much earlier"
    assert at_random.iloc[-1]["mean"] < by_size.iloc[-1]["mean"]
    words.say(
        "hsq_gl12, neuron-wise with proximal steps, stays at the dense network's accuracy up to "
        f"{roughly(last_level(shown[first], whole - LOSS_ALLOWED / 10))}; "
        f"{' and '.join(name.split(',')[0] for name in others)}, feature-wise, stay near it up to about "
        f"{near.pop()} and end at {100 * ends[0]:.0f} and {100 * ends[1]:.0f} per cent; cutting kernels by "
        "size lies about a point below it there, cutting them at random falls much "
        "earlier.](digits_dead_kernels.png)",
        f"means over {count(made('digits')['seed'].nunique())} seeds, bands their 95 % intervals",
    )
    words.say_no_more()


def test_what_is_said_beside_the_table_of_advice_is_the_table_s():
    words = of_the_digits("**Which penalty should I take?**")
    star, far = (the(furthest("digits", DEAD), method="hsq_gl12", **where) for where in (BY_NEURON, NEURON))
    by_gradient = {"method": "hsq_gl12", "amount": star["amount"], **BY_NEURON}
    smaller = the(furthest("digits", SMALLER), **by_gradient)
    small = the(furthest("digits", SMALL), method="hsq_gl12", amount=far["amount"], **NEURON)
    weights = furthest("digits", SMALL).iloc[-1]
    assert (weights["method"], weights["grouping"], weights["amount"]) == ("magnitude", "weight", 0.8)
    least_work = [of_amount("magnitude", 0.3, value, **BY_CHANNEL) for value in (SMALLER, TUNED[1])]
    words.say(
        "is [notebook 08, section 9]",
        "Besides what stands above:",
        f"with gradient steps `hsq_gl12`, neuron-wise at fraction {star['amount']:g}, leaves {gone(star)} "
        f"of the kernels dead, {gone(smaller)} of the parameters gone and "
        f"{percent(of_amount(value=SMALL, **by_gradient))} of the weights small, at {kept(star)}; with "
        f"proximal steps at {far['amount']:g} it leaves {gone(small)} of the weights small. Cutting "
        f"{100 * weights['amount']:.0f} % of the weights by size keeps {kept(weights)}.",
        f"With the least work, 30 % of the input channels cut by size, {percent(least_work[0])} of the "
        f"parameters go at {percent(least_work[1])}.",
    )
    words.say_no_more()


def test_how_narrow_the_window_is_the_table_says():
    words = of_the_digits("**The window is narrow.**")
    removed = {amount: of_amount("gl12", amount, SMALLER, **FEATURE) for amount in (5, 7, 10, 15)}
    assert removed[5]["mean"] == 0, "removes nothing"
    rooted = [of_amount("hsqrt_gl", amount, SMALLER, **FEATURE) for amount in (4, 7)]
    end = the(furthest("digits", SMALLER), method="hsqrt_gl", **FEATURE)
    assert end["amount"] == the(furthest("digits", SMALLER), method="hsqrt_gl12", **FEATURE)["amount"] == 7
    left = of_amount("gl12", 15, TUNED[1], **FEATURE)
    assert left["mean"] < dense("digits")["mean"] - LOSS_ALLOWED, "is down to"
    before, after = before_and_after_fine_tuning()
    end_of_gl12 = the(furthest("digits", SMALLER), method="gl12", **FEATURE)
    words.say(
        f"`gl12`, feature-wise with proximal steps, removes nothing at fraction 5, {percent(removed[7])} "
        f"of the parameters at 7, {percent(removed[10])} at 10, and at 15, with {percent(removed[15])}, is "
        f"down to {percent(left)}; `hsqrt_gl` goes from {percent(rooted[0])} at 4 to {percent(rooted[1])} "
        "at 7.",
        f"the rates of all {steps_of_training()} steps",
        f"`gl12` at {end_of_gl12['amount']:g} has {before[0]} % on the validation part after zeroing "
        f"(dense {before[1]}), after fine-tuning {after[0]} (dense {after[1]}).",
    )
    words.say_no_more()


def test_the_recall_question_about_two_leads_has_the_tables_numbers():
    rows = [
        the(against_cut("digits", DEAD, 0.8, "kernel"), method="hsq_gl12", **way) for way in (FEATURE, NEURON)
    ]
    first, second = rows
    asked = (STUDIES.parent / "hgsr_lite" / "series" / "recall.toml").read_text(encoding="utf-8")
    assert (
        f"feature-wise is ahead by {lead(first)} points ({p_of(first)}), neuron-wise by {lead(second)} "
        f"({p_of(second)})." in asked
    )
    assert min(row["difference"] for row in rows) > 0


def bisected(name: str) -> list[dict]:
    """The grids that the search for the ends has added to a study of the digits."""
    text = (STUDIES / f"{name}.toml").read_text(encoding="utf-8").partition("# The end of each path")[2]
    return tomllib.loads(text.partition("\n")[2])["grid"]


def before_and_after(name: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A table of the digits without what the search for the ends has added, and with it."""
    columns = ["penalty", "grouping", "proximal", "fraction", "baseline", "unit", "share"]
    points = {
        (
            grid.get("penalty"),
            grid.get("grouping", "feature") if "penalty" in grid else None,
            grid.get("proximal", False),
            amount if "fraction" in grid else None,
            grid.get("baseline"),
            grid.get("unit"),
            amount if "share" in grid else None,
        )
        for grid in bisected(name)
        for amount in grid.get("fraction", grid.get("share"))
    }
    table = pd.read_csv(STUDIES / f"{name}.csv")
    found = table[columns].astype(object).where(table[columns].notna(), None)
    added = [tuple(row) in points for row in found.itertuples(index=False)]
    assert sum(added) == len(points) * table["seed"].nunique()
    by_hand = with_paths(table[[not each for each in added]])
    return prepared(by_hand), prepared(with_paths(table))


def test_what_is_said_of_where_the_paths_of_the_digits_end_is_the_table_s():
    found, words = path_ends(made("digits")), of_the_digits("**Where the paths end.**")
    assert set(found["found"]) == {"yes"}
    fractions, shares = (
        sum(len(grid.get(name, ())) for grid in bisected("digits")) for name in ("fraction", "share")
    )
    ends = found.pivot_table("good up to", ["method", "grouping"], "step")
    times = (ends["proximal"] / ends["gradient"]).dropna()
    by_hand, all_of_them = before_and_after("digits")
    star = [the(choices(runs, DEAD), method="hsq_gl12", **NEURON) for runs in (by_hand, all_of_them)]
    for goal in GOALS:
        first, now_first = (choices(runs, goal).iloc[0] for runs in (by_hand, all_of_them))
        assert first[list(PATH)].equals(now_first[list(PATH)]), "first stayed first"
    assert "hsqrt_gl12" not in set(choices(by_hand, DEAD)["method"].iloc[:3])
    third = choices(all_of_them, DEAD).iloc[2]
    half = [against_plain(runs, SMALLER, 0.5) for runs in (by_hand, all_of_them)]
    p = [the(pairs, method="hsqrt_gl", **FEATURE)["p (Holm)"] for pairs in half]
    assert p[0] < SURE < p[1], "turned"
    words.say(
        f"bisected all {len(found)} paths, cuts too,",
        f"is at most {'a point' if LOSS_ALLOWED == 0.01 else 'more'} below dense) and the least one "
        f"beyond, until they are at most a factor of {NEAR:g} apart. {fractions} fractions and {shares} "
        "shares more; [every end is found]",
        f"`{star[0]['method']}` gets furthest at {star[1]['amount']:g}, not at {star[0]['amount']:g}, and "
        f"`{third['method']}`, {third['grouping']}-wise at {third['amount']:g}, is now third in dead "
        "kernels. One verdict above turned: `hsqrt_gl` over `gl` at half of the parameters, from "
        f"{p[0]:.3f} to {p[1]:.3f}.",
        f"With proximal steps the end lies at {times.min():.1f} to {times.max():.1f} times the fraction of "
        f"gradient steps (median of the {len(times)} pairs: {times.median():.1f})",
    )
    words.say_no_more()


def test_what_is_said_of_the_runs_that_were_made_again_is_the_tables():
    words = of_the_digits("**How exact is an end?**")
    again, first = made("digits_again"), made("digits")
    pairs = again.merge(first, on="key", suffixes=("", " before"))
    assert len(pairs) == len(again) == 50
    assert set(pairs["processor"]) != set(pairs["processor before"])
    apart = 100 * (pairs[TUNED[0]] - pairs[f"{TUNED[0]} before"])
    means = apart.groupby([pairs["method"], pairs["amount"]]).mean().abs()
    by_hand, _ = before_and_after("digits")
    makers = first.groupby(first["key"].isin(by_hand["key"]))["processor"].agg(set)
    assert [len(each) for each in makers] == [1, 1], (
        "the bisected runs come from one, the others from another"
    )
    (bisecting,), (others,) = makers[False], makers[True]
    makes = [name.split("(")[0].split()[0] for name in (bisecting, others)]
    assert set(again["processor"]) == {bisecting}
    assert roughly(round(means.max(), 1)) == "a third", "a third of a point"
    words.say(
        f"come from an {makes[0]} processor, all others here from an {makes[1]}. [Fifty of those once more]",
        f"on the {makes[0]}: {(apart == 0).sum()} have the very same validation accuracy, one is "
        f"{apart.abs().max():.1f} points off; means over {count(again['seed'].nunique())} seeds move by at "
        f"most {means.max():.1f}.",
        f"A mean that is {100 * LOSS_ALLOWED + 0.1:.1f} points below dense is *too much*, one "
        f"{100 * LOSS_ALLOWED - 0.1:.1f} below is good, so a third of a point",
    )
    words.say_no_more()


def first_version(runs: pd.DataFrame) -> pd.DataFrame:
    """Without the shares between a half and 0.8, which were added last."""
    return runs[~runs["share"].between(0.5, 0.8, inclusive="neither")]


def test_the_surprises_are_the_table_s():
    words, runs = of_the_digits("Surprises."), runs_of("digits")
    small = furthest("digits", SMALLER)
    assert small["method"].iloc[0] == "gl12", "the finer grid has not `hsqrt_gl` ahead"
    half = at("digits", SMALLER, 0.5)
    at_random, by_size = (the(half, method=name, **BY_CHANNEL) for name in ("random", "magnitude"))
    apart = the(against_cut("digits", SMALLER, 0.5, "feature"), method="random", **BY_CHANNEL)
    cut = small.iloc[-1]
    assert (cut["method"], cut["grouping"]) == ("random", "neuron"), "at random: output channels"
    cuts = runs[(runs["step"] == "cut") & runs["unit"].isin(["feature", "neuron"])]
    found, without = (
        accuracy_at(rows, SMALLER, [0.75]).set_index(["method", "grouping"])["mean"]
        for rows in (cuts, first_version(cuts))
    )
    worse = 100 * (found - without)
    assert len(worse) == 4
    areas = (STUDIES / "digits.md").read_text(encoding="utf-8").partition("## Area under each front")[2]
    of_areas = [tuple(row.split(" | ")[:3]) for row in areas.split("\n## ")[0].split("\n| ")[3:]]
    channels = {(how, unit, "cut") for how in RANKINGS for unit in ("feature", "neuron")}
    assert set(of_areas[:4]) == channels, "the cuts of channels lead"
    given = runs[runs["penalty"].notna() & runs["fraction"].isna()]
    assert len(given) == 10
    assert given[SMALLER].max() == 0, "the authors' settings leave nothing to remove in any seed"
    words.say(
        "It had `hsqrt_gl` ahead of `gl12`; the finer grid has not.",
        f"Cutting input channels *at random* is {'not ' if may_be_luck(apart) else ''}told from cutting "
        f"them by size (at half of the parameters {percent(at_random)} and {percent(by_size)}), and within "
        f"one point of dense the cut that removes most is at random: output channels, {gone(cut)} of the "
        f"parameters at {kept(cut)}.",
        "The shares of 0.6 and 0.7 were added last: without them a straight line from 0.5 to 0.8 had made "
        f"every cut of channels look {count(round(worse.min()))} to {count(round(worse.max()))} points "
        "worse at three quarters.",
        "The authors' settings leave nothing to remove in any seed.",
    )
    words.say_no_more()


def test_what_is_not_shown_is_counted():
    words = of_the_digits("Not shown:")
    found = path_ends(made("digits"))
    tried = found.groupby(found["step"] == "cut")["amounts"].agg(["min", "max"])
    of_penalty, of_cut = (f"{count(least)} to {count(most)}" for least, most in tried.to_numpy().tolist())
    tests = len(hg.load_data("digits").test.images)
    bench = (STUDIES.parent / "benchmarks" / "README.md").read_text(encoding="utf-8")
    (took,) = {line for line in bench.splitlines() if "Nor does a proximal step weigh" in line}
    least, _, step = took.partition("`prox_` takes ")[2].partition(" there, the training step ")
    words.say(
        "(other widths, networks and images: below)",
        f"one of {tests} test images is {100 / tests:.1f} points. Each path has {of_penalty} fractions, a "
        f"cut {of_cut} shares.",
        f"A proximal step takes {least} of a training step of {step.rstrip('.')} (",
    )
    words.say_no_more()


SAME_PATHS = (*WIDTHS, "digits_resnet18")
"""The studies that take the same paths on one set of images."""
CUT_IN_WORDS = {
    "kernel": "kernels",
    "feature": "input channels",
    "neuron": "output channels",
    "magnitude": "by size",
    "random": "at random",
}


def furthest_in_words(runs: pd.DataFrame, goal: str) -> list[str]:
    """The penalty and the cut that get furthest towards a goal, as the table of networks writes them."""
    found = choices(runs, goal)
    cells = []
    for row in (found.iloc[0], found.iloc[-1]):
        which = f"`{row['method']}`, {row['grouping']}-wise"
        if row["step"] == "cut":
            which = f"{CUT_IN_WORDS[row['grouping']]} {CUT_IN_WORDS[row['method']]}"
        cells.append(f"{gone(row)} ({which}; {kept(row)})")
    return cells


def test_the_table_of_networks_is_the_tables():
    words = of_the_widths("The same network")
    seeds = [count(made(name)["seed"].nunique()) for name in SAME_PATHS]
    assert len(set(seeds[:3])) == 1
    words.say(
        "the paths that the verdicts above rest on, with proximal steps and the same budget.",
        f"What gets furthest within {count(round(100 * LOSS_ALLOWED))} point of dense, by validation:",
        f"{seeds[0].capitalize()} seeds, ResNet18 {seeds[3]}.",
    )
    words.say("| dense | dead kernels: a penalty | a cut | parameters removed: a penalty | a cut | |")
    names = ("`digits_cnn`, a quarter", "`digits_cnn`, half", "`digits_cnn`, full", "ResNet18, half")
    assert [made(name)["width"].unique().tolist() for name in SAME_PATHS] == [[0.25], [0.5], [1.0], [0.5]]
    for study, name in zip(SAME_PATHS, names, strict=True):
        runs = runs_of(study)
        runs = runs[runs["step"] != "gradient"]
        assert len(runs["parameters"].unique()) == 1
        cells = [f"{runs['parameters'].iloc[0]:,.0f}", percent(dense(study))]
        cells += furthest_in_words(runs, DEAD) + furthest_in_words(runs, SMALLER)
        words.say(f"| [{name}]({study}.md) | {' | '.join(cells)} |")
    words.say_no_more()


def test_what_is_said_of_the_number_of_channels_is_the_tables():
    words = of_the_widths("- **The order stays**")
    tables = [runs[runs["step"] != "gradient"] for runs in map(runs_of, WIDTHS)]
    (kernels,) = {choices(runs, DEAD).iloc[0]["method"] for runs in tables}
    (channels,) = {choices(runs, SMALLER).iloc[0]["method"] for runs in tables}
    tried = [set(runs.loc[runs["step"] == "proximal", "method"]) for runs in tables]
    words.say(
        f"**The order stays**: of the {count(len(set.intersection(*tried)))} penalties tried at all "
        f"{count(len(tables))} widths `{kernels}` empties most kernels and `{channels}` removes most "
        "parameters."
    )
    ahead, across = (
        [the(against_cut(name, DEAD, 0.8, "kernel"), method="hsq_gl12", **where) for name in WIDTHS]
        for where in (NEURON, FEATURE)
    )
    assert ahead[0]["difference"] > ahead[1]["difference"] > ahead[2]["difference"] > 0, (
        "fewer channels, a longer lead"
    )
    told = ["first", "second", "third"]
    (only,) = (name for name, row in zip(told, ahead, strict=True) if not may_be_luck(row))
    words.say(
        "**Fewer channels, a longer lead over cutting by size, neuron-wise.** At 80 % dead kernels "
        f"`hsq_gl12`, neuron-wise, is {lead(ahead[0])} points {side(ahead[0])} cutting kernels by size at "
        f"a quarter of the width, {lead(ahead[1])} at half, {lead(ahead[2])} at the full width (p "
        f"{', '.join(p_of(row)[2:] for row in ahead)}: of these only the {only} is told from luck). "
        f"Feature-wise it is {lead(across[0])} points {side(across[0])} it at a quarter of the width "
        f"({luck(across[0])}): there 80 % is too much."
    )
    assert across[0]["difference"] < 0
    assert the(furthest(NARROW, DEAD), method="hsq_gl12", **FEATURE)[DEAD] < 0.8, "there 80 % is too much"
    kernels = [the(hierarchy(name, DEAD, 0.8), method="hsq_gl12", **FEATURE) for name in WIDTHS]
    assert [row["reach"] for row in kernels] == [5, 5, 5], "it gets there in all"
    plain = [{5: "all"}.get(reach, count(reach)) for reach in (row["plain reach"] for row in kernels)]
    halves = [the(hierarchy(name, DEAD, 0.5), method="hsq_gl12", **NEURON) for name in WIDTHS]
    assert max(row["plain reach"] for row in halves) <= 2, "not in most seeds, at any width"
    assert {row["reach"] for row in halves} == {5}
    narrow = the(hierarchy(NARROW, DEAD, 0.5), method="hsq_gl12", **FEATURE)
    assert (narrow["reach"], narrow["plain reach"]) == (5, 5), "where both get"
    words.say(
        "**Before its own plain penalty it leads in reach.** Feature-wise, plain `gl12` gets to 80 % dead "
        f"kernels in {plain[0]} of five seeds at a quarter of the width, in {plain[1]} at half, in "
        f"{plain[2]} at the full width, where the difference, {lead(kernels[2])} points, "
        f"{'may be luck' if may_be_luck(kernels[2]) else 'is told'} ({p_of(kernels[2])}); neuron-wise it "
        "gets not even to half of the kernels in most seeds, at any width. `hsq_gl12` gets there in all. "
        "Where both get, feature-wise to half of the kernels at a quarter of the width, it is "
        f"{lead(narrow)} points {'ahead' if narrow['difference'] > 0 else 'behind'} ({luck(narrow)})."
    )
    below = [the(hierarchy(name, SMALLER, 0.5), method="hsq_gl12", **FEATURE) for name in WIDTHS]
    assert all(row["difference"] < -row["±"] for row in below)
    words.say(
        "**Fewer channels, and it costs more parameters.** At half of the parameters `hsq_gl12`, "
        f"feature-wise, is {lead(below[0])}, {lead(below[1])} and {lead(below[2])} points {side(below[0])} "
        "`gl12`, from the narrow network to the wide."
    )
    least, together = leads_at_widths()
    assert least[0] > SURE, "the neuron-wise leads are not told apart"
    assert max(least[1:]) < SURE < together
    words.say(
        f"**A lead, {'no verdict' if together > SURE else 'told from luck'}**: compared with each other "
        f"(Welch's test, every two widths), the neuron-wise leads are not told apart, p {least[0]:.3f} at "
        "best after Holm over these three. Of the feature-wise leads and the deficits in parameters some "
        f"are, {least[1]:.3f} and {least[2]:.3f} at best, but over all nine none is, {together:.3f}."
    )
    words.say_no_more()


def test_what_is_said_of_cuts_of_channels_and_of_narrower_networks_is_the_tables():
    words = of_the_widths("- **Against a cut")
    plain, rooted = (
        [the(against_cut(name, SMALLER, 0.5, "feature"), method=method, **FEATURE) for name in WIDTHS]
        for method in ("gl12", "hsqrt_gl")
    )
    assert [side(row) for row in plain[:2]] == ["above", "above"]
    assert {side(row) for row in rooted} == {"above"}
    assert all(map(may_be_luck, [*plain, *rooted])), "no lead is told from luck"
    words.say(
        "no lead at half of the parameters is told from luck, at any width.** There `gl12`, feature-wise, "
        f"is {lead(plain[0])} and {lead(plain[1])} points above cutting input channels by size at a "
        f"quarter and at half of the width, and {lead(plain[2])} {side(plain[2])} at the full width; "
        f"`hsqrt_gl` {lead(rooted[0])}, {lead(rooted[1])} and {lead(rooted[2])} above."
    )
    wide = at(WIDE, SMALLER, 0.75)
    cut, penalty = best_cut(wide), the(wide, method="hsqrt_gl", **FEATURE)
    assert (cut["method"], cut["grouping"]) == ("random", "neuron"), "output channels at random"
    further = the(against_cut(WIDE, SMALLER, 0.75, "feature"), method="hsqrt_gl", **FEATURE)
    first, second = (
        along(runs_of(WIDE), 0.75, *path, gain=SMALLER)
        for path in (("hsqrt_gl", "feature", "proximal"), ("random", "neuron", "cut"))
    )
    apart = interval(first - second)
    assert 0 < apart["mean"] < apart["±"], "which may be luck"
    assert may_be_luck(further), "and so may the other"
    end = the(furthest(WIDE, SMALLER), method="hsqrt_gl", **FEATURE)
    words.say(
        f"Further out, at three quarters, it has {percent(penalty)} at the full width: {lead(further)} "
        f"points {side(further)} that cut ({p_of(further)}), and {percent(apart)} above the one highest on "
        f"test, output channels at random with {percent(cut)}: both may be luck; at fraction "
        f"{end['amount']:g} it has {gone(end)} of the parameters gone at {kept(end)}."
    )
    kernels = the(against_cut(WIDE, DEAD, 0.8, "kernel"), method="hsq_gl12", **FEATURE)
    words.say(
        f"Kernels at the full width, 80 % dead: `hsq_gl12`, feature-wise, is {lead(kernels)} points "
        f"{side(kernels)} cutting by size ({p_of(kernels)})."
    )
    thinned, fractions = [], set()
    for name, narrower in ((WIDE, HALF), (HALF, NARROW)):
        end, runs = the(furthest(name, SMALLER), method="gl12", **FEATURE), runs_of(name)
        runs = runs[
            (runs["method"] == "gl12") & (runs["amount"] == end["amount"]) & (runs["step"] == "proximal")
        ]
        left = runs.loc[runs["grouping"] == "feature", "parameters left"].mean()
        fractions.add(end["amount"])
        thinned.append((left, kept(end), runs_of(narrower)["parameters"].iloc[0], percent(dense(narrower))))
    (fraction,) = fractions
    (one, at_one, small, at_small), (other, at_other, smallest, at_smallest) = thinned
    words.say(
        f"`gl12` at fraction {fraction:g} leaves {one:,.0f} of the full width's parameters at {at_one}, "
        f"where the dense network of half width has {small:,.0f} and {at_small}; it leaves {other:,.0f} of "
        f"the half width's at {at_other}, where the dense one of a quarter has {smallest:,.0f} and "
        f"{at_smallest}."
    )
    words.say_no_more()


def test_what_is_said_of_the_plain_group_lasso_and_of_the_ends_at_other_widths_is_the_tables():
    words = of_the_widths("- Over the plain")
    half = [the(hierarchy(name, SMALLER, 0.5), method="hsqrt_gl", **FEATURE) for name in WIDTHS]
    most = the(hierarchy(WIDE, SMALLER, 0.75), method="hsqrt_gl", **FEATURE)
    assert [(row["reach"], row["plain reach"]) for row in half] == [(4, 0), (5, 3), (5, 5)]
    assert min(half[1]["difference"], half[2]["difference"], most["difference"]) > 0, "below"
    words.say(
        "`hsqrt_gl` keeps its lead: to half of the parameters `gl` gets in no seed at a quarter of the width "
        f"(`hsqrt_gl` in {count(half[0]['reach'])}), in {count(half[1]['plain reach'])} at half "
        f"({'may be luck' if may_be_luck(half[1]) else 'told'}), at the full width in all, {lead(half[2])} "
        f"points below ({luck(half[2])}), at three quarters {lead(most)} below ({luck(most)})."
    )
    narrow, middle, wide = map(lost_at_the_ends, WIDTHS)
    words.say(
        f"is in the mean {middle:.1f} points below dense at half width, {narrow:.1f} at a quarter and "
        f"{wide:.1f} at the full width."
    )
    asked = {
        WIDE: lambda runs: the(differences(runs, SMALLER, 0.75, "feature"), method="hsqrt_gl", **FEATURE),
        "digits_resnet18": lambda runs: the(against_plain(runs, DEAD, 0.5), method="hsq_gl12", **FEATURE),
        NARROW: lambda runs: the(against_plain(runs, DEAD, 0.5), method="hsq_gl12", **FEATURE),
    }
    p = {name: [ask(runs)["p (Holm)"] for runs in before_and_after(name)] for name, ask in asked.items()}
    assert all((before < SURE) != (after < SURE) for before, after in p.values()), "crossed 0.05"
    assert all(set(path_ends(made(name))["found"]) == {"yes"} for name in asked)
    turned = {name: "from {:.3f} to {:.3f}".format(*pair) for name, pair in p.items()}
    words.say(
        f"and {count(len(asked))} comparisons crossed {SURE}: at the full width `hsqrt_gl` against the cut "
        f"of input channels at three quarters ({turned[WIDE]}), for ResNet18 `hsq_gl12` against `gl12` "
        f"({turned['digits_resnet18']}), at a quarter of the width `hsq_gl12` against `gl12` at half of "
        f"the kernels ({turned[NARROW]})."
    )
    end = the(furthest(NARROW, SMALLER), method="gl12", **FEATURE)
    lost = round(100 * (dense(NARROW)["mean"] - end["test accuracy"]))
    words.say(
        f"At a quarter of the width `gl12`'s choice lost {count(lost)} points on the test part, where "
        f"validation had allowed {count(round(100 * LOSS_ALLOWED))}."
    )
    words.say_no_more()


def test_on_the_structure_there_is_no_verdict_as_the_words_say():
    words, runs = of_the_widths("- **On the"), runs_of("digits_resnet18")
    kernels = furthest("digits_resnet18", DEAD)
    assert kernels.iloc[-1][DEAD] > kernels.iloc[0][DEAD], "cutting kernels gets further"
    assert (kernels.iloc[-1]["method"], kernels.iloc[-1]["grouping"]) == ("magnitude", "kernel")
    compared = hierarchy("digits_resnet18", DEAD, 0.5)
    ahead = the(compared, method="hsq_gl12", **FEATURE)
    gone = furthest("digits_resnet18", SMALLER)
    gone = gone[gone["step"] != "cut"]
    assert (gone[SMALLER] <= gone["± "]).all(), "told from none"
    images = len(hg.load_data("digits", validation=runs["images validation"].iloc[0]).train.images)
    tried = runs.loc[runs["step"] != "cut", "method"].nunique()
    verdict = "no verdict" if may_be_luck(ahead) else "a verdict"
    words.say(
        f"**On the structure there is {verdict}.** ResNet18 learns these {images:,} training images badly "
        f"within this budget. There cutting kernels by size gets further than any of the {count(tried)} "
        f"penalties tried, and of these `{kernels.iloc[0]['method']}` furthest: at half of the kernels, "
        f"paired over {count(runs['seed'].nunique())} seeds, it is {lead(ahead)} points {side(ahead)} "
        f"`{ahead['instead of']}` ({p_of(ahead)}; {count(len(compared))} comparison, so Holm corrects "
        f"nothing){': may be luck' if may_be_luck(ahead) else ''}. None of the {count(tried)} removes a "
        "share of the parameters that is told from none, at a bearable loss."
    )
    words.say_no_more()
