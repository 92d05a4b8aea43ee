"""A network whose layers are chained does what it does layer by layer, whoever watches."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import hgsr_lite as hg
from hgsr_lite.fast import called_directly, smallest_batch
from hgsr_lite.skipping import choice
from hgsr_lite.skipping.chain import LivingChain
from hgsr_lite.skipping.layers import LivingConvolution, LivingLinear
from hgsr_lite.skipping.network import SkippingNetwork
from tests.skipping.networks import skipping

pytestmark = pytest.mark.usefixtures("never_dense")
COUNT = 40  # several tiles of 16


def layer_by_layer(small: SkippingNetwork, images: Tensor) -> Tensor:
    return small.network(images)  # not `called_directly`


@pytest.mark.parametrize("name", hg.MODELS)
def test_all_convolutions_are_in_one_chain_and_give_what_they_give_one_by_one(name):
    _, small = skipping(name)
    (chain,) = small.chains
    layers = [step.layer for step in chain.steps if isinstance(step.layer, LivingConvolution)]
    assert len(layers) == sum(isinstance(module, LivingConvolution) for module in small.modules())
    before = torch.get_num_threads()
    for count in (1, 7, 16, 17, COUNT):
        images = torch.randn(count, 3, 32, 32)
        for threads in (1, 2):
            torch.set_num_threads(threads)
            assert torch.allclose(small(images), layer_by_layer(small, images), rtol=1e-4, atol=1e-5)
            chain._prepared = {}  # so that it shows which way was taken
            with called_directly(images):
                found = chain(images)
            assert bool(chain._prepared) == (count >= smallest_batch(images.dtype))
            assert torch.allclose(found, chain._one_by_one(images), rtol=1e-5, atol=1e-6)
            assert small(images[:0]).shape == (0, 10)
    torch.set_num_threads(before)


class Classified(nn.Module):
    """A convolution, and linear layers behind it as PyTorch's networks have them."""

    def __init__(self, *behind: nn.Module, twice: bool = False) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 3, padding=1)
        self.layer.weight.data[:, 0] = 0
        self.behind, self.twice = nn.Sequential(*behind), twice

    def forward(self, images):
        rows = self.layer(images).relu()
        found = self.behind(rows if isinstance(self.behind[0], nn.Flatten) else torch.flatten(rows, 1))
        return self.behind[-1](found) if self.twice else found


BEHIND = {
    "hidden layers with dropout": (nn.Linear(100, 9), nn.ReLU(), nn.Dropout(), nn.Linear(9, 5)),
    "a module flattens": (nn.Flatten(), nn.Linear(100, 9, bias=False), nn.ReLU6(), nn.Linear(9, 5)),
    "no bound between": (nn.Linear(100, 7), nn.Linear(7, 5)),
}


@pytest.mark.parametrize("behind", BEHIND)
def test_the_classifier_is_in_the_chain(behind):
    model = Classified(*BEHIND[behind]).eval()
    keys = {key for key in model.state_dict() if key.startswith("behind")}
    small, _ = hg.skip_dead_kernels(model, torch.randn(2, 3, 5, 5), repeats=0)
    (chain,) = small.chains
    assert [type(step.layer) for step in chain.steps] == [LivingConvolution, LivingLinear, LivingLinear]
    assert {key.removeprefix("network.") for key in small.state_dict() if "behind" in key} == keys
    for count in (0, 1, 15, 16, COUNT):
        images = torch.randn(count, 3, 5, 5)
        with torch.no_grad():
            wanted, found = model(images), small(images)
        assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-5)
        assert found.is_contiguous()
        assert found.shape == wanted.shape


