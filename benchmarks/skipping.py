"""Time convolutions and networks without their dead kernels beside the best dense form, on a CPU.

    python -m benchmarks.skipping [--quick]

Part of `python -m hgsr_lite bench`. Kernels are dead at random, and in one network as `hsq_gl12` left them.
Every comparison is interleaved; medians over the rounds. Writes `skipping.csv` and `skipping.png`.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.optimization import fuse
from torch.nn.functional import unfold
from tqdm import tqdm

import hgsr_lite as hg
from benchmarks.measurements import NETWORKS, interleaved
from benchmarks.options import options_of
from hgsr_lite.fast import (
    Link,
    alive_kernels,
    batch_innermost,
    called_directly,
    prepare_chain,
    smallest_batch,
)
from hgsr_lite.figures import COLORS, MARKERS
from hgsr_lite.series import example_budget, example_network
from hgsr_lite.skipping import DenseNetwork, LivingConvolution

SHAPES = [(64, 64, 16), (128, 128, 8), (16, 32, 8), (256, 256, 14), (64, 64, 32)]
"""Input channels, output channels and side of the images; kernels 3x3."""
SHARES = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99)
BATCHES = (1, 16, 128)
TILE = 16
"""Images that go through a layer together, so that they stay in a cache."""
IMAGES = {"digits_cnn": (1, 8, 8), "torchvision resnet18": (3, 224, 224)}
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


@contextmanager
def threads(count: int) -> Iterator[None]:
    """As many threads, within."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def kill_kernels_(layer: nn.Conv2d, share: float, generator: torch.Generator) -> None:
    """Set a share of a layer's kernels to zero, drawn at random."""
    layer.weight.data[torch.rand(layer.weight.shape[:2], generator=generator) < share] = 0


def layer_row(shape: tuple[int, int, int], share: float, batch: int, count: int, rounds: int) -> dict:
    """One convolution, 3x3 and padded by one: its best dense form, sparse CSR, and the living kernels."""
    inputs, outputs, side = shape
    generator = torch.Generator().manual_seed(0)
    layer = nn.Conv2d(inputs, outputs, 3, padding=1)
    kill_kernels_(layer, share, generator)
    images = torch.randn(batch, inputs, side, side, generator=generator)
    living = LivingConvolution(layer)
    tiles = [batch_innermost(part) for part in images.split(TILE)]  # as they go through a network
    call = _in_a_chain(living, tiles[0])
    rows = layer.weight.detach().flatten(1).to_sparse_csr()

    def sparse() -> Tensor:
        columns = unfold(images, 3, padding=1).transpose(0, 1).reshape(inputs * 9, -1)
        return (rows @ columns).view(outputs, batch, side, side).transpose(0, 1)

    variants: dict[str, Callable[[], Tensor | list[Tensor]]] = {
        **{name: called_on(DenseNetwork(layer, order), images) for name, order in FORMATS.items()},
        "living kernels": lambda: [call(part) for part in tiles],
    }
    if batch <= 16:  # it takes ten times as long as the dense form, and its columns much memory
        variants["im2col and CSR"] = sparse
    if batch * inputs * outputs * side**2 > 1e8:
        rounds = min(rounds, 3)
    with torch.inference_mode(), threads(count), called_directly(images):
        wanted = layer(images)
        bias = layer.bias.view(-1, 1, 1)
        for name, run in variants.items():
            found = run()
            found = torch.cat(found) if isinstance(found, list) else found
            found = found + bias if name == "im2col and CSR" else found
            assert torch.allclose(found, wanted, rtol=1e-3, atol=1e-4), name
        seconds = interleaved(variants, rounds)
    labels = {"what": "layer", "network": f"{inputs} to {outputs}, {side}x{side}", "dead": share}
    return {**labels, "batch": batch, "threads": count, **_summary(seconds), "limit": 1 / (1 - share)}


def _in_a_chain(living: LivingConvolution, images: Tensor) -> Callable[[Tensor], Tensor]:
    """A layer as a network calls it: in a chain, where there are images enough for one."""
    if len(images) < smallest_batch(images.dtype):
        return living
    return prepare_chain([Link(living.description(), 0)], images.shape, images.dtype).run


def called_on(network: DenseNetwork, images: Tensor) -> Callable[[], Tensor]:
    """A dense form on images that lie as it wants them."""
    ordered = images.contiguous(memory_format=network.memory_format)
    return lambda: network.network(ordered)


def _summary(seconds: dict[str, np.ndarray]) -> dict[str, float | str]:
    """Milliseconds of the best dense form, of the living kernels, and how often these fit into that."""
    medians = {name: 1e3 * float(np.median(values)) for name, values in seconds.items()}
    living, csr = medians.pop("living kernels"), medians.pop("im2col and CSR", float("nan"))
    best = min(medians, key=medians.__getitem__)
    return {
        "dense form": best, "dense ms": medians[best], "CSR ms": csr, "living ms": living,
        "times as fast": medians[best] / living,
    }  # fmt: skip


