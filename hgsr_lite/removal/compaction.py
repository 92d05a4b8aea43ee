"""From zeros to a smaller network, with proof that it is the same function.

Zeros save nothing by themselves: a layer multiplies by them. `compact` takes out the channels that no
layer needs, carries on what they still contribute, and then compares the two networks.
"""

from __future__ import annotations

import copy
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from hgsr_lite.removal.cost import Cost, latency, macs, parameters
from hgsr_lite.removal.coupling import Coupling, channel_counts, couple, first_line, tensors
from hgsr_lite.removal.report import CompactReport, LayerChange, OutputChange
from hgsr_lite.removal.surgery import CONVOLUTIONS, NORMS, carried_values, cut_, fold_, hold_back, removable

PROOF_LIMIT = 1e-10
"""Largest change of output, relative to the largest output, that an exact removal may show in float64."""


def compact(
    model: nn.Module, example_input: Tensor, *, exact_only: bool = False, repeats: int = 20
) -> tuple[nn.Module, CompactReport]:
    """Return a smaller copy of a model without its dead channels, and a report that proves it.

    A channel goes if each layer that reads it has only zeros there, or reads a value that no image can
    change; that value (the bias of a batch norm or a convolution, through whatever follows) is carried on
    in the next running mean or bias. Where zero padding cuts such a constant off at the border, the
    removal is approximate: the report counts it and measures the change; `exact_only=True` leaves it out.
    Only weights that are exactly zero count: see `zero_below_`.

    `example_input` is a batch of images as the model takes them; the time is measured on it, as the
    median of `repeats` runs (0: not at all). `model` itself is never changed. Raises `ValueError` for an
    example that the model does not take, for weights that are not finite, for a graph that cannot be
    followed, and if the exact removals move an output by more than `PROOF_LIMIT` in float64.

    >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 3))
    >>> _ = net[3].weight.data[:, 0].zero_()     # nothing reads channel 0
    >>> _ = net[0].weight.data[1].zero_()        # channel 1 is the same in every image
    >>> small, report = compact(net, torch.ones(1, 1, 8, 8), repeats=0)
    >>> small[0].out_channels, report.exact, report.proof["random"].relative < 1e-10
    (2, 2, True)
    """
    check_input(model, example_input)
    images = {"example": example_input.detach(), "random": _random_like(example_input)}
    reference, work = _wide_copy(model), _wide_copy(model)
    _check_runs(reference, images["example"].double())
    removals = _Removals()
    _shrink_(work, images["example"].double(), True, removals)
    proof = {what: _compare(reference, work, batch.double()) for what, batch in images.items()}
    _check_proof(model, proof)
    if not exact_only:
        _shrink_(work, images["example"].double(), False, removals)
    small = _narrowed(work, model)
    before, after = copy.deepcopy(model).eval(), copy.deepcopy(small).eval()
    seconds = latency({"before": before, "after": after}, images["example"], repeats)
    return small, CompactReport(
        layers=tuple(_layer_changes(model, small, removals)),
        before=Cost(parameters(model), macs(before, images["example"]), seconds["before"]),
        after=Cost(parameters(small), macs(after, images["example"]), seconds["after"]),
        change={what: _compare(before, after, batch) for what, batch in images.items()},
        proof=proof,
        held=tuple(sorted(removals.held)),
        fixed=removals.fixed,
    )


@dataclass
class _Removals:
    """What has gone so far: outputs of each layer, exactly or not; layers held back; layers left alone."""

    exact: Counter = field(default_factory=Counter)
    approximate: Counter = field(default_factory=Counter)
    held: set[str] = field(default_factory=set)
    fixed: dict[str, str] = field(default_factory=dict)


def _shrink_(work: nn.Module, example: Tensor, exact_only: bool, removals: _Removals) -> None:
    """Remove until nothing more can go: a removal can leave a layer with a zero row or no reader."""
    gone = True
    while gone:
        coupling = couple(work, example[:1])
        carried = carried_values(work, example)
        verdicts = [removable(family, carried, exact_only) for family in coupling.free]
        removed = [can_go for can_go, _ in verdicts]
        removals.held = hold_back(coupling.free, removed)
        _note(coupling, removed, [exact for _, exact in verdicts], removals)
        gone = any(bool(channels.any()) for channels in removed)
        if gone:
            fold_(coupling, removed, carried)
            cut_(coupling, removed)


def _note(coupling: Coupling, removed: list[Tensor], exact: list[Tensor], removals: _Removals) -> None:
    removals.fixed = {family.name: family.fixed for family in coupling.families if family.fixed}
    for family, gone, is_exact in zip(coupling.free, removed, exact, strict=True):
        for part in family.slices:
            if not part.reads:
                removals.exact[part.name] += len(part.positions(gone & is_exact))
                removals.approximate[part.name] += len(part.positions(gone & ~is_exact))


