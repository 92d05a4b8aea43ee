"""What a study's table says, as one page: made again from the table by one command, and by a test."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pandas as pd

from hgsr_lite.study.analysis import against, at_levels, hypervolume, paired, summary
from hgsr_lite.study.ends import NEAR, path_ends
from hgsr_lite.study.progress import in_lines, say
from hgsr_lite.study.recovery import RECOVERY, RECOVERY_IN_WORDS, has_readings, recovery_parts
from hgsr_lite.study.shown_paths import CURVES, curves, in_words, picture_of
from hgsr_lite.study.verdicts import (
    FEWEST_POINTS,
    GOALS,
    LOSS_ALLOWED,
    PATH,
    QUESTIONS,
    TUNED,
    accuracy_at,
    against_plain,
    choices,
    markdown_table,
    on_paths,
    prepared,
)

if TYPE_CHECKING:
    from hgsr_lite.study.study import Study

ZEROED = ("validation accuracy after zeroing", "test accuracy after zeroing")
SPARSITIES = (0.5, 0.8, 0.9, 0.95)
DEAD_KERNELS = (0.5, 0.7, 0.8, 0.9)
REMOVED = (0.25, 0.5, 0.75, 0.9)
_FEWEST_SEEDS = 3


def page(table: pd.DataFrame, title: str, pictures: Mapping[str, str] | None = None) -> str:
    """The whole report, as Markdown. `pictures` has the Markdown of a picture for some gains."""
    runs, pictures = prepared(table), pictures or {}
    dense = summary(runs[runs["method"] == "dense"], TUNED[1], ["start"])
    parts = [
        f"# {title}",
        f"{what_there_is(table)} Strengths are chosen on the validation part, the accuracy is read on the "
        "test part.",
        "## Dense, the same budget",
        markdown_table(dense.rename(columns={"mean": "test accuracy"})),
        f"## Furthest within {LOSS_ALLOWED:.0%} of dense: penalties, and the best cut",
        "Of amounts at which no seed diverged.",
        "`amount`: a penalty's calibrated fraction (or the strength, if given), or the share that is cut.",
        *[markdown_table(choices(runs, goal)) for goal in GOALS],
        "## Does the hierarchy help? Each penalty minus the plain one of its family",
        *_hierarchy(runs),
        "## Where each path ends",
        "The greatest amount at which no seed diverged and the mean validation accuracy after fine-tuning is "
        f"at most {LOSS_ALLOWED:.0%} below dense, and the least that was tried beyond it. `found`: they are "
        f"at most a factor of {NEAR:g} apart.",
        markdown_table(_ends(table)),
        "## Test accuracy after fine-tuning, at the share of parameters removed",
        pictures.get("parameters removed", ""),
        _levels(accuracy_at(runs, "parameters removed", REMOVED)),
        "## Test accuracy after fine-tuning, at the share of dead kernels",
        pictures.get("dead kernels", ""),
        _levels(accuracy_at(runs, "dead kernels", DEAD_KERNELS)),
        "## Test accuracy after zeroing, at the share of weights below tolerance (cuts: at zero)",
        _levels(accuracy_at(runs, "below tolerance", SPARSITIES, ZEROED)),
        "## Against magnitude pruning of input channels, paired over seeds",
        "At half of the parameters removed.",
        _differences(runs, "parameters removed", 0.5, "feature"),
        "## Against magnitude pruning of kernels, paired over seeds",
        "At 80 % of the kernels dead.",
        _differences(runs, "dead kernels", 0.8, "kernel"),
        "## Area under each front",
        "Share of multiply-accumulates saved, and test accuracy after fine-tuning, both from 0 to 1. The "
        "front is formed on these test accuracies: choose nothing by it.",
        markdown_table(_areas(runs)),
        "## On no path: a penalty mixed with l1",
        markdown_table(_mixed(runs)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _ends(table: pd.DataFrame) -> pd.DataFrame:
    """The ends with their amounts as they were given: strengths may be too small for three digits."""
    ends = path_ends(table)
    ends = ends[ends["amounts"] >= FEWEST_POINTS]
    amounts = ["good up to", "too much from"]
    ends[amounts] = ends[amounts].map("{:g}".format).replace("nan", "")
    return ends


def report(study: Study) -> str:
    """A study's page, with links to its pictures; what is damaged is named (standard error) and left out.

    Raises `ValueError` if the table holds no run.
    """
    table, damaged = study.believed()
    say(in_lines(damaged))
    name = study.path.stem
    title = f"{study.grid.title} ({len(study.grid.recipes)} runs planned)"
    if has_readings(table):
        penalised = table["penalty"].notna().any()
        pictured = [f"![{RECOVERY_IN_WORDS}]({quote(picture_of(name, RECOVERY))})"] if penalised else []
        parts = [f"# {title}", what_there_is(table), *pictured, *recovery_parts(prepared(table))]
        return "\n\n".join(parts) + "\n"
    runs = prepared(table)
    shown = {gain: curves(runs, gain) for gain in CURVES}
    pictures = {
        gain: f"![{in_words(lines, gain)}]({quote(picture_of(name, gain))})"
        for gain, lines in shown.items()
        if lines
    }
    return page(table, title, pictures)


def write_report(study: Study) -> Path:
    """Write `NAME.md` beside the study's table, from the table alone; see `report`."""
    place = study.path.with_suffix(".md")
    place.write_text(report(study), encoding="utf-8")
    return place


