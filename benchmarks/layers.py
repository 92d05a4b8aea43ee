"""Time single convolutions without their dead kernels beside PyTorch's dense forms, on a CPU.

    python -m benchmarks.layers [--quick]

Part of `python -m hgsr_lite bench`. Five shapes, and the layers of the networks that `benchmarks.skipping`
times whole; kernels dead at random. Every comparison is interleaved; medians over the rounds. Writes
`layers.csv` and `layers.png`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import unfold
from tqdm import tqdm

from benchmarks.dense_forms import (
    CSR,
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
from hgsr_lite.fast import Link, batch_innermost, called_directly, prepare_chain, smallest_batch
from hgsr_lite.figures import COLORS, MARKERS
from hgsr_lite.removal.cost import SETTLING
from hgsr_lite.skipping import FORMATS, DenseNetwork, LivingConvolution

SHARES = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99)
SHARES_IN_NETWORKS = (0.5, 0.9, 0.95, 0.99)
BATCHES = (1, 16, 128)
TILE = 16
"""Images that go through a layer together where that keeps them in a cache."""
FEW_ROUNDS_ABOVE = 1e8
"""Input channels x output channels x pixels x images, above which three rounds have to do."""


@dataclass(frozen=True)
class Shape:
    """A convolution without its weights, padded by half a kernel."""

    inputs: int
    outputs: int
    side: int
    kernel: int = 3
    stride: int = 1

    def __str__(self) -> str:
        stride = f", stride {self.stride}" if self.stride > 1 else ""
        size = f", {self.kernel}x{self.kernel}" if self.kernel != 3 else ""
        return f"{self.inputs} to {self.outputs}, {self.side}x{self.side}{size}{stride}"

    @property
    def padding(self) -> int:
        """Pixels added on each side."""
        return self.kernel // 2

    def layer(self) -> nn.Conv2d:
        """Such a convolution, its weights drawn."""
        return nn.Conv2d(self.inputs, self.outputs, self.kernel, self.stride, self.padding)

    def images(self, batch: int) -> Tensor:
        """What it may be given."""
        return torch.randn(batch, self.inputs, self.side, self.side)


SHAPES = tuple(
    Shape(*sizes) for sizes in ((64, 64, 16), (128, 128, 8), (16, 32, 8), (256, 256, 14), (64, 64, 32))
)
"""By themselves; kernels 3x3."""


def shapes_of(model: nn.Module, images: Tensor) -> list[Shape]:
    """The different convolutions of a network but the first, whose kernels all live in the benchmarks."""
    found: dict[Shape, None] = {}

    def note(layer: nn.Conv2d, given: tuple[Tensor], _: Tensor) -> None:
        sizes = layer.in_channels, layer.out_channels, given[0].shape[-1]
        shape = Shape(*sizes, layer.kernel_size[0], layer.stride[0])
        assert layer.padding == (shape.padding, shape.padding), "described as it is"
        found[shape] = None

    convolutions = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    hooks = [layer.register_forward_hook(note) for layer in convolutions[1:]]
    with torch.inference_mode():
        model.eval()(images)
    for hook in hooks:
        hook.remove()
    return list(found)


def rows_of(
    network: str, shape: Shape, batch: int, shares: Sequence[float], counts: Sequence[int], rounds: int
) -> Iterator[dict]:
    """One shape and batch: its best dense form, sparse CSR, the living kernels, by share and threads."""
    torch.manual_seed(0)
    layer, images = shape.layer(), shape.images(batch)
    if batch * shape.inputs * shape.outputs * shape.side**2 > FEW_ROUNDS_ABOVE:
        rounds = min(rounds, 3)
    with torch.inference_mode(), called_directly(images):
        forms = {name: DenseNetwork(layer, order) for name, order in FORMATS.items()}
        forms["compiled"] = compiled(layer, images)
        for share in shares:
            dead = copy.deepcopy(layer)
            kill_kernels_(dead, share, torch.Generator().manual_seed(0))
            carry_weights_(dead, forms.values())
            for count in counts:
                with threads(count):  # which a chain is prepared for
                    variants = _variants(dead, forms, shape, images)
                    _check(variants, dead, images)
                    found = compared(interleaved(variants, rounds, SETTLING))
                labels = {"network": network, "layer": str(shape), "dead": share, "batch": batch}
                yield {**labels, "threads": count, **found, "limit": 1 / (1 - share)}


def _variants(
    dead: nn.Conv2d, forms: dict[str, DenseNetwork], shape: Shape, images: Tensor
) -> dict[str, Callable[[], Tensor | list[Tensor]]]:
    variants = {name: called_on(form, images) for name, form in forms.items()}
    if len(images) <= 16:  # it takes ten times as long as the dense form, and its columns much memory
        variants[CSR] = _on_columns(dead, shape, images)
    return variants | {LIVING: _living(LivingConvolution(dead), images)}


def _living(living: LivingConvolution, images: Tensor) -> Callable[[], list[Tensor]]:
    """In parts that stay in a cache, or all at once: what is faster, which a network finds out likewise."""
    sizes = {"in parts": TILE, "at once": len(images)}
    ways = {name: _in_parts(living, images, size) for name, size in sizes.items()}
    seconds = interleaved(ways, 3, SETTLING)
    return ways[min(ways, key=lambda name: float(np.median(seconds[name])))]


def _in_parts(living: LivingConvolution, images: Tensor, size: int) -> Callable[[], list[Tensor]]:
    parts = [batch_innermost(part) for part in images.split(size)]
    call = _in_a_chain(living, parts[0])
    return lambda: [call(part) for part in parts]


def _on_columns(dead: nn.Conv2d, shape: Shape, images: Tensor) -> Callable[[], Tensor]:
    """A product of the weights as sparse CSR with the unfolded images."""
    rows = dead.weight.flatten(1).to_sparse_csr()
    side = -(-shape.side // shape.stride)
    bias = dead.bias.view(-1, 1, 1)

    def run() -> Tensor:
        columns = unfold(images, shape.kernel, padding=shape.padding, stride=shape.stride)
        flat = columns.transpose(0, 1).reshape(rows.shape[1], -1)
        return (rows @ flat).view(shape.outputs, len(images), side, side).transpose(0, 1) + bias

    return run


def _in_a_chain(living: LivingConvolution, images: Tensor) -> Callable[[Tensor], Tensor]:
    """A layer as a network calls it: in a chain, where there are images enough for one."""
    if len(images) < smallest_batch(images.dtype):
        return living
    return prepare_chain([Link(living.description(), 0)], images.shape, images.dtype).run


def _check(variants: dict[str, Callable], dead: nn.Conv2d, images: Tensor) -> None:
    """All variants give the same numbers."""
    wanted = dead(images)
    for name, run in variants.items():
        found = run()
        found = torch.cat(found) if isinstance(found, list) else found
        assert torch.allclose(found, wanted, rtol=1e-3, atol=1e-4), name


def measure(quick: bool) -> pd.DataFrame:
    """Every row; `quick` takes one shape, two shares and few rounds."""
    if quick:
        return pd.DataFrame(rows_of("", SHAPES[2], 16, (0.5, 0.9), (1,), 3))
    named = [("", shape, SHARES) for shape in SHAPES]
    for network, build in SMALL_AND_LARGE.items():
        shapes = shapes_of(build(), torch.zeros(1, *IMAGES[network]))
        named += [(network, shape, SHARES_IN_NETWORKS) for shape in shapes]
    jobs = [(network, shape, batch, shares) for network, shape, shares in named for batch in BATCHES]
    return pd.DataFrame([row for job in tqdm(jobs, desc="layers") for row in rows_of(*job, (1, 2), 9)])


def layers_table(table: pd.DataFrame, shares: Sequence[float] = (0.9, 0.95)) -> str:
    """The layers of each network on one thread, in Markdown, as README.md shows it."""
    mine = table[(table["network"].fillna("") != "") & (table["threads"] == 1) & table["dead"].isin(shares)]
    lines = [
        "| layers of, dead kernels | one image | 16 images | 128 images | faster than dense |",
        "| --- | --- | --- | --- | --- |",
    ]
    for (network, share), rows in mine.groupby(["network", "dead"], sort=False):
        times = rows.groupby("batch")["times as fast"].agg(["median", "min", "max"])
        cells = [f"{row['median']:.1f} ({row['min']:.1f} to {row['max']:.1f})" for _, row in times.iterrows()]
        faster = f"{(rows['times as fast'] > 1).sum()} of {len(rows)}"
        lines.append(f"| {network}, {100 * share:.0f} % | {' | '.join(cells)} | {faster} |")
    return "\n".join(lines)


def plot(table: pd.DataFrame, path: Path) -> None:
    """Speed-up against the share of dead kernels, for each of the five shapes, break-even and the ideal."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    layers = table[(table["network"].fillna("") == "") & (table["threads"] == 1)]
    batches = sorted(layers["batch"].unique())
    figure, panels = plt.subplots(
        1, len(batches), figsize=(3.4 * len(batches), 3.6), sharey=True, layout="constrained", squeeze=False
    )
    for axes, batch in zip(panels[0], batches, strict=True):
        named = layers[layers["batch"] == batch].groupby("layer", sort=False)
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
    options = options_of("benchmarks.layers", __doc__, "one shape, two shares, few rounds", arguments)
    table = measure(options.quick)
    print(layers_table(table))
    table.to_csv(options.out / "layers.csv", index=False, float_format="%.4g")
    plot(table, options.out / "layers.png")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
