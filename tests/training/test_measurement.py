"""Measuring a network leaves it as it was: its numbers, and the mode of each of its parts."""

from __future__ import annotations

import copy

import pytest
import torch

import hgsr_lite as hg
from hgsr_lite.removal.cost import latency, macs
from hgsr_lite.training import Settings, evaluate
from hgsr_lite.training.settings import in_quick_format

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


@pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="no oneDNN here: images stay as they are"
)
def test_colour_images_are_shown_channels_last_and_grey_ones_as_they_are():
    """The format that takes a network least time, in training and in measuring; values stay what they are."""
    seen = []
    model = hg.build_model("alexnet", in_channels=3, num_classes=10, seed=0)
    model.register_forward_pre_hook(lambda _, images: seen.append(images[0]))
    images = torch.randn(20, 3, 16, 16)
    evaluate(model, hg.Split(images, torch.arange(20) % 10))
    assert seen[0].is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(seen[0], images)
    assert torch.equal(Settings().as_wanted(images), images)
    assert Settings().as_wanted(images).is_contiguous(memory_format=torch.channels_last)
    grey = torch.randn(20, 1, 16, 16)
    assert in_quick_format(grey) is grey
    rows = torch.randn(20, 3, 16)
    assert in_quick_format(rows) is rows


def test_the_format_of_the_images_moves_scores_by_no_more_than_rounding():
    images = torch.randn(8, 3, 32, 32)
    for name in ("alexnet", "vgg11", "resnet18"):
        model = hg.build_model(name, in_channels=3, num_classes=10, seed=0).double().eval()
        with torch.no_grad():
            assert torch.allclose(model(in_quick_format(images.double())), model(images.double()), rtol=1e-9)
