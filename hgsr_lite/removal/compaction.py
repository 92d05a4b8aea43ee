"""From zeros to a smaller network, with proof that it is the same function.

Zeros save nothing by themselves: a layer multiplies by them. `compact` takes out the channels that no
layer needs, carries on what they still contribute, and then compares the two networks.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from tqdm import tqdm

from hgsr_lite.arguments import check_count, check_flag
from hgsr_lite.coupling import channel_counts, couple, tensors
from hgsr_lite.groups import WITH_KERNELS, Layout
from hgsr_lite.layers import WeightLayer, check_model
from hgsr_lite.removal.carrying import KeptChannels, kept_channels
from hgsr_lite.removal.cost import Cost, latency, macs, parameters
from hgsr_lite.removal.proof import OutputChange, Proof, random_like, without_hooks
from hgsr_lite.removal.report import CompactReport, LayerChange
from hgsr_lite.removal.surgery import cut_, fold_, hold_back, removable
from hgsr_lite.removal.trials import Removals, Trials, long_work


def compact(
    model: nn.Module,
    example_input: Tensor,
    *,
    exact_only: bool = False,
    repeats: int = 20,
    progress: bool = True,
) -> tuple[nn.Module, CompactReport]:
    """Return a smaller copy of a model without its dead channels, and a report that proves it.

    A channel goes if each layer that reads it has only zeros there, or reads a value that no image can
    change; that value (the bias of a batch norm or a convolution, through whatever follows) is carried on
    in the next running mean or bias. Exact is a removal that leaves the function as it was, on images of
    every size. Where zero padding cuts such a constant off at the border, or its value hangs on the size of
    the image, the removal is approximate: the report counts it and measures the change; `exact_only=True`
    leaves it out. Only weights that are exactly zero count: see `zero_below_`.

    The exact removals are proved in float64, in eval mode: on the example, on random images of its shape and,
    where the model takes them, of twice its height; and on the branches that the model takes in training,
    with each layer computing as in eval mode. Channels whose removal fails there stay, and the report says
    why. Not covered: branches on other sizes or batch sizes. In training mode a batch norm computes
    otherwise, and so do the two networks. Hooks are not called; the smaller network has them too.

    `example_input` is a batch of images as the model takes them; the time is measured on it, as the
    median of `repeats` runs (0: not at all). A bar on stderr counts what is tried, once it takes more than
    some seconds, unless `progress` is False. `model` itself is never changed, not even by Ctrl-C. Raises
    `ValueError` for an example that the model does not take, for weights that are not finite and for a model
    that says something else each time.

    >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 3))
    >>> _ = net[3].weight.data[:, 0].zero_()     # nothing reads channel 0
    >>> _ = net[0].weight.data[1].zero_()        # channel 1 is the same in every image
    >>> small, report = compact(net, torch.ones(1, 1, 8, 8), repeats=0)
    >>> small[0].out_channels, report.exact, report.proof["twice as high"].relative < 1e-10
    (2, 2, True)
    """
    check_input(model, example_input)
    check_flag("exact_only", exact_only)
    check_flag("progress", progress)
    repeats = check_count("repeats", repeats, 0)
    work = _wide_copy(model)
    removals = Removals(model)
    with without_hooks(work), long_work("removals tried", progress) as bar:
        proof = Proof(work, example_input)
        _shrink_(work, proof, True, removals, bar)
        proved = proof.changes(work)
        if not exact_only:
            _shrink_(work, proof, False, removals, bar)
    small = _narrowed(work, model)
    before, after = copy.deepcopy(model).eval(), copy.deepcopy(small).eval()
    images = {"example": example_input.detach(), "random": random_like(example_input)}
    if any(removals.approximate.values()) and "twice as high" in proof.cases:
        # What a border cuts off is as much as there is border: another size shows another change.
        images["twice as high"] = proof.cases["twice as high"].images.to(example_input)
    with without_hooks(before), without_hooks(after):
        seconds = latency({"before": before, "after": after}, images["example"], repeats)
        return small, CompactReport(
            layers=tuple(_layer_changes(model, small, removals)),
            before=Cost(parameters(model), macs(before, images["example"]), seconds["before"]),
            after=Cost(parameters(small), macs(after, images["example"]), seconds["after"]),
            change={what: compare(before, after, batch) for what, batch in images.items()},
            proof=proved,
            kept_for_shape=tuple(sorted(removals.kept_for_shape)),
            fixed=removals.fixed,
            kept=_kept(model, removals.places),
            places=removals.places,
        )


def _shrink_(work: nn.Module, proof: Proof, exact_only: bool, removals: Removals, bar: tqdm) -> None:
    """Remove until nothing more can go: a removal can leave a layer with a zero row or no reader."""
    example = proof.cases["example"].images
    while True:
        coupling = couple(work, example)
        sets = removals.allowed(coupling)
        verdicts = [removable(channels, coupling, exact_only) for channels in sets]
        removed, exact = [can_go for can_go, _ in verdicts], [exact for _, exact in verdicts]
        removals.kept_for_shape = hold_back(sets, removed)
        removed = Trials(work, coupling, sets, removed, removals, proof, exact_only, bar).sound()
        if not any(bool(gone.any()) for gone in removed):
            removals.fixed = {
                channels.name: channels.fixed for channels in coupling.coupled if channels.fixed
            }
            removals.fixed.update(removals.unsound)
            return
        removals.note(sets, removed, exact)
        fold_(coupling, sets, removed)
        cut_(sets, removed, removals.places)


def check_input(model: nn.Module, example_input: Tensor) -> None:
    """Refuse what cannot be made smaller: no network with weights, no images, another device or dtype than
    the model's, weights that are not finite or are computed.
    """
    check_model(model)
    if not isinstance(example_input, Tensor) or not example_input.is_floating_point():
        what = getattr(example_input, "dtype", type(example_input).__name__)
        raise TypeError(f"example_input must be a batch of images, a floating-point tensor, not {what}")
    if example_input.ndim < 2 or example_input.numel() == 0:
        raise ValueError(
            f"example_input of shape {tuple(example_input.shape)} is no batch: give (batch, channels, ...)"
        )
    for name, tensor in itertools.chain(model.named_parameters(), model.named_buffers()):
        if tensor.device != example_input.device:
            raise ValueError(
                f"the model's {name} is on {tensor.device}, the example on {example_input.device}: "
                f"move one, say example_input.to({str(tensor.device)!r})"
            )
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ValueError(f"{name} holds NaN or infinite numbers: no removal can be proved with them")
    for name, module in model.named_modules():
        if isinstance(module, WITH_KERNELS) and "weight" not in module._parameters:
            raise ValueError(
                f"the weight of layer {name!r} is computed, not stored: make it plain first, with "
                "torch.nn.utils.prune.remove or torch.nn.utils.parametrize.remove_parametrizations"
            )
    if not any(isinstance(module, WITH_KERNELS) for module in model.modules()):
        raise ValueError(f"{type(model).__name__} has no convolution and no linear layer: nothing can go")
    _check_takes(model, example_input)


def _check_takes(model: nn.Module, example_input: Tensor) -> None:
    """Refuse numbers of another kind than the weights', unless the model itself converts them."""
    kinds = {parameter.dtype for parameter in model.parameters()}
    if example_input.dtype in kinds:
        return
    try:
        with torch.no_grad(), without_hooks(trial := copy.deepcopy(model).eval()):
            trial(example_input)
    except RuntimeError as error:
        raise ValueError(
            f"the model does not take example_input of dtype {example_input.dtype}; its weights are "
            f"{', '.join(sorted(map(str, kinds)))}: convert one, say with example_input.to(...)"
        ) from error