def what_there_is(table: pd.DataFrame) -> str:
    """How many runs, of which seeds, made where and by which torch; and how to read the numbers."""
    by_seed = table.groupby("seed").size()
    seeds = ", ".join(f"seed {seed}: {count}" for seed, count in by_seed.items())
    diverged = int(table["diverged"].sum())
    on_cpu = table["device"].str.startswith("cpu")
    machine = table["processor"].where(on_cpu, table["device"]).rename("machine")
    made = table.groupby([machine, "torch"]).size()
    machines = ", ".join(f"{name} (torch {torch}: {count})" for (name, torch), count in made.items())
    changed = int(table["commit"].astype(str).str.endswith("+").sum())
    if changed:
        machines += f", {changed} with files changed since their commit (`+`)"
    return (
        f"{len(table)} runs ({seeds}), {diverged} of them diverged; made on: {machines}. Mean and half of "
        "the 95 % interval over seeds; with one seed there is no interval, and nothing is said about luck."
    )


def _levels(found: pd.DataFrame) -> str:
    reached = found.dropna(subset="mean")
    if reached.empty:
        return "No path reaches any of these levels yet."
    numbers = zip(reached["mean"], reached["±"], reached["seeds"], strict=True)
    reached = reached.assign(value=[_percent(*three) for three in numbers])
    wide = reached.pivot(index=list(PATH), columns="level", values="value")
    wide.columns = [f"{level:.0%}" for level in wide.columns]
    return markdown_table(wide.fillna("").reset_index())


def _percent(mean: float, half: float, seeds: int) -> str:
    return f"{100 * mean:.1f} ± {100 * half:.1f}" if seeds > 1 else f"{100 * mean:.1f} (one seed)"


def differences(runs: pd.DataFrame, gain: str, level: float, unit: str) -> pd.DataFrame:
    """Where `gain` is at `level`, each path that gets there minus magnitude pruning of this unit, with the
    same first weights.

    Raises `ValueError` where there is no such pruning.
    """
    paths = on_paths(runs)
    options = {"gain": gain, "chosen_by": TUNED[0], "reported": TUNED[1], "path": PATH}
    found = at_levels(paths, [level], **options)
    start = runs.loc[runs["method"] == "magnitude", "start"]
    if start.empty:
        raise ValueError("the table holds no magnitude pruning")
    cut = {"method": "magnitude", "grouping": unit, "step": "cut"}
    ways = found[list(PATH)].drop_duplicates().sort_values(list(PATH)).to_dict("records")
    cuts = {way["start"]: way for way in ways if way == {**cut, "start": way["start"]}}
    if not cuts:
        return against(found, TUNED[1], {**cut, "start": start.iloc[0]}, PATH)
    pairs = [(way, cuts[way["start"]]) for way in ways if cuts.get(way["start"], way) != way]
    return paired(found, TUNED[1], pairs, PATH).sort_values("difference", ascending=False, ignore_index=True)


def _differences(runs: pd.DataFrame, gain: str, level: float, unit: str) -> str:
    if runs["seed"].nunique() < 2:
        return "One seed says nothing about luck: no differences yet."
    try:
        return markdown_table(differences(runs, gain, level, unit))
    except ValueError as error:
        return f"Not yet: {error}"


def _hierarchy(runs: pd.DataFrame) -> list[str]:
    if runs["seed"].nunique() < _FEWEST_SEEDS:
        return ["Not enough seeds for intervals yet."]
    parts = ["Test accuracy after fine-tuning. `reach`: seeds in which the path gets to the level at all."]
    for gain, level in QUESTIONS:
        parts += [f"At {level:.0%}, {gain}:", markdown_table(against_plain(runs, gain, level))]
    return parts


def _areas(runs: pd.DataFrame) -> pd.DataFrame:
    runs = runs.assign(saved=1 - runs["MACs left"] / runs["MACs"])
    areas = [
        {**dict(zip([*PATH, "seed"], key, strict=True)), "area": hypervolume(rows["saved"], rows[TUNED[1]])}
        for key, rows in on_paths(runs).groupby([*PATH, "seed"], sort=False, dropna=False)
        if rows["amount"].nunique() >= FEWEST_POINTS
    ]
    if not areas:
        return pd.DataFrame()
    return summary(pd.DataFrame(areas), "area", PATH).sort_values("mean", ascending=False)


def _mixed(runs: pd.DataFrame) -> pd.DataFrame:
    mixed = runs[runs["l1_mix"] > 0]
    columns = [
        "method",
        "l1_mix",
        "start",
        "seed",
        ZEROED[1],
        TUNED[1],
        "below tolerance",
        "parameters removed",
    ]
    return mixed[columns]
