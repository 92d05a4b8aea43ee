"""A penalty on a model: which layers, how strong, when, and three ways to apply it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from itertools import combinations, compress
from operator import attrgetter

import torch
from torch import Tensor, nn
from torch.func import functional_call

from hgsr_lite.arguments import check_number, check_share, choose
from hgsr_lite.fast import Plan, Plans
from hgsr_lite.groups import GROUPINGS, WeightLayer, weight_layers
from hgsr_lite.penalties import Penalty
from hgsr_lite.proximal import NotFiniteError

AUTHORS_EXCLUDE = ("downsample",)
"""The authors leave a residual network's 1x1 shortcuts out; harmless where a model has none."""

_L1 = Penalty("l1")
_TRAINED = attrgetter("requires_grad")


class Regularizer:
    """A penalty, its strength and the layers of a model that it acts on.

        R = s * ( (1 - l1_mix) * sum over layers penalty(W) + l1_mix * sum over layers ||W||_1 )

    where s is `strength`, scaled down linearly while training is younger than the share `warmup` of its
    length (0 turns the warm-up off). Only convolution weights are touched (name linear layers with
    `include` to have them too), never biases nor batch-norm weights; a weight that is frozen is left alone
    while it is. `exclude` takes layers away by the dotted parts of their names. A layer that is replaced
    later is followed: `layers` are those of the model as it is now.

    A regularizer belongs to its model. After `prune` or `compact` the smaller network is another model:
    `on` makes a regularizer for it (and the report's `carry_` brings an optimizer along). A computed weight
    (weight norm, a mask, any parametrization) is regularised through the parameters that it is made of;
    `prox_` refuses it. With a `GradScaler`, call `add_gradient_` after `scaler.unscale_(optimizer)`, else the
    penalty shrinks by the scale, 65,536-fold.

    The authors' defaults: `hsq_gl12`, feature-wise, strength 1e-3, l1_mix 0.5, `downsample` excluded.
    Strengths of different penalties are not comparable; see `calibrate_`.

    `grouping` is `"feature"` unless given; a `Penalty` brings its own. Raises `ValueError` for an unknown
    penalty or grouping, or one that is not the given `Penalty`'s, a negative, NaN or infinite strength, an
    `l1_mix` or `warmup` outside 0..1, a name that matches no layer, and a model with nothing to act on.

    >>> _ = torch.manual_seed(0)
    >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4))
    >>> reg = Regularizer(model, "hsq_gl12", strength=0.1, l1_mix=0.5)
    >>> reg().backward()                    # in a loss, or ...
    >>> gradient = model[0].weight.grad.clone()
    >>> model.zero_grad()
    >>> value = reg.add_gradient_()         # ... faster, after loss.backward()
    >>> torch.allclose(gradient, model[0].weight.grad)
    True
    """

    def __init__(
        self,
        model: nn.Module,
        penalty: str | Penalty = "hsq_gl12",
        *,
        grouping: str | None = None,
        strength: float = 1e-3,
        l1_mix: float = 0.0,
        warmup: float = 0.0,
        include: Iterable[str] | None = None,
        exclude: Iterable[str] = AUTHORS_EXCLUDE,
    ) -> None:
        self.penalty = _as_penalty(penalty, grouping)
        self.strength = strength
        self.l1_mix = l1_mix
        self.warmup = warmup
        self._progress: float | None = None
        self._model = model
        self._include = include if include is None or isinstance(include, str) else tuple(include)
        self._exclude = exclude if isinstance(exclude, str) else tuple(exclude)
        self._plans = Plans()
        self._select_layers()

    def _select_layers(self) -> None:
        """Choose the layers of the model as it hangs together now, and remember how that is."""
        excluded = self._exclude
        if excluded == AUTHORS_EXCLUDE:
            named = _dotted_parts(layer.name for layer in weight_layers(self._model, self._include))
            excluded = tuple(name for name in excluded if name in named)
        self._candidates = weight_layers(self._model, self._include, excluded)
        self._stores = [layer.module._parameters for layer in self._candidates]
        self._parts = [module._modules for module in self._model.modules() if module._modules]
        self._hung = [*map(tuple, map(dict.values, self._parts))]
        self._trained: list[bool] = []
        self._select_trained([layer.learns for layer in self._candidates])

    def _select_trained(self, trained: list[bool]) -> None:
        self._layers = [layer for layer, learns in zip(self._candidates, trained, strict=True) if learns]
        self._layouts = [layer.layout for layer in self._layers]
        self._trained = trained
        if not self._layers:
            raise ValueError("every layer to regularise is frozen: call .requires_grad_(True) on the model")

    @property
    def layers(self) -> list[WeightLayer]:
        """The layers that the term acts on now: those chosen whose weights are trained, not frozen."""
        self._stored_weights()
        return self._layers

    def _stored_weights(self) -> list[nn.Parameter | None]:
        """The layers' weights, None for a computed one; the layers are chosen anew if the model changed."""
        # Each training step comes by here: plain lists, compared by identity, and no walk over the model.
        if [*map(tuple, map(dict.values, self._parts))] != self._hung:
            self._select_layers()
        weights = [store.get("weight") for store in self._stores]
        try:
            trained = [*map(_TRAINED, weights)]
        except AttributeError:  # None: one is computed
            trained = [layer.learns for layer in self._candidates]
        if trained != self._trained:
            self._select_trained(trained)
        return weights if all(trained) else [*compress(weights, trained)]

    def check_acts_on(self, model: nn.Module) -> None:
        """Refuse another model than the one this regularizer was made for (or one that contains it)."""
        modules = {*model.modules()}
        for layer in self.layers:
            if layer.module not in modules:
                raise ValueError(
                    f"the regularizer acts on another model: its layer {layer.name!r} is no part of the "
                    f"{type(model).__name__} given; make one for this model, with regularizer.on(model)"
                )

    def on(self, model: nn.Module) -> Regularizer:
        """The same penalty, strength, mix, warm-up and choice of layers on another model.

        For the smaller network that `prune` and `compact` return. Names of layers that are gone there play
        no part.

        >>> reg = Regularizer(nn.Sequential(nn.Conv2d(1, 8, 3)), "gl", strength=0.1)
        >>> reg.on(nn.Sequential(nn.Conv2d(1, 3, 3)))
        Regularizer('gl', feature-wise, strength=0.1, 1 layers)
        """
        parts = _dotted_parts(name for name, _ in model.named_modules())
        include = None if self._include is None else [name for name in self._include if name in parts]
        moved = Regularizer(
            model, self.penalty, strength=self.strength, l1_mix=self.l1_mix, warmup=self.warmup,
            include=include, exclude=[name for name in self._exclude if name in parts],
        )  # fmt: skip
        moved._progress = self._progress
        return moved

    @property
    def strength(self) -> float:
        """The strength after the warm-up; may be set, to a finite number of at least 0."""
        return self._strength

    @strength.setter
    def strength(self, strength: float) -> None:
        advice = "start near 1e-4, or let calibrate_() choose one"
        self._strength = check_number("strength", strength, advice)

    @property
    def penalty(self) -> Penalty:
        """The penalty; another one may be set."""
        return self._penalty

    @penalty.setter
    def penalty(self, penalty: Penalty) -> None:
        if not isinstance(penalty, Penalty):
            raise TypeError(f"penalty must be a Penalty, not {penalty!r}: set Penalty(key, grouping)")
        self._penalty = penalty

    @property
    def l1_mix(self) -> float:
        """The l1 norm's share of the term; may be set, from 0 to 1."""
        return self._l1_mix

    @l1_mix.setter
    def l1_mix(self, share: float) -> None:
        self._l1_mix = check_share("l1_mix", share)

    @property
    def warmup(self) -> float:
        """The share of the training in which the strength rises; may be set, from 0 to 1."""
        return self._warmup

    @warmup.setter
    def warmup(self, share: float) -> None:
        self._warmup = check_share("warmup", share)

    def set_progress(self, share: float) -> None:
        """Say how much of training is done, 0 to 1; the warm-up goes by it.

        `fit` does this before every step. In your own loop: `regularizer.set_progress(step / steps)`; a
        warm-up that is never told has no effect, and a warning says so.
        """
        self._progress = check_share("progress", share)

    @property
    def current_strength(self) -> float:
        """The strength now: `strength * min(1, progress / warmup)`."""
        if not self.warmup:
            return self.strength
        if self._progress is None:
            warnings.warn(
                f"warmup={self.warmup:g} has no effect yet: `fit` tells how far training is, a loop must, "
                "by set_progress(step / steps) before each step",
                stacklevel=3,
            )
            return self.strength
        return self.strength * min(1.0, self._progress / self.warmup)

    def strengths(self) -> tuple[float, float]:
        """The factors now of the penalty and of the l1 norm: they add up to `current_strength`."""
        return self.current_strength * (1 - self.l1_mix), self.current_strength * self.l1_mix

    def __call__(self) -> Tensor:
        """The regularisation term, a differentiable scalar to add to a loss.

        One node for autograd: the value and the gradient come from the closed form, for all layers together
        (see `backend`). It cannot be differentiated twice.
        """
        weights = self._stored_weights()
        strengths = self.strengths()
        if not any(weight is None for weight in weights):
            return _Term.apply(partial(self._add_to, *strengths), *weights)[0]
        parts = [
            factor * penalty(layer.weight, layer.layout)
            for layer in self._layers
            for penalty, factor in zip((self.penalty, _L1), strengths, strict=True)
            if factor or penalty is self.penalty
        ]
        return torch.stack(parts).sum()

    def _add_to(
        self, strength: float, l1_strength: float, weights: list[Tensor], gradients: list[Tensor]
    ) -> Tensor:
        plan = self._plans.of(self.penalty, weights, self._layouts, gradients)
        return plan.add_gradient(gradients, strength, l1_strength)

    def add_gradient_(self) -> Tensor:
        """Add the term's gradient to every layer's `.grad`, in place, and return the term's value.

        The same numbers as `reg().backward()`, from the closed form. Call it between `loss.backward()`
        and the optimizer's step; a `.grad` that is None is made. All layers are served together where that
        is possible; `backend` tells how. A computed weight's gradient goes to the parameters it is made of.
        """
        weights = self._stored_weights()
        if type(None) in map(type, weights):
            return self._add_through_autograd_()
        gradients = [_new_gradient(w) if (grad := w.grad) is None else grad for w in weights]
        return self._add_to(*self.strengths(), weights, gradients)

    def _add_through_autograd_(self) -> Tensor:
        with torch.enable_grad():
            value = self()
        value.backward()
        return value.detach()

    @torch.no_grad()
    def prox_(self, lr: float) -> None:
        """One proximal step on every layer's weight, in place, with step size `lr * strength`.

        Momentum multiplies a gradient's pull by 1 / (1 - momentum), but not this step: beside an optimizer
        with momentum 0.9, a strength acts about ten times weaker here than through `add_gradient_`.

        Solves argmin_V 0.5 |V - W|^2 + lr * R(V) for each layer: the l1 part first, then the penalty,
        which for these penalties is the joint solution. This is what makes weights exactly zero.

        Raises `ValueError` for a learning rate that is negative or not finite and for a computed weight,
        before anything is changed; `NotFiniteError` (a `FloatingPointError` and a `ValueError`) for weights
        that are NaN or infinite: their groups are left as they are.
        """
        lr = check_number("lr", lr, "give the learning rate of the step just taken")
        strength, l1_strength = self.strengths()
        weights = [layer.stored_weight("no proximal step was taken") for layer in self.layers]
        plan = self._plans.of(self.penalty, weights, self._layouts)
        broken = plan.take_proximal_step(lr * strength, lr * l1_strength)
        if broken:
            raise NotFiniteError(f"{broken} groups hold NaN or infinite weights: lower the learning rate")

    @property
    def backend(self) -> str:
        """How `add_gradient_` works now.

        `"compiled"`: one numba loop over all layers, on the CPU. `"triton"`: one launch for all layers, on a
        GPU. `"stacked"`: some twenty operators for all layers, on a GPU without Triton. `"plain"`: the
        readable formula, layer by layer, wherever none of these fits.
        """
        return self._plan().backend

    def _plan(self) -> Plan:
        layers = self.layers
        return self._plans.of(self.penalty, [layer.weight for layer in layers], self._layouts)

    def calibrate_(
        self,
        images: Tensor,
        labels: Tensor,
        fraction: float = 0.1,
        loss: Callable[[Tensor, Tensor], Tensor] = nn.functional.cross_entropy,
    ) -> float:
        """Set the strength so that the term's gradient is `fraction` of the loss's, and return it.

            strength = fraction * ||d loss / d W|| / ||d (R / strength) / d W||

        over the regularised weights as they are now, on one batch. The degrees of the penalties run
        from 1/4 to 4, so this is how strengths are made comparable. Neither weights, gradients, batch
        norm statistics nor the random state are changed.

        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, 2))
        >>> reg = Regularizer(model, "es")
        >>> reg.calibrate_(torch.randn(8, 1, 8, 8), torch.arange(8) % 2, fraction=0.1) > 0
        True
        """
        fraction = check_number("fraction", fraction, "try 0.1", above_zero=True)
        if not (
            isinstance(images, Tensor) and (isinstance(labels, Tensor) and len(labels) == len(images) > 0)
        ):
            raise ValueError(
                "images and labels must be tensors of one length, at least 1: give a batch of both"
            )
        weights = [layer.stored_weight("cannot calibrate") for layer in self.layers]
        loss_norm = self._loss_gradient_norm(weights, images, labels, loss)
        mix = self.l1_mix
        squares = [
            (
                (1 - mix) * self.penalty.gradient(layer.weight, layer.layout).double()
                + mix * layer.weight.detach().sign().double()
            )
            .square()
            .sum()
            for layer in self.layers
        ]
        term_norm = torch.stack(squares).sum().sqrt().item()
        if not (math.isfinite(loss_norm) and math.isfinite(term_norm) and loss_norm > 0 and term_norm > 0):
            raise ValueError(
                f"cannot calibrate: the loss's gradient norm is {loss_norm:g}, the penalty's {term_norm:g}; "
                "both must be finite and above 0: check the weights and the batch"
            )
        self.strength = fraction * loss_norm / term_norm
        return self.strength

    def _loss_gradient_norm(
        self, weights: list[Tensor], images: Tensor, labels: Tensor, loss: Callable
    ) -> float:
        state = {name: buffer.clone() for name, buffer in self._model.named_buffers()}
        devices = [images.device] if images.is_cuda else []
        with torch.random.fork_rng(devices=devices), torch.enable_grad():
            try:
                value = loss(functional_call(self._model, state, (images,)), labels)
            except (RuntimeError, ValueError, IndexError, TypeError) as error:
                raise ValueError(
                    f"cannot calibrate: model or loss does not take this batch ({error}); give images as the "
                    "model takes them and labels as the loss does (cross_entropy: whole class numbers from 0)"
                ) from error
        gradients = torch.autograd.grad(value, weights)
        return torch.stack([gradient.double().square().sum() for gradient in gradients]).sum().sqrt().item()

    def __repr__(self) -> str:
        mix = f", l1_mix={self.l1_mix:g}" if self.l1_mix else ""
        warmup = f", warmup={self.warmup:g}" if self.warmup else ""
        return (
            f"Regularizer({self.penalty.key!r}, {self.penalty.grouping}-wise, strength={self.strength:g}"
            f"{mix}{warmup}, {len(self.layers)} layers)"
        )


