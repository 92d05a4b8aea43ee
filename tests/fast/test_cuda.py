"""The same numbers on a GPU. Where there is none, the summary says that these were not run."""

from __future__ import annotations

import copy

import pytest
import torch

import hgsr_lite as hg
from hgsr_lite.fast import plain_prox_
from hgsr_lite.study.job import Images, _load, fingerprint

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no CUDA GPU here: nothing was run on one"
)


@pytest.mark.parametrize("grouping", hg.GROUPINGS)
@pytest.mark.parametrize("key", hg.PENALTIES)
@pytest.mark.parametrize("model", ["alexnet", "resnet18"])
def test_the_penaltys_gradient_is_that_of_the_cpu(model, key, grouping):
    here = hg.build_model(model, in_channels=3, num_classes=10, seed=0)
    there = copy.deepcopy(here).cuda()
    regs = [hg.Regularizer(net, key, grouping=grouping, strength=0.1, l1_mix=0.3) for net in (here, there)]
    values = [reg.add_gradient_().item() for reg in regs]
    assert regs[1].backend == "triton"
    assert values[1] == pytest.approx(values[0], rel=1e-5)
    for one, other in zip(regs[0].layers, regs[1].layers, strict=True):
        assert torch.allclose(one.weight.grad, other.weight.grad.cpu(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("grouping", hg.GROUPINGS)
@pytest.mark.parametrize("key", hg.PENALTIES)
def test_the_proximal_step_is_that_of_the_cpu(key, grouping):
    """The weights go to the CPU's loops and back: to the last bit, in every step."""
    here = hg.build_model("alexnet", in_channels=3, num_classes=10, seed=0)
    there = copy.deepcopy(here).cuda()
    regs = [hg.Regularizer(net, key, grouping=grouping, strength=0.02, l1_mix=0.3) for net in (here, there)]
    for _ in range(3):
        for reg in regs:
            reg.prox_(0.1)
            with torch.no_grad():
                for layer in reg.layers:
                    layer.weight.mul_(1.5)
    start = hg.build_model("alexnet", in_channels=3, num_classes=10, seed=0).state_dict()
    for one, other in zip(regs[0].layers, regs[1].layers, strict=True):
        assert torch.equal(one.weight, other.weight.cpu())
        assert not torch.equal(one.weight, 1.5**3 * start[f"{one.name}.weight"]), "the steps did something"


def test_a_step_on_broken_weights_says_how_many_groups_and_leaves_them():
    model = hg.build_model("digits_cnn", in_channels=1, num_classes=10, seed=0).cuda()
    reg = hg.Regularizer(model, "gl", grouping="neuron", strength=1e3)
    weight = reg.layers[1].weight
    with torch.no_grad():
        weight[0, 0, 0, 0] = torch.nan
    before = weight[0].clone()
    with pytest.raises(FloatingPointError, match="1 groups hold NaN"):
        reg.prox_(1.0)
    assert torch.equal(weight[0].nan_to_num(0.5), before.nan_to_num(0.5))
    assert not weight[1:].any()


def test_weights_too_many_for_the_way_to_the_cpu_are_served_where_they_are():
    layer = torch.nn.Linear(2100, 2100, device="cuda")
    before = layer.weight.detach().clone()
    reg = hg.Regularizer(torch.nn.Sequential(layer), "l1", strength=1.0)
    reg.prox_(1e-3)
    assert reg._plan().take_proximal_step._way.func is plain_prox_
    assert torch.allclose(layer.weight, before.sign() * (before.abs() - 1e-3).clamp(min=0))


@pytest.mark.parametrize("options", [{}, {"augment": True}, {"bfloat16": True}, {"proximal": True}])
def test_training_ends_near_that_of_the_cpu(options, surely):
    """To within 4 points, seed by seed; on a CPU five seeds spread by 0.3 to 0.8 (standard deviation)."""
    ends = [accuracies_on(device, way="loop", **options) for device in ("cuda", "cpu")]
    low, high = surely([on_gpu - on_cpu for on_gpu, on_cpu in zip(*ends, strict=True)])
    assert -0.04 < low <= high < 0.04


@pytest.mark.parametrize("way", ["loop", "lockstep", "auto"])
def test_many_networks_train_on_the_gpu(way, surely):
    assert surely(accuracies_on("cuda", way=way))[0] > 0.9


def accuracies_on(device, *, way, **options):
    """Test accuracies of five seeds: 99.2 +- 0.4 % on a CPU, 95.4 +- 0.8 % where images are augmented."""
    method = hg.Penalised("hsq_gl12", strength=1e-5)
    settings = [hg.Settings(epochs=8, lr=0.05, batch_size=64, seed=seed, **options) for seed in range(5)]
    recipes = [hg.Recipe(method=method, settings=one) for one in settings]
    trained = hg.fit_many(recipes, hg.load_data("digits", device=device), way=way, progress=False)
    return [one.history.test.accuracy for one in trained]


def test_cuda_workers_know_the_driver_s_images_and_hold_the_same_pixels():
    """A mean taken on a GPU rounds otherwise: the images are read on the CPU and then moved."""
    images = Images("digits", limit=100)
    on_gpu, found = _load(images, "cuda")
    assert found == fingerprint(images.load())
    assert torch.equal(on_gpu.train.images.cpu(), images.load().train.images)
