"""A penalty on a model: which layers, how strong, when, and three ways to apply it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from hgsr_lite.arguments import check_share
from hgsr_lite.fast import Plan, make_plan
from hgsr_lite.groups import WeightLayer, weight_layers
from hgsr_lite.penalties import Penalty

AUTHORS_EXCLUDE = ("downsample",)
"""The authors leave a residual network's 1x1 shortcuts out; harmless where a model has none."""

_L1 = Penalty("l1")
_DTYPE_OF = attrgetter("dtype")
_LOG = logging.getLogger(__name__)


class Regularizer:
    """A penalty, its strength and the layers of a model that it acts on.

        R = s * ( (1 - l1_mix) * sum over layers penalty(W) + l1_mix * sum over layers ||W||_1 )

    where s is `strength`, scaled down linearly while training is younger than the share `warmup` of its
    length (0 turns the warm-up off). Only convolution weights are touched (name linear layers with
    `include` to have them too), never biases nor batch-norm weights; frozen weights are left alone.
    `exclude` takes layers away by the dotted parts of their names.

    The authors' defaults: `hsq_gl12`, feature-wise, strength 1e-3, l1_mix 0.5, `downsample` excluded.
    Strengths of different penalties are not comparable; see `calibrate_`.

    Raises `ValueError` for an unknown penalty or grouping, a negative, NaN or infinite strength, an
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
        grouping: str = "feature",
        strength: float = 1e-3,
        l1_mix: float = 0.0,
        warmup: float = 0.0,
        include: Iterable[str] | None = None,
        exclude: Iterable[str] = AUTHORS_EXCLUDE,
    ) -> None:
        self.penalty = penalty if isinstance(penalty, Penalty) else Penalty(penalty, grouping)
        self.strength = strength
        self.l1_mix = check_share("l1_mix", l1_mix)
        self.warmup = check_share("warmup", warmup)
        self._progress = 1.0
        layers = weight_layers(model, include, self._excluded(model, include, exclude))
        self.layers: list[WeightLayer] = [layer for layer in layers if layer.weight.requires_grad]
        if not self.layers:
            raise ValueError("every layer to regularise is frozen: call .requires_grad_(True) on the model")
        self._model = model
        self._form: list = []
        self._stored: list = []
        self._made = Plan()

    @staticmethod
    def _excluded(model: nn.Module, include: Iterable[str] | None, exclude: Iterable[str]) -> Iterable[str]:
        """What is excluded: the default may match no layer, as where a pooling is called `downsample`."""
        if exclude != AUTHORS_EXCLUDE:
            return exclude
        parts = {part for layer in weight_layers(model, include) for part in layer.name.split(".")}
        return [name for name in exclude if name in parts]

    @property
    def strength(self) -> float:
        """The strength after the warm-up; may be set, to a finite number of at least 0."""
        return self._strength

    @strength.setter
    def strength(self, strength: float) -> None:
        if not (isinstance(strength, int | float) and math.isfinite(strength) and strength >= 0):
            raise ValueError(
                f"strength {strength!r} is not a finite number >= 0: start near 1e-4, or let "
                "calibrate_() choose one"
            )
        self._strength = float(strength)

    def set_progress(self, share: float) -> None:
        """Say how much of training is done, 0 to 1; the warm-up goes by it. `fit` calls this."""
        self._progress = check_share("progress", share)

    @property
    def current_strength(self) -> float:
        """The strength now: `strength * min(1, progress / warmup)`."""
        return self.strength * (min(1.0, self._progress / self.warmup) if self.warmup else 1.0)

    def strengths(self) -> tuple[float, float]:
        """The factors now of the penalty and of the l1 norm: they add up to `current_strength`."""
        return self.current_strength * (1 - self.l1_mix), self.current_strength * self.l1_mix

    def __call__(self) -> Tensor:
        """The regularisation term, a differentiable scalar to add to a loss."""
        strength, l1_strength = self.strengths()
        total = torch.zeros((), device=self.layers[0].weight.device)
        for layer in self.layers:
            total = total + strength * self.penalty(layer.weight, layer.layout)
            if l1_strength:
                total = total + l1_strength * _L1(layer.weight, layer.layout)
        return total

    def add_gradient_(self) -> Tensor:
        """Add the term's gradient to every layer's `.grad`, in place, and return the term's value.

        The same numbers as `reg().backward()`, from the closed form. Call it between `loss.backward()`
        and the optimizer's step; a `.grad` that is None is made. All layers are served together where that
        is possible; `backend` tells how.
        """
        weights = self._own_weights()
        gradients = [_new_gradient(w) if (grad := w.grad) is None else grad for w in weights]
        plan = self._plan(weights)
        if plan.add_gradient is None or _stored_as(gradients) != self._stored:
            return self._add_plain_gradient_(*self.strengths())
        return plan.add_gradient(gradients, *self.strengths())

    @torch.no_grad()
    def _add_plain_gradient_(self, strength: float, l1_strength: float) -> Tensor:
        """The reference: the closed form, layer by layer."""
        total = torch.zeros((), device=self.layers[0].weight.device)
        for layer in self.layers:
            weight = layer.weight
            value, gradient = self.penalty.value_and_gradient(weight, layer.layout)
            total = total + strength * value
            weight.grad.add_(gradient, alpha=strength)
            if l1_strength:
                total = total + l1_strength * _L1.value(weight, layer.layout)
                weight.grad.add_(weight.sign(), alpha=l1_strength)
        return total

    @torch.no_grad()
    def prox_(self, lr: float) -> None:
        """One proximal step on every layer's weight, in place, with step size `lr * strength`.

        Momentum multiplies a gradient's pull by 1 / (1 - momentum), but not this step: beside an optimizer
        with momentum 0.9, a strength acts about ten times weaker here than through `add_gradient_`.

        Solves argmin_V 0.5 |V - W|^2 + lr * R(V) for each layer: the l1 part first, then the penalty,
        which for these penalties is the joint solution. This is what makes weights exactly zero.
        """
        strength, l1_strength = self.strengths()
        weights = self._own_weights()
        plan = self._plan(weights)
        if plan.take_proximal_step is not None:
            broken = plan.take_proximal_step(lr * strength, lr * l1_strength)
            if broken:
                raise FloatingPointError(
                    f"{broken} groups hold NaN or infinite weights: lower the learning rate"
                )
            return
        for layer, weight in zip(self.layers, weights, strict=True):
            weight.copy_(self.penalty.prox(weight, lr * strength, layer.layout, l1_step=lr * l1_strength))

    def _own_weights(self) -> list[Tensor]:
        """The layers' weights, which must be parameters: what is written to a computed one is lost."""
        try:
            return [layer.module._parameters["weight"] for layer in self.layers]
        except KeyError:
            name = next(layer.name for layer in self.layers if layer.is_computed)
            raise ValueError(
                f"the weight of layer {name!r} is computed from other parameters (parametrized): add "
                "reg() to the loss instead, or leave the layer out with exclude"
            ) from None

    @property
    def backend(self) -> str:
        """How `add_gradient_` works now.

        `"compiled"`: one numba loop over all layers, on the CPU. `"triton"`: one launch for all layers, on a
        GPU. `"stacked"`: some twenty operators for all layers, on a GPU without Triton. `"plain"`: the
        readable formula, layer by layer, wherever none of these fits.
        """
        return self._plan([layer.weight for layer in self.layers]).backend

    def _plan(self, weights: list[Tensor]) -> Plan:
        """What `backend` says, ready to be called; made anew when a weight moves or changes its form."""
        # Every microsecond here is one of each training step: plain lists, made without a loop in Python.
        stored = _stored_as(weights)
        form = [self.penalty, [*map(Tensor.data_ptr, weights)], [*map(Tensor.size, weights)], stored]
        if form != self._form:
            made = make_plan(self.penalty, self.layers)
            if not self._form or made.backend != self._made.backend:
                _LOG.info("penalty: %s version", made.backend)
            self._form, self._stored, self._made = form, stored, made
        return self._made

    def __getstate__(self) -> dict[str, Any]:
        """A copy makes a plan of its own: this one's acts on this one's weights."""
        return {**self.__dict__, "_form": [], "_stored": [], "_made": Plan()}

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
        if not (math.isfinite(fraction) and fraction > 0):
            raise ValueError(f"fraction {fraction!r} must be a finite number > 0: try 0.1")
        loss_norm = self._loss_gradient_norm(images, labels, loss)
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

    def _loss_gradient_norm(self, images: Tensor, labels: Tensor, loss: Callable) -> float:
        state = {name: buffer.clone() for name, buffer in self._model.named_buffers()}
        devices = [images.device] if images.is_cuda else []
        with torch.random.fork_rng(devices=devices), torch.enable_grad():
            value = loss(functional_call(self._model, state, (images,)), labels)
        gradients = torch.autograd.grad(value, [layer.weight for layer in self.layers])
        return torch.stack([gradient.double().square().sum() for gradient in gradients]).sum().sqrt().item()

    def __repr__(self) -> str:
        mix = f", l1_mix={self.l1_mix:g}" if self.l1_mix else ""
        warmup = f", warmup={self.warmup:g}" if self.warmup else ""
        return (
            f"Regularizer({self.penalty.key!r}, {self.penalty.grouping}-wise, strength={self.strength:g}"
            f"{mix}{warmup}, {len(self.layers)} layers)"
        )


def _stored_as(tensors: list[Tensor]) -> list:
    """The strides and dtypes: fast versions write to gradients as to memory that looks like the weights'."""
    return [[*map(Tensor.stride, tensors)], [*map(_DTYPE_OF, tensors)]]


def _new_gradient(weight: Tensor) -> Tensor:
    weight.grad = torch.zeros_like(weight)
    return weight.grad
