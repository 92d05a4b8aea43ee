"""Passes played back on a GPU train to what a plain loop trains to; what might not repeat is not recorded."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import parametrizations, prune

import hgsr_lite as hg
from hgsr_lite.study import held_zeros, zero_lowest_
from hgsr_lite.training import TrainingState
from hgsr_lite.training.recorded import repeats_itself

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here: nothing was recorded")


def small_network():
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10))


class CountingReLU(nn.ReLU):
    calls = 0

    def forward(self, images):
        type(self).calls += 1
        return super().forward(images)


def with_a_module_of_its_own():
    return nn.Sequential(small_network(), CountingReLU())


def with_a_forward_hook():
    network = small_network()
    network[1].register_forward_hook(lambda *_: None)
    return network


def with_a_backward_hook():
    network = small_network()
    network[1].register_full_backward_hook(lambda *_: None)
    return network


def with_a_computed_weight():
    network = small_network()
    parametrizations.weight_norm(network[0])
    return network


def with_a_pruned_weight():
    network = small_network()
    prune.l1_unstructured(network[0], "weight", 0.5)
    return network


def with_another_forward():
    network = small_network()
    network[1].forward = lambda images: images.clamp(min=0)
    return network


NOT_REPEATED = [
    with_a_module_of_its_own,
    with_a_forward_hook,
    with_a_backward_hook,
    with_a_computed_weight,
    with_a_pruned_weight,
    with_another_forward,
]


@pytest.mark.parametrize("build", NOT_REPEATED)
def test_what_runs_a_line_of_python_in_its_passes_is_not_recorded(build):
    assert repeats_itself(small_network())
    assert not repeats_itself(build())


@pytest.mark.parametrize("name", ["digits_cnn", "alexnet", "vgg11", "resnet18"])
def test_the_series_networks_may_be_recorded_and_so_may_what_removal_leaves_of_them(name):
    network = hg.build_model(name, in_channels=3, num_classes=10, seed=0)
    assert repeats_itself(network)
    zero_lowest_(network, 0.5, "neuron")
    small, _ = hg.compact(network, torch.randn(2, 3, 32, 32), repeats=0)
    assert repeats_itself(small)


@pytest.fixture
def replays(monkeypatch):
    """How often a recording was played back."""
    played, replay = [], torch.cuda.CUDAGraph.replay
    monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", lambda graph: (played.append(graph), replay(graph)))
    return played


@pytest.fixture
def same_sums(monkeypatch):
    """Sums of one order, so that two trainings can be compared step by step."""
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)


def digits(device="cuda"):
    return hg.load_data("digits", device=device, limit=300)


def plain_loop(model, data, settings, strength=0.0):
    """What `fit` does, without it."""
    optimizer = settings.make_optimizer(model.parameters())
    reg = hg.Regularizer(model, "gl12", strength=strength) if strength else None
    generator = torch.Generator().manual_seed(settings.seed)
    model.train()
    for epoch in range(1, settings.epochs + 1):
        optimizer.param_groups[0]["lr"] = settings.lr_in(epoch)
        for images, labels in data.train.batches(settings.batch_size, generator):
            optimizer.zero_grad()
            with settings.autocast(images.device):
                scores = model(settings.as_wanted(images))
            loss = cross_entropy(scores.float(), labels)
            (loss + reg() if reg else loss).backward()
            optimizer.step()
    return model.eval()


def are_near(one, other, tolerance):
    return torch.linalg.vector_norm(one - other) <= tolerance * torch.linalg.vector_norm(other)


def assert_trained_alike(one, other, bfloat16):
    """Each tensor to a thousandth; in bfloat16 the network as a whole, to a twentieth.

    There a start that differs by 1e-5 moves AlexNet's first bias by a sixth (seen on a CPU).
    """
    pairs = [
        (mine.double().flatten(), theirs.double().flatten())
        for mine, theirs in zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    ]
    if bfloat16:
        assert are_near(*map(torch.cat, zip(*pairs, strict=True)), 0.05)
    else:
        assert all(are_near(*pair, 1e-3) for pair in pairs)


@on_gpu
@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize("strength", [0.0, 1e-3])
@pytest.mark.parametrize("name", ["digits_cnn", "alexnet", "resnet18"])
def test_playing_back_trains_to_what_a_plain_loop_trains_to(name, strength, bfloat16, replays, same_sums):
    data = digits()
    settings = hg.Settings(epochs=6, batch_size=64, bfloat16=bfloat16)
    mine = hg.build_model(name, in_channels=1, num_classes=10, seed=0).cuda()
    theirs = copy.deepcopy(mine)
    reg = hg.Regularizer(mine, "gl12", strength=strength) if strength else None
    hg.fit(mine, data, reg, epochs=6, batch_size=64, bfloat16=bfloat16, progress=False)
    assert len(replays) == (6 * 4 - 3) + (6 - 3)  # four full batches an epoch, and a smaller one
    assert len(set(replays)) == 2
    plain_loop(theirs, data, settings, strength)
    assert_trained_alike(mine, theirs, bfloat16)


@on_gpu
def test_zeros_that_are_held_stay_zeros_when_passes_are_played_back(replays):
    model = hg.build_model("alexnet", in_channels=1, num_classes=10, seed=0).cuda()
    zero_lowest_(model, 0.7, "kernel")
    weights = [layer.weight for layer in hg.weight_layers(model)]
    dead = [weight.detach() == 0 for weight in weights]
    with held_zeros(model):
        hg.fit(model, digits(), epochs=5, batch_size=64, progress=False)
    assert replays
    for weight, zeros in zip(weights, dead, strict=True):
        assert torch.equal(weight == 0, zeros)


@on_gpu
def test_each_batch_played_back_drops_other_channels(replays):
    """Random numbers go on from one playing to the next, as in passes that are not recorded."""
    model = nn.Sequential(nn.Dropout(0.5), nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, 10)).cuda()
    state = TrainingState(model, digits(), None, hg.Settings(epochs=1, batch_size=64, lr=1e-9))
    images, labels = next(state.batches())
    model.train()
    losses = {state.step(images, labels)[0].item() for _ in range(8)}
    assert (len(losses), len(replays)) == (8, 5)


@on_gpu
def test_weights_that_were_moved_are_not_trained_by_an_old_recording(replays):
    model = hg.build_model("digits_cnn", in_channels=1, num_classes=10, seed=0).cuda()
    state = TrainingState(model, digits(), None, hg.Settings(epochs=1, batch_size=64))
    images, labels = next(state.batches())
    model.train()
    for _ in range(5):
        state.step(images, labels)
    before = len(set(replays))
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    kept = [parameter.detach().clone() for parameter in model.parameters()]
    state.step(images, labels)
    assert (before, len(set(replays))) == (1, 2)
    assert not any(torch.equal(old, new) for old, new in zip(kept, model.parameters(), strict=True))


@on_gpu
def test_where_recording_fails_training_goes_on_and_the_log_says_why(monkeypatch, caplog, replays):
    def fail(*_, **__):
        raise RuntimeError("operation not permitted\nand more")

    monkeypatch.setattr(torch.cuda, "graph", fail)
    model = hg.build_model("digits_cnn", in_channels=1, num_classes=10, seed=0)
    history = hg.fit(model, digits(), epochs=3, batch_size=64, progress=False)
    assert (len(history.records), len(replays)) == (3, 0)
    assert "passes are not recorded (operation not permitted)" in caplog.text
