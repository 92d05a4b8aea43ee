"""What a dead kernel is worth in time and bytes: layers and networks beside the best dense form.

    make bench ARGS=--dead-kernels          (with --quick: a few of each)

One round times each variant once, in turn; the least of the rounds counts, because a neighbour on the same
machine only ever adds. With one thread it is that thread's processor time, with two it is wall time.
Writes `dead_kernels_layers.csv`, `dead_kernels_networks.csv` and `dead_kernels.png`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import torch
import torchvision
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse
from tqdm import tqdm

import hgsr_lite as hg
from benchmarks.dead_kernels_figure import draw
from benchmarks.measurements import Row, interleaved
from hgsr_lite.removal.living_file import living_bytes
from hgsr_lite.removal.skipping_layers import LivingConvolution

LAYERS = {
    "64 to 64, 16x16": (64, 64, 16, 3, 1),
    "128 to 128, 8x8": (128, 128, 8, 3, 1),
    "16 to 32, 8x8": (16, 32, 8, 3, 1),
    "256 to 256, 14x14": (256, 256, 14, 3, 1),
    "64 to 64, 32x32": (64, 64, 32, 3, 1),
    "64 to 128, 16x16, stride 2": (64, 128, 16, 3, 2),
    "64 to 128, 16x16, 1x1": (64, 128, 16, 1, 1),
}
"""Input and output channels, pixels a side, kernel size, stride."""
SHARES = (0.5, 0.7, 0.8, 0.9, 0.95, 0.99)
BATCHES = (1, 16, 128)
TILES = (32, 128)
"""Images that go through a layer together, as in a network without dead kernels, where they fit a cache."""
CACHE_BYTES = 6 << 20
NETWORKS = {
    "digits_cnn": 8,
    "alexnet": 32,
    "vgg11": 32,
    "resnet18": 32,
    "torchvision resnet18": 64,
}
"""Pixels a side; the first four are the package's own, as narrow as the series has them."""
CELL_SECONDS = 0.25
"""About what a comparison may take: long ones have fewer rounds, three at least."""


@contextmanager
def threads(count: int) -> Iterator[None]:
    """PyTorch with so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def least(variants: dict[str, Callable[[], object]], count: int, rounds: int) -> dict[str, float]:
    """The least milliseconds of each variant, one after the other in each round, on `count` threads."""
    clock = time.thread_time if count == 1 else time.perf_counter
    with threads(count), torch.inference_mode():
        started = time.perf_counter()
        for run in variants.values():
            run()
        once = time.perf_counter() - started
        rounds = max(3, min(rounds, round(CELL_SECONDS / once)))
        seconds = interleaved(variants, rounds, clock)
    return {name: 1e3 * values.min() for name, values in seconds.items()}


def kill_(model: nn.Module, share: float) -> nn.Module:
    """Zero a share of the kernels of each convolution but the first, at random."""
    generator = torch.Generator().manual_seed(1)
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    for layer in layers[1:] or layers:
        alive = torch.rand(layer.weight.shape[:2], generator=generator) >= share
        layer.weight.data *= alive[..., None, None]
    return model.eval()


def layer_row(name: str, share: float, batch: int, count: int, rounds: int, others: bool) -> Row:
    """One layer at one share of dead kernels; `others`: im2col with a sparse product beside it as well."""
    inputs, outputs, side, kernel, stride = LAYERS[name]
    torch.manual_seed(0)
    dense = kill_(nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2), share)
    living, images = LivingConvolution(dense), torch.randn(batch, inputs, side, side)
    last = images.contiguous(memory_format=torch.channels_last)
    variants = {"contiguous": lambda: dense(images), "channels_last": lambda: dense(last)}
    fits = [tile for tile in TILES if tile == TILES[0] or tile * images[0].nbytes < CACHE_BYTES]
    for tile in sorted({min(tile, batch) for tile in fits}):
        parts = [p.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2) for p in images.split(tile)]
        variants[f"living {tile}"] = lambda parts=parts: [living(part) for part in parts]
    if others:
        variants["im2col, sparse product"] = _sparse_product(dense, images)
    ms = least(variants, count, rounds)
    best = min(value for key, value in ms.items() if not key.startswith(("living", "im2col")))
    ours = min(value for key, value in ms.items() if key.startswith("living"))
    return {
        "layer": name, "dead": share, "batch": batch, "threads": count, "dense ms": best, "living ms": ours,
        "times as fast": best / ours, "ideal": 1 / (1 - share),
        "im2col, sparse product: times as fast": best / ms.get("im2col, sparse product", float("nan")),
    }  # fmt: skip


def _sparse_product(layer: nn.Conv2d, images: Tensor) -> Callable[[], Tensor]:
    weight = layer.weight.detach().flatten(1).to_sparse_csr()
    moves = {"kernel_size": layer.kernel_size, "padding": layer.padding, "stride": layer.stride}

    def run() -> Tensor:
        columns = nn.functional.unfold(images, **moves).transpose(0, 1).flatten(1)
        return weight @ columns + layer.bias[:, None]

    return run


def layer_rows(quick: bool) -> Iterator[Row]:
    """Every layer, share and batch on one thread; on two where 90 % are dead."""
    shares, batches = ((0.5, 0.9), (1, 16)) if quick else (SHARES, BATCHES)
    names, rounds = (list(LAYERS)[:3], 3) if quick else (list(LAYERS), 30)
    cases = [(name, share, batch, 1) for name in names for share in shares for batch in batches]
    cases += [(name, 0.9, batch, 2) for name in names for batch in batches]
    for name, share, batch, count in tqdm(cases, desc="layers"):
        others = share in (0.9, 0.99) and batch == 16 and count == 1
        yield layer_row(name, share, batch, count, rounds, others)


def network(name: str, share: float) -> tuple[nn.Module, int]:
    """A network with kernels dead at random, and its images' channels."""
    torch.manual_seed(0)
    if name in hg.MODELS:
        channels = 1 if name == "digits_cnn" else 3
        return kill_(hg.build_model(name, in_channels=channels, num_classes=10, seed=0), share), channels
    return kill_(torchvision.models.resnet18(num_classes=10), share), 3