def _as_penalty(penalty: str | Penalty, grouping: str | None) -> Penalty:
    """A penalty by its key, with a grouping; one that is made already has a grouping of its own."""
    if grouping is not None:
        choose("grouping", grouping, GROUPINGS)
    if not isinstance(penalty, Penalty):
        return Penalty(penalty, grouping or "feature")
    if grouping not in (None, penalty.grouping):
        raise ValueError(
            f"grouping={grouping!r} contradicts Penalty({penalty.key!r}, {penalty.grouping!r}): leave it out"
        )
    return penalty


def _dotted_parts(names: Iterable[str]) -> set[str]:
    """Every run of the dotted names' parts: what `include` and `exclude` may call them.

    >>> sorted(_dotted_parts(["layer2.0"]))
    ['0', 'layer2', 'layer2.0']
    """
    split = [name.split(".") for name in names]
    runs = [(parts, *ends) for parts in split for ends in combinations(range(len(parts) + 1), 2)]
    return {".".join(parts[first:end]) for parts, first, end in runs}


class _Term(torch.autograd.Function):
    """The term of all layers as one node, whose gradient is at hand when its value is."""

    @staticmethod
    def forward(add_to: Callable[..., Tensor], *weights: Tensor) -> tuple[Tensor, ...]:
        gradients = [*map(torch.zeros_like, weights)]
        return add_to([*weights], gradients), *gradients

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(*output[1:], *inputs[1:])

    @staticmethod
    def backward(ctx, factor: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        half = len(ctx.saved_tensors) // 2
        gradients = torch._foreach_mul(ctx.saved_tensors[:half], factor)
        if torch.is_grad_enabled():  # asked with create_graph=True: a constant would be silently wrong there
            gradients = [*map(_Once.apply, gradients, ctx.saved_tensors[half:])]
        return None, *gradients


class _Once(torch.autograd.Function):
    """A gradient that depends on its weight, and says so when it is to be differentiated again."""

    @staticmethod
    def forward(gradient: Tensor, weight: Tensor) -> Tensor:
        return gradient.clone()

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        pass

    @staticmethod
    def backward(ctx, *_: Tensor) -> tuple[Tensor | None, ...]:
        raise RuntimeError(
            "a Regularizer's term cannot be differentiated twice: add strength * penalty(layer.weight) of "
            "its layers to the loss instead"
        )


def _new_gradient(weight: Tensor) -> Tensor:
    weight.grad = torch.zeros_like(weight)
    return weight.grad
