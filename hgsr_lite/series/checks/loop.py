"""The check of notebook 07's loop: both steps, a falling learning rate and a warm-up, as `fit` has them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
from torch import nn
from torch.nn.functional import cross_entropy

import hgsr_lite
from hgsr_lite.data import Data, Split
from hgsr_lite.regularizer import Regularizer
from hgsr_lite.series.checks.engine import Answer, Exercise, exercise
from hgsr_lite.training import fit

Progress = Callable[[int, int, int, int], float]


def _images(count: int, seed: int) -> Split:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 1, 5, 5, generator=generator)
    return Split(images, torch.randint(3, (count,), generator=generator))


def tiny_data() -> Data:
    """Random images of three classes: 150 to train on, in batches of 64, 64 and 22.

    >>> tiny_data()
    Data(tiny, 3 classes, 5x5 pixels, 1 channel, on cpu: train 150, validation 4, test 4)
    """
    parts = _images(150, 0), _images(4, 1), _images(4, 2)
    return Data("tiny", ("a", "b", "c"), *parts, torch.zeros(1), torch.ones(1), (0,))


def tiny_network(seed: int) -> nn.Module:
    """Two convolutions and a linear layer, small enough for rounding to stay rounding."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        body = nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 3), nn.Flatten(), nn.Linear(3, 3)
        return nn.Sequential(*body)


def _trained(answer: Answer) -> Answer:
    """What the answer makes of a network that is built here: its parameters; None if it trains nothing."""
    if not callable(answer):
        return answer

    def probe(seed: int, epochs: int, proximal: bool) -> Any:
        network = tiny_network(seed)
        before = [parameter.detach().clone() for parameter in network.parameters()]
        regularizer = Regularizer(network, "hsq_gl12", strength=0.05, warmup=0.6)
        with warnings.catch_warnings(), mock.patch.object(hgsr_lite, "fit", _refused):
            warnings.simplefilter("ignore")
            answer(network, tiny_data(), regularizer, epochs, proximal)
        after = [parameter.detach() for parameter in network.parameters()]
        return None if all(map(torch.equal, before, after)) else after

    return probe


def _refused(*_: Any, **__: Any) -> None:
    raise RuntimeError("write the loop itself: `hg.fit` is not at hand here")


def by_fit(network: nn.Module, data: Data, regularizer: Regularizer, epochs: int, proximal: bool) -> None:
    """The loop of the package itself."""
    budget = {"epochs": epochs, "lr": 0.02, "batch_size": 64, "progress": False}
    fit(network, data, regularizer, proximal=proximal, **budget)


def _done(step: int, steps: int, epoch: int, epochs: int) -> float:
    return step / steps


def _falling(epoch: int, epochs: int) -> float:
    return 0.2 ** (3 * epoch // epochs)


def looped(
    gradient: str = "tell zero loss term step",
    proximal: str = "tell zero loss step prox",
    progress: Progress = _done,
    fall: Callable[[int, int], float] = _falling,
    prox_fall: Callable[[int, int], float] | None = None,
) -> Answer:
    """A loop by hand, its moves in the order given, for gradient and for proximal steps."""

    def train(
        network: nn.Module, data: Data, regularizer: Regularizer, epochs: int, is_proximal: bool
    ) -> None:
        optimizer = torch.optim.SGD(network.parameters(), 0.02, momentum=0.9, weight_decay=5e-4)
        order, step = torch.Generator().manual_seed(0), 0
        steps = epochs * math.ceil(len(data.train) / 64)

        moves = {
            "tell": lambda *_: regularizer.set_progress(progress(step, steps, epoch, epochs)),
            "zero": lambda *_: optimizer.zero_grad(),
            "loss": lambda images, labels: cross_entropy(network(images), labels).backward(),
            "term": lambda *_: regularizer.add_gradient_(),
            "step": lambda *_: optimizer.step(),
            "prox": lambda *_: regularizer.prox_(0.02 * (prox_fall or fall)(epoch, epochs)),
        }
        for epoch in range(epochs):
            optimizer.param_groups[0]["lr"] = 0.02 * fall(epoch, epochs)
            for batch in data.train.batches(64, order):
                step += 1
                for move in (proximal if is_proximal else gradient).split():
                    moves[move](*batch)

    return train


@exercise
def check_complete_the_loop() -> Exercise:
    """7.3: `train_either_way(network, data, regularizer, epochs, proximal)`, in place, as `fit` does it."""
    term, prox = "tell zero loss term step", "tell zero loss step prox"
    mistakes = {
        "`proximal` is not asked: without it the penalty's gradient is added, and no proximal step taken.": (
            looped(gradient=prox)
        ),
        "`proximal` is not asked: with it a proximal step is taken, and no penalty's gradient added.": (
            looped(proximal=term)
        ),
        "Turned round: `proximal` asks for `prox_`, else `add_gradient_` is wanted.": looped(prox, term),
        "With `proximal` the penalty acts twice: its gradient is not wanted there.": looped(
            proximal="tell zero loss term step prox"
        ),
        "The penalty acts twice: `add_gradient_` or `prox_`, one of them.": looped(
            *["tell zero loss term step prox"] * 2
        ),
        "The penalty plays no part: both steps are missing.": looped(*["tell zero loss step"] * 2),
        "Without `proximal` no penalty arrives: `add_gradient_()` belongs between `loss.backward()` and "
        "`optimizer.step()`, where nothing wipes it.": looped(gradient="tell zero loss step"),
        "With `proximal` the proximal step is missing.": looped(proximal="tell zero loss step"),
        "The proximal step comes last: behind `optimizer.step()`, else that moves the zeros again.": looped(
            proximal="tell zero loss prox step"
        ),
        "The warm-up is never told how far training is: `regularizer.set_progress(step / steps)`.": looped(
            term.removeprefix("tell "), prox.removeprefix("tell ")
        ),
        "Nearly: count from 1, so that the last step of training is told 1.": looped(
            progress=lambda step, steps, *_: (step - 1) / steps
        ),
        "`steps` are those of the whole training, not of one epoch.": looped(
            progress=lambda step, steps, _epoch, epochs: min(1.0, step * epochs / steps)
        ),
        "`step` must count on from epoch to epoch: it begins at 0 once.": looped(
            progress=lambda step, steps, epoch, epochs: step / steps - epoch / epochs
        ),
        "The warm-up rises by epochs; tell it before each step.": looped(
            progress=lambda _step, _steps, epoch, epochs: epoch / epochs
        ),
        "The gradients are never cleared: each step gets those of all steps before.": looped(
            term.replace("zero ", ""), prox.replace("zero ", "")
        ),
        "`prox_` takes the learning rate of this epoch, not the first one.": looped(
            prox_fall=lambda _epoch, _epochs: 1.0
        ),
        "The learning rate stays: times 0.2 after each third of the epochs.": looped(
            fall=lambda _epoch, _epochs: 1.0
        ),
        "The learning rate falls an epoch too early: epochs count from 0 in this formula.": looped(
            fall=lambda epoch, epochs: _falling(epoch + 1, epochs)
        ),
    }
    cases = [(0, 3, False), (1, 3, True), (2, 4, True)]
    return Exercise(by_fit, cases, mistakes, tolerance=1e-3, seen_as=_trained)
