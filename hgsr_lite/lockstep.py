"""Several runs of one architecture in step: their weights stacked, one forward and backward pass for all.

Each run keeps its own network, regularizer, order of images and history. The networks' parameters become
slices of stacked ones, so that everything that acts on one network (`sparsity`, `Regularizer`, a snapshot)
still sees its weights, while `torch.vmap` trains all of them at once.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from hgsr_lite.penalties import Penalty
from hgsr_lite.regularizer import Regularizer
from hgsr_lite.run import Run, at_least_float32

_L1 = Penalty("l1")


class Lockstep:
    """Runs that differ in seed, first weights and regularizer, and in nothing else, trained as one.

    `failed` maps the number of a run whose loss became NaN or infinite to the reason; the others go on.

    >>> from hgsr_lite.data import load_data
    >>> from hgsr_lite.models import build_model
    >>> from hgsr_lite.run import Settings
    >>> data = load_data("digits", device="cpu", limit=100)
    >>> nets = [build_model("digits_cnn", in_channels=1, num_classes=10, seed=seed) for seed in (0, 1)]
    >>> runs = [Run(net, data, None, Settings(epochs=1, seed=seed)) for seed, net in enumerate(nets)]
    >>> with Lockstep(runs) as together, tqdm(disable=True) as bar:
    ...     together.train_epoch(bar)
    >>> [len(run.history.records) for run in runs]
    [1, 1]
    """

    def __init__(self, runs: list[Run]) -> None:
        self.runs = runs
        self.failed: dict[int, str] = {}
        self._skeleton = copy.deepcopy(runs[0].model).to("meta")
        self._parameters = _stack([run.model for run in runs], nn.Module.named_parameters)
        self._buffers = _stack([run.model for run in runs], nn.Module.named_buffers)
        for name, parameter in self._parameters.items():
            parameter.requires_grad_().grad = torch.zeros_like(parameter)
            for run, slice_of_grad in zip(runs, parameter.grad, strict=True):
                run.model.get_parameter(name).grad = slice_of_grad
        self._settings = runs[0].settings
        self._optimizer = self._settings.make_optimizer(self._parameters.values())

    def __enter__(self) -> Lockstep:
        return self

    def __exit__(self, *_: object) -> None:
        """Give every network weights of its own again."""
        for run in self.runs:
            for tensor in (*run.model.parameters(), *run.model.buffers()):
                tensor.data, tensor.grad = tensor.data.clone(), None

    def train_epoch(self, bar: tqdm) -> None:
        """One pass of every run over the training images, in its own order."""
        for run in self.runs:
            run.start_epoch()
        self._skeleton.train()
        for group in self._optimizer.param_groups:
            group["lr"] = self._settings.lr_in(self.runs[0].epoch)
        for batches in zip(*(run.batches() for run in self.runs), strict=True):
            self.step(torch.stack([images for images, _ in batches]), torch.stack([y for _, y in batches]))
            bar.update()
        for number, run in self._alive():
            with self._noting_failure(number):
                run.end_epoch()

    def step(self, images: Tensor, labels: Tensor) -> None:
        """One training step of every run: `images` (runs, batch, ...) and `labels` (runs, batch)."""
        for run in self.runs:
            run.start_step()
        for parameter in self._parameters.values():
            parameter.grad.zero_()
        with self._settings.autocast(images.device):
            forward = torch.vmap(self._forward, randomness="different")
            scores = forward(self._parameters, self._buffers, images)
        each = cross_entropy(at_least_float32(scores).flatten(0, 1), labels.flatten(), reduction="none")
        losses = each.view_as(labels).mean(1)
        losses.sum().backward()
        terms = torch.zeros_like(losses.detach()) if self._settings.proximal else self._penalise()
        self._optimizer.step()
        if self._settings.proximal:
            self._take_proximal_steps(losses.detach())
        for run, loss, term in zip(self.runs, losses.detach(), terms, strict=True):
            run.end_step(loss, term, labels.shape[1])

    def _forward(self, parameters: dict[str, Tensor], buffers: dict[str, Tensor], images: Tensor) -> Tensor:
        return functional_call(self._skeleton, (parameters, buffers), (images,))

    @torch.no_grad()
    def _penalise(self) -> Tensor:
        """Add every run's penalty gradient; return the values, one a run."""
        device = self.runs[0].data.device
        terms = torch.zeros(len(self.runs), device=device)
        families: dict[tuple, list[int]] = {}
        for number, run in self._alive():
            reg = run.regularizer
            if reg is None:
                continue
            if reg.backend == "compiled":
                terms[number] = reg.add_gradient_()
            else:
                layers = tuple(layer.name for layer in reg.layers)
                families.setdefault((reg.penalty, layers), []).append(number)
        for numbers in families.values():
            rows = torch.tensor(numbers, device=device)
            terms[rows] = self._penalise_family(rows, [self.runs[number].regularizer for number in numbers])
        return terms

    def _penalise_family(self, rows: Tensor, regularizers: list[Regularizer]) -> Tensor:
        """The plain formula for runs that share a penalty and its layers: as many operators as for one."""
        strengths = torch.tensor([reg.strengths() for reg in regularizers], device=rows.device)
        terms = torch.zeros(len(rows), device=rows.device)
        for layer in regularizers[0].layers:
            stacked = self._parameters[f"{layer.name}.weight".removeprefix(".")]
            weights = stacked.detach()[rows]
            for penalty, strength in zip((regularizers[0].penalty, _L1), strengths.T, strict=True):
                if penalty is _L1 and not strength.any():
                    continue
                each = partial(penalty.value_and_gradient, layout=layer.layout)
                values, gradients = torch.vmap(each)(weights)
                terms += strength * values
                scale = strength.to(weights.dtype).view(-1, *[1] * (weights.ndim - 1))
                stacked.grad.index_add_(0, rows, scale * gradients)
        return terms

    def _take_proximal_steps(self, losses: Tensor) -> None:
        lr = self._optimizer.param_groups[0]["lr"]
        for number, run in self._alive():
            with self._noting_failure(number):
                run.take_proximal_step(lr, losses[number], torch.zeros(()))

    def _alive(self) -> list[tuple[int, Run]]:
        return [(number, run) for number, run in enumerate(self.runs) if number not in self.failed]

    @contextlib.contextmanager
    def _noting_failure(self, number: int) -> Iterator[None]:
        try:
            yield
        except FloatingPointError as error:
            self.failed[number] = str(error)


def _stack(models: list[nn.Module], named: Callable[[nn.Module], Iterable]) -> dict[str, Tensor]:
    """The models' tensors by name, stacked; each model's own becomes a slice of the stack."""
    tensors = [dict(named(model)) for model in models]
    stacked = {name: torch.stack([own[name].detach() for own in tensors]) for name in tensors[0]}
    for number, own in enumerate(tensors):
        for name, tensor in own.items():
            tensor.data = stacked[name][number]
    return stacked
