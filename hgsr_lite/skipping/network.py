"""From dead kernels to a faster network: their multiplications are left out.

A channel has to be empty as a whole before `compact` can take it out. A single dead kernel saves as much
for its size once nothing multiplies by it: `skip_dead_kernels` puts the living ones into lists and walks
those. Each layer is timed both ways once; what does not pay stays dense.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterable

import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.optimization import fuse
from torch.fx.passes.shape_prop import ShapeProp, TensorMetadata

from hgsr_lite.arguments import check_count
from hgsr_lite.coupling import first_line, tensors
from hgsr_lite.fast import called_directly, has_numba, smallest_batch
from hgsr_lite.removal import CompactReport, OutputChange, check_input, compare, random_like
from hgsr_lite.skipping.chain import LivingChain, chain_layers_
from hgsr_lite.skipping.choice import (
    DenseNetwork,
    choose_layer,
    choose_network,
    dense_at_its_best,
    linear_pays,
)
from hgsr_lite.skipping.layers import (
    drop_dropouts_,
    linear_on_images,
    not_covered,
    put_in_,
    put_in_linear_,
    views_as_reshapes_,
)
from hgsr_lite.skipping.report import SkippedLayer, SkipReport, network_costs

_SAME = {torch.float32: 1e-4, torch.float64: 1e-10}
"""How far outputs may be from the dense network's, relative to the largest, and the function be the same."""
_SEVERAL = 5  # images: more than one, and not the number that the example has in most calls


class SkippingNetwork(nn.Module):
    """A network without its dead kernels: the same function, for use and not for training.

    `network` is a graph whose convolutions are `LivingConvolution`s. Images go through its chains of layers
    `tile` at a time, through the rest all together. A graph without a chain takes `tile` images at a time,
    all of them where they meet each other in it (`tile` is then without bound). Fewer than `dense_below` go
    through `dense`, the same network with its batch norms folded in. An exported graph is for every number
    of images, and without dead kernels for all of them.
    """

    def __init__(self, network: fx.GraphModule) -> None:
        super().__init__()
        self.network = network
        self.chains = [module for module in network.modules() if isinstance(module, LivingChain)]
        self.tile, self.dense_below, self.dense = sys.maxsize, 1, None
        self.eval().requires_grad_(False)

    def take_dense_below(self, count: int, dense: DenseNetwork) -> None:
        """Let batches of fewer images go through the dense network."""
        self.dense_below = count
        self.dense = dense.requires_grad_(False) if count > 1 else None

    def forward(self, images: Tensor) -> Tensor:
        """What the network says about images, as many as there are."""
        if torch.compiler.is_exporting():
            return self.network(images)
        if self.dense is not None and len(images) < self.dense_below:
            return self.dense(images)
        if torch.compiler.is_compiling():
            return self.network(images)
        with called_directly(images):
            if self.chains or len(images) <= self.tile:
                return self.network(images)
            parts = [self.network(part) for part in images.split(self.tile)]
        return torch.cat(parts) if isinstance(parts[0], Tensor) else self.network(images)

    @property
    def tile(self) -> int:
        """How many images go through together."""
        return self._tile

    @tile.setter
    def tile(self, count: int) -> None:
        self._tile = count
        for chain in self.chains:
            chain.tile = count

    def train(self, mode: bool = True) -> SkippingNetwork:
        """Stay in eval mode: batch norms are folded in, there is nothing to train."""
        return super().train(False)


