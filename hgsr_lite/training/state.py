"""One training run: its settings, its state, one epoch at a time."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from hgsr_lite.data import BatchSpec, Data, augmented_specs
from hgsr_lite.groups import sum_dtype
from hgsr_lite.regularizer import Regularizer
from hgsr_lite.training.checkpoint import fingerprint
from hgsr_lite.training.dying import warn_of_death
from hgsr_lite.training.history import History
from hgsr_lite.training.measurement import evaluate
from hgsr_lite.training.recorded import RecordedPasses
from hgsr_lite.training.settings import Settings
from hgsr_lite.zeros import sparsity

FINISHED = "finished"
"""How a run ended that did not stop early."""
_GPU_RANDOM = "random on the GPU"
"""What a GPU's Dropout draws from: kept in the checkpoints of a run on one."""


class DivergedError(FloatingPointError):
    """A run's loss or weights are no longer finite: the `reason`, with advice, and the `history` so far."""

    def __init__(self, reason: str, history: History) -> None:
        super().__init__(reason, history)
        self.reason, self.history = reason, history

    def __str__(self) -> str:
        return f"{self.reason}; the epochs before this one are in this error's .history"


class TrainingState:
    """A training run in progress: the parts that change together and are saved together.

    >>> from hgsr_lite.data import load_data
    >>> from hgsr_lite.models import build_model
    >>> data = load_data("digits", device="cpu", limit=200)
    >>> model = build_model("digits_cnn", in_channels=1, num_classes=10, seed=0)
    >>> state = TrainingState(model, data, None, Settings(epochs=1, batch_size=64))
    >>> [f"{share:.2f}" for share in state.train()]
    ['0.25', '0.50', '0.75', '1.00']
    """

    def __init__(
        self, model: nn.Module, data: Data, regularizer: Regularizer | None, settings: Settings
    ) -> None:
        settings.check()
        if settings.proximal and regularizer is None:
            raise ValueError("proximal=True needs a regularizer: there is nothing to take the step for")
        self.model, self.data, self.regularizer, self.settings = model, data, regularizer, settings
        self.optimizer = settings.make_optimizer(model.parameters())
        run = partial(_forward_and_backward, model, self.optimizer, settings)
        self._passes = RecordedPasses(model, run, data.device)
        self.generator = torch.Generator().manual_seed(settings.seed)
        self.history = History()
        self.epoch = 0
        self.steps = math.ceil(len(data.train.labels) / settings.batch_size)
        self.warned: set[str] = set()
        self._identity: dict[str, Any] | None = None

    def state(self) -> dict[str, Any]:
        """All that a resumed run needs, as tensors and plain values."""
        device = self.data.device
        on_gpu = {_GPU_RANDOM: torch.cuda.get_rng_state(device)} if device.type == "cuda" else {}
        return {
            **on_gpu,
            "identity": self.identity(),
            "epoch": self.epoch,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "shuffling": self.generator.get_state(),
            "random": torch.get_rng_state(),
            "history": self.history.state(),
        }

    def identity(self) -> dict[str, Any]:
        """What must be the same for a checkpoint to be resumed, as it was when this was first asked for.

        Ask before the first step: the start is part of it, and training changes the weights.
        """
        if self._identity is None:
            reg, parts = self.regularizer, self.data.parts.values()
            self._identity = {
                **asdict(self.settings),
                "regularizer": None if reg is None else repr((reg.penalty, reg.l1_mix, reg.warmup)),
                "strength": None if reg is None else float(reg.strength),
                "regularised layers": None if reg is None else [layer.name for layer in reg.layers],
                "data": self.data.name,
                "images and labels": fingerprint(
                    tensor for part in parts for tensor in (part.images, part.labels)
                ),
                "model": str(self.model),
                "first weights": fingerprint(self.model.state_dict().values()),
            }
        return self._identity

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to where `state` was taken."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["shuffling"])
        torch.set_rng_state(state["random"])
        if self.data.device.type == "cuda" and _GPU_RANDOM in state:  # not so where it was begun on a CPU
            torch.cuda.set_rng_state(state[_GPU_RANDOM], self.data.device)
        self.history = History.from_state(state["history"])
        self.epoch = state["epoch"]

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The training images of one epoch, shuffled, cropped and flipped if asked for."""
        return map(self.show, self.specs())

    def specs(self) -> Iterator[BatchSpec]:
        """Which images each batch of an epoch shows, and how: all that is random about it."""
        train, batch_size = self.data.train, self.settings.batch_size
        if self.settings.augment:
            return augmented_specs(train, batch_size, self.generator, self._padding)
        return map(BatchSpec, train.order(batch_size, self.generator))

    def show(self, spec: BatchSpec) -> tuple[Tensor, Tensor]:
        """A batch's images and labels."""
        images, labels = spec.at(self.data.train, self._padding)
        return self.settings.as_wanted(images), labels

    @property
    def _padding(self) -> int:
        return max(1, self.data.train.images.shape[-1] // 8)  # 4 for 32 pixels, as is usual

    def train(self) -> Iterator[float]:
        """Train to the last epoch; yield the share done after each batch, 0 to 1.

        An epoch's record stands when its last batch is yielded. Whoever drives this may stop at any batch.
        Raises `DivergedError` at the end of an epoch whose loss or weights are not finite.
        """
        while self.epoch < self.settings.epochs:
            self.start_epoch()
            for images, labels in self.batches():
                self.start_step()
                self.end_step(*self.step(images, labels), len(labels))
                if self.is_between_epochs:
                    self.end_epoch()
                yield self.done

    @property
    def is_between_epochs(self) -> bool:
        """Whether the last batch of an epoch has been trained."""
        return self._step_number == self.steps

    @property
    def done(self) -> float:
        """The share of the training that is done, 0 to 1."""
        return ((self.epoch - 1) * self.steps + self._step_number) / (self.settings.epochs * self.steps)

    def start_epoch(self) -> None:
        """Set the epoch's learning rate and begin its sums."""
        self.epoch += 1
        self._started, self._step_number = time.perf_counter(), 0
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.lr_in(self.epoch)
        self.model.train()
        self._images = 0
        self._loss_sum = torch.zeros((), device=self.data.device)
        self._term_sum = torch.zeros_like(self._loss_sum)

    def start_step(self) -> None:
        """Tell the regularizer how far training has come."""
        self._step_number += 1
        if self.regularizer is not None:
            self.regularizer.set_progress(self.done)

    def end_step(self, loss: Tensor, term: Tensor, images: int) -> None:
        """Count a batch's mean loss and the penalty beside it."""
        self.count(loss * images, term, images)

    def count(self, loss_sum: Tensor, term_sum: Tensor, images: int) -> None:
        """Count the losses of so many images, and the penalties beside them, as their sums."""
        self._images += images
        self._loss_sum += loss_sum
        self._term_sum += term_sum

    def end_epoch(self) -> None:
        """Record where the network stands; raise `DivergedError` if its loss is not finite."""
        self._record(self._loss_sum.item() / self._images, self._term_sum.item() / self.steps)

    def standing(self) -> str:
        """The last record in a few words."""
        last = self.history.records[-1]
        return f"accuracy {last['validation accuracy']:.1%}, {last['below tolerance']:.1%} below tolerance"

    def step(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """One training step; return the batch's mean loss and the penalty."""
        loss = self._passes(images, labels)
        term = torch.zeros_like(loss)
        if self.regularizer is not None and not self.settings.proximal:
            term = self.regularizer.add_gradient_()
        self.optimizer.step()
        if self.settings.proximal:
            self.take_proximal_step(self.optimizer.param_groups[0]["lr"], loss, term)
        return loss, term

    def take_proximal_step(self, lr: float, loss: Tensor, term: Tensor) -> None:
        """The regularizer's proximal step; weights that are no numbers raise what `diverged` makes."""
        try:
            self.regularizer.prox_(lr)
        except FloatingPointError as error:
            raise self.diverged(loss.item(), term.item()) from error

    def _record(self, loss: float, term: float) -> None:
        weights_are_numbers = all(parameter.isfinite().all() for parameter in self.model.parameters())
        if not (math.isfinite(loss + term) and weights_are_numbers):
            raise self.diverged(loss, term)
        report = sparsity(self.model, self.settings.tolerance, self.settings.relative)
        validation_loss, validation_accuracy = evaluate(self.model, self.data.validation)
        self.history.records.append(
            {
                "epoch": self.epoch,
                "training loss": loss,
                "penalty": term,
                "validation loss": validation_loss,
                "validation accuracy": validation_accuracy,
                **report.overall.shares(),
                "strength": self.regularizer.current_strength if self.regularizer else 0.0,
                "seconds": time.perf_counter() - self._started,
            }
        )
        self.history.take_snapshot(self.model, self.epoch, self.settings.epochs)
        warn_of_death(self, report, loss, term)

    def diverged(self, loss: float, term: float) -> DivergedError:
        """The error of a run whose loss or weights are no longer finite, with the history so far."""
        strength = self.regularizer.current_strength if self.regularizer else 0.0
        weights = ", and some weights are not finite" if math.isfinite(loss + term) else ""
        precision = ", or train without bfloat16" if self.settings.bfloat16 else ""
        return DivergedError(
            f"epoch {self.epoch}: the loss is {loss:g} and the penalty {term:g} at strength {strength:g}"
            f"{weights}: lower the strength or the learning rate ({self.settings.lr:g}), or warm the "
            f"strength up (warmup=0.5){precision}",
            self.history,
        )


def _forward_and_backward(
    model: nn.Module, optimizer: torch.optim.Optimizer, settings: Settings, images: Tensor, labels: Tensor
) -> Tensor:
    """The batch's mean loss; its gradient stands in the parameters."""
    optimizer.zero_grad()
    with settings.autocast(images.device):
        scores = model(images)
    loss = cross_entropy(scores.to(sum_dtype(scores.dtype)), labels)
    loss.backward()
    return loss.detach()
