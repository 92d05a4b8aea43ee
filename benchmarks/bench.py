"""Time the penalty, its proximal step, a training step and the input pipeline, side by side.

    python -m hgsr_lite bench [--quick]

Every comparison is interleaved: one round times each variant once, rounds repeat, medians are compared.
Prints a table and writes `benchmarks/results/<device>/` (JSON and two plots). README.md beside this file
says what is measured against what, and why that is fair.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import torch
import torchvision
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset
from torchvision.transforms import v2
from tqdm import tqdm

import hgsr_lite as hg
from benchmarks.textbook import textbook_model_penalty
from hgsr_lite.augment import augmented_batches
from hgsr_lite.data import Split
from hgsr_lite.fused import block_rows, fused_gradient_, fused_layers

GROUP_PENALTIES = [key for key in hg.PENALTIES if key not in ("l1", "l2")]
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "alexnet": lambda: hg.build_model("alexnet", in_channels=3, num_classes=10, seed=0),
    "vgg11": lambda: hg.build_model("vgg11", in_channels=3, num_classes=10, seed=0),
    "resnet18": lambda: hg.build_model("resnet18", in_channels=3, num_classes=10, seed=0),
    "torchvision resnet18": torchvision.models.resnet18,
}
Row = dict[str, Any]


def interleaved(variants: dict[str, Callable[[], Any]], rounds: int) -> dict[str, np.ndarray]:
    """Seconds of every variant in every round, in turn, after two rounds of warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds + 2):
        for name, run in variants.items():
            started = time.perf_counter()
            run()
            if number >= 2:
                seconds[name].append(time.perf_counter() - started)
    return {name: np.array(values) for name, values in seconds.items()}


def rows_of(what: str, seconds: dict[str, np.ndarray], against: str, **labels: Any) -> list[Row]:
    """One row a variant: median and quartiles in milliseconds, and how often it fits into `against`."""
    base = np.median(seconds[against])
    return [
        {
            "what": what, **labels, "variant": name, "ms": 1e3 * np.median(values),
            "ms q1": 1e3 * np.quantile(values, 0.25), "ms q3": 1e3 * np.quantile(values, 0.75),
            f"times {against}": base / np.median(values), "against": against,
        }
        for name, values in seconds.items()
    ]  # fmt: skip


def penalty_rows(network: str, key: str, grouping: str, rounds: int) -> list[Row]:
    """The textbook penalty, the plain closed form, the compiled loop, the proximal step and the floor."""
    model = NETWORKS[network]()
    reg = hg.Regularizer(model, key, grouping=grouping, strength=1e-9, exclude=())
    weights = [layer.weight for layer in reg.layers]
    for weight in weights:
        weight.grad = torch.zeros_like(weight)

    def textbook() -> None:
        # Added to the gradients that are there already, as after loss.backward().
        (1e-9 * textbook_model_penalty(model, key, grouping)).backward()

    def floor() -> None:
        with torch.no_grad():
            for weight in weights:
                weight.grad.add_(weight, alpha=1e-9)

    variants = {
        "textbook autograd": textbook,
        "plain closed form": lambda: reg._add_plain_gradient_(1e-9, 0.0),
        "add_gradient_": reg.add_gradient_,
        "prox_": lambda: reg.prox_(1.0),
        "floor": floor,
    }
    seconds = interleaved(variants, rounds)
    agreement = agreement_of(model, reg, key, grouping)
    return rows_of(
        "penalty", seconds, "textbook autograd", network=network, penalty=key, grouping=grouping,
        backend=reg.backend, agreement=agreement,
    )  # fmt: skip


def agreement_of(model: nn.Module, reg: hg.Regularizer, key: str, grouping: str) -> float:
    """Largest relative distance between the gradients of `add_gradient_` and of the textbook version."""
    reg.strength = 1.0
    weights = [layer.weight for layer in reg.layers]
    expected = torch.autograd.grad(textbook_model_penalty(model, key, grouping), weights)
    for weight in weights:
        weight.grad = torch.zeros_like(weight)
    reg.add_gradient_()
    pairs = [(weight.grad, wanted) for weight, wanted in zip(weights, expected, strict=True)]
    return max(((found - wanted).norm() / wanted.norm()).item() for found, wanted in pairs)


def step_rows(rounds: int) -> list[Row]:
    """One training step of the narrow AlexNet at batch 128, without and with the penalty."""
    model = NETWORKS["alexnet"]()
    reg = hg.Regularizer(model, "hsq_gl12", strength=1e-9)
    optimizer = torch.optim.SGD(model.parameters(), 1e-6, momentum=0.9)
    images, labels = torch.randn(128, 3, 32, 32), torch.arange(128) % 10

    def step(after: Callable[[], Any]) -> Callable[[], None]:
        def run() -> None:
            optimizer.zero_grad()
            cross_entropy(model(images), labels).backward()
            after()
            optimizer.step()

        return run

    variants = {
        "no penalty": step(lambda: None),
        "add_gradient_": step(reg.add_gradient_),
        "textbook autograd": step(
            lambda: (1e-9 * textbook_model_penalty(model, "hsq_gl12", "feature")).backward()
        ),
    }
    return rows_of("training step", interleaved(variants, rounds), "no penalty", network="alexnet")