def _wide_copy(model: nn.Module) -> nn.Module:
    """A copy in float64 and eval mode."""
    wide = copy.deepcopy(model).double().eval()
    wide.zero_grad(set_to_none=True)
    return wide


def _narrowed(work: nn.Module, model: nn.Module) -> nn.Module:
    """Give the cut copy the original's dtypes, memory formats, training flags and frozen parameters again."""
    named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    originals = dict(named)
    training = {name: module.training for name, module in model.named_modules()}
    for name, module in work.named_modules():
        module.training = training[name]
        prefix = f"{name}." if name else ""
        for key, tensor in itertools.chain(module._parameters.items(), module._buffers.items()):
            if tensor is not None:
                like = originals.get(prefix + key, originals.get(f"{prefix}weight"))
                tensor.data = tensor.data.to(like.dtype, memory_format=_memory_format(like, tensor.ndim))
                if key in module._parameters:
                    tensor.requires_grad_(like.requires_grad)
    return work


def _memory_format(like: Tensor, ndim: int) -> torch.memory_format:
    last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(ndim)
    if last is None or like.ndim != ndim or like.is_contiguous():
        return torch.contiguous_format
    return last if like.is_contiguous(memory_format=last) else torch.contiguous_format


@torch.no_grad()
def compare(original: nn.Module, smaller: nn.Module, images: Tensor) -> OutputChange:
    """How far the outputs of two models are apart."""
    return OutputChange.between(tensors(original(images)), tensors(smaller(images)))


def _kept(model: nn.Module, places: Mapping[str, Tensor]) -> dict[str, KeptChannels]:
    return {
        name: kept_channels(WeightLayer(name, module, Layout.of(module)), places[f"{name}.weight"])
        for name, module in model.named_modules()
        if isinstance(module, WITH_KERNELS)
    }


def _layer_changes(model: nn.Module, small: nn.Module, removals: Removals) -> Iterator[LayerChange]:
    for name, module in model.named_modules():
        if isinstance(module, WITH_KERNELS):
            after = small.get_submodule(name)
            yield LayerChange(
                name=name,
                inputs_before=channel_counts(module, "in")[0],
                inputs_after=channel_counts(after, "in")[0],
                outputs_before=channel_counts(module, "out")[0],
                outputs_after=channel_counts(after, "out")[0],
                exact=removals.exact[name],
                approximate=removals.approximate[name],
            )
