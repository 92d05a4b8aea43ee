"""The study at full size: what its files plan, and what the words say of its cost by the committed tables."""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path

import pandas as pd
import pytest

from hgsr_lite.study.command import add_arguments
from hgsr_lite.study.grid import read_grid
from hgsr_lite.study.tables import read_table
from hgsr_lite.table import PENALTIES
from hgsr_lite.training.recipe import ALIKE_IN_BOTH_GROUPINGS, Cut, Penalised

STUDIES = Path(__file__).resolve().parents[2] / "studies"
NETWORKS = {"alexnet": "AlexNet", "vgg11": "VGG11", "resnet18": "ResNet18"}
AT_ONCE = 24
PLAYED_BACK = ("5da3b91cb0", "d3c8ed2664")
"""The commits of the runs that were made 24 at once, with passes that are played back."""


@pytest.fixture(scope="module")
def said() -> str:
    text = (STUDIES / "README.md").read_text(encoding="utf-8")
    return " ".join(text.partition("## Full size on a GPU")[2].partition("\n## ")[0].split())


def file_of(network: str) -> Path:
    return STUDIES / f"cifar10_full_{network}.toml"


@pytest.mark.parametrize("network", NETWORKS)
def test_each_file_plans_every_penalty_in_both_groupings_at_five_fractions_for_five_seeds_and_100_epochs(
    network,
):
    recipes = read_grid(file_of(network)).recipes
    assert {recipe.network for recipe in recipes} == {network}
    assert {recipe.settings.epochs + recipe.finetune for recipe in recipes} == {100}
    paths: dict[tuple[str, str, int], set[float]] = {}
    for recipe in recipes:
        if isinstance(by := recipe.method, Penalised) and by.fraction:
            paths.setdefault((by.penalty, by.grouping, recipe.seed), set()).add(by.fraction)
    groupings = {key: 1 if key in ALIKE_IN_BOTH_GROUPINGS else 2 for key in PENALTIES}
    assert len(paths) == 5 * sum(groupings.values())
    assert {penalty for penalty, _, _ in paths} == set(PENALTIES)
    assert {len(fractions) for fractions in paths.values()} == {5}
    cuts = {(by.by, by.unit) for recipe in recipes if isinstance(by := recipe.method, Cut)}
    assert len(cuts) == 2 * 4
    assert {recipe.start for recipe in recipes if recipe.method is None} == {"he", "pytorch"}


def test_the_files_differ_in_the_network_alone():
    texts = {network: file_of(network).read_text(encoding="utf-8") for network in NETWORKS}
    assert (
        len({text.replace(network, "").replace(NETWORKS[network], "") for network, text in texts.items()})
        == 1
    )


def test_the_one_command_is_a_valid_one_for_each_file(said):
    loop = re.search(r"for network in ([\w ]+); do python -m hgsr_lite study (.+?); done", said)
    assert loop[1].split() == list(NETWORKS)
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    for network in NETWORKS:
        arguments = parser.parse_args(shlex.split(loop[2].replace("$network", network)))
        assert (arguments.do, arguments.device, arguments.workers) == ("run", "cuda", AT_ONCE)
        assert STUDIES.parent / arguments.file == file_of(network)


def on_the_gpu(network: str) -> pd.DataFrame:
    table = read_table(STUDIES / f"cifar10_{network}.csv")
    return table[(table["device"] == "NVIDIA H200") & (table["epochs"] + table["finetune"] == 20)]


def test_what_is_said_of_the_cost_is_computed_from_the_committed_tables(said):
    made, runs, hours = 0, 0, 0.0
    for network, title in NETWORKS.items():
        recorded = on_the_gpu(network)
        recorded = recorded[recorded["commit"].isin(PLAYED_BACK) & ~recorded["proximal"]]
        seconds = recorded["seconds"]
        planned = len(read_grid(file_of(network)).recipes)
        cost = planned * 5 * seconds.mean() / 3600
        assert f"| {title} | {len(seconds)} | {seconds.mean():.0f} | {cost:.0f} |" in said
        assert f"{planned} runs a network" in said
        made, runs, hours = made + len(seconds), runs + planned, hours + cost
    assert f"seconds of {made} runs of 20 epochs" in said
    assert f"{runs:,} in all" in said
    assert (
        f"Together {hours:.0f} hours of runs; with 24 at once, at least {hours / AT_ONCE:.0f} hours" in said
    )
    alexnet = on_the_gpu("alexnet")
    since = alexnet[alexnet["commit"].isin(PLAYED_BACK) & alexnet["proximal"]]["seconds"]
    assert f"took no longer, {since.mean():.0f} s a run" in said
    earlier = alexnet[alexnet["commit"] == "781b40b3d5"].groupby("proximal")["seconds"].agg(["min", "max"])
    spans = {proximal: f"{row['min']:.0f} to {row['max']:.0f}" for proximal, row in earlier.iterrows()}
    assert f"in an earlier session {spans[True]} s, where gradient steps took {spans[False]})" in said
