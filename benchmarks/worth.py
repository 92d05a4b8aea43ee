"""What dead channels, dead kernels and both are worth: accuracy against time and bytes, over five seeds.

    python -m benchmarks.worth [--quick]

Networks made anew by the recipes of `studies/digits.toml` (trained, zeroed, dead channels removed, and
fine-tuned; on another machine than the study's they end an image or three elsewhere). Each as it is then,
at its best dense form, and without its dead kernels too, in turn with the dense network of the same seed.
One thread. Writes `worth.csv` and `worth.png`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse
from tqdm import tqdm

import hgsr_lite as hg
from benchmarks.measurements import interleaved
from benchmarks.options import options_of
from benchmarks.skipping import FORMATS, called_on, threads
from hgsr_lite.figures import COLORS, MARKERS
from hgsr_lite.skipping import DenseNetwork
from hgsr_lite.study import Study, confidence_half_width, network_of
from hgsr_lite.training import Recipe, accuracy

STUDIES = Path(__file__).resolve().parents[1] / "studies"
DENSE = "dense"
PATHS = {
    "hsq_gl12": [f"hsq_gl12 neuron fraction {amount} proximal" for amount in (40, 80, 160, 320)],
    "gl12": [f"gl12 feature fraction {amount} proximal" for amount in (7, 10, 15)],
    "l1": [f"l1 feature fraction {amount} proximal" for amount in (20, 40, 80, 160)],
    "channels cut at random": [f"random neuron {share}" for share in (0.3, 0.5, 0.8)],
    "channels cut by size": [f"magnitude feature {share}" for share in (0.3, 0.5, 0.8)],
    "kernels cut by size": [f"magnitude kernel {share}" for share in (0.5, 0.8, 0.9)],
}
"""What is compared, each from mild to harsh: the hierarchical penalty, its rivals, and the cuts."""
WAYS = ("channels", "channels and kernels")
"""What is left out: dead channels, or dead kernels as well. A dense network has neither: what it gains in
the second form is the form's."""
TICKS = {"median": [1.6, 1.8, 2, 2.2, 2.4], "bytes": [50_000, 20_000, 10_000, 5_000]}
BATCH = 128


def recipes(amounts: Sequence[str], seeds: int) -> list[Recipe]:
    """The study's recipes of these names, for the first seeds."""
    every = Study.read(STUDIES / "digits.toml").grid.recipes
    return [recipe for name in amounts for recipe in every if recipe.name in _names(name, seeds)]


def _names(name: str, seeds: int) -> set[str]:
    return {f"{name} seed {seed}" for seed in range(seeds)}


def rows_of(path: str, recipe: Recipe, dense: nn.Module, data: hg.Data, rounds: int) -> list[dict]:
    """One network of the study: its accuracy, and what it costs, a row for each way."""
    model, images = network_of(recipe, data).eval(), data.train.images[:BATCH]
    with torch.inference_mode(), threads(1):
        small, report = hg.skip_dead_kernels(model, images, repeats=0)
        forms = {f"dense {form}": run for form, run in _forms(dense, images).items()}
        forms |= {f"channels {form}": run for form, run in _forms(model, images).items()}
        seconds = interleaved(forms | {"channels and kernels": lambda: small(images)}, rounds)
    whole, channels = (_best(seconds, start) for start in ("dense ", "channels c"))
    taken = dict(zip(WAYS, (channels, float(np.median(seconds["channels and kernels"]))), strict=True))
    stored = dict(zip(WAYS, (report.costs.bytes_before, report.costs.bytes_after), strict=True))
    found = {"path": path, "network": recipe.name.rpartition(" seed ")[0], "seed": recipe.seed}
    parts = {"validation accuracy": data.validation, "test accuracy": data.test}
    found |= {name: accuracy(model, part) for name, part in parts.items()}
    found |= {"dead kernels left": report.dead_kernels / report.kernels, "dense ms": 1e3 * whole}
    return [
        {
            **found, "without": way, "bytes": stored[way], "ms": 1e3 * taken[way],
            "times as fast": whole / taken[way],
        }
        for way in WAYS
    ]  # fmt: skip


def _forms(model: nn.Module, images: Tensor) -> dict[str, Callable[[], Tensor]]:
    fused = fuse(model.eval())
    return {form: called_on(DenseNetwork(fused, order), images) for form, order in FORMATS.items()}


