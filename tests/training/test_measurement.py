"""Measuring a network leaves it as it was: its numbers, and the mode of each of its parts."""

from __future__ import annotations

import copy

import pytest
import torch

import hgsr_lite as hg
from hgsr_lite.removal.cost import latency, macs

pytestmark = pytest.mark.trains


@pytest.mark.parametrize(
    "measure",
    [
        lambda model, data: hg.accuracy(model, data.test),
        lambda model, data: macs(model, data.test.images[:1]),
        lambda model, data: latency({"net": model}, data.test.images[:2], repeats=2),
    ],
    ids=["accuracy", "macs", "latency"],
)
def test_a_network_in_training_with_a_frozen_batch_norm_is_left_as_it_was(measure):
    data = hg.load_data("digits", device="cpu", limit=100)
    model = hg.build_model("resnet18", in_channels=1, num_classes=10, seed=0).train()
    frozen = next(module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d))
    frozen.eval()
    before = copy.deepcopy(model.state_dict())
    modes = [module.training for module in model.modules()]
    measure(model, data)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
