"""Measuring a network: loss and accuracy on a split, and the one reading of the test set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from hgsr_lite.computed_weights import plain_copy
from hgsr_lite.data import Data, Split, check_data
from hgsr_lite.layers import check_model
from hgsr_lite.training.history import TestResult
from hgsr_lite.training.settings import in_quick_format
from hgsr_lite.zeros import sparsity, zero_below_

_BATCH = 1000


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """A model in eval mode for a while; then each of its modules is in the mode it was in before.

    >>> model = nn.Sequential(nn.BatchNorm2d(3).eval(), nn.Dropout())
    >>> with eval_mode(model):
    ...     [part.training for part in model]
    [False, False]
    >>> [part.training for part in model]
    [False, True]
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@torch.no_grad()
def accuracy(model: nn.Module, split: Split) -> float:
    """Share of a split's images that the model, in eval mode, names rightly, 0 to 1."""
    check_model(model)
    if not isinstance(split, Split):
        raise TypeError(f"split must be a part of the data, say data.test, not {type(split).__name__}")
    return evaluate(model, split)[1]


@torch.no_grad()
def evaluate(model: nn.Module, split: Split) -> tuple[float, float]:
    """Mean cross-entropy (nats) and accuracy in eval mode; the modes of its modules are put back."""
    loss, right = 0.0, 0
    with eval_mode(model):
        for images, labels in zip(split.images.split(_BATCH), split.labels.split(_BATCH), strict=True):
            scores = model(in_quick_format(images))
            loss += cross_entropy(scores, labels, reduction="sum").item()
            right += int((scores.argmax(1) == labels).sum())
    return loss / len(split.labels), right / len(split.labels)


def test_result(model: nn.Module, data: Data, tolerance: float = 1e-3, relative: bool = False) -> TestResult:
    """Read the test set: accuracy as it stands and with the weights below tolerance set to zero.

    The model given in is not changed. A sparsity counted with a tolerance is only worth quoting beside
    the second accuracy.
    """
    check_data(data)
    report = sparsity(model, tolerance, relative)
    zeroed_model = plain_copy(model)
    zeroed = zero_below_(zeroed_model, tolerance, relative)
    return TestResult(
        accuracy=accuracy(model, data.test),
        accuracy_after_zeroing=accuracy(zeroed_model, data.test),
        below_tolerance=report.below_tolerance,
        exact_zeros=report.exact_zeros,
        dead_kernels=report.dead_kernels,
        dead_inputs=report.dead_inputs,
        dead_outputs=report.dead_outputs,
        zeroed=zeroed,
        tolerance=report.tolerance,
        relative=relative,
    )


test_result.__test__ = False  # pytest would otherwise take the name for a test
