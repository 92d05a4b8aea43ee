"""What dead channels, dead kernels and both are worth: accuracy against time and bytes, over the seeds.

    python -m benchmarks.worth [--quick] [--study cifar10|vgg11|resnet18] [--networks FOLDER]

Networks made anew by the recipes of a study (trained, zeroed, dead channels removed, and fine-tuned; on
another machine than the study's they end elsewhere, by an image or three of the digits). Each as it is then,
at its best dense form, and without its dead kernels too, in turn with the dense network of the same seed. One
thread. The digits take minutes; CIFAR-10 (narrow AlexNet, VGG11, ResNet18) takes hours, so that its networks
can be kept in a folder, from where the next call takes them. Writes `worth.csv` and `worth.png`, or
`worth_STUDY.*`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse
from tqdm import tqdm

import hgsr_lite as hg
from benchmarks.dense_forms import called_on, threads
from benchmarks.measurements import interleaved
from benchmarks.options import options_of
from hgsr_lite.figures import COLORS, MARKERS
from hgsr_lite.removal.cost import SETTLING
from hgsr_lite.skipping import FORMATS, DenseNetwork
from hgsr_lite.study import Study, confidence_half_width, network_of
from hgsr_lite.training import Recipe, accuracy

STUDIES = Path(__file__).resolve().parents[1] / "studies"
DENSE = "dense"


@dataclass(frozen=True)
class Comparison:
    """What is compared: paths of a study, each from mild to harsh, and how its picture is drawn."""

    study: str
    seeds: tuple[int, ...]
    paths: Mapping[str, Sequence[str]]
    times: Sequence[float]
    sizes: Sequence[int]
    accuracies: tuple[float, float]
    loss_allowed: float
    in_words: str
    name: str = "worth"


def _one_network(network: str, sizes: Sequence[int]) -> Comparison:
    """A network of one recipe and one seed beside its dense form: to be timed, not compared."""
    return Comparison(
        f"cifar10_{network}",
        (0,),
        {"hsq_gl12": ["hsq_gl12 feature fraction 0.1"]},
        times=(1, 2, 4, 8),
        sizes=sizes,
        accuracies=(50, 75),
        loss_allowed=0.02,
        in_words="two points",
        name=f"worth_{network}",
    )


COMPARISONS = {
    "digits": Comparison(
        "digits",
        (0, 1, 2, 3, 4),
        {
            "hsq_gl12": [f"hsq_gl12 neuron fraction {amount} proximal" for amount in (40, 80, 160, 320)],
            "hsqrt_gl": [f"hsqrt_gl feature fraction {amount} proximal" for amount in (5, 7, 10)],
            "gl12": [f"gl12 feature fraction {amount} proximal" for amount in (7, 10, 15)],
            "l1": [f"l1 feature fraction {amount} proximal" for amount in (20, 40, 80, 160)],
            "channels cut at random": [f"random neuron {share}" for share in (0.3, 0.5, 0.8)],
            "channels cut by size": [f"magnitude feature {share}" for share in (0.3, 0.5, 0.8)],
            "kernels cut by size": [f"magnitude kernel {share}" for share in (0.5, 0.6, 0.8, 0.9)],
        },
        times=(3, 4, 6, 8, 10),
        sizes=(50_000, 20_000, 10_000, 5_000),
        accuracies=(92, 99.5),
        loss_allowed=0.01,
        in_words="a point",
    ),
    "cifar10": Comparison(
        "cifar10_strengths",
        (3, 4, 5),
        {
            "hsq_gl12": [f"hsq_gl12 neuron strength {amount}" for amount in (0.00015, 0.00022, 0.00036)],
            "gl12": [f"gl12 feature strength {amount}" for amount in (0.008, 0.012, 0.016)],
            "l1": [f"l1 feature strength {amount}" for amount in (0.002, 0.003, 0.0045)],
            "channels cut at random": [f"random neuron {share}" for share in (0.2, 0.3)],
            "channels cut by size": [f"magnitude neuron {share}" for share in (0.2, 0.3)],
            "kernels cut by size": [f"magnitude kernel {share}" for share in (0.5, 0.8)],
        },
        times=(3, 3.5, 4, 4.5, 5),
        sizes=(230_000, 210_000, 190_000),
        accuracies=(57, 66),
        loss_allowed=0.02,
        in_words="two points",
        name="worth_cifar10",
    ),
    "vgg11": _one_network("vgg11", (2_000_000, 1_000_000, 500_000, 200_000)),
    "resnet18": _one_network("resnet18", (200_000, 100_000, 50_000)),
}
WAYS = ("channels", "channels and kernels")
"""What is left out: dead channels, or dead kernels as well. A dense network has neither: what it gains in
the second form is the form's."""
BATCH = 128


def recipes(study: Study, amounts: Sequence[str], seeds: Sequence[int]) -> list[Recipe]:
    """The study's recipes of these names, for these seeds."""
    names = [f"{name} seed {seed}" for name in amounts for seed in seeds]
    every = {recipe.name: recipe for recipe in study.grid.recipes}
    return [every[name] for name in names]


