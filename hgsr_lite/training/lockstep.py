"""Several runs of one architecture in step: their weights stacked, one forward and backward pass for all.

Each run keeps its own network, regularizer, order of images and history. The networks' parameters become
slices of stacked ones, so that everything that acts on one network (`sparsity`, `Regularizer`, a snapshot)
still sees its weights, while `torch.vmap` trains all of them at once.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from hgsr_lite.data import one_batch
from hgsr_lite.fast import send
from hgsr_lite.groups import sum_dtype
from hgsr_lite.penalties import Penalty
from hgsr_lite.regularizer import Regularizer
from hgsr_lite.training.state import DivergedError, TrainingState

_L1 = Penalty("l1")


@dataclass(eq=False)
class _SamePenalty:
    """Runs that share a penalty and its layers: their regularizers and their numbers."""

    regularizers: list[Regularizer]
    rows: Tensor
    _given: list[tuple[float, float]] = field(default_factory=list)
    _sent: tuple[Tensor, ...] = ()

    def strengths(self) -> tuple[Tensor, ...]:
        """The runs' strengths now, of the penalty and, unless all are 0, of the l1 norm."""
        given = [reg.strengths() for reg in self.regularizers]
        if given != self._given:
            self._given, both = given, send(given, self.rows.device).unbind(1)
            self._sent = both if any(l1_strength for _, l1_strength in given) else both[:1]
        return self._sent


