"""The layers of a network without its dead kernels, and the graph that they are put into."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from hgsr_lite.fast import (
    Convolution,
    Linear,
    LivingKernels,
    MaxPool,
    MeanPool,
    Window,
    batch_innermost,
    living_convolution,
)


class LivingConvolution(nn.Module):
    """A convolution that stores and multiplies living kernels only, with what follows it in the same pass.

    Called with images `(batch, channels, height, width)`, and with the other summand of a residual sum if
    there is one. `low` and `high` bound what comes out: (0, inf) is a ReLU, (0, 6) a ReLU6. `dense_alone`
    and `dense_many` say where the whole weight, kept beside the living kernels, is faster.
    """

    def __init__(self, convolution: nn.Conv2d, dense_alone: bool = False, dense_many: bool = False) -> None:
        super().__init__()
        weight, groups = convolution.weight.detach(), convolution.groups
        living = LivingKernels.of(weight, groups)
        bias = (
            weight.new_zeros(len(weight)) if convolution.bias is None else convolution.bias.detach().clone()
        )
        for name, tensor in {**living._asdict(), "bias": bias}.items():
            self.register_buffer(name, tensor)
        self.register_buffer("dense", weight.clone() if dense_alone or dense_many else None)
        self.window = (*convolution.stride, *_padding(convolution), *convolution.dilation)
        self.shape, self.groups = tuple(weight.shape), groups
        self.dense_alone, self.dense_many = dense_alone, dense_many
        self.low, self.high = -math.inf, math.inf

    def forward(self, images: Tensor, residual: Tensor | None = None) -> Tensor:
        """The layer's outputs, batch innermost. Raises `RuntimeError` where a gradient would be lost."""
        if torch.is_grad_enabled() and (
            images.requires_grad or (residual is not None and residual.requires_grad)
        ):
            raise RuntimeError(
                "a network without its dead kernels has no gradient: ask the dense network for it, "
                "or call this one under torch.no_grad()"
            )
        held = self._buffers  # an attribute of a module takes a microsecond to find
        return living_convolution(
            images, residual, held["weight"], held["inputs"], held["starts"], held["bias"], held["dense"],
            self.window,
            self.shape[1] * self.groups, self.groups, self.low, self.high, self.dense_alone, self.dense_many,
        )  # fmt: skip

    def description(self) -> Convolution | None:
        """The layer as a link of a chain; None if more than one image goes through the whole weight."""
        if self.dense_many:
            return None
        numbers = self.window
        window = Window(self.shape[2:], numbers[:2], numbers[2:6], numbers[6:8])
        living = LivingKernels(self.weight, self.inputs, self.starts)
        return Convolution(living, self.bias, window, self.shape[1] * self.groups, self.low, self.high)

    def extra_repr(self) -> str:
        """Living kernels of how many, and what the pass does besides."""
        outputs, inputs = self.shape[:2]
        bounds = (
            "" if (self.low, self.high) == (-math.inf, math.inf) else f", held in [{self.low}, {self.high}]"
        )
        return f"{len(self.weight)} of {outputs * inputs} kernels alive, {self.shape[2:]}{bounds}"


def _padding(convolution: nn.Conv2d) -> tuple[int, int, int, int]:
    """Top, bottom, left, right; an odd sum puts the larger part behind, as PyTorch does."""
    if convolution.padding == "valid":
        return (0, 0, 0, 0)
    if convolution.padding == "same":
        sums = [d * (k - 1) for d, k in zip(convolution.dilation, convolution.kernel_size, strict=True)]
        return (sums[0] // 2, sums[0] - sums[0] // 2, sums[1] // 2, sums[1] - sums[1] // 2)
    down, across = convolution.padding
    return (down, down, across, across)


def not_covered(layer: nn.Module, kind: type[nn.Module] = nn.Conv2d) -> str:
    """Why a convolution, or a layer of another kind, stays dense whatever it holds; "" if it need not."""
    if type(layer) is not kind:
        return f"{type(layer).__name__} is not covered, only {kind.__name__}"
    if getattr(layer, "padding_mode", "zeros") != "zeros":
        return f"padding_mode={layer.padding_mode!r} is not covered, only 'zeros'"
    if layer.weight.dtype not in (torch.float32, torch.float64):
        return f"{layer.weight.dtype} is not covered, only float32 and float64"
    return (
        ""
        if layer.weight.device.type == "cpu"
        else f"{layer.weight.device.type} is not covered, only the CPU"
    )


class LivingLinear(nn.Module):
    """A linear layer behind images that lie batch innermost: all of an image's numbers in, one pixel out.

    Called with images `(batch, channels, height, width)`, it gives `(batch, outputs, 1, 1)`, held between
    `low` and `high` as in `LivingConvolution`. It shares the weights of the layer that it is made of.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight, bias = linear.weight.detach(), linear.bias
        self.register_buffer("weight", weight.contiguous())
        zeros = weight.new_zeros(len(weight))
        # The keys of its state are the layer's own.
        self.register_buffer("bias", zeros if bias is None else bias.detach(), persistent=bias is not None)
        self.low, self.high = -math.inf, math.inf

    def forward(self, images: Tensor) -> Tensor:
        """The layer's outputs."""
        found = functional.linear(images.flatten(1), self.weight, self.bias)
        is_bound = (self.low, self.high) != (-math.inf, math.inf)
        return (found.clamp(self.low, self.high) if is_bound else found)[..., None, None]

    def description(self) -> Linear:
        """The layer as a link of a chain."""
        return Linear(self.weight, self.bias, self.low, self.high)


class LivingPool(nn.Module):
    """A pool over images that lie batch innermost: PyTorch's own, with batch and channels exchanged.

    No pool mixes channels or images, and exchanged these lie as PyTorch's channels_last wants it: for many
    images its loops are then several times as fast as on images in its ordinary layout.
    """

    def __init__(self, pool: nn.Module) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, images: Tensor) -> Tensor:
        """The pooled images, batch innermost."""
        if not images.shape[0]:  # no image at all: exchanged, that would be images without a channel
            return self.pool(images)
        return self.pool(batch_innermost(images).transpose(0, 1)).transpose(0, 1)

    def description(self) -> MaxPool | MeanPool | None:
        """The pool as a link of a chain; None if a chain has no such pool."""
        pool = self.pool
        if isinstance(pool, nn.MaxPool2d) and _pair(pool.dilation) == (1, 1):
            return MaxPool(*map(_pair, (pool.kernel_size, pool.stride, pool.padding)), pool.ceil_mode)
        if isinstance(pool, nn.AdaptiveAvgPool2d) and None not in _pair(pool.output_size):
            return MeanPool(_pair(pool.output_size))
        return None


