"""Passes played back on a GPU train to what a plain loop trains to; what might not repeat is not recorded."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

import hgsr_lite as hg
from hgsr_lite.study import held_zeros, zero_lowest_
from hgsr_lite.training import TrainingState
from hgsr_lite.training.recorded import RecordedPasses, repeats_itself
from hgsr_lite.training.state import _forward_and_backward

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


def with_a_hook_on_a_weight():
    network = small_network()
    network[0].weight.register_hook(lambda gradient: gradient)
    return network


def with_a_hook_behind_a_gradient():
    network = small_network()
    network[0].weight.register_post_accumulate_grad_hook(lambda weight: None)
    return network


def with_statistics_that_count_in_python():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, momentum=None))


NOT_REPEATED = [
    with_a_hook_on_a_weight,
    with_a_hook_behind_a_gradient,
    with_statistics_that_count_in_python,
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
    with held_zeros(small):
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


def assert_near(one, other, tolerance):
    assert torch.linalg.vector_norm(one - other) <= tolerance * torch.linalg.vector_norm(other)


@on_gpu
@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize("name", ["digits_cnn", "alexnet", "vgg11", "resnet18"])
def test_a_pass_played_back_gives_the_loss_and_gradients_of_its_batch(name, bfloat16, replays, same_sums):
    """To a hundredth: a pass over other images, or one that adds to old gradients, is apart by its size."""
    model = hg.build_model(name, in_channels=3, num_classes=10, seed=0).cuda().train()
    settings = hg.Settings(bfloat16=bfloat16)
    optimizer = settings.make_optimizer(model.parameters())
    passes = RecordedPasses(
        model, partial(_forward_and_backward, model, optimizer, settings), torch.device("cuda")
    )
    generator = torch.Generator().manual_seed(0)
    for number in range(6):
        images = settings.as_wanted(torch.randn(64, 3, 32, 32, generator=generator).cuda())
        labels = torch.randint(10, (64,), generator=generator).cuda()
        losses, gradients = [], []
        for run in (passes.run, passes):
            losses.append(run(images, labels))
            gradients.append([parameter.grad.clone() for parameter in model.parameters()])
        assert len(replays) == max(0, number - 2)
        assert_near(losses[1], losses[0], 1e-2)
        for expected, found in zip(*gradients, strict=True):
            assert_near(found, expected, 1e-2)


@pytest.mark.trains
@on_gpu
@pytest.mark.parametrize("options", [{}, {"proximal": True}])
@pytest.mark.parametrize("name", ["digits_cnn", "alexnet", "resnet18"])
def test_playing_back_trains_to_what_passes_as_they_are_train_to(name, options, replays, same_sums):
    """Each tensor to a thousandth, after thirty steps of two shapes."""
    trained = []
    for play in (True, False):
        model = hg.build_model(name, in_channels=1, num_classes=10, seed=0)
        if not play:  # a hook that does nothing: networks with one are not recorded
            model.register_forward_hook(lambda *_: None)
        reg = hg.Regularizer(model.cuda(), "gl12", strength=1e-3, warmup=0.5)
        hg.fit(model, digits(), reg, epochs=6, batch_size=64, progress=False, **options)
        trained.append(model.state_dict().values())
    assert len(replays) == (6 * 4 - 3) + (6 - 3)  # four full batches an epoch, and a smaller one
    assert len(set(replays)) == 2
    for one, other in zip(*trained, strict=True):
        assert_near(one.double(), other.double(), 1e-3)


@pytest.mark.trains
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


def move_the_weights(model):
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()


def freeze_a_layer(model):
    next(iter(model.parameters())).requires_grad_(False)


def hold_zeros(model):
    held = held_zeros(model)
    held.__enter__()
    return held


@on_gpu
@pytest.mark.parametrize("change", [move_the_weights, freeze_a_layer, hold_zeros])
def test_an_old_recording_is_not_played_once_the_network_was_changed(change, replays):
    model = hg.build_model("digits_cnn", in_channels=1, num_classes=10, seed=0).cuda()
    state = TrainingState(model, digits(), None, hg.Settings(epochs=1, batch_size=64))
    images, labels = next(state.batches())
    model.train()
    for _ in range(5):
        state.step(images, labels)
    assert (len(replays), len(set(replays))) == (2, 1)
    kept = change(model)  # zeros are held as long as this lives
    for _ in range(3):
        state.step(images, labels)
    assert len(replays) == 2, "three passes as they are"
    state.step(images, labels)
    assert (len(replays), len(set(replays))) == (3, 2)
    del kept


@on_gpu
def test_a_pass_that_cannot_be_recorded_leaves_training_as_it_was(replays):
    """A batch norm that asks the GPU for a number in mid-pass, past the check that refuses it."""
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(144, 10)
    )
    state = TrainingState(model.cuda(), digits(), None, hg.Settings(epochs=1, batch_size=64))
    model[1].momentum = None
    passes, stream = state._passes, torch.cuda.current_stream()
    images, labels = next(state.batches())
    model.train()
    for _ in range(3):
        state.step(images, labels)
    drawn = torch.cuda.get_rng_state()
    with pytest.raises(RuntimeError):
        passes._record(images.clone(), labels.clone())
    assert torch.cuda.current_stream() == stream
    assert torch.equal(torch.cuda.get_rng_state(), drawn), "the same numbers are drawn next"
    assert state.step(images, labels)[0].isfinite()
    assert not replays


@pytest.mark.trains
@on_gpu
def test_where_recording_fails_training_goes_on_and_the_log_says_why(monkeypatch, caplog, replays):
    def fail(*_, **__):
        raise RuntimeError("operation not permitted\nand more")

    monkeypatch.setattr(torch.cuda, "graph", fail)
    model = hg.build_model("digits_cnn", in_channels=1, num_classes=10, seed=0)
    history = hg.fit(model, digits(), epochs=3, batch_size=64, progress=False)
    assert (len(history.records), len(replays)) == (3, 0)
    assert "passes are not recorded (operation not permitted)" in caplog.text
