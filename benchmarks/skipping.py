"""Time whole networks without their dead kernels beside the best dense form, on a CPU.

    python -m benchmarks.skipping [--quick]

Part of `python -m hgsr_lite bench`. Kernels are dead at random, and in one network as `hsq_gl12` left them.
Every comparison is interleaved; medians over the rounds. Writes `skipping.csv`, and `first_layers.csv`, what
of a network's time is its first layer's. Single layers: `benchmarks.layers`.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd
import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.optimization import fuse
from tqdm import tqdm

import hgsr_lite as hg
from benchmarks.dense_forms import (
    LIVING,
    called_on,
    carry_weights_,
    compared,
    compiled,
    kill_kernels_,
    threads,
)
from benchmarks.measurements import IMAGES, SMALL_AND_LARGE, interleaved
from benchmarks.options import options_of
from hgsr_lite.fast import Link, alive_kernels, prepare_chain
from hgsr_lite.removal.cost import SETTLING
from hgsr_lite.series import example_budget, example_network
from hgsr_lite.skipping import FORMATS, DenseNetwork, LivingConvolution

SHARES = (0.8, 0.9, 0.95)
BATCHES = (1, 16, 128)
FIRST_LAYERS_AT = 0.9
TRAINED = "trained"
"""What the share of dead kernels is called where training decided it."""


def network_rows(
    name: str, models: dict[str | float, nn.Module], images: Tensor, rounds: int, with_compiled: bool
) -> list[dict]:
    """A network with ever more dead kernels, one thread: the best dense form, and the living kernels.

    `torch.compile` takes half a minute for a number of images: one such form gets all weights in turn.
    """
    rows = []
    with torch.inference_mode(), threads(1):
        found = {
            dead: (model.eval(), fuse(model), hg.skip_dead_kernels(model, images[:1].clone(), repeats=0))
            for dead, model in models.items()
        }
        for batch in BATCHES:
            part = images[:batch]
            forms = _dense_forms(next(iter(found.values()))[1], part, with_compiled)
            for dead, (model, fused, (small, report)) in found.items():
                carry_weights_(fused, forms.values())
                variants = {form: called_on(network, part) for form, network in forms.items()}
                variants["as a reader calls it"] = partial(model, part)
                seconds = interleaved(variants | {LIVING: partial(small, part)}, rounds, SETTLING)
                plain = seconds.pop("as a reader calls it")
                rows.append({
                    "network": name, "dead": dead, "share": report.dead_kernels / report.kernels,
                    "batch": batch, **compared(seconds), "model(x) ms": 1e3 * float(np.median(plain)),
                    "limit": _limit(fused, part, rounds),
                    "bytes": report.costs.bytes_before / report.costs.bytes_after,
                })  # fmt: skip
    return rows


def _dense_forms(fused: nn.Module, images: Tensor, with_compiled: bool) -> dict[str, DenseNetwork]:
    forms = {form: DenseNetwork(fused, order) for form, order in FORMATS.items()}
    return forms | ({"compiled": compiled(fused, images)} if with_compiled else {})


class _Clock(fx.Interpreter):
    """Runs a graph and keeps each node's seconds, run by run."""

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__(graph)
        self.seconds: dict[str, list[float]] = defaultdict(list)

    def run_node(self, node: fx.Node) -> object:
        started = time.perf_counter()
        found = super().run_node(node)
        self.seconds[node.name].append(time.perf_counter() - started)
        return found


def _limit(fused: fx.GraphModule, images: Tensor, rounds: int) -> float:
    """Amdahl's limit: how many times as fast, if a convolution took time for its living kernels only."""
    network = DenseNetwork(fused, torch.channels_last)
    clock = _Clock(network.network)
    for _ in range(rounds):
        clock.run(images.contiguous(memory_format=torch.channels_last))
    whole = {name: float(np.median(taken)) for name, taken in clock.seconds.items()}
    left = dict(whole)
    for node in network.network.graph.nodes:
        layer = network.network.get_submodule(node.target) if node.op == "call_module" else None
        if isinstance(layer, nn.Conv2d):
            left[node.name] *= float(alive_kernels(layer.weight).float().mean())
    return sum(whole.values()) / sum(left.values())


