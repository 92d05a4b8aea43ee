"""A small network trains on one thread wherever a reader starts; nothing else changes its threads."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import hgsr_lite as hg
from hgsr_lite.training import Settings, threads
from hgsr_lite.training.lockstep import Lockstep

pytestmark = pytest.mark.trains


class Counting(nn.Module):
    """A network that notes how many threads it is computed with, while it trains and while it does not."""

    def __init__(self):
        super().__init__()
        self.inner = hg.build_model("digits_cnn", in_channels=1, num_classes=10, seed=0)
        self.seen = {True: set(), False: set()}

    def forward(self, images):
        self.seen[self.training].add(torch.get_num_threads())
        return self.inner(images)


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data():
    return hg.load_data("digits", device="cpu", limit=100)


@pytest.mark.usefixtures("three_threads")
def test_a_small_network_trains_on_one_thread_and_the_callers_threads_come_back(data):
    model = Counting()
    hg.fit(model, data, epochs=1, progress=False)
    assert model.seen == {True: {1}, False: {1}}
    assert torch.get_num_threads() == 3


@pytest.mark.usefixtures("three_threads")
def test_small_networks_in_lockstep_train_on_one_thread(data, monkeypatch):
    seen = set()

    def step(self, images, labels):
        seen.add(torch.get_num_threads())
        taken(self, images, labels)

    taken = Lockstep.step
    monkeypatch.setattr(Lockstep, "step", step)
    recipes = [hg.Recipe(settings=Settings(epochs=1, seed=seed)) for seed in (0, 1)]
    hg.fit_many(recipes, data, way="lockstep", progress=False)
    assert seen == {1}
    assert torch.get_num_threads() == 3


@pytest.mark.usefixtures("three_threads")
def test_work_that_is_worth_sharing_keeps_the_callers_threads(data, monkeypatch):
    monkeypatch.setattr(threads, "WORTH_SHARING", 1e6)
    model = Counting()
    hg.fit(model, data, epochs=1, progress=False)
    assert model.seen[True] == {3}


@pytest.mark.usefixtures("three_threads")
def test_the_number_of_threads_outside_does_not_change_a_run(data):
    weights = []
    for count in (3, 1):
        torch.set_num_threads(count)
        model = hg.build_model("digits_cnn", in_channels=1, num_classes=10, seed=0)
        hg.fit(model, data, hg.Regularizer(model, strength=1e-3), epochs=2, progress=False)
        weights.append(torch.cat([part.detach().flatten() for part in model.parameters()]))
    assert torch.equal(*weights)


@pytest.mark.usefixtures("three_threads")
def test_an_error_in_training_gives_the_threads_back(data):
    model = hg.build_model("digits_cnn", in_channels=3, num_classes=10, seed=0)
    with pytest.raises(ValueError, match=r"in_channels=data\.in_channels"):
        hg.fit(model, data, epochs=1, progress=False)
    assert torch.get_num_threads() == 3


def test_counting_the_work_leaves_the_model_as_it_was(data):
    model = hg.build_model("digits_cnn", in_channels=1, num_classes=10, seed=0).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    # Multiplications and additions of three convolutions and a linear layer, for one image of 8 x 8.
    per_image = 2 * (64 * 9 * 32 + 16 * 9 * 32 * 64 + 16 * 9 * 64 * 64 + 64 * 10)
    assert threads._operations(model, data, batch_size=64) == pytest.approx(64 * per_image)
    assert model.training
    for name, value in model.state_dict().items():
        assert torch.equal(before[name], value)