@torch.no_grad()
def skip_dead_kernels(
    model: nn.Module, example_input: Tensor, *, compacted: CompactReport | None = None, repeats: int = 20,
    batches: tuple[int, ...] = (1, 16, 128), compile_dense: bool = False,
) -> tuple[nn.Module, SkipReport]:  # fmt: skip
    """Return a network that is the same function and multiplies by living kernels only, and a report.

    A kernel is dead if all its weights are exactly zero (see `zero_below_`). Batch norms are folded into
    the convolutions, ReLUs and residual sums done in the same pass. Activations are ordinary tensors
    (batch, channels, height, width) whose memory has the batch innermost, so that other operators work on
    them too; runs of convolutions, pools and the linear layers behind them are chained, with nothing between
    them but memory that each thread keeps. Each layer is timed dense and living, for one image and for many,
    then the whole network for batches from 1 to 128: what does not pay stays dense, and the report says what
    and why. A network without a dead kernel is treated alike: the form alone may pay. Dense stays, too, what
    is not covered: other convolutions than Conv2d, padding modes, dtypes, devices, a network whose graph
    cannot be traced.

    Usually after `compact`, whose report `compacted` puts channels and kernels into one table. Times are
    medians of at most `repeats` runs for each number of images in `batches` (`repeats=0`: none), the dense
    network's in its fastest form; `compile_dense` tries `torch.compile` as well, which wants a C++ compiler
    and up to a minute for each number of images. `model` is never changed.

    Zero times infinity: where an image holds infinity or NaN, a dense layer gives NaN for a dead kernel too,
    a layer of living kernels what those say. So it depends on what was chosen. Linear layers and what the
    report says is kept dense give NaN as the model does: a layer (for the number of images that it is named
    for), the whole network for batches of fewer than `dense_below` images, or for all.

    Which keys `state_dict()` has depends on the layers that were kept dense, and those on a clock: it fits
    the very same choices only. To store the network, store `model` with `save_living` and come back by
    `load_living` and this function, which chooses anew, on that machine; or `torch.save` the result as a
    whole, choices included (`torch.load(path, weights_only=False)` then runs the code that is in the file).

    The result is compared with the model, on the example and on random images, whole and in parts: where
    the numbers differ by more than rounding, the network stays dense, and the report says so.

    Raises `ValueError` for an example that the model does not take and for weights that are not finite,
    `TypeError` for what is no model or no image.

    >>> net = nn.Sequential(nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 3))
    >>> _ = net[0].weight.data[:, :6].zero_()
    >>> small, report = skip_dead_kernels(net, torch.ones(1, 8, 8, 8), repeats=0)
    >>> report.dead_kernels, report.kernels, report.change["example"].relative < 1e-5
    (48, 80, True)
    """
    check_input(model, example_input)
    repeats = check_count("repeats", repeats, 0)
    batches = [check_count("a number of images in batches", count) for count in batches]
    if not batches:
        raise ValueError("batches is empty: give at least one number of images, say (1,)")
    images = {"example": example_input.detach(), "random": random_like(example_input)}
    dense = copy.deepcopy(model).eval()
    _check_runs(dense, images["example"])
    graph, problem = _traced(dense)
    problem = problem or _other_numbers(dense, graph, images.values(), "traced, it")
    if problem:
        small, layers, fused = dense, _all_dense(dense, problem), dense
    else:
        (small, layers, problem), fused = _skipping(dense, graph, images["example"]), graph
    return small, SkipReport(
        layers=tuple(layers),
        costs=network_costs(model, fused, small, images["example"], batches, repeats, compile_dense),
        change={what: compare(dense, small, batch) for what, batch in images.items()},
        compacted=compacted,
        tile=getattr(small, "tile", None),
        dense_below=getattr(small, "dense_below", 1),
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
        graph = fuse(dense)
        views_as_reshapes_(graph)
        return graph, ""
    except Exception as error:  # whatever a forward method does that cannot be followed
        return None, f"the graph cannot be traced: {first_line(error)}"


def _convolutions(model: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(n, m) for n, m in model.named_modules() if isinstance(m, nn.modules.conv._ConvNd)]


def _all_dense(model: nn.Module, reason: str) -> list[SkippedLayer]:
    return [SkippedLayer.of(name, layer, reason) for name, layer in _convolutions(model)]


def _other_numbers(dense: nn.Module, small: nn.Module, batches: Iterable[Tensor], what: str) -> str:
    """Why a network is not the function that the dense one is; "" if it is, on these images.

    A trace follows one way through a forward method, a batch norm behind a convolution that is called twice
    is folded in twice, and images that meet each other cannot go through in parts.
    """
    for images in batches:
        try:
            expected = tensors(dense(images))
        except Exception:  # the model's own: it takes no such number of images
            continue
        try:
            change = OutputChange.between(expected, tensors(small(images)))
        except Exception as error:  # whatever the graph does that the forward method did not
            return f"{what} does not run: {first_line(error)}"
        if not change.relative <= _SAME.get(images.dtype, 0.1):
            return f"{what} gives other numbers than its forward method, by {change.relative:.1e}"
    return ""


def _skipping(
    dense: nn.Module, graph: fx.GraphModule, example: Tensor
) -> tuple[nn.Module, list[SkippedLayer], str]:
    """Choose for every layer, put the chosen ones in, choose for the network; why it is dense, if it is."""
    work = copy.deepcopy(graph)
    layers, chosen = [], {}
    shapes, first = _image_shapes(work, example), _layers_on_images(work)
    for name, layer in _convolutions(work):
        reason = not_covered(layer) or _not_followed(shapes[name])
        if not reason:
            found, reason = choose_layer(layer, shapes[name][0], name in first)
            if found is not None:
                chosen[name] = found
        layers.append(SkippedLayer.of(name, layer, reason))
    if chosen:
        put_in_(work, chosen)
        _take_in_linear_layers_(work)
        chain_layers_(work)
        small = SkippingNetwork(work)
        counts = _SEVERAL, smallest_batch(next(iter(chosen.values())).bias.dtype)
        batches = [example, *(random_like(example.new_empty(n, *example.shape[1:])) for n in counts)]
        wrong = _other_numbers(dense, small, batches, "without its dead kernels it")
        if wrong:
            return dense_at_its_best(graph, example), _all_dense(graph, wrong), wrong
        small.tile = 2
        meet = not small.chains and _other_numbers(dense, small, batches, "in parts it")
        choice = choose_network(small, graph, example)
        if choice.dense_below is not None:
            small.tile = sys.maxsize if meet else choice.tile
            small.take_dense_below(choice.dense_below, choice.dense)
            return small, layers, ""
    why = "that is faster for every batch that was timed" if chosen else "no layer pays"
    return dense_at_its_best(graph, example), layers, why


def _take_in_linear_layers_(graph: fx.GraphModule) -> None:
    """Let the linear layers behind the convolutions be links of a chain, where that is faster."""
    drop_dropouts_(graph)
    for node in list(graph.graph.nodes):
        linear = linear_on_images(graph, node)
        if linear is not None and linear_pays(linear):
            put_in_linear_(graph, node)


def _layers_on_images(graph: fx.GraphModule) -> set[str]:
    """The convolutions before which there is no other: their images lie as they came."""
    convolutions, behind, first = dict(_convolutions(graph)), set(), set()
    for node in graph.graph.nodes:
        is_convolution = node.op == "call_module" and node.target in convolutions
        if not behind.isdisjoint(node.all_input_nodes):
            behind.add(node)
        elif is_convolution:
            behind.add(node)
            first.add(node.target)
    return first


def _image_shapes(graph: fx.GraphModule, example: Tensor) -> dict[str, list[torch.Size]]:
    """The shapes of the images that each layer is called with; the graph knows all shapes from then on."""
    ShapeProp(graph).propagate(example)
    shapes: dict[str, list[torch.Size]] = {name: [] for name, _ in graph.named_modules()}
    for node in graph.graph.nodes:
        if node.op == "call_module":
            seen = [node.all_input_nodes[0].meta.get("tensor_meta")]
            shapes[node.target] += [each.shape for each in seen if isinstance(each, TensorMetadata)]
    return shapes


def _not_followed(shapes: list[torch.Size]) -> str:
    """Why a layer stays dense for the way it is called; "" if it need not."""
    if len(shapes) != 1:
        return f"called {len(shapes)} times"
    return "" if len(shapes[0]) == 4 else f"images of shape {tuple(shapes[0])} are no batch"