def load_compact(model: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """Return a copy of a model cut to the shapes of a state dict, and loaded with it.

    So a compact network is saved as its state dict alone and needs no pickled code to come back: build
    the full network, read the file with `torch.load(path, weights_only=True)`, give both here. Raises
    `ValueError` if a tensor is missing, unknown or of a shape that no cut can give.

    >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3))
    >>> _ = net[2].weight.data[:, 0].zero_()
    >>> small, _ = compact(net, torch.ones(1, 1, 8, 8), repeats=0)
    >>> load_compact(net, small.state_dict())[2]
    Conv2d(3, 2, kernel_size=(3, 3), stride=(1, 1))
    """
    small = copy.deepcopy(model)
    for name, module in small.named_modules():
        for key in ("weight", "bias", "running_mean", "running_var"):
            saved = state.get(f"{name}.{key}" if name else key)
            present = getattr(module, key, None)
            if saved is None or not isinstance(module, (CONVOLUTIONS, nn.Linear, NORMS, nn.PReLU)):
                continue
            like = present if present is not None else module.weight
            empty = torch.empty(saved.shape, dtype=like.dtype, device=like.device)
            setattr(module, key, nn.Parameter(empty) if key in module._parameters else empty)
        _set_counts_(module)
    try:
        small.load_state_dict(state)
    except RuntimeError as error:
        why = " ".join(str(error).split())
        raise ValueError(f"this state dict does not fit a cut {type(model).__name__}: {why}") from error
    return small


def _set_counts_(module: nn.Module) -> None:
    """Bring a layer's channel counts in line with the shape of its weight."""
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, NORMS) and module.running_mean is not None:
        module.num_features = len(module.running_mean)
    elif isinstance(module, nn.PReLU):
        module.num_parameters = len(module.weight)
    elif isinstance(module, CONVOLUTIONS):
        if 1 < module.groups == module.in_channels == module.out_channels:
            module.groups = len(module.weight)
        first, second = module.weight.shape[:2]
        inputs, outputs = (
            (first, second * module.groups) if module.transposed else (second * module.groups, first)
        )
        module.in_channels, module.out_channels = inputs, outputs


def check_input(model: nn.Module, example_input: Tensor) -> None:
    """Refuse what cannot be made smaller: no images, another device, weights that are not finite."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"a model must be a torch.nn.Module, not {type(model).__name__}")
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
        if isinstance(module, (CONVOLUTIONS, nn.Linear)) and "weight" not in module._parameters:
            raise ValueError(
                f"the weight of layer {name!r} is computed, not stored: make it plain first, with "
                "torch.nn.utils.prune.remove or torch.nn.utils.parametrize.remove_parametrizations"
            )


def _check_runs(model: nn.Module, images: Tensor) -> None:
    try:
        with torch.no_grad():
            model(images)
    except Exception as error:
        raise ValueError(
            f"{type(model).__name__} does not take an example of shape {tuple(images.shape)}: "
            f"{first_line(error)}"
        ) from error


def _check_proof(model: nn.Module, proof: Mapping[str, OutputChange]) -> None:
    worst = max(change.relative for change in proof.values())
    if not worst <= PROOF_LIMIT:
        raise ValueError(
            f"removing dead channels moved an output of {type(model).__name__} by {worst:.1e} of the largest "
            f"(allowed {PROOF_LIMIT:.0e}): its forward uses channels in a way the graph does not show"
        )


def _random_like(images: Tensor) -> Tensor:
    """Random images, the same in every call."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(images.shape, generator=generator).to(images)


def _wide_copy(model: nn.Module) -> nn.Module:
    """A copy in float64 and eval mode in which every parameter can be followed by autograd."""
    wide = copy.deepcopy(model).double().eval().requires_grad_(True)
    wide.zero_grad(set_to_none=True)
    return wide


def _narrowed(work: nn.Module, model: nn.Module) -> nn.Module:
    """Give the cut copy the original's dtypes, training flags and frozen parameters again."""
    named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    dtypes = {name: tensor.dtype for name, tensor in named}
    frozen = {name for name, tensor in named if not tensor.requires_grad}
    training = {name: module.training for name, module in model.named_modules()}
    for name, module in work.named_modules():
        module.training = training[name]
        prefix = f"{name}." if name else ""
        for key, tensor in itertools.chain(module._parameters.items(), module._buffers.items()):
            if tensor is not None:
                like = prefix + (key if prefix + key in dtypes else "weight")
                tensor.data = tensor.data.to(dtypes[like])
                if key in module._parameters:
                    tensor.requires_grad_(like not in frozen)
    return work


@torch.no_grad()
def _compare(original: nn.Module, smaller: nn.Module, images: Tensor) -> OutputChange:
    """The largest change over all outputs; infinite if their shapes differ or the smaller one fails."""
    expected = tensors(original(images))
    try:
        found = tensors(smaller(images))
    except (RuntimeError, ValueError, IndexError):
        return OutputChange(float("inf"), float("inf"))
    if [t.shape for t in found] != [t.shape for t in expected]:
        return OutputChange(float("inf"), float("inf"))
    pairs = list(zip(expected, found, strict=True))
    absolute = max(float((a.double() - b.double()).abs().max()) for a, b in pairs)
    largest = max(float(a.double().abs().max()) for a, _ in pairs)
    return OutputChange(absolute, absolute / largest if largest else absolute)


def _layer_changes(model: nn.Module, small: nn.Module, removals: _Removals) -> Iterator[LayerChange]:
    for name, module in model.named_modules():
        if isinstance(module, (CONVOLUTIONS, nn.Linear)):
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