def trained_digits(epochs: int) -> nn.Module:
    """The digits' network, trained with the penalty that empties most kernels there."""
    data = hg.load_data("digits", device="cpu")
    method = hg.Penalised("hsq_gl12", "neuron", fraction=160.0, warmup=0.3)
    settings = hg.Settings(epochs=epochs, lr=0.02, batch_size=64, proximal=True)
    model, regularizer = hg.Recipe("digits_cnn", method=method, settings=settings).build(data)
    hg.fit(model, data, regularizer, epochs=epochs, lr=0.02, batch_size=64, proximal=True, progress=False)
    hg.zero_below_(model)
    return model.eval()


def convolution_share(graph: nn.Module, images: Tensor) -> float:
    """The share of a dense network's time that its convolutions with dead kernels take."""
    spent: list[float] = []

    def begin(*_) -> None:
        spent.append(-time.thread_time())

    def end(*_) -> None:
        spent[-1] += time.thread_time()

    layers = [m for m in graph.modules() if isinstance(m, nn.Conv2d)]
    dead = [m for m in layers if not bool((m.weight != 0).flatten(2).any(-1).all())]
    hooks = [m.register_forward_pre_hook(begin) for m in dead] + [m.register_forward_hook(end) for m in dead]
    shares = []
    with threads(1), torch.inference_mode():
        for _ in range(4):
            spent.clear()
            started = time.thread_time()
            graph(images)
            shares.append(sum(spent) / (time.thread_time() - started))
    for hook in hooks:
        hook.remove()
    return sorted(shares[1:])[1]


def network_rows(
    name: str, dead: float | str, model: nn.Module, images: Tensor, rounds: int
) -> Iterator[Row]:
    """One network from end to end: batch by batch on one thread, the largest on two as well."""
    with threads(1):
        small, report = hg.skip_dead_kernels(model, images[:2], repeats=0)
    graph = fuse(model)
    share = report.dead_kernels / report.kernels
    exact = sum(_goal(layer) for layer in model.modules() if isinstance(layer, nn.Conv2d))
    rest = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    rest -= sum(4 * m.weight.numel() for m in model.modules() if isinstance(m, nn.Conv2d))
    batches = [count for count in BATCHES if count <= len(images)]
    for batch, count in [*((batch, 1) for batch in batches), (batches[-1], 2)]:
        some = images[:batch]
        last = some.contiguous(memory_format=torch.channels_last)
        variants = {
            "as called": lambda some=some: model(some), "folded": lambda some=some: graph(some),
            "folded, channels_last": lambda last=last: graph(last), "skipping": lambda some=some: small(some),
        }  # fmt: skip
        ms = least(variants, count, rounds)
        best = min(ms["folded"], ms["folded, channels_last"])
        in_layers = convolution_share(graph, some if ms["folded"] == best else last) if count == 1 else None
        yield {
            "network": name, "dead": dead, "dead kernels": share, "batch": batch, "threads": count,
            "dense ms": best, "skipping ms": ms["skipping"], "times as fast": best / ms["skipping"],
            "times as fast as called": ms["as called"] / ms["skipping"],
            "time in layers with dead kernels": in_layers,
            "limit": None if in_layers is None else 1 / (1 - in_layers * share),
            "dense below": report.dense_below, "stays dense": report.left_dense,
            "bytes": living_bytes(model), "bytes of living kernels, bitmap and rest": exact + rest,
        }  # fmt: skip


def _goal(layer: nn.Conv2d) -> float:
    alive = int((layer.weight != 0).flatten(2).any(-1).sum())
    kernels = layer.weight.shape[0] * layer.weight.shape[1]
    return 4 * alive * layer.weight[0, 0].numel() + kernels / 8


def all_networks(quick: bool) -> Iterator[Row]:
    """Every network with random kernels dead, then the trained one."""
    shares, names = ((0.9,), ["digits_cnn"]) if quick else ((0.9, 0.95), list(NETWORKS))
    rounds, most = (3, 16) if quick else (20, BATCHES[-1])
    for name in tqdm(names, desc="networks"):
        for share in shares:
            model, channels = network(name, share)
            images = torch.randn(most, channels, NETWORKS[name], NETWORKS[name])
            yield from network_rows(name, share, model, images, rounds)
    model, images = trained_digits(1 if quick else 20), torch.randn(most, 1, 8, 8)
    yield from network_rows("digits_cnn", "trained", model, images, rounds)


def run(quick: bool, out: Path) -> None:
    """Measure, write the two tables and the figure, and print what was found."""
    out.mkdir(parents=True, exist_ok=True)
    layers = pd.DataFrame(layer_rows(quick))
    layers.to_csv(out / "dead_kernels_layers.csv", index=False, float_format="%.4g")
    networks = pd.DataFrame(all_networks(quick))
    networks.to_csv(out / "dead_kernels_networks.csv", index=False, float_format="%.4g")
    draw(layers, out / "dead_kernels.png")
    print(layers.pivot_table("times as fast", ["layer", "batch", "threads"], "dead").round(2).to_string())
    print(networks.drop(columns=["dense ms", "skipping ms"]).round(3).to_string(index=False, na_rep=""))
