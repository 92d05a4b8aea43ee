"""What the page of the studies and the notebooks say of the running example's five seeds is the table's."""

from __future__ import annotations

import pandas as pd

from hgsr_lite.data import load_data
from hgsr_lite.series import example_budget
from hgsr_lite.study.ends import path_ends
from hgsr_lite.study.study import Study
from hgsr_lite.study.verdicts import TUNED, choices
from tests.study.words import (
    BY_FEATURE,
    BY_NEURON,
    FEATURE,
    NEURON,
    STUDIES,
    Words,
    against_cut,
    dense,
    furthest,
    gone,
    hierarchy,
    interval,
    kept,
    lead,
    luck,
    made,
    none_told,
    notebook,
    percent,
    runs_of,
    section,
    the,
)

STUDY = "digits_example"
SMALLER, DEAD = "parameters removed", "dead kernels"
STAR = {"neuron": (5, 80), "feature": (5, 80)}
"""`hsq_gl12`: fractions of gradient and of proximal steps that leave about as many kernels dead."""
CUT_IN_WORDS = {"kernel": "kernels by size", "neuron": "output channels at random"}


def at_amount(amount: float, value: str, method: str = "hsq_gl12", **where: str) -> pd.Series:
    """A value by seed at one amount of a path."""
    runs = runs_of(STUDY)
    runs = runs[(runs["method"] == method) & (runs["amount"] == amount)]
    found = runs[(runs[list(where)] == pd.Series(where)).all(axis=1)].set_index("seed")[value]
    assert len(found) == 5
    return found


def mean_of(values: pd.Series) -> str:
    return percent(interval(values))


def best(goal: str, step: str) -> pd.Series:
    """What gets furthest of all with this kind of step."""
    found = furthest(STUDY, goal, most=40)
    return found[found["step"] == step].iloc[0]


def cell(row: pd.Series) -> str:
    which = f"`{row['method']}`, {row['grouping']}-wise"
    if row["step"] == "cut":
        which = CUT_IN_WORDS[row["grouping"]]
    return f"{gone(row)} ({which}; {kept(row)})"


def under(p: float) -> str:
    return "p below 0.001" if p < 0.001 else f"p {p:.3f}"


def test_the_study_trains_what_the_notebooks_train():
    recipes, images = Study.read(STUDIES / f"{STUDY}.toml").grid.recipes, made(STUDY)
    budget = example_budget()
    for recipe in recipes:
        assert (recipe.network, recipe.width, recipe.settings.epochs) == ("digits_cnn", 1, budget["epochs"])
        assert (recipe.settings.lr, recipe.settings.batch_size) == (budget["lr"], budget["batch_size"])
    assert set(images["images validation"]) == {0.1}
    assert len(load_data("digits", device="cpu").train.images) == 1294, "all but a tenth, as in the pages"