def _pair(number: int | tuple[int | None, int | None]) -> tuple[int | None, int | None]:
    return (number, number) if isinstance(number, int) else tuple(number)


def mean_pool(input: Tensor, output_size: int | tuple[int | None, int | None]) -> Tensor:
    """`adaptive_avg_pool2d` of images that lie batch innermost; see `LivingPool`."""
    exchanged = batch_innermost(input).transpose(0, 1)
    return functional.adaptive_avg_pool2d(exchanged, output_size).transpose(0, 1)


_POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveMaxPool2d, nn.AdaptiveAvgPool2d)


class ScaleShift(nn.Module):
    """A batch norm in eval mode that no convolution could take in: `scale * images + shift`."""

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        ones = torch.ones_like(norm.running_var)
        scale = (norm.weight if norm.affine else ones).detach() / torch.sqrt(norm.running_var + norm.eps)
        shift = (norm.bias.detach() if norm.affine else 0 * ones) - scale * norm.running_mean
        self.register_buffer("scale", scale.view(-1, 1, 1))
        self.register_buffer("shift", shift.view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """The normalised images, in the memory format they came in."""
        return torch.addcmul(self.shift, images, self.scale)


def join_channels(tensors: list[Tensor], dim: int = 0, *, axis: int | None = None) -> Tensor:
    """`torch.cat`, with its arguments; images that are joined along their channels lie batch innermost."""
    dim = dim if axis is None else axis
    if dim not in (1, -3) or any(each.ndim != 4 for each in tensors):
        return torch.cat(tensors, dim)
    return torch.cat([batch_innermost(each).permute(1, 2, 3, 0) for each in tensors]).permute(3, 0, 1, 2)


def views_as_reshapes_(graph: fx.GraphModule) -> None:
    """Views, which ask for PyTorch's own memory layout, as reshapes, which copy where they must."""
    names = {"view": "reshape", "view_as": "reshape_as"}
    for node in graph.graph.nodes:
        of_dtype = any(isinstance(each, torch.dtype) for each in (*node.args, *node.kwargs.values()))
        if node.op == "call_method" and node.target in names and not of_dtype:
            node.target = names[node.target]
    graph.recompile()


def put_in_(graph: fx.GraphModule, layers: dict[str, LivingConvolution]) -> None:
    """Put living convolutions, by name, into a graph, and let pools, norms and joins keep their layout."""
    for node in list(graph.graph.nodes):
        if node.op == "call_module" and node.target in layers:
            graph.set_submodule(node.target, layers[node.target])
            _take_in_sum_(graph, node)
    for node in list(graph.graph.nodes):
        if node.op == "call_module" and node.target in layers:
            _take_in_bounds_(graph, node)
        elif node.op == "call_module":
            _keep_layout_(graph, node)
        elif node.op == "call_function" and node.target in (torch.cat, torch.concat, torch.concatenate):
            node.target = join_channels
        elif node.op == "call_function" and node.target is functional.adaptive_avg_pool2d:
            node.target = mean_pool
    graph.graph.lint()
    graph.recompile()
    graph.delete_all_unused_submodules()


def as_rows(images: Tensor) -> Tensor:
    """Images as rows of numbers in PyTorch's own layout."""
    return images.flatten(1).contiguous()


def drop_dropouts_(graph: fx.GraphModule) -> None:
    """Take out the dropouts: they do nothing in a network that is not trained."""
    for node in list(graph.graph.nodes):
        if node.op == "call_module" and type(graph.get_submodule(node.target)) is nn.Dropout:
            node.replace_all_uses_with(node.args[0])
            graph.graph.erase_node(node)
    graph.recompile()


def linear_on_images(graph: fx.GraphModule, node: fx.Node) -> nn.Linear | None:
    """The linear layer that a node calls, if it is called once, on nothing but a living layer's outputs."""
    if node.op != "call_module" or len(node.args) != 1 or _flattened(graph, node.args[0]) is None:
        return None
    linear = graph.get_submodule(node.target)
    calls = sum(other.op == "call_module" and other.target == node.target for other in graph.graph.nodes)
    return linear if type(linear) is nn.Linear and calls == 1 and not not_covered(linear, nn.Linear) else None


def put_in_linear_(graph: fx.GraphModule, node: fx.Node) -> None:
    """Let the layer that `linear_on_images` found read the images themselves, with the bounds behind it."""
    rows = node.args[0]
    graph.set_submodule(node.target, LivingLinear(graph.get_submodule(node.target)))
    node.args = (_flattened(graph, rows),)
    if not rows.users:
        graph.graph.erase_node(rows)
    _take_in_bounds_(graph, node)
    with graph.graph.inserting_after(node):
        rows = graph.graph.call_function(as_rows, (node,))
    node.replace_all_uses_with(rows, delete_user_cb=lambda user: user is not rows)
    graph.graph.lint()
    graph.recompile()


def _flattened(graph: fx.GraphModule, node: object) -> fx.Node | None:
    """The node of a living layer whose images a node makes rows of; None if it does not."""
    if not isinstance(node, fx.Node) or node.kwargs or not node.args:
        return None
    module = graph.get_submodule(node.target) if node.op == "call_module" else None
    ways = {("flatten", 1), (torch.flatten, 1), (as_rows,)}
    is_flat = (module is None and (node.target, *node.args[1:]) in ways) or (
        isinstance(module, nn.Flatten) and (module.start_dim, module.end_dim) == (1, -1)
    )
    images = node.args[0]
    if not is_flat or not isinstance(images, fx.Node) or images.op != "call_module":
        return None
    living = (LivingConvolution, LivingPool, LivingLinear)
    return images if isinstance(graph.get_submodule(images.target), living) else None


def _keep_layout_(graph: fx.GraphModule, node: fx.Node) -> None:
    module = graph.get_submodule(node.target)
    if type(module) in _POOLS and not getattr(module, "return_indices", False):
        graph.set_submodule(node.target, LivingPool(module))
    elif type(module) is nn.BatchNorm2d and module.running_mean is not None:
        graph.set_submodule(node.target, ScaleShift(module))


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _take_in_sum_(graph: fx.GraphModule, node: fx.Node) -> None:
    """A residual sum behind a convolution becomes the convolution's second argument."""
    total = _only_user(node)
    sums = (operator.add, operator.iadd, torch.add)
    if total is None or total.op != "call_function" or total.target not in sums or total.kwargs:
        return
    if len(total.args) != 2 or not all(isinstance(each, fx.Node) for each in total.args):
        return
    (other,) = [each for each in total.args if each is not node] or [node]
    if other is node or other.meta["tensor_meta"].shape != node.meta["tensor_meta"].shape:
        return
    with graph.graph.inserting_before(total):
        joined = graph.graph.call_module(node.target, (node.args[0], other))
    joined.meta = dict(node.meta)
    total.replace_all_uses_with(joined)
    graph.graph.erase_node(total)
    graph.graph.erase_node(node)


def _take_in_bounds_(graph: fx.GraphModule, node: fx.Node) -> None:
    """A ReLU or a clamp behind a convolution becomes the bounds of what it writes."""
    behind = _only_user(node)
    bounds = None if behind is None else _bounds(graph, behind)
    if bounds is not None:
        layer = graph.get_submodule(node.target)
        layer.low, layer.high = bounds
        behind.replace_all_uses_with(node)
        graph.graph.erase_node(behind)


def _bounds(graph: fx.GraphModule, node: fx.Node) -> tuple[float, float] | None:
    functions: dict[Callable | str, tuple[float, float]] = {
        functional.relu: (0.0, math.inf), torch.relu: (0.0, math.inf), torch.relu_: (0.0, math.inf),
        functional.relu6: (0.0, 6.0), "relu": (0.0, math.inf), "relu_": (0.0, math.inf),
    }  # fmt: skip
    if node.op == "call_module":
        module = graph.get_submodule(node.target)
        if isinstance(module, nn.Hardtanh):  # ReLU6 is one
            return float(module.min_val), float(module.max_val)
        return (0.0, math.inf) if type(module) is nn.ReLU else None
    return functions.get(node.target)
