"""Which slices of which layers share one channel, so that they can only go together.

A channel of a network is more than a row of one weight: the batch norm behind it, the columns of every
layer that reads it, and in a residual sum or a depthwise convolution the rows of other layers as well.
`torch-pruning` follows the graph; here its groups become families of channels with a plain index each.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch_pruning.dependency import DependencyGraph
from torch_pruning.ops import OPTYPE

from hgsr_lite.groups import Layout

MAKERS = (OPTYPE.CONV, OPTYPE.LINEAR)
_FOLLOWED = {*MAKERS, OPTYPE.BN, OPTYPE.DEPTHWISE_CONV, OPTYPE.PRELU, OPTYPE.CONCAT, OPTYPE.RESHAPE}
_CHANNELWISE = re.compile(
    r"(Relu|LeakyRelu|Hardtanh|Clamp\w*|Sigmoid|Hardsigmoid|Silu|Hardswish|Tanh|Gelu|Elu|Mish|Softplus"
    r"|Add|Sub|Mul|Div|Neg|Pow|Sqrt|Mean|Clone|Squeeze|Unsqueeze|Alias|Upsample\w+"
    r"|(Adaptive)?(Max|Avg)Pool[123]D(WithIndices)?|(Reflection|Replication)Pad[123]D)Backward\d*"
)
"""Operations (autograd's names for them) that treat every channel by itself.

Any other one keeps its channels where they are. That is the safe side; the proof in `compact` is the other.
"""


@dataclass(frozen=True)
class Slice:
    """The part of one layer that a family owns: position `index[i]` belongs to channel `channel[i]`.

    `side` is "out" for the rows of a weight, "in" for its columns, "both" for a batch norm or a depthwise
    convolution, where one position is both.
    """

    name: str
    module: nn.Module
    side: str
    index: Tensor
    channel: Tensor

    def positions(self, removed: Tensor) -> Tensor:
        """The positions of this layer that go when the channels marked in `removed` go."""
        return self.index[removed[self.channel]]

    @property
    def reads(self) -> bool:
        """Whether these are the columns of a convolution or linear layer."""
        return self.side == "in"


@dataclass(frozen=True)
class Family:
    """All channels that start in the same layer. `fixed` says why none of them can go; "" if they can."""

    name: str
    size: int
    slices: tuple[Slice, ...]
    fixed: str

    @property
    def readers(self) -> list[Slice]:
        """The columns that read these channels."""
        return [part for part in self.slices if part.reads]


@dataclass(frozen=True)
class Coupling:
    """The families of a model, and the batch norm right behind a layer wherever there is one."""

    families: tuple[Family, ...]
    norm_behind: dict[nn.Module, nn.Module]

    @property
    def free(self) -> list[Family]:
        """The families whose channels can go."""
        return [family for family in self.families if not family.fixed]


def channel_counts(module: nn.Module, side: str) -> tuple[int, int]:
    """How many channels a layer has on that side, and into how many convolution groups they fall.

    >>> channel_counts(nn.Conv2d(8, 4, 3, groups=2), "in")
    (8, 2)
    """
    if side == "both":
        return getattr(module, "num_features", None) or getattr(module, "in_channels", 0), 1
    kind = "channels" if hasattr(module, "in_channels") else "features"
    return getattr(module, f"{side}_{kind}"), Layout.of(module).conv_groups


def couple(model: nn.Module, example_input: Tensor) -> Coupling:
    """Follow the model's graph on an example and return its families of channels.

    Every parameter must require gradients and lie in a layer of its own; `compact` sees to the first on
    its copy. Raises `ValueError` if the graph cannot be followed.

    >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3))
    >>> [(part.name, part.side) for part in couple(net, torch.ones(1, 1, 8, 8)).free[0].slices]
    [('0', 'out'), ('2', 'in')]
    """
    graph, entry, exits = _trace(model, example_input)
    families = tuple(_families(graph, entry, exits, _layers_that_share(model)))
    behind = {
        module: node.outputs[0].module
        for module, node in graph.module2node.items()
        if _only_before_a_norm(node) and module not in exits
    }
    return Coupling(families, behind)


def _only_before_a_norm(node) -> bool:
    return len(node.outputs) == 1 and node.outputs[0].type == OPTYPE.BN and len(node.outputs[0].inputs) == 1


def _trace(model: nn.Module, example_input: Tensor) -> tuple[DependencyGraph, object, set[nn.Module]]:
    """The graph, the operation in which the input enters it, and the layers that make the model's output."""
    entered, makers = [], {}

    def forward(model: nn.Module, images: Tensor):
        images = images.detach().requires_grad_() * 1
        entered.append(images.grad_fn)
        out = model(images)
        entered.append([tensor.grad_fn for tensor in tensors(out) if tensor.requires_grad])
        if not entered[-1]:
            raise RuntimeError("no gradient comes from its output")
        return out

    def note(module: nn.Module, _args, out) -> None:
        if isinstance(out, Tensor):
            makers[module] = out.grad_fn

    hooks = [module.register_forward_hook(note) for module in model.modules()]
    try:
        with torch.enable_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            graph = DependencyGraph().build_dependency(
                model, example_input, forward_fn=forward, verbose=False
            )
    except Exception as error:
        raise ValueError(
            f"the graph of {type(model).__name__} cannot be followed ({type(error).__name__}: "
            f"{first_line(error)}): its forward must stay within PyTorch's differentiable operations"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    entry, outputs = entered
    return graph, entry, {module for module, made in makers.items() if made in outputs}


def first_line(error: Exception) -> str:
    """The first line of an error's message, without its full stop."""
    return (str(error).strip().splitlines() or [""])[0].rstrip(".")


def tensors(output: object) -> list[Tensor]:
    """Every tensor in a model's output, be it one tensor, a tuple, a list or a dictionary.

    >>> len(tensors({"logits": torch.ones(1), "features": (torch.ones(1), None)}))
    2
    """
    if isinstance(output, Tensor):
        return [output]
    parts = output.values() if isinstance(output, dict) else output
    return [t for part in parts for t in tensors(part)] if isinstance(output, dict | list | tuple) else []


def _layers_that_share(model: nn.Module) -> set[nn.Module]:
    """Layers with a parameter that another layer holds too: cutting one would cut the other."""
    owners: dict[int, set[nn.Module]] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            owners.setdefault(id(parameter), set()).add(module)
    return {module for together in owners.values() if len(together) > 1 for module in together}


def _families(
    graph: DependencyGraph, entry: object, exits: set[nn.Module], shared: set[nn.Module]
) -> Iterator[Family]:
    covered: dict[nn.Module, Tensor] = {}
    for module, node in list(graph.module2node.items()):
        if node.type not in MAKERS:
            continue
        count = channel_counts(module, "out")[0]
        left = torch.ones(count, dtype=torch.bool)
        left[covered.get(module, torch.empty(0, dtype=torch.long))] = False
        if not left.any():
            continue
        pruner = graph.get_pruner_of_module(module)
        roots = left.nonzero().flatten()
        group = graph.get_pruning_group(module, pruner.prune_out_channels, roots.tolist())
        slices = tuple(_slices(graph, group, roots))
        for part in slices:
            if part.side == "out":
                before = covered.get(part.module, torch.empty(0, dtype=torch.long))
                covered[part.module] = torch.cat([before, part.index])
        fixed = _why_followed_no_further(group, entry) or _why_pinned(slices, exits, shared)
        yield Family(graph._module2name[module], len(roots), slices, fixed)


def _slices(graph: DependencyGraph, group, roots: Tensor) -> Iterator[Slice]:
    number = torch.full((int(roots.max()) + 1,), -1)
    number[roots] = torch.arange(len(roots))
    for item in group:
        node = item.dep.target
        if node.type not in _FOLLOWED or node.type in (OPTYPE.CONCAT, OPTYPE.RESHAPE):
            continue
        if node.type == OPTYPE.PRELU and node.module.num_parameters == 1:
            continue
        side = "both"
        if node.type in MAKERS:
            side = "out" if graph.is_out_channel_pruning_fn(item.dep.handler) else "in"
        index, channel = torch.tensor(item.idxs), number[torch.tensor(item.root_idxs)]
        yield Slice(graph._module2name[node.module], node.module, side, index, channel)


def _why_followed_no_further(group, entry: object) -> str:
    for item in group:
        node = item.dep.target
        operation = getattr(node.grad_fn, "name", lambda: "an unknown operation")()
        if node.grad_fn is entry:
            return "joined with the model's input"
        if node.type == OPTYPE.OUTPUT:
            return "an output of the model"
        if node.type == OPTYPE.ELEMENTWISE:
            weight_of_linear = operation.startswith("TBackward") and not node.inputs
            if not weight_of_linear and not _CHANNELWISE.fullmatch(operation):
                return f"{operation} may mix channels"
        elif node.type not in _FOLLOWED:
            return f"{type(node.module).__name__} may mix channels"
        elif node.type == OPTYPE.CONCAT and node.module.offsets is None:
            return "a concatenation whose parts cannot be told apart"
        elif node.type == OPTYPE.DEPTHWISE_CONV and node.module.in_channels != node.module.out_channels:
            return "a grouped convolution joins channels"
        elif node.type == OPTYPE.CONV and node.module.transposed and node.module.groups > 1:
            return "a grouped transposed convolution is not followed"
    return ""


def _why_pinned(slices: tuple[Slice, ...], exits: set[nn.Module], shared: set[nn.Module]) -> str:
    for part in slices:
        if part.module in exits and not part.reads:
            return f"{part.name} makes an output of the model"
        if part.module in shared:
            return f"{part.name} shares its weight with another layer"
        if int(part.index.max()) >= channel_counts(part.module, part.side)[0]:
            return f"{part.name} is broadcast over channels"
    return "" if any(part.reads for part in slices) else "no layer reads it"