class Lockstep:
    """Runs that differ in seed, first weights and regularizer, and in nothing else, trained as one.

    `failed` maps the number of a run that diverged to its error; the others go on.

    >>> from hgsr_lite.data import load_data
    >>> from hgsr_lite.models import build_model
    >>> from hgsr_lite.training.settings import Settings
    >>> data = load_data("digits", device="cpu", limit=100)
    >>> nets = [build_model("digits_cnn", in_channels=1, num_classes=10, seed=seed) for seed in (0, 1)]
    >>> both = [TrainingState(net, data, None, Settings(epochs=1, seed=n)) for n, net in enumerate(nets)]
    >>> with Lockstep(both) as together:
    ...     for share_done in together.train(): pass
    >>> [len(run.history.records) for run in both]
    [1, 1]
    """

    def __init__(self, runs: list[TrainingState]) -> None:
        self.runs = runs
        self.failed: dict[int, DivergedError] = {}
        self._skeleton = copy.deepcopy(runs[0].model).to("meta")
        self._parameters = _stack([run.model for run in runs], nn.Module.named_parameters)
        self._buffers = _stack([run.model for run in runs], nn.Module.named_buffers)
        for name, parameter in self._parameters.items():
            parameter.requires_grad_().grad = torch.zeros_like(parameter)
            for run, slice_of_grad in zip(runs, parameter.grad, strict=True):
                run.model.get_parameter(name).grad = slice_of_grad
        self._settings = runs[0].settings
        self._optimizer = self._settings.make_optimizer(self._parameters.values())
        self._start_sums()
        self._alike = self._find_alike()

    def __enter__(self) -> Lockstep:
        return self

    def __exit__(self, *_: object) -> None:
        """Give every network weights of its own again."""
        for run in self.runs:
            for tensor in (*run.model.parameters(), *run.model.buffers()):
                tensor.data, tensor.grad = tensor.data.clone(), None

    def train(self) -> Iterator[float]:
        """Train all runs to their last epoch; yield the share done after each batch, 0 to 1."""
        while self.runs[0].epoch < self._settings.epochs:
            yield from self._train_epoch()

    def _train_epoch(self) -> Iterator[float]:
        """One pass of every run over the training images, in its own order."""
        for run in self.runs:
            run.start_epoch()
        self._skeleton.train()
        for group in self._optimizer.param_groups:
            group["lr"] = self._settings.lr_in(self.runs[0].epoch)
        self._start_sums()
        for specs in zip(*(run.specs() for run in self.runs), strict=True):
            images, labels = self.runs[0].show(one_batch(specs))
            self.step(*(part.unflatten(0, (len(self.runs), -1)) for part in (images, labels)))
            if self.runs[0].is_between_epochs:
                self._end_epoch()
            yield self.runs[0].done

    def _end_epoch(self) -> None:
        for number, run in self._alive():
            with self._noting_failure(number):
                run.count(self._loss_sums[number], self._term_sums[number], self._images)
                run.end_epoch()

    def step(self, images: Tensor, labels: Tensor) -> None:
        """One training step of every run: `images` (runs, batch, ...) and `labels` (runs, batch).

        The number of operators grows with the number of different penalties, not with that of the runs;
        the proximal step and the compiled penalty of a CPU are taken run by run.
        """
        for run in self.runs:
            run.start_step()
        torch._foreach_zero_([parameter.grad for parameter in self._parameters.values()])
        with self._settings.autocast(images.device):
            forward = torch.vmap(self._forward, randomness="different")
            scores = forward(self._parameters, self._buffers, images)
        each = cross_entropy(
            scores.to(sum_dtype(scores.dtype)).flatten(0, 1), labels.flatten(), reduction="none"
        )
        losses = each.view_as(labels).mean(1)
        losses.sum().backward()
        terms = torch.zeros_like(losses.detach()) if self._settings.proximal else self._penalise()
        self._optimizer.step()
        if self._settings.proximal:
            self._take_proximal_steps(losses.detach())
        self._loss_sums += losses.detach() * labels.shape[1]
        self._term_sums += terms
        self._images += labels.shape[1]

    def _start_sums(self) -> None:
        self._images = 0
        self._loss_sums = torch.zeros(len(self.runs), device=self.runs[0].data.device)
        self._term_sums = torch.zeros_like(self._loss_sums)

    def _forward(self, parameters: dict[str, Tensor], buffers: dict[str, Tensor], images: Tensor) -> Tensor:
        return functional_call(self._skeleton, (parameters, buffers), (images,))

    def _find_alike(self) -> list[_SamePenalty]:
        """The runs that still train and have a penalty, those that share it and its layers together."""
        numbers: dict[tuple, list[int]] = {}
        for number, run in self._alive():
            if run.regularizer is not None:
                layers = tuple(layer.name for layer in run.regularizer.layers)
                numbers.setdefault((run.regularizer.penalty, layers), []).append(number)
        device = self.runs[0].data.device
        return [
            _SamePenalty([self.runs[n].regularizer for n in members], torch.tensor(members).to(device))
            for members in numbers.values()
        ]

    @torch.no_grad()
    def _penalise(self) -> Tensor:
        """Add every run's penalty gradient; return the values, one a run."""
        terms = torch.zeros_like(self._term_sums)
        for alike in self._alike:
            if terms.device.type == "cpu" and alike.regularizers[0].backend == "compiled":
                values = torch.stack([reg.add_gradient_() for reg in alike.regularizers])
                terms[alike.rows] = values.to(terms.dtype)
            else:
                terms[alike.rows] = self._penalise_alike(alike)
        return terms

    def _penalise_alike(self, alike: _SamePenalty) -> Tensor:
        """The plain formula: as many operators as for one run."""
        terms = torch.zeros(len(alike.rows), device=alike.rows.device)
        reg = alike.regularizers[0]
        strengths = alike.strengths()
        for layer in reg.layers:
            stacked = self._parameters[f"{layer.name}.weight".removeprefix(".")]
            weights = stacked.detach()[alike.rows]
            for penalty, strength in zip((reg.penalty, _L1), strengths, strict=False):
                each = partial(penalty.value_and_gradient, layout=layer.layout)
                values, gradients = torch.vmap(each)(weights)
                terms += strength * values
                scale = strength.to(weights.dtype).view(-1, *[1] * (weights.ndim - 1))
                stacked.grad.index_add_(0, alike.rows, scale * gradients)
        return terms

    def _take_proximal_steps(self, losses: Tensor) -> None:
        lr = self._optimizer.param_groups[0]["lr"]
        for number, run in self._alive():
            with self._noting_failure(number):
                run.take_proximal_step(lr, losses[number], torch.zeros(()))

    def _alive(self) -> list[tuple[int, TrainingState]]:
        return [(number, run) for number, run in enumerate(self.runs) if number not in self.failed]

    @contextlib.contextmanager
    def _noting_failure(self, number: int) -> Iterator[None]:
        try:
            yield
        except DivergedError as error:
            self.failed[number] = error
            self._alike = self._find_alike()


def _stack(models: list[nn.Module], named: Callable[[nn.Module], Iterable]) -> dict[str, Tensor]:
    """The models' tensors by name, stacked; each model's own becomes a slice of the stack."""
    tensors = [dict(named(model)) for model in models]
    stacked = {name: torch.stack([own[name].detach() for own in tensors]) for name in tensors[0]}
    for number, own in enumerate(tensors):
        for name, tensor in own.items():
            tensor.data = stacked[name][number]
    return stacked