def network_rows(
    name: str, model: nn.Module, images: Tensor, dead: str | float, rounds: int, compiled: bool
) -> list[dict]:
    """A whole network, one thread: the best of its dense forms, and the one without dead kernels."""
    rows = []
    with torch.inference_mode(), threads(1):
        small, report = hg.skip_dead_kernels(model.eval(), images[:1].clone(), repeats=0)
        fused = fuse(model)
        for batch in [count for count in BATCHES if count <= len(images)]:
            part = images[:batch]
            variants: dict[str, Callable[[], Tensor]] = {
                form: called_on(DenseNetwork(fused, order), part) for form, order in FORMATS.items()
            }
            if compiled and batch == min(BATCHES[-1], len(images)):
                variants["compiled"] = called_on(_compiled(fused, part), part)
            variants["as a reader calls it"] = lambda part=part: model(part)
            seconds = interleaved(variants | {"living kernels": lambda part=part: small(part)}, rounds)
            plain = seconds.pop("as a reader calls it")
            share = report.dead_kernels / report.kernels
            rows.append({
                "what": "network", "network": name, "dead": dead, "share": share, "batch": batch,
                "threads": 1, **_summary(seconds), "model(x) ms": 1e3 * float(np.median(plain)),
                "limit": _limit(fused, part, rounds),
                "bytes": report.costs.bytes_before / report.costs.bytes_after,
            })  # fmt: skip
    return rows


def _compiled(fused: nn.Module, images: Tensor) -> DenseNetwork:
    network = DenseNetwork(fused, torch.channels_last)
    network.network = torch.compile(network.network)
    network(images)
    return network


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


def trained() -> tuple[nn.Module, Tensor]:
    """`digits_cnn` as `hsq_gl12` leaves it in notebook 08, after 20 epochs of proximal steps."""
    data = hg.load_data("digits", device="cpu")
    model = example_network(data)
    regularizer = hg.Regularizer(model, "hsq_gl12", warmup=0.3)
    regularizer.calibrate_(data.train.images[:128], data.train.labels[:128], fraction=40.0)
    hg.fit(model, data, regularizer, proximal=True, progress=False, **example_budget())
    return model.eval(), data.train.images[:128]


def measure(quick: bool) -> pd.DataFrame:
    """Every row; `quick` takes one shape, two shares, one network, and few rounds."""
    shapes, shares = (SHAPES[2:3], (0.5, 0.9)) if quick else (SHAPES, SHARES)
    batches, counts = ((16,), (1,)) if quick else (BATCHES, (1, 2))
    jobs = [(s, share, n, c) for s in shapes for share in shares for n in batches for c in counts]
    rows = [layer_row(*job, 3 if quick else 9) for job in tqdm(jobs, desc="layers")]
    networks = {"digits_cnn": lambda: hg.build_model("digits_cnn", in_channels=1, num_classes=10, seed=0)}
    networks |= {} if quick else NETWORKS
    for name, build in tqdm(networks.items(), desc="networks"):
        for share in (0.9,) if quick else (0.8, 0.9, 0.95):
            model, generator = build(), torch.Generator().manual_seed(0)
            for layer in model.modules():
                if isinstance(layer, nn.Conv2d) and layer.in_channels > 3:
                    kill_kernels_(layer, share, generator)
            large = name.startswith("torchvision")
            images = torch.randn(16 if large else 128, *IMAGES.get(name, (3, 32, 32)), generator=generator)
            rows += network_rows(name, model, images, share, 3 if large or quick else 25, not quick)
    if not quick:
        rows += network_rows("digits_cnn", *trained(), "trained", 25, True)
    return pd.DataFrame(rows)


def network_table(table: pd.DataFrame) -> str:
    """What came out for whole networks and their largest batch, in Markdown, as README.md shows it."""
    networks = table[table["what"] == "network"]
    largest = networks[networks["batch"] == networks.groupby("network")["batch"].transform("max")]
    lines = [
        "| network, images at once | dead kernels | times as fast as the best dense form | as `model(x)` | "
        "limit |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in largest.to_dict("records"):
        left_to_training = f"{row['dead']}" == "trained"
        dead = f"{100 * row['share']:.0f} %" + (", as trained in notebook 08" if left_to_training else "")
        times = row["times as fast"], row["model(x) ms"] / row["living ms"], row["limit"]
        ratios = " | ".join(f"{each:.1f}" for each in times)
        lines.append(f"| {row['network']}, {row['batch']} | {dead} | {ratios} |")
    return "\n".join(lines)


def plot(table: pd.DataFrame, path: Path) -> None:
    """Speed-up against the share of dead kernels, for each layer and batch, with break-even and the ideal."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    layers = table[(table["what"] == "layer") & (table["threads"] == 1)]
    batches = sorted(layers["batch"].unique())
    figure, panels = plt.subplots(
        1, len(batches), figsize=(3.4 * len(batches), 3.6), sharey=True, layout="constrained", squeeze=False
    )
    for axes, batch in zip(panels[0], batches, strict=True):
        named = layers[layers["batch"] == batch].groupby("network", sort=False)
        for (name, rows), color, marker in zip(named, COLORS, MARKERS, strict=False):
            look = {"color": color, "marker": marker, "markersize": 5}
            axes.semilogy(100 * rows["dead"], rows["times as fast"], label=name, **look)
        ideal = layers.drop_duplicates("dead").sort_values("dead")
        axes.semilogy(100 * ideal["dead"], ideal["limit"], "k:", label="as many times fewer multiply-adds")
        axes.axhline(1, color="grey", linewidth=1)
        axes.set(title=f"batch {batch}", xlabel="dead kernels (%)")
    panels[0][0].set_ylabel("times as fast as the best dense form")
    panels[0][0].legend(fontsize="x-small")
    figure.savefig(path, dpi=100)
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    options = options_of("benchmarks.skipping", __doc__, "one shape, one network, few rounds", arguments)
    table = measure(options.quick)
    print(table.round(3).to_string(index=False, na_rep=""), network_table(table), sep="\n\n")
    table.to_csv(options.out / "skipping.csv", index=False, float_format="%.4g")
    plot(table, options.out / "skipping.png")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