def pipeline_rows(images: int, rounds: int) -> list[Row]:
    """An epoch of crop and flip: whole tensors at once, against transforms in a 2-worker DataLoader."""
    pictures, labels = torch.randn(images, 3, 32, 32), torch.arange(images) % 10
    transform = v2.Compose([v2.RandomCrop(32, padding=4), v2.RandomHorizontalFlip()])

    class Transformed(TensorDataset):
        def __getitem__(self, index: int) -> tuple:
            image, label = super().__getitem__(index)
            return transform(image), label

    loader = DataLoader(
        Transformed(pictures, labels), batch_size=128, shuffle=True, num_workers=2, persistent_workers=True
    )

    def ours() -> None:
        for _ in augmented_batches(Split(pictures, labels), 128):
            pass

    def theirs() -> None:
        for _ in loader:
            pass

    seconds = interleaved({"DataLoader, 2 workers": theirs, "batched tensors": ours}, rounds)
    return rows_of("input pipeline", seconds, "DataLoader, 2 workers", images=images)


def size_rows(sizes: Sequence[int], rounds: int) -> list[Row]:
    """Cost of the compiled gradient against the number of weights, in one layer of 3x3 kernels."""
    rows = []
    for size in sizes:
        channels = max(1, round((size / 9) ** 0.5))
        weight = torch.randn(channels, channels, 3, 3)
        gradient = torch.zeros_like(weight)
        table = fused_layers([weight], [hg.Layout()], "feature")
        blocks = block_rows(table)
        penalty = hg.Penalty("hsq_gl12")
        run = {
            "add_gradient_": lambda w=weight, g=gradient, t=table, b=blocks, p=penalty: fused_gradient_(
                p, [w], [g], t, b, 1e-9
            )
        }
        rows += rows_of("size", interleaved(run, rounds), "add_gradient_", weights=weight.numel())
    return rows


def measure(quick: bool) -> pd.DataFrame:
    """Every row of the benchmark; `quick` takes fewer penalties, sizes and rounds."""
    keys = ("hsq_gl12", "gl") if quick else GROUP_PENALTIES
    networks = list(NETWORKS)[:3] if quick else list(NETWORKS)
    jobs: list[tuple[Callable[..., list[Row]], tuple]] = [
        (penalty_rows, (network, key, grouping, 5 if quick else (7 if "torchvision" in network else 25)))
        for network in networks
        for key in keys
        for grouping in hg.GROUPINGS
    ]
    jobs += [
        (step_rows, (10 if quick else 60,)),
        (pipeline_rows, (1280 if quick else 12800, 3 if quick else 5)),
        (size_rows, ((10**4, 10**5, 10**6) if quick else (10**4, 10**5, 10**6, 10**7, 10**8), 3)),
    ]
    rows = [row for job, arguments in tqdm(jobs, desc="benchmark") for row in job(*arguments)]
    return pd.DataFrame(rows)


def machine() -> dict[str, str]:
    """What the figures belong to."""
    packages = ("torch", "torchvision", "numba", "numpy")
    return {
        "processor": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }


def plot_sizes(table: pd.DataFrame, path: Path) -> None:
    """Cost against size on two logarithmic axes; a straight line of slope 1 is linear cost."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    sizes = table[table["what"] == "size"]
    figure, axes = plt.subplots(figsize=(5, 3.6), layout="constrained")
    axes.loglog(sizes["weights"], sizes["ms"], marker="o", label="measured (median)")
    last = sizes.iloc[-1]
    axes.loglog(sizes["weights"], last["ms"] * sizes["weights"] / last["weights"], "--", label="linear")
    axes.set(xlabel="weights", ylabel="time of one add_gradient_ (ms)", title="hsq_gl12, feature-wise")
    axes.legend()
    figure.savefig(path, dpi=100)
    plt.close(figure)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """One line a network and variant: how many times faster than the textbook version, over all penalties."""
    penalties = table[table["what"] == "penalty"]
    grouped = penalties.groupby(["network", "variant"], sort=False)["times textbook autograd"]
    return grouped.agg(["min", "median", "max"]).round(2).reset_index()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and write its results."""
    parser = argparse.ArgumentParser(prog="python -m hgsr_lite bench", description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer penalties, sizes and rounds")
    default = Path(__file__).parent / "results" / "cpu"
    parser.add_argument("--out", type=Path, default=default, help="folder for the table and the plot")
    options = parser.parse_args(arguments)
    table = measure(options.quick)
    print("Times as fast as textbook autograd, over penalties and groupings:")
    print(summary(table).to_string(index=False))
    others = table[table["what"] != "penalty"].dropna(axis=1, how="all")
    print(others.drop(columns=["against"]).round(3).to_string(index=False, na_rep=""))
    options.out.mkdir(parents=True, exist_ok=True)
    record = {
        "machine": machine(),
        "quick": options.quick,
        "rows": json.loads(table.to_json(orient="records")),
    }
    (options.out / "bench.json").write_text(json.dumps(record, indent=1) + "\n")
    plot_sizes(table, options.out / "size.png")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