def network(recipe: Recipe, data: hg.Data, folder: Path | None) -> nn.Module:
    """The network that a recipe ends with: from the folder, or made, and kept there."""
    if folder is None:
        return network_of(recipe, data).eval()
    place = folder / f"{recipe.name}.pt"
    if not place.exists():
        made, part = network_of(recipe, data), place.with_suffix(".part")
        torch.save(made, part)
        part.replace(place)
    return torch.load(place, weights_only=False).eval()  # a whole network, which this program wrote itself


def rows_of(
    path: str, recipe: Recipe, model: nn.Module, dense: nn.Module, data: hg.Data, rounds: int
) -> list[dict]:
    """One network of the study: its accuracy, and what it costs, a row for each way."""
    images = data.train.images[:BATCH]
    with torch.inference_mode(), threads(1):
        small, report = hg.skip_dead_kernels(model, images, repeats=0)
        forms = {f"dense {form}": run for form, run in _forms(dense, images).items()}
        forms |= {f"channels {form}": run for form, run in _forms(model, images).items()}
        seconds = interleaved(forms | {"channels and kernels": lambda: small(images)}, rounds, SETTLING)
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


def measure(comparison: Comparison, quick: bool, folder: Path | None = None) -> pd.DataFrame:
    """Every row; `quick` takes the first two paths, one amount, one seed, few rounds."""
    study = Study.read(STUDIES / f"{comparison.study}.toml")
    seeds, rounds = (comparison.seeds[:1], 3) if quick else (comparison.seeds, 51)
    paths = {DENSE: [DENSE], **comparison.paths}
    if quick:
        paths = {name: amounts[:1] for name, amounts in list(paths.items())[:3]}
    jobs = [(path, recipe) for path, amounts in paths.items() for recipe in recipes(study, amounts, seeds)]
    rows, dense = [], {}
    for path, recipe in tqdm(jobs):
        data = study.grid.images.of_run(study.data, recipe.seed)
        model = network(recipe, data, folder)
        if path == DENSE:
            dense[recipe.seed] = model
        rows += rows_of(path, recipe, model, dense[recipe.seed], data, rounds)
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


def worth_table(table: pd.DataFrame, comparison: Comparison) -> str:
    """Of each path and way, the fastest network whose loss is bearable, as README.md shows it.

    Bearable: its mean validation accuracy is at most `loss_allowed` below the dense network's.
    """
    found = over_seeds(table)
    dense = found.loc[found["path"] == DENSE, "validation accuracy"].iloc[0]
    bearable = found[found["validation accuracy"] >= dense - comparison.loss_allowed]
    best = bearable.loc[bearable.groupby(["path", "without"], sort=False)["median"].idxmax()]
    lines = [
        f"| path | fastest at a loss of {comparison.in_words} | dead kernels left | without dead "
        "| test accuracy | times as fast | bytes |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in best.to_dict("records"):
        percent, times = f"{100 * row['test accuracy']:.1f}", f"{row['median']:.1f}"
        if len(comparison.seeds) > 1:
            percent += f" ± {100 * row['±']:.1f}"
            times += f" ({row['lowest']:.1f} to {row['highest']:.1f})"
        dead = f"{100 * row['dead kernels left']:.0f} %"
        cells = (row["path"], f"`{row['network']}`", dead, row["without"], percent, times)
        lines.append(f"| {' | '.join(cells)} | {row['bytes']:,.0f} |")
    return "\n".join(lines)


def plot(table: pd.DataFrame, comparison: Comparison, path: Path) -> None:
    """Accuracy against time and against bytes, dead channels and dead kernels left out."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    found = over_seeds(table)
    found = found[found["without"] == WAYS[1]]
    figure, panels = plt.subplots(1, 2, figsize=(10.2, 4.2), sharey=True, layout="constrained")
    whole = found[found["path"] == DENSE].iloc[0]
    ticks = {"median": comparison.times, "bytes": comparison.sizes}
    for axes, column in zip(panels, ticks, strict=True):
        axes.axhline(100 * whole["test accuracy"], color="grey", linewidth=1, label="dense")
        for name, points in found[found["path"] != DENSE].groupby("path", sort=False):
            number = list(comparison.paths).index(name)
            style = {"color": COLORS[number], "marker": MARKERS[number], "label": name}
            axes.plot(points[column], 100 * points["test accuracy"], **style)
        axes.set_xscale("log")
        axes.set_xticks(ticks[column], labels=[f"{tick:,g}" for tick in ticks[column]])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    panels[0].set(
        xlabel="times as fast as the dense network", ylabel="test accuracy (%)", ylim=comparison.accuracies
    )
    panels[1].set(xlabel="bytes of the file (smaller to the right)")
    panels[1].invert_xaxis()  # better is to the right in both
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right", fontsize="small")
    figure.savefig(path, dpi=100)
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    more = {
        "--study": {"choices": list(COMPARISONS), "default": "digits", "help": "whose recipes"},
        "--networks": {"type": Path, "help": "folder in which trained networks are kept"},
    }
    options = options_of(
        "benchmarks.worth", __doc__, "few networks, one seed, few rounds", arguments, more=more
    )
    comparison = COMPARISONS[options.study]
    if options.networks is not None:  # a place that cannot be written is found before anything is trained
        options.networks.mkdir(parents=True, exist_ok=True)
    table = measure(comparison, options.quick, options.networks)
    print(worth_table(table, comparison))
    table.to_csv(options.out / f"{comparison.name}.csv", index=False, float_format="%.6g")
    plot(table, comparison, options.out / f"{comparison.name}.png")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
