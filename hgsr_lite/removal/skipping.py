"""From dead kernels to a faster network: their multiplications are left out.

A channel has to be empty as a whole before `compact` can take it out. A single dead kernel saves as much
for its size once nothing multiplies by it: `skip_dead_kernels` puts the living ones into lists and walks
those. Each layer is timed both ways once; what does not pay stays dense.
"""

from __future__ import annotations

import copy
import itertools
import time
from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.optimization import fuse
from torch.fx.passes.shape_prop import ShapeProp

from hgsr_lite.fast import has_numba
from hgsr_lite.removal.compaction import check_input, compare
from hgsr_lite.removal.coupling import first_line
from hgsr_lite.removal.proof import random_like
from hgsr_lite.removal.report import CompactReport
from hgsr_lite.removal.skipping_layers import LivingConvolution, not_covered, put_in_
from hgsr_lite.removal.skipping_report import SkippedLayer, SkipReport, network_costs
from hgsr_lite.training import eval_mode

TILES = (16, 32, 64, 128)
"""Images that go through the whole network together: few, and what lies between two layers stays in a
cache; many, and Python is called less often. The fastest is found by timing."""

_MARGIN = 1.05  # a dense layer must be slower by this much before it is replaced


class SkippingNetwork(nn.Module):
    """A network without its dead kernels: the same function, for use and not for training.

    `network` is a graph whose convolutions are `LivingConvolution`s. Images go through it `tile` at a time.
    """

    def __init__(self, network: fx.GraphModule, tile: int) -> None:
        super().__init__()
        self.network = network
        self.tile = tile
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """What the network says about images, as many as there are."""
        if torch.compiler.is_compiling() or len(images) <= self.tile:
            return self.network(images)
        parts = [self.network(part) for part in images.split(self.tile)]
        return torch.cat(parts) if isinstance(parts[0], Tensor) else self.network(images)

    def train(self, mode: bool = True) -> SkippingNetwork:
        """Stay in eval mode: batch norms are folded in, there is nothing to train."""
        return super().train(False)


@torch.no_grad()
def skip_dead_kernels(
    model: nn.Module, example_input: Tensor, *, compacted: CompactReport | None = None, repeats: int = 20,
    batches: tuple[int, ...] = (1, 16, 128),
) -> tuple[nn.Module, SkipReport]:  # fmt: skip
    """Return a network that is the same function and multiplies by living kernels only, and a report.

    A kernel is dead if all its weights are exactly zero (see `zero_below_`). Batch norms are folded into
    the convolutions, ReLUs and residual sums done in the same pass. Activations are ordinary tensors
    (batch, channels, height, width) whose memory has the batch innermost, so that other operators work on
    them too. Each layer is timed dense and living, for one image and for many; the report says which it
    is and why. What is not covered stays dense and says so: other convolutions than Conv2d, padding modes,
    dtypes, devices, a network whose graph cannot be traced.

    Usually after `compact`, whose report `compacted` puts channels and kernels into one table. Times are
    medians of at most `repeats` runs for each number of images in `batches` (`repeats=0`: none). `model` is
    never changed. Zero times infinity: a dense layer gives NaN for an infinite input of a dead kernel, this
    one what the living kernels say.

    Raises `ValueError` for an example that the model does not take and for weights that are not finite,
    `TypeError` for what is no model or no image.

    >>> net = nn.Sequential(nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 3))
    >>> _ = net[0].weight.data[:, :6].zero_()
    >>> small, report = skip_dead_kernels(net, torch.ones(1, 8, 8, 8), repeats=0)
    >>> report.dead_kernels, report.kernels, report.change["example"].relative < 1e-5
    (48, 80, True)
    """
    check_input(model, example_input)
    images = {"example": example_input.detach(), "random": random_like(example_input)}
    dense = copy.deepcopy(model).eval()
    _check_runs(dense, images["example"])
    graph, problem = _traced(dense)
    if problem:
        small, layers = dense, _all_dense(dense, problem)
    else:
        small, layers = _skipping(graph, images["example"])
    fused = graph if graph is not None else dense
    return small, SkipReport(
        layers=tuple(layers),
        costs=network_costs(model, fused, small, images["example"], batches, repeats),
        change={what: compare(dense, small, batch) for what, batch in images.items()},
        compacted=compacted,
        tile=getattr(small, "tile", None),
        left_dense=problem,
    )