def test_what_is_said_of_the_running_example_is_the_table_s():
    words, table = Words(section("What the running example says")), made(STUDY)
    assert table["processor"].str.startswith("Intel").all()
    assert set(path_ends(table)["found"]) == {"yes"}
    words.say(
        "`digits_cnn` at its full width, 20 epochs, all training images but a tenth",
        f"All {len(table)} runs are made",
        f"Dense: {percent(dense(STUDY))} on the test part.",
    )
    for step, name in (("gradient", "gradient steps"), ("proximal", "proximal steps"), ("cut", "a cut")):
        words.say(f"| {name} | {cell(best(DEAD, step))} | {cell(best(SMALLER, step))} |")
    words.say("**With gradient steps `hsq_gl12` empties channels too, with proximal steps few.**")
    for grouping, (gradient, proximal) in STAR.items():
        ways = ({"grouping": grouping, "step": step} for step in ("gradient", "proximal"))
        pairs = list(zip((gradient, proximal), ways, strict=True))
        kernels, channels, left = (
            [at_amount(amount, value, **way) for amount, way in pairs] for value in (DEAD, SMALLER, TUNED[1])
        )
        more, apart = interval(channels[0] - channels[1]), interval(left[0] - left[1])
        assert more["mean"] > 0
        alike = f"{percent(apart)} (p {apart['p']:.3f})"
        words.say(
            f"{grouping.title()}-wise {mean_of(kernels[0])} and {mean_of(kernels[1])}; "
            f"{mean_of(channels[0])} and {mean_of(channels[1])} of the parameters are gone, "
            f"{percent(more)} points apart ({under(more['p'])}); in accuracy the two are not told apart, "
            f"{alike}"
        )
        assert apart["p"] > 0.05, "not told apart"
    plain = furthest(STUDY, SMALLER, most=40)
    gradient, proximal = (the(plain, method="gl12", **way) for way in (BY_FEATURE, FEATURE))
    rows = the(plain, method="gl12", **NEURON)
    words.say(
        "**For `gl12` it is the other way round**",
        f"{gone(proximal)} of the parameters at {proximal['amount']:g} with proximal steps, "
        f"{gone(gradient)} at {gradient['amount']:g} with gradient steps. "
        f"Neuron-wise it is {gone(rows)} at {rows['amount']:g} with proximal steps.",
    )
    kernels = against_cut(STUDY, DEAD, 0.8, "kernel")
    channels = against_cut(STUDY, SMALLER, 0.75, "neuron")
    star, thin = the(kernels, method="hsq_gl12", **BY_NEURON), the(channels, method="gl12", **FEATURE)
    assert none_told(kernels)
    assert none_told(channels)
    assert kernels.iloc[0]["difference"] == star["difference"] > 0, "the longest lead"
    assert channels.iloc[0]["difference"] == thin["difference"] > 0
    words.say(
        "**At equal shares no lead over a cut is told from luck.**",
        f"{lead(star)} points above cutting kernels by size ({luck(star)}, over {len(kernels)} rows)",
        f"{lead(thin)} points above cutting output channels by size ({luck(thin)}, over "
        f"{len(channels)} rows)",
    )
    family = hierarchy(STUDY, SMALLER, 0.5)
    told = family[family["p (Holm)"] < 0.05]
    assert [(row["method"], row["difference"] < 0) for _, row in told.iterrows()] == [("hsqrt_gl12", True)]
    words.say(f"is {lead(told.iloc[0])} points *below* `gl12` (p {told.iloc[0]['p (Holm)']:.3f})")
    runs = runs_of("digits")
    runs = runs[runs["method"].eq("dense") | runs["step"].eq("gradient")]
    half = choices(runs, SMALLER, most=1).iloc[0]
    words.say(f"{100 * half[SMALLER]:.0f} % of the parameters at most", "twice as many steps go further.")
    assert half[SMALLER] < best(SMALLER, "gradient")[SMALLER] < best(SMALLER, "cut")[SMALLER]
    words.say("a cut at random goes further than any penalty with gradient steps.")


def test_what_the_notebooks_say_of_the_example_s_five_seeds_is_the_table_s():
    star = {step: {"grouping": "feature", "step": step} for step in ("gradient", "proximal")}
    removed = at_amount(5, SMALLER, **star["gradient"])
    page = " ".join(notebook("05_train_and_watch").split())
    assert f"Over five seeds {mean_of(removed)} % of the parameters went" in page
    furthest_by_gradient = best(SMALLER, "gradient")
    at_random = best(SMALLER, "cut")
    page = " ".join(notebook("06_a_fair_comparison").split())
    assert f"{gone(furthest_by_gradient)} % for `{furthest_by_gradient['method']}`" in page
    assert f"{gone(at_random)} % for output channels at random" in page
    page = " ".join(notebook("07_exact_zeros").split())
    few = at_amount(80, SMALLER, **star["proximal"])
    assert f"{mean_of(removed)} % of the parameters with gradient steps, {mean_of(few)} %" in page
    page = " ".join(notebook("08_a_smaller_network").split())
    assert f"gradient steps do empty some ({mean_of(removed)} %" in page
    page = " ".join(notebook("10_playground").split())
    dead = [at_amount(80, DEAD, grouping=grouping, step="proximal") for grouping in ("feature", "neuron")]
    assert f"{mean_of(dead[0])} % of the kernels feature-wise, {mean_of(dead[1])} % neuron-wise" in page
    channels = [the(furthest(STUDY, SMALLER, most=40), method="gl12", step="proximal", grouping=grouping)
                for grouping in ("feature", "neuron")]  # fmt: skip
    assert f"{gone(channels[0])} % of the parameters feature-wise, {gone(channels[1])} % neuron-wise" in page
