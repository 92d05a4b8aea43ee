"""The quick benchmark runs through, is complete, and its variants agree in value. No test looks at a time."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from benchmarks import worth
from benchmarks.layers import layers_table
from benchmarks.measurements import SMALL_AND_LARGE
from benchmarks.skipping import network_table
from benchmarks.threads import threads_table
from benchmarks.worth import COMPARISONS, WAYS, over_seeds, worth_table
from hgsr_lite.fast.plan import _MOST_COPIED
from hgsr_lite.study.tables import read_table
from hgsr_lite.training.threads import WORTH_SHARING, threads_for

REPOSITORY = Path(__file__).resolve().parents[2]
FIRST_CALL = REPOSITORY / "benchmarks" / "results" / "cpu" / "first_call"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.mark.slow
def test_the_quick_benchmark_fills_its_table_and_its_variants_agree(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "hgsr_lite", "bench", "--quick", "--out", str(tmp_path)],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "bench.json").read_text())
    table = pd.DataFrame(record["rows"])
    assert set(record["machine"]) >= {"processor", "python", "torch", "numba"}
    penalties = table[table["what"] == "penalty"]
    variants = {
        "textbook autograd",
        "reg() in a loss",
        "plain closed form",
        "add_gradient_",
        "prox_",
        "floor",
    }
    variants |= {"layers stacked"} if torch.cuda.is_available() else set()
    wanted = itertools.product(
        ("alexnet", "vgg11", "resnet18"), ("hsq_gl12", "gl"), ("feature", "neuron"), variants
    )
    found = penalties[["network", "penalty", "grouping", "variant"]].itertuples(index=False, name=None)
    assert sorted(found) == sorted(wanted)
    assert (penalties["agreement"] < 1e-5).all()
    assert (table["ms"] > 0).all()
    others = {"training step", "input pipeline", "training epoch", "many networks", "size"}
    assert others < set(table["what"])
    assert (table.loc[table["what"] == "many networks", "agreement"] < 1e-4).all()
    assert (tmp_path / "size.png").stat().st_size > 5000
    if not torch.cuda.is_available():
        for name, rows in (("skipping", 3), ("layers", 2)):
            skipped = pd.read_csv(tmp_path / f"{name}.csv")
            assert len(skipped) == rows
            assert (skipped[["dense ms", "living ms", "times as fast", "limit"]] > 0).all(axis=None)
        first = pd.read_csv(tmp_path / "first_layers.csv").iloc[0]
        assert 0 < first["first layer ms"] < first["network ms"]
        assert (tmp_path / "layers.png").stat().st_size > 5000
        costs = pd.read_csv(tmp_path / "worth.csv")
        assert costs["path"].value_counts().to_dict() == {"hsq_gl12": 2, "hsqrt_gl": 2, "dense": 2}
        assert (costs[["bytes", "dense ms", "ms"]] > 0).all(axis=None)
        assert costs["test accuracy"].min() > 0.8
        assert (tmp_path / "worth.png").stat().st_size > 5000
        if CHROMIUM:
            figures = pd.read_csv(tmp_path / "live.csv").set_index("figure")
            assert list(figures.index) == ["norms", "penalties", "trainer"]
            assert (figures.filter(like="ms, ").iloc[:2] > 0).all(axis=None)


def test_what_is_said_of_accuracy_against_time_and_bytes_is_the_tables():
    said = (REPOSITORY / "benchmarks" / "README.md").read_text(encoding="utf-8")
    table = pd.read_csv(REPOSITORY / "benchmarks" / "results" / "cpu" / "worth.csv")
    assert worth_table(table, COMPARISONS["digits"]) in said
    assert set(table["seed"]) == set(range(5))
    means = over_seeds(table).set_index(["network", "without"])
    cut = means.loc["magnitude kernel 0.8", WAYS[1]]
    assert f"{100 * cut['test accuracy']:.1f} ± {100 * cut['±']:.1f}" in said
    within = means.loc["magnitude kernel 0.6", WAYS[1]]
    assert (
        f"within the point, and {within['median']:.1f} times as fast; at 80 % it is {cut['median']:.1f} times"
        in said
    )
    forms = means.xs(WAYS[1], level="without")["median"]
    assert f"the dense one too, with {forms['dense']:.1f} times" in said
    cuts = f"cut at random {forms['random neuron 0.3']:.1f}, by size {forms['magnitude feature 0.3']:.1f}"
    assert cuts in said
    best = "hsq_gl12 neuron fraction 160 proximal"
    ours, shown = forms[best], {*re.findall(r"`(\w+ [^`]+)` \|", worth_table(table, COMPARISONS["digits"]))}
    others = sorted(name for name in shown - {"dense"} if not name.startswith("hsq_gl12"))
    row, fastest = means.loc[best, WAYS[1]], means.xs(WAYS[1], level="without").loc[others, "highest"].max()
    assert row["lowest"] > fastest
    assert f"`hsq_gl12` is {ours:.1f} times as fast, its slowest seed ({row['lowest']:.1f}) faster" in said
    assert f"any other path here ({fastest:.1f})" in said
    first = over_seeds(pd.read_csv(FIRST_CALL / "worth.csv")).set_index(["network", "without"])
    first = first.xs(WAYS[1], level="without")["median"]
    then = first[[name for name in others if name in first]]
    cold = f"{then.min():.1f} to {then.max():.1f}"
    assert f"`hsq_gl12` is {first[best]:.1f} times as fast, the other paths' networks {cold}" in said
    page = (REPOSITORY / "notebooks" / "08_a_smaller_network.ipynb").read_text(encoding="utf-8")
    kernels = forms["magnitude kernel 0.6"]
    assert (
        f"{ours:.1f} times as fast as dense (not compiled), batch after batch, at "
        f"{100 * row['test accuracy']:.1f} ± {100 * row['±']:.1f}; in the same form kernels cut by size "
        f"{kernels:.1f}, channels at random {forms['random neuron 0.3']:.1f}, by size "
        f"{forms['magnitude feature 0.3']:.1f}, dense {forms['dense']:.1f}."
    ) in page
    harsher = forms["hsq_gl12 neuron fraction 320 proximal"]
    assert f"with more dead kernels, {harsher:.1f} times" in said
    dense, least = means.loc["dense"].iloc[0], means.loc["hsq_gl12 neuron fraction 160 proximal", WAYS[1]]
    assert least["bytes"] / dense["bytes"] == pytest.approx(1 / 6, abs=0.01), "a sixth"
    whole = means.xs("dense")["bytes"]
    assert whole[WAYS[1]] - whole[WAYS[0]] == pytest.approx(800, abs=50), "headings and bitmaps"
    channels = means.xs(WAYS[0], level="without")
    within_a_point = channels[channels["validation accuracy"] > dense["validation accuracy"] - 0.01]["median"]
    for text, words in (
        (page, "gained {} times at most from channels alone"),
        (said, "{} times as fast at best within a point"),
    ):
        assert words.format(f"{within_a_point.max():.1f}") in text
    assert channels[channels["median"] > 1.35]["test accuracy"].max() < dense["test accuracy"] - 0.08


def test_what_is_said_of_cifar10_s_accuracy_against_time_and_bytes_is_the_table_s():
    text = (REPOSITORY / "benchmarks" / "README.md").read_text(encoding="utf-8")
    said = " ".join(text.partition("**On CIFAR-10**")[2].partition("## Threads")[0].split())
    table = pd.read_csv(REPOSITORY / "benchmarks" / "results" / "cpu" / "worth_cifar10.csv")
    assert table.groupby("network")["seed"].agg(set).tolist() == [{3, 4, 5}] * 16
    assert worth_table(table, COMPARISONS["cifar10"]) in text
    found = over_seeds(table[table["without"] == WAYS[1]]).set_index("network")
    lost = found.loc["dense", "validation accuracy"] - found["validation accuracy"]
    fastest = found[lost <= 0.02].sort_values("median", ascending=False).groupby("path").head(1)
    ours = fastest[fastest["path"] == "hsq_gl12"].iloc[0]
    others = fastest[~fastest["path"].isin(["hsq_gl12", "dense"])]
    assert ours["lowest"] > others["highest"].max()
    times = f"{others['median'].min():.1f} to {others['median'].max():.1f}"
    dense = found.loc["dense", "median"]
    assert f"{ours['median']:.1f} times as fast, the others {times}, the dense" in said
    assert f"in the same form {dense:.1f};" in said
    page = (REPOSITORY / "notebooks" / "08_a_smaller_network.ipynb").read_text(encoding="utf-8")
    assert f"On CIFAR-10, two points lost: {ours['median']:.1f}, others {times} (" in page
    within_one = found[(lost <= 0.01) & (found["path"] != "dense")].sort_values("median")
    assert "hsq_gl12" not in set(within_one["path"])
    assert f"`{within_one['path'].iloc[-1]}` is the fastest, with {within_one['median'].iloc[-1]:.1f}" in said
    assert (lost[found["path"] == "channels cut by size"] > 0.02).all()


def test_what_is_said_of_wider_networks_as_trained_is_the_tables():
    said = (REPOSITORY / "benchmarks" / "README.md").read_text(encoding="utf-8")
    said = said.partition("**Wider networks, trained**")[2].partition("## Threads")[0]
    for network in ("vgg11", "resnet18"):
        table = pd.read_csv(REPOSITORY / "benchmarks" / "results" / "cpu" / f"worth_{network}.csv")
        (_, dense), (_, row) = table[table["without"] == WAYS[1]].iterrows()
        dead, test = f"{100 * row['dead kernels left']:.0f} %", f"{100 * row['test accuracy']:.1f}"
        accuracies = test, f"dense {100 * dense['test accuracy']:.1f}"
        for words in (
            f"{dead} of its kernels dead",
            *accuracies,
            f"{row['times as fast']:.1f} times as fast",
        ):
            assert words in said, words
        if network == "vgg11":
            assert f"dense in the same form {dense['times as fast']:.1f}" in said
            assert f"{row['bytes']:,.0f} of {table['bytes'].iloc[0]:,.0f} bytes" in said
        else:
            assert dense["times as fast"] == pytest.approx(row["times as fast"], abs=0.15), (
                "and so it is without"
            )


def test_a_folder_for_networks_that_cannot_be_made_is_found_before_the_first_training(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(FileExistsError):
        worth.main(["--quick", "--networks", str(tmp_path / "taken"), "--out", str(tmp_path)])


def test_what_is_said_of_runs_an_hour_is_the_measurement_s():
    said = (REPOSITORY / "benchmarks" / "README.md").read_text(encoding="utf-8")
    for file, names in (("", ("engine", "engine in bfloat16", "loop")), ("_memory_given_back", ("engine",))):
        place = REPOSITORY / "benchmarks" / "results" / "cpu" / f"throughput{file}.json"
        found = json.loads(place.read_text())
        shown = [[f"{number:,.0f}" for number in sorted(found[f"{name}, runs an hour"])] for name in names]
        ratios = [found[name] for name in ("ratio", "ratio in bfloat16") if name in found]
        for numbers in [*shown, *([f"{ratio:.2f}" for ratio in sorted(each)] for each in ratios)]:
            assert f"{numbers[0]} to {numbers[-1]}" in said
        if len(ratios) == 2:
            single, half = (statistics.median(each) for each in ratios)
            assert f"(median of six rounds {single:.2f})" in said
            assert f"({half:.2f})" in said
            assert sum(ratio >= 3 for ratio in ratios[0]) == 2, "in float32 in two rounds of six"
            assert len(ratios[0]) == 6
            assert half >= 3, "reached in bfloat16"


def test_what_is_said_of_the_memory_format_is_the_table_s():
    said = (REPOSITORY / "benchmarks" / "README.md").read_text(encoding="utf-8")
    table = pd.read_csv(REPOSITORY / "benchmarks" / "results" / "cpu" / "formats.csv")
    last = table[table["variant"] == "channels last"]
    times = last.set_index(["of", "images"])["times channel by channel"]
    assert (
        f"{times['alexnet', 64]:.2f} times as fast with AlexNet at batch 64, "
        f"{times['alexnet', 128]:.2f} at 128, {times['vgg11', 128]:.2f} with VGG11 and "
        f"{times['resnet18', 128]:.2f} with ResNet18 at 128" in said
    )
    pools = last.loc[last["what"] == "max-pool", "times channel by channel"]
    assert f"{pools.min():.1f} to {pools.max():.1f} times with their gradient" in said


def test_what_is_said_of_proximal_steps_on_a_gpu_is_the_tables():
    results = REPOSITORY / "benchmarks" / "results" / "cuda"
    table = pd.read_csv(results / "proximal.csv").query("variant == 'by way of the CPU'")
    text = (REPOSITORY / "benchmarks" / "README.md").read_text(encoding="utf-8")
    words = text.partition("**Proximal steps on a GPU**")[2].partition("\n\n")[0]
    ratios = table.groupby("network")["times the GPU's operators"].agg(["min", "max"])
    for network in ("digits_cnn", "alexnet", "resnet18", "vgg11", "torchvision resnet18"):
        least, most = ratios.loc[network]
        assert f"{least:.1f} to {most:.1f}" in words, network
    alexnet = table[table["network"] == "alexnet"].set_index("penalty")["ms"]
    assert f"({alexnet['l1']:.2f} ms for `l1`, {alexnet['hsq_gl12']:.2f} for `hsq_gl12`)" in words
    weights = table.groupby("network")["weights"].first()
    assert weights["vgg11"] < _MOST_COPIED < weights["torchvision resnet18"]
    assert f"VGG11's {weights['vgg11'] / 1e3:.0f} thousand weights" in words
    assert set(table["penalty"]) == set(re.findall(r"`(\w+)`", words.partition("neuron-wise")[0]))
    runs = read_table(REPOSITORY / "studies" / "cifar10_alexnet.csv")
    runs = runs[runs["device"] == "NVIDIA H200"]
    session, since = (runs[runs["commit"] == commit] for commit in ("781b40b3d5", "d3c8ed2664"))
    seconds = {proximal: rows["seconds"] for proximal, rows in session.groupby("proximal")}
    spans = [f"{each.min():.0f} to {each.max():.0f} s" for each in (*seconds.values(), since["seconds"])]
    assert f"took {spans[0]} with gradient steps and {spans[1]} with proximal ones" in words
    assert since["proximal"].all()
    assert f"those took {spans[2]}" in words


def test_what_is_said_of_the_engine_s_overhead_is_the_measurement_s():
    said = (REPOSITORY / "benchmarks" / "README.md").read_text(encoding="utf-8")
    place = REPOSITORY / "benchmarks" / "results" / "cpu" / "overhead.json"
    found = json.loads(place.read_text())
    took = {what: found[f"seconds of {what}"] for what in ("status", "missing", "collect")}
    peak = found["MiB more at the peak of all three"]
    for words in (
        f"{found['runs']:,} runs of empty work with a real run's record, {found['workers']} workers, "
        f"load {found['load at the start']} to {found['load at the end']}",
        f"{found['milliseconds a run']:.0f} ms a run, its file written and synchronised included",
        f"{found['MiB more in the driver']:.0f} MiB more in the driver",
        f"{took['status']:.0f} s for `status`, {took['missing']:.0f} s for what is missing, "
        f"{took['collect']:.0f} s for `collect`",
        f"{1e3 * took['missing'] / found['runs']:.1f} ms a file",
        f"{found['MiB of run files']:.0f} MiB of run files and {found['MiB of tables']:.0f} MiB of tables",
        f"{peak:.0f} MiB more in memory at the peak of these three",
        f"a hundred times as many would take {peak * 100 / 1024:.0f} GiB to look at, and "
        f"{100 * took['missing'] / 60:.0f} minutes",
    ):
        assert words in said, words


def test_what_is_said_of_threads_is_the_table_s():
    said = (REPOSITORY / "benchmarks" / "README.md").read_text(encoding="utf-8")
    threads = pd.read_csv(REPOSITORY / "benchmarks" / "results" / "cpu" / "threads.csv")
    assert threads_table(threads) in said
    assert f"no median is above {threads['found'].max():.2f}" in said
    alone, beside = (threads.loc[threads["busy"] == busy, "shared"] for busy in (0, 4))
    took = f"{beside.min():.1f} to {beside.max():.1f} times as long"
    assert took in said
    assert took in threads_for.__doc__
    assert f"at worst {threads['shared highest'].max():.0f} times" in said
    assert f"save up to {100 * (1 - alone.min()):.0f} %" in said
    assert (threads.loc[threads["gflop"] >= WORTH_SHARING / 1e9, "found highest"] < 1).all()


def test_what_is_said_of_live_figures_is_the_table_s():
    said = (REPOSITORY / "benchmarks" / "README.md").read_text(encoding="utf-8")
    table = REPOSITORY / "benchmarks" / "results" / "cpu" / "live.csv"
    figures = pd.read_csv(table).set_index("figure")
    for figure, row in figures.drop(index="trainer").iterrows():
        times = [row[f"{what} ms, {where}"] for where in ("no limit", "60 Hz") for what in ("median", "p95")]
        heap = [row[f"heap MB after {moves} moves"] for moves in (100, 600)]
        assert f"| {figure} | " + " | ".join(f"{number:.1f}" for number in [*times, *heap]) + " |" in said
    trainer = figures.loc["trainer"]
    for words in (f"{trainer['frames a second']:.1f} frames", f"takes {trainer['epoch s, dense']:.2f} s"):
        assert words in said


def test_what_is_said_of_dead_kernels_is_the_tables():
    table = pd.read_csv(REPOSITORY / "benchmarks" / "results" / "cpu" / "skipping.csv")
    said = (REPOSITORY / "benchmarks" / "README.md").read_text(encoding="utf-8")
    assert network_table(table) in said
    trained = table[(table["dead"] == "trained") & (table["batch"] == 128)].iloc[0]
    ninety = table[(table["dead"] == "0.9") & (table["batch"] == 128)]
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    front, first_lines = " ".join(readme.split()), " ".join(readme.splitlines()[:10])
    assert "`hg.skip_dead_kernels`" in first_lines
    assert f"{trained['times as fast']:.1f} times as fast as the best dense form" in first_lines
    assert f"{ninety['times as fast'].min():.1f} to {ninety['times as fast'].max():.1f} times" in front
    layers = pd.read_csv(REPOSITORY / "benchmarks" / "results" / "cpu" / "layers.csv")
    layers = layers[layers["network"].isna() & (layers["threads"] == 1)]
    for share in (0.9, 0.95):
        times = layers[(layers["dead"] == share) & (layers["batch"] > 1)]["times as fast"]
        words = f"with {100 * share:.0f} % dead {times.min():.1f} to {times.max():.1f} times"
        assert words in " ".join(said.split())
    every = pd.read_csv(REPOSITORY / "benchmarks" / "results" / "cpu" / "layers.csv")
    assert layers_table(every) in said
    assert set(every["network"].dropna()) == set(SMALL_AND_LARGE)
    two = every[every["network"].isna() & (every["threads"] == 2) & (every["dead"] == 0.9)]
    two = two[two["batch"] > 1]["times as fast"]
    assert f"With two threads it is {two.min():.1f} to {two.max():.1f} times with 90 % dead" in said
    of_16 = layers[(layers["batch"] == 16) & (layers["dead"] <= 0.95)]
    assert (of_16["CSR ms"] > of_16["dense ms"]).all(), "slower than dense up to 95 % dead"
    ninety_five = layers[(layers["batch"] > 1) & (layers["dead"] == 0.95)]
    missed = ninety_five[ninety_five["times as fast"] < 7]
    assert list(zip(missed["layer"], missed["batch"], strict=True)) == [("16 to 32, 8x8", 16)], (
        "one of the ten"
    )
    single = layers[(layers["batch"] == 1) & (layers["dead"] == 0.9)].set_index("layer")["times as fast"]
    assert f"{single['64 to 64, 32x32']:.1f} times in 64 to 64 channels of 32x32 and" in said
    assert f"{single['256 to 256, 14x14']:.1f} in 256 to 256 of 14x14" in said
    assert f"{single['64 to 64, 16x16']:.1f} and {single['128 to 128, 8x8']:.1f} in the next smaller" in said
    left = pd.read_csv(REPOSITORY / "benchmarks" / "results" / "cpu" / "first_layers.csv")
    share = (100 * left.set_index("network")["share"]).round()
    named = [f"{share[name]:.0f} % of `{name}`'s" for name in ("alexnet", "resnet18", "vgg11")]
    assert f"takes {share['digits_cnn']:.0f} % of `digits_cnn`'s time at 90 %, {', '.join(named)} and" in said
    assert f"{share['torchvision resnet18']:.0f} % of torchvision's resnet18's" in said
    one = table[(table["batch"] == 1) & (table["network"] != "torchvision resnet18")]["times as fast"]
    assert f"in the small ones it takes up to {1 / one.min():.1f} times as long" in said
    before = pd.read_csv(FIRST_CALL / "skipping.csv")
    before = before[(before["dead"] == "0.9") & (before["batch"] == 128)].set_index("network")[
        "times as fast"
    ]
    order = ("digits_cnn", "alexnet", "resnet18", "vgg11", "torchvision resnet18")
    *some, last = (f"{before[name]:.1f}" for name in order)
    assert f"the five gained {', '.join(some)} and {last}" in said