def _check_runs(dense: nn.Module, images: Tensor) -> None:
    try:
        dense(images)
    except Exception as error:  # the network's own, of whatever type
        raise ValueError(
            f"{type(dense).__name__} does not take an example of shape {tuple(images.shape)}: "
            f"{first_line(error)}"
        ) from error


def _traced(dense: nn.Module) -> tuple[fx.GraphModule | None, str]:
    """The graph of a network with its batch norms folded in, and why there can be none."""
    if not has_numba():
        return None, "numba is not installed"
    try:
        return fuse(dense), ""
    except Exception as error:  # whatever a forward method does that cannot be followed
        return None, f"the graph cannot be traced: {first_line(error)}"


def _convolutions(model: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(n, m) for n, m in model.named_modules() if isinstance(m, nn.modules.conv._ConvNd)]


def _all_dense(model: nn.Module, reason: str) -> list[SkippedLayer]:
    return [SkippedLayer.of(name, layer, reason) for name, layer in _convolutions(model)]


def _skipping(graph: fx.GraphModule, example: Tensor) -> tuple[nn.Module, list[SkippedLayer]]:
    """Choose for every layer, put the chosen ones in, find the number of images that go through together."""
    work = copy.deepcopy(graph)
    ShapeProp(work).propagate(example)
    calls = Counter(node.target for node in work.graph.nodes if node.op == "call_module")
    shapes = {
        node.target: node.args[0].meta["tensor_meta"].shape
        for node in work.graph.nodes
        if node.op == "call_module" and isinstance(work.get_submodule(node.target), nn.modules.conv._ConvNd)
    }
    layers, chosen = [], {}
    for name, layer in _convolutions(work):
        reason = not_covered(layer) or ("" if calls[name] == 1 else f"called {calls[name]} times")
        if not reason:
            found, reason = _choose(layer, shapes[name])
            if found is not None:
                chosen[name] = found
        layers.append(SkippedLayer.of(name, layer, reason))
    if not chosen:
        return work, layers
    put_in_(work, chosen)
    return SkippingNetwork(work, _best_tile(work, example)), layers


def _choose(layer: nn.Conv2d, shape: torch.Size) -> tuple[LivingConvolution | None, str]:
    """The living form of a layer where it pays, and what was chosen."""
    if bool((layer.weight != 0).flatten(2).any(-1).all()):
        return None, "no dead kernel"
    living = LivingConvolution(layer)
    dense = {count: _seconds_of(layer, living, count, shape) for count in (1, TILES[0])}
    slower = {count: times[1] * _MARGIN > times[0] for count, times in dense.items()}
    if all(slower.values()):
        return None, "dense is faster"
    if not any(slower.values()):
        return living, ""
    only = "one image" if slower[1] else "many images"
    return LivingConvolution(layer, *slower.values()), f"dense is faster for {only}"


def _seconds_of(dense: nn.Conv2d, living: nn.Module, count: int, shape: torch.Size) -> tuple[float, float]:
    """Seconds of one call of a layer, dense and living, on random images that lie as each wants them."""
    ordinary = torch.randn(count, *shape[1:], dtype=dense.weight.dtype)
    innermost = ordinary.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2)
    return _interleaved([lambda: dense(ordinary), lambda: living(innermost)])


def _interleaved(calls: list[Callable[[], object]], rounds: int = 7) -> tuple[float, ...]:
    """The least seconds of each call over some rounds in turn, the first of which does not count."""
    times: list[list[float]] = [[] for _ in calls]
    for _, (number, call) in itertools.product(range(rounds + 1), enumerate(calls)):
        start = time.perf_counter()
        call()
        times[number].append(time.perf_counter() - start)
    return tuple(min(taken[1:]) for taken in times)


def _best_tile(network: nn.Module, example: Tensor) -> int:
    """The tile that takes least time an image; larger ones are not tried once a call takes half a second."""
    best, least = TILES[0], float("inf")
    with eval_mode(network):
        for tile in TILES:
            images = random_like(example.new_empty(tile, *example.shape[1:]))
            (seconds,) = _interleaved([lambda images=images: network(images)], rounds=3)
            if seconds / tile < least:
                best, least = tile, seconds / tile
            if seconds > 0.5:
                break
    return best
