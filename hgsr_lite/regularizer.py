"""A penalty on a model: which layers, how strong, when, and three ways to apply it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import Tensor, nn

from hgsr_lite.arguments import check_number, check_share, choose
from hgsr_lite.calibration import gradient_norm, loss_gradient_norm
from hgsr_lite.fast import Plan, Plans, term
from hgsr_lite.groups import GROUPINGS, Layout
from hgsr_lite.layers import AUTHORS_EXCLUDE, FollowedLayers, WeightLayer
from hgsr_lite.penalties import Penalty
from hgsr_lite.proximal import NotFiniteError

_L1 = Penalty("l1")


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
        self._followed = FollowedLayers(model, include, exclude)
        self._plans = Plans()

    @property
    def layers(self) -> list[WeightLayer]:
        """The layers that the term acts on now: those chosen whose weights are trained, not frozen."""
        return self._followed.layers

    def check_acts_on(self, model: nn.Module) -> None:
        """Refuse another model than the one this regularizer was made for (or one that contains it)."""
        self._followed.check_part_of(model)

    def on(self, model: nn.Module) -> Regularizer:
        """The same penalty, strength, mix, warm-up and choice of layers on another model.

        For the smaller network that `prune` and `compact` return. Names of layers that are gone there play
        no part.

        >>> reg = Regularizer(nn.Sequential(nn.Conv2d(1, 8, 3)), "gl", strength=0.1)
        >>> reg.on(nn.Sequential(nn.Conv2d(1, 3, 3)))
        Regularizer('gl', feature-wise, strength=0.1, 1 layers)
        """
        include, exclude = self._followed.names_in(model)
        moved = Regularizer(
            model, self.penalty, strength=self.strength, l1_mix=self.l1_mix, warmup=self.warmup,
            include=include, exclude=exclude,
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
        weights, layouts = self._followed.look()
        strengths = self.strengths()
        if not any(weight is None for weight in weights):
            add_to = partial(self._add_to, self.penalty, strengths, layouts)
            if torch._C._functorch.peek_interpreter_stack() is not None:  # a transform's tensors lie nowhere
                return term(add_to, weights)
            value = self._plans.of(self.penalty, weights, layouts).value
            return term(add_to, weights, value and partial(value, *strengths))
        parts = [
            factor * penalty(layer.weight, layer.layout)
            for layer in self.layers
            for penalty, factor in zip((self.penalty, _L1), strengths, strict=True)
            if factor or penalty is self.penalty
        ]
        return torch.stack(parts).sum()

    def _add_to(
        self,
        penalty: Penalty,
        strengths: tuple[float, float],
        layouts: list[Layout],
        weights: list[Tensor],
        gradients: list[Tensor],
        factor: float = 1.0,
    ) -> Tensor:
        plan = self._plans.of(penalty, weights, layouts, gradients)
        return plan.add_gradient(gradients, *(factor * strength for strength in strengths))

    def add_gradient_(self) -> Tensor:
        """Add the term's gradient to every layer's `.grad`, in place, and return the term's value.

        The same numbers as `reg().backward()`, from the closed form. Call it between `loss.backward()`
        and the optimizer's step; a `.grad` that is None is made. All layers are served together where that
        is possible; `backend` tells how. A computed weight's gradient goes to the parameters it is made of.
        """
        weights, layouts = self._followed.look()
        if type(None) in map(type, weights):
            return self._add_through_autograd_()
        gradients = [_new_gradient(w) if (grad := w.grad) is None else grad for w in weights]
        return self._add_to(self.penalty, self.strengths(), layouts, weights, gradients)

    def _add_through_autograd_(self) -> Tensor:
        with torch.enable_grad():
            value = self()
        value.backward()
        return value.detach()

    def prox_(self, lr: float) -> None:
        """One proximal step on every layer's weight, in place, with step size `lr * strength`.

        Momentum multiplies a gradient's pull by 1 / (1 - momentum), but not this step: beside an optimizer
        with momentum 0.9, a strength acts about ten times weaker here than through `add_gradient_`.

        Solves argmin_V 0.5 |V - W|^2 + lr * R(V) for each layer: the l1 part first, then the penalty,
        which for these penalties is the joint solution. This is what makes weights exactly zero. Up to a
        million weights on a GPU take the step in the CPU's compiled loops and come back.

        Raises `ValueError` for a learning rate that is negative or not finite and for a computed weight,
        before anything is changed; `NotFiniteError` (a `FloatingPointError` and a `ValueError`) for weights
        that are NaN or infinite: their groups are left as they are.
        """
        lr = check_number("lr", lr, "give the learning rate of the step just taken")
        strength, l1_strength = self.strengths()
        weights = [layer.stored_weight("no proximal step was taken") for layer in self.layers]
        plan = self._plans.of(self.penalty, weights, [layer.layout for layer in self.layers])
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
        layouts = [layer.layout for layer in layers]
        return self._plans.of(self.penalty, [layer.weight for layer in layers], layouts)

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
        weights = [layer.stored_weight("cannot calibrate") for layer in self.layers]
        loss_norm = loss_gradient_norm(self._followed.model, weights, images, labels, loss)
        mix = self.l1_mix
        term_norm = gradient_norm(
            (1 - mix) * self.penalty.gradient(layer.weight, layer.layout).double()
            + mix * layer.weight.detach().sign().double()
            for layer in self.layers
        )
        if not (math.isfinite(loss_norm) and math.isfinite(term_norm) and loss_norm > 0 and term_norm > 0):
            raise ValueError(
                f"cannot calibrate: the loss's gradient norm is {loss_norm:g}, the penalty's {term_norm:g}; "
                "both must be finite and above 0: check the weights and the batch"
            )
        self.strength = fraction * loss_norm / term_norm
        return self.strength

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


def _new_gradient(weight: Tensor) -> Tensor:
    weight.grad = torch.zeros_like(weight)
    return weight.grad