def _best(seconds: dict[str, np.ndarray], start: str) -> float:
    return min(float(np.median(each)) for name, each in seconds.items() if name.startswith(start))


def measure(quick: bool) -> pd.DataFrame:
    """Every row; `quick` takes the first two paths, one amount, one seed, few rounds."""
    data = Study.read(STUDIES / "digits.toml").grid.images.load()
    seeds, rounds = (1, 3) if quick else (5, 51)
    paths = {name: amounts[:1] for name, amounts in list(PATHS.items())[:2]} if quick else PATHS
    dense = {recipe.seed: network_of(recipe, data) for recipe in recipes([DENSE], seeds)}
    jobs = [(DENSE, recipe) for recipe in recipes([DENSE], seeds)]
    jobs += [(path, recipe) for path, amounts in paths.items() for recipe in recipes(amounts, seeds)]
    rows = [
        row for path, recipe in tqdm(jobs) for row in rows_of(path, recipe, dense[recipe.seed], data, rounds)
    ]
    return pd.DataFrame(rows)


def over_seeds(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each network and way: means over the seeds, half of the 95 % interval of the test accuracy.

    The time is the median over the seeds, from lowest to highest.
    """
    groups = table.groupby(["path", "network", "without"], sort=False)
    accuracies, times = groups["test accuracy"], groups["times as fast"]
    found = groups[["validation accuracy", "test accuracy", "dead kernels left", "bytes"]].mean()
    found["±"] = confidence_half_width(accuracies.std(), accuracies.count())
    found = found.assign(median=times.median(), lowest=times.min(), highest=times.max())
    return found.reset_index()


def worth_table(table: pd.DataFrame, loss_allowed: float = 0.01) -> str:
    """Of each path and way, the fastest network whose loss is bearable, as README.md shows it.

    Bearable: its mean validation accuracy is at most `loss_allowed` below the dense network's.
    """
    found = over_seeds(table)
    dense = found.loc[found["path"] == DENSE, "validation accuracy"].iloc[0]
    bearable = found[found["validation accuracy"] >= dense - loss_allowed]
    best = bearable.loc[bearable.groupby(["path", "without"], sort=False)["median"].idxmax()]
    lines = [
        "| path | fastest at a loss of a point | dead kernels left | without dead | test accuracy "
        "| times as fast | bytes |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in best.to_dict("records"):
        percent = f"{100 * row['test accuracy']:.1f} ± {100 * row['±']:.1f}"
        times = f"{row['median']:.1f} ({row['lowest']:.1f} to {row['highest']:.1f})"
        dead = f"{100 * row['dead kernels left']:.0f} %"
        cells = (row["path"], f"`{row['network']}`", dead, row["without"], percent, times)
        lines.append(f"| {' | '.join(cells)} | {row['bytes']:,.0f} |")
    return "\n".join(lines)


def plot(table: pd.DataFrame, path: Path) -> None:
    """Accuracy against time and against bytes, dead channels and dead kernels left out."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    found = over_seeds(table)
    found = found[found["without"] == WAYS[1]]
    figure, panels = plt.subplots(1, 2, figsize=(10.2, 4.2), sharey=True, layout="constrained")
    whole = found[found["path"] == DENSE].iloc[0]
    for axes, column in zip(panels, TICKS, strict=True):
        axes.axhline(100 * whole["test accuracy"], color="grey", linewidth=1, label="dense")
        for name, points in found[found["path"] != DENSE].groupby("path", sort=False):
            number = list(PATHS).index(name)
            style = {"color": COLORS[number], "marker": MARKERS[number], "label": name}
            axes.plot(points[column], 100 * points["test accuracy"], **style)
        axes.set_xscale("log")
        axes.set_xticks(TICKS[column], labels=[f"{tick:,g}" for tick in TICKS[column]])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    panels[0].set(xlabel="times as fast as the dense network", ylabel="test accuracy (%)", ylim=(92, 99.5))
    panels[1].set(xlabel="bytes of the file (smaller to the right)")
    panels[1].invert_xaxis()  # better is to the right in both
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right", fontsize="small")
    figure.savefig(path, dpi=100)
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    options = options_of("benchmarks.worth", __doc__, "two networks, one seed, few rounds", arguments)
    table = measure(options.quick)
    print(worth_table(table))
    table.to_csv(options.out / "worth.csv", index=False, float_format="%.6g")
    plot(table, options.out / "worth.png")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