def test_a_linear_layer_that_is_called_twice_or_on_rows_from_elsewhere_stays():
    for model in (
        Classified(nn.Linear(100, 5), nn.Linear(5, 5), twice=True),
        Classified(nn.Linear(100, 5), nn.Softmax(1), nn.Linear(5, 5)),
        Classified(nn.Flatten(2), nn.Linear(25, 5)),
    ):
        small, _ = hg.skip_dead_kernels(model.eval(), torch.randn(2, 3, 5, 5), repeats=0)
        assert any(type(module) is nn.Linear for module in small.network.modules())
        images = torch.randn(COUNT, 3, 5, 5)
        with torch.no_grad():
            assert torch.allclose(small(images), model(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("seconds", "wanted"),
    [([1.0, 1.04, 1.0, 1.2], 16), ([1.2, 1.04, 1.0, 1.0], 32), ([3.0, 2.0, 1.0, 0.9], 128)],
)
def test_of_tiles_that_take_as_long_the_smallest_is_taken(monkeypatch, seconds, wanted):
    _, small = skipping("digits_cnn")
    monkeypatch.setattr(choice, "_ENOUGH", 10.0)
    taken = iter([(0.01,), seconds])
    monkeypatch.setattr(choice, "_interleaved", lambda *_, **__: next(taken))
    assert choice._best_tile(small, torch.randn(2, 3, 32, 32)) == (wanted, 128)


def test_a_hook_on_a_layer_sees_what_it_gives():
    _, small = skipping("vgg11")
    seen = []
    layer = small.get_submodule("network.features.conv4")
    handle = layer.register_forward_hook(lambda module, given, out: seen.append(out.shape))
    images = torch.randn(COUNT, 3, 32, 32)
    hooked = small(images)
    assert seen == [(COUNT, 64, 8, 8)]
    handle.remove()
    assert torch.allclose(small(images), hooked, rtol=1e-4, atol=1e-5)
    assert len(seen) == 1


def test_a_counter_counts_each_layer_and_a_trace_keeps_each():
    model, small = skipping("digits_cnn")
    images = torch.randn(16, 3, 32, 32)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        small(images)
    assert "hgsr_lite.living_convolution" in {str(each) for each in counter.get_flop_counts()["Global"]}
    traced = torch.jit.trace(small, images, check_trace=False)
    fresh = torch.randn(16, 3, 32, 32)
    assert torch.allclose(traced(fresh), small(fresh), rtol=1e-4, atol=1e-5)
    each = torch.vmap(lambda image: small.network(image[None])[0])
    with torch.no_grad():
        assert torch.allclose(each(fresh), model(fresh), rtol=1e-3, atol=1e-4)


def test_copies_other_weights_and_other_dtypes_are_prepared_anew():
    model, small = skipping("resnet18")
    images = torch.randn(COUNT, 3, 32, 32)
    with torch.no_grad():
        wanted, found = model(images), small(images)
    assert torch.allclose(found, wanted, rtol=1e-3, atol=1e-4)
    for again in (copy.deepcopy(small), pickle.loads(pickle.dumps(small))):
        (chain,) = again.chains
        assert chain is again.network.get_submodule("chain_1")
        assert not chain._prepared
        for tensor in small.buffers():  # the copy has tensors of its own
            tensor.zero_()
        assert torch.equal(again(images), found)
        small.load_state_dict(again.state_dict())
        assert torch.equal(small(images), found)
    small.load_state_dict(
        {key: torch.zeros_like(tensor) for key, tensor in small.state_dict().items()}, assign=True
    )
    assert not torch.equal(small(images), found)
    double = copy.deepcopy(again).double()
    assert torch.allclose(double(images.double()).float(), found, rtol=1e-3, atol=1e-4)


def test_two_threads_at_once_do_not_disturb_each_other():
    _, small = skipping("vgg11")
    batches = [torch.randn(COUNT + 8 * number, 3, 32, 32) for number in range(4)]
    wanted = [small(batch) for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            assert all(map(torch.equal, pool.map(small, batches), wanted))


def test_a_gradient_is_refused_in_a_chain_too():
    _, small = skipping("digits_cnn")
    with pytest.raises(RuntimeError, match="has no gradient: ask the dense network"):
        small(torch.randn(COUNT, 3, 32, 32, requires_grad=True))


def test_a_layer_that_is_read_outside_ends_a_chain():
    class Split(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(nn.Conv2d(3, 3, 3, padding=1) for _ in range(5))
            for layer in self.layers:
                layer.weight.data[:, 0] = 0

        def forward(self, images):
            first, second, third, fourth, fifth = self.layers
            shown = second(first(images))
            return fifth(fourth(third(shown))) + shown.sigmoid()

    model = Split().eval()
    small, _ = hg.skip_dead_kernels(model, torch.randn(2, 3, 8, 8), repeats=0)
    assert [len(chain.steps) for chain in small.chains] == [2, 2]  # the last one adds what is no layer's
    assert all(isinstance(chain, LivingChain) for chain in small.chains)
    images = torch.randn(COUNT, 3, 8, 8)
    with torch.no_grad():
        assert torch.allclose(small(images), model(images), rtol=1e-4, atol=1e-5)
