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
from hgsr_lite.skipping.layers import LivingConvolution
from hgsr_lite.skipping.network import SkippingNetwork

COUNT = 40  # several tiles of 16


@pytest.fixture(autouse=True)
def never_dense(monkeypatch):
    """Every covered layer is taken, whatever this machine's clock says."""
    monkeypatch.setattr(choice, "_MARGIN", 0.0)
    monkeypatch.setattr(choice, "_ENOUGH", 0.01)


def skipping(name: str) -> tuple[nn.Module, SkippingNetwork]:
    """A network with three kernels in four dead, and the same without them, 16 images at a time."""
    model = hg.build_model(name, in_channels=3, num_classes=10, seed=0).eval()
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data *= 2 * (torch.rand(*module.weight.shape[:2], 1, 1, generator=generator) < 0.25)
    small, _ = hg.skip_dead_kernels(model, torch.randn(2, 3, 32, 32), repeats=0)
    small.tile = 16
    return model, small


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


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_as_one_graph_it_says_the_same(backend):
    model, small = skipping("digits_cnn")
    images = torch.randn(COUNT, 3, 32, 32)
    torch.compiler.reset()
    with torch.no_grad():
        found = torch.compile(small, backend=backend, fullgraph=True)(images)
        assert torch.allclose(found, model(images), rtol=1e-3, atol=1e-4)
    torch.compiler.reset()


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