def trained() -> nn.Module:
    """`digits_cnn` as `hsq_gl12` leaves it in notebook 08, after 20 epochs of proximal steps."""
    data = hg.load_data("digits", device="cpu")
    model = example_network(data)
    regularizer = hg.Regularizer(model, "hsq_gl12", warmup=0.3)
    regularizer.calibrate_(data.train.images[:128], data.train.labels[:128], fraction=40.0)
    hg.fit(model, data, regularizer, proximal=True, progress=False, **example_budget())
    return model


def measure(quick: bool) -> pd.DataFrame:
    """Every row; `quick` takes one network, one share, and few rounds."""
    rows = []
    for name in tqdm(["digits_cnn"] if quick else SMALL_AND_LARGE, desc="networks"):
        models = {share: with_dead_kernels(name, share) for share in ((0.9,) if quick else SHARES)}
        if name == "digits_cnn" and not quick:
            models[TRAINED] = trained()
        images = torch.randn(BATCHES[-1], *IMAGES[name], generator=torch.Generator().manual_seed(0))
        few = quick or name.startswith("torchvision")
        rows += network_rows(name, models, images, 3 if few else 25, not quick)
    return pd.DataFrame(rows)


def with_dead_kernels(name: str, share: float) -> nn.Module:
    """A network with as large a share of its kernels dead, drawn at random, in all layers but the first."""
    model, generator = SMALL_AND_LARGE[name](), torch.Generator().manual_seed(0)
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d) and layer.in_channels > 3:
            kill_kernels_(layer, share, generator)
    return model


def first_layers(quick: bool) -> pd.DataFrame:
    """The time of a network's first convolution, in which no kernel is dead, beside the whole network's.

    By itself: with turning the images, and with writing what the layer gives.
    """
    rows = []
    for name in ["digits_cnn"] if quick else SMALL_AND_LARGE:
        model = with_dead_kernels(name, FIRST_LAYERS_AT).eval()
        images = torch.randn(BATCHES[-1], *IMAGES[name], generator=torch.Generator().manual_seed(0))
        with torch.inference_mode(), threads(1):
            small, _ = hg.skip_dead_kernels(model, images[:1].clone(), repeats=0)
            layer = next(module for module in small.modules() if isinstance(module, LivingConvolution))
            alone = prepare_chain(
                [Link(layer.description(), 0)], images.shape, images.dtype, min(small.tile, len(images))
            )
            calls = {"first": partial(alone.run, images), "whole": partial(small, images)}
            first, whole = (1e3 * np.median(each) for each in interleaved(calls, 9, SETTLING).values())
        rows.append({"network": name, "first layer ms": first, "network ms": whole, "share": first / whole})
    return pd.DataFrame(rows)


def network_table(table: pd.DataFrame) -> str:
    """What came out for whole networks and their largest batch, in Markdown, as README.md shows it."""
    largest = table[table["batch"] == table.groupby("network")["batch"].transform("max")]
    lines = [
        "| network, images at once | dead kernels | times as fast as the best dense form | as `model(x)` | "
        "limit |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in largest.to_dict("records"):
        left_to_training = row["dead"] == TRAINED
        dead = f"{100 * row['share']:.0f} %" + (", as trained in notebook 08" if left_to_training else "")
        times = row["times as fast"], row["model(x) ms"] / row["living ms"], row["limit"]
        ratios = " | ".join(f"{each:.1f}" for each in times)
        lines.append(f"| {row['network']}, {row['batch']} | {dead} | {ratios} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    options = options_of("benchmarks.skipping", __doc__, "one network, few rounds", arguments)
    table = measure(options.quick)
    print(table.round(3).to_string(index=False, na_rep=""), network_table(table), sep="\n\n")
    table.to_csv(options.out / "skipping.csv", index=False, float_format="%.4g")
    first = first_layers(options.quick)
    print(first.round(3).to_string(index=False))
    first.to_csv(options.out / "first_layers.csv", index=False, float_format="%.4g")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
