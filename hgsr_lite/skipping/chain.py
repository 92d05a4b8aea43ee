"""Runs of layers in a graph, which images go through without PyTorch between them."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn

from hgsr_lite.fast import Link, calls_directly, prepare_chain, smallest_batch
from hgsr_lite.skipping.layers import LivingConvolution, LivingLinear, LivingPool

_SHAPES = 64  # for how many shapes of images a chain stays prepared


class Step(NamedTuple):
    """A layer, and which values it is called with: 0 is what comes in, number n what the nth layer gives."""

    layer: LivingConvolution | LivingLinear | LivingPool
    source: int
    residual: int | None = None


class LivingChain(nn.Module):
    """Layers one after the other, whose images go through all of them `tile` at a time.

    The layers stay in the network under their own names; this one only holds on to them. Where something
    watches each of them (a trace, an export, a counter, a hook), and for fewer images than a vector holds
    numbers, they are called one by one.
    """

    def __init__(self, steps: Iterable[Step]) -> None:
        super().__init__()
        self.steps = tuple(steps)
        self.tile = sys.maxsize
        self._prepared: dict[tuple, Any] = {}
        self._made_of: list[Tensor | None] = []

    def forward(self, images: Tensor) -> Tensor:
        """What the last layer gives."""
        if torch.compiler.is_compiling() or not self._may_run(images):
            return self._one_by_one(images)
        self._forget_what_changed()
        return self._run(images)

    def _may_run(self, images: Tensor) -> bool:
        """Whether nobody could tell, but for the time that it takes."""
        return (
            calls_directly()
            and images.ndim == 4
            and images.device.type == "cpu"
            and images.dtype in (torch.float32, torch.float64)
            and images.shape[0] >= smallest_batch(images.dtype)
            and not (torch.is_grad_enabled() and images.requires_grad)
            and not any(step.layer._forward_hooks or step.layer._forward_pre_hooks for step in self.steps)
        )

    def _one_by_one(self, images: Tensor) -> Tensor:
        values = [images]
        for layer, source, residual in self.steps:
            others = () if residual is None else (values[residual],)
            values.append(layer(values[source], *others))
        return values[-1]

    def _forget_what_changed(self) -> None:
        """What is prepared holds addresses: a network that was moved has its tensors elsewhere."""
        held = [tensor for step in self.steps for tensor in step.layer._buffers.values()]
        if len(held) != len(self._made_of) or any(map(_is_not, held, self._made_of)):
            self._prepared, self._made_of = {}, held

    def _run(self, images: Tensor) -> Tensor:
        key = images.shape, images.dtype, torch.get_num_threads(), self.tile
        chain = self._prepared.get(key)
        if chain is None:
            links = [Link(layer.description(), *others) for layer, *others in self.steps]
            chain = prepare_chain(links, images.shape, images.dtype, self.tile)
            if len(self._prepared) >= _SHAPES:
                self._prepared = {}
            self._prepared[key] = chain
        return chain.run(images)

    def __getstate__(self) -> dict[str, Any]:
        """A copy prepares itself: its tensors have other addresses."""
        return {**self.__dict__, "_prepared": {}, "_made_of": []}

    def extra_repr(self) -> str:
        """How many layers, and of how many images."""
        return f"{len(self.steps)} layers, {self.tile} images at a time"


def _is_not(one: object, other: object) -> bool:
    return one is not other


def chain_layers_(graph: fx.GraphModule) -> list[LivingChain]:
    """Put each run of layers that one value enters and one leaves into a chain, and return the chains."""
    chains = []
    for run in _runs(graph):
        entry = run[0].args[0]
        numbers = {node: number for number, node in enumerate([entry, *run])}
        steps = [
            Step(graph.get_submodule(node.target), *(numbers[each] for each in node.args)) for node in run
        ]
        chains.append(LivingChain(steps))
        name = f"chain_{len(chains)}"
        graph.add_submodule(name, chains[-1])
        with graph.graph.inserting_after(run[-1]):
            node = graph.graph.call_module(name, (entry,))
        run[-1].replace_all_uses_with(node)
        for each in reversed(run):
            graph.graph.erase_node(each)
    graph.graph.lint()
    graph.recompile()
    return chains


def _runs(graph: fx.GraphModule) -> list[list[fx.Node]]:
    """The runs of two nodes and more: neighbours that read one value from elsewhere, and give one there."""
    runs = []
    for are_links, neighbours in itertools.groupby(graph.graph.nodes, partial(_is_link, graph)):
        left = list(neighbours) if are_links else []
        while left:
            run = _with_one_end(_with_one_entry(left))
            left = left[len(run) :]
            runs.append(run)
    return [run for run in runs if len(run) > 1]


def _with_one_entry(nodes: list[fx.Node]) -> list[fx.Node]:
    """As many of some neighbours as read but one value that is not theirs."""
    known = {nodes[0].args[0]}
    for number, node in enumerate(nodes):
        if not known.issuperset(node.args):
            return nodes[: max(1, number)]
        known.add(node)
    return nodes


def _with_one_end(nodes: list[fx.Node]) -> list[fx.Node]:
    """As many of some neighbours as have the last alone read elsewhere."""
    while any(not set(node.users).issubset(nodes) for node in nodes[:-1]):
        nodes = nodes[:-1]
    return nodes


def _is_link(graph: fx.GraphModule, node: fx.Node) -> bool:
    if node.op != "call_module" or node.kwargs or not all(isinstance(each, fx.Node) for each in node.args):
        return False
    layer = graph.get_submodule(node.target)
    kinds = (LivingConvolution, LivingLinear, LivingPool)
    return isinstance(layer, kinds) and layer.description() is not None
