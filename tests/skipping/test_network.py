"""A network without its dead kernels is the same function, says what it left out, and can be passed on."""

from __future__ import annotations

import copy
import math
import time

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.fx.experimental.optimization import fuse

import hgsr_lite as hg
from hgsr_lite.removal import latency, macs
from hgsr_lite.skipping import choice, living_state, load_living, save_living
from hgsr_lite.skipping.layers import LivingConvolution, LivingPool
from hgsr_lite.skipping.living_file import CHECKSUM, checksum_of, living_bytes
from hgsr_lite.skipping.network import DenseNetwork, SkippingNetwork

LIVING = [*hg.MODELS, "torchvision resnet18", "vgg11_bn", "mobilenet_v2", "densenet121"]


def network(name: str, share: float = 0.9) -> nn.Module:
    """A network with random kernels dead, and batch norms that have seen something."""
    if name in hg.MODELS:
        model = hg.build_model(name, in_channels=3, num_classes=10, seed=0)
    else:
        torch.manual_seed(0)
        model = getattr(torchvision.models, name.split()[-1])(num_classes=10)
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.groups == 1:
            alive = torch.rand(module.weight.shape[:2], generator=generator) >= share
            alive[:, 0] |= ~alive.any(1)  # no channel dies of it: every layer is really compared
            module.weight.data *= alive[..., None, None] / (1 - share) ** 0.5
        elif isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
    return model.eval()


def distance(one: nn.Module, other: nn.Module, images: Tensor) -> float:
    with torch.no_grad():
        wanted, found = one(images), other(images)
    assert found.shape == wanted.shape
    return float((found - wanted).abs().max() / wanted.abs().max())


def _empty(model: nn.Module) -> nn.Module:
    """The same network with nothing of it left in the weights."""
    model = copy.deepcopy(model)
    for tensor in model.state_dict().values():
        tensor.zero_()
    return model


@pytest.fixture
def never_dense(monkeypatch):
    """Every covered layer is taken, whatever this machine's clock says."""
    monkeypatch.setattr(choice, "_MARGIN", 0.0)


@pytest.mark.slow
@pytest.mark.parametrize("name", LIVING)
@pytest.mark.usefixtures("never_dense")
def test_networks_are_the_same_function_saved_loaded_copied_and_exported(name, tmp_path):
    model = network(name)
    size = 64 if name in LIVING[4:] else 32
    images = torch.randn(3, 3, size, size)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    small, report = hg.skip_dead_kernels(model, images, repeats=0)
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    assert any(isinstance(module, LivingConvolution) for module in small.modules())
    assert report.change["example"].relative < 1e-5
    fresh = torch.randn(19, 3, size, size)
    assert distance(model, small, fresh) < 1e-5
    assert distance(small, copy.deepcopy(small), fresh) == 0
    exported = torch.export.export(small, (images,)).module()
    assert distance(small, exported, images) < 1e-6
    save_living(model, tmp_path / "living.safetensors")
    loaded = load_living(_empty(model), tmp_path / "living.safetensors")
    assert all(torch.equal(tensor, before[key]) for key, tensor in loaded.state_dict().items())
    torch.save(small.state_dict(), tmp_path / "small.pt")
    again, _ = hg.skip_dead_kernels(loaded, images, repeats=0)
    again.load_state_dict(torch.load(tmp_path / "small.pt", weights_only=True))
    again.tile = small.tile  # found by a clock; what is left dense rounds by how many images come together
    assert distance(small, again, fresh) == 0


@pytest.mark.usefixtures("never_dense")
def test_relu_residual_sums_norms_and_pools_leave_the_graph():
    small, _ = hg.skip_dead_kernels(network("resnet18"), torch.randn(2, 3, 32, 32), repeats=0)
    assert isinstance(small, SkippingNetwork)
    nodes = [node for node in small.network.graph.nodes if node.op == "call_module"]
    left = {type(small.network.get_submodule(node.target)) for node in nodes}
    assert not left & {nn.ReLU, nn.BatchNorm2d, nn.MaxPool2d, nn.AdaptiveAvgPool2d, nn.Conv2d}
    assert not any("add" in str(node.target) for node in small.network.graph.nodes)


@settings(max_examples=60)
@given(
    st.integers(1, 33), st.integers(2, 9), st.integers(2, 9), st.integers(1, 3), st.integers(1, 3),
    st.integers(0, 1), st.booleans(),
)  # fmt: skip
def test_pools_are_pytorchs_and_their_images_lie_batch_innermost(
    batch, height, width, kernel, stride, padding, ceil
):
    kernel = min(kernel, height, width)
    padding = min(padding, kernel // 2)
    images = torch.randn(batch, 3, height, width)
    images[0, 0, 0, 1] = math.nan
    grid = (min(kernel, height), min(stride, width))
    for pool in (
        nn.MaxPool2d(kernel, stride, padding, ceil_mode=ceil),
        nn.AvgPool2d(kernel, stride, padding, ceil, count_include_pad=False),
        nn.AdaptiveAvgPool2d(grid),
        nn.AdaptiveMaxPool2d((None, 1)),
    ):
        found, wanted = LivingPool(pool)(images), pool(images)
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6, equal_nan=True)
        assert found.permute(1, 2, 3, 0).is_contiguous()


@pytest.mark.usefixtures("never_dense")
def test_activations_are_ordinary_tensors_with_the_batch_innermost():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Softsign(), nn.Conv2d(4, 4, 3), nn.GELU())
    model[0].weight.data[:, 0] = model[2].weight.data[:, 0] = 0
    images = torch.randn(16, 3, 9, 9)
    small, _ = hg.skip_dead_kernels(model, images, repeats=0)
    assert small(images).permute(1, 2, 3, 0).is_contiguous()
    assert distance(model, small, images) < 1e-5


@pytest.mark.usefixtures("never_dense")
def test_double_precision_asymmetric_same_padding_conv_groups_and_dilation():
    model = nn.Sequential(
        nn.Conv2d(4, 6, (2, 4), padding="same", groups=2),
        nn.ReLU6(),
        nn.Conv2d(6, 3, 3, 2, 2, 2),
        nn.Hardtanh(),
    ).double()
    model[0].weight.data[:3, 0] = model[2].weight.data[0] = 0
    images = torch.randn(9, 4, 11, 8, dtype=torch.float64)
    small, report = hg.skip_dead_kernels(model, images, repeats=0)
    assert not any(layer.dense_because for layer in report.layers)
    assert distance(model, small, images) < 1e-12


def test_what_is_not_covered_stays_dense_and_says_so(monkeypatch):
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Conv2d(1, 2, 3)

        def forward(self, images):
            return self.layer(images) if images.sum() > 0 else images

    images = torch.ones(2, 1, 8, 8)
    small, report = hg.skip_dead_kernels(Branching(), images, repeats=0)
    assert "cannot be traced" in report.left_dense
    assert "cannot be traced" in str(report)
    assert torch.equal(small(-images), -images)
    mirrored = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1, padding_mode="reflect"), nn.ReLU())
    mirrored[0].weight.data[:2] = 0
    small, report = hg.skip_dead_kernels(mirrored, images, repeats=0)
    assert "padding_mode='reflect'" in report.layers[0].dense_because
    assert (
        distance(mirrored, small, images) < 1e-6
    )  # a clock chose the memory format, and with it the rounding
    monkeypatch.setattr("hgsr_lite.skipping.network.has_numba", lambda: False)
    _, report = hg.skip_dead_kernels(network("digits_cnn"), torch.ones(1, 3, 8, 8), repeats=0)
    assert report.left_dense == "numba is not installed"


def test_a_layer_that_does_not_pay_stays_dense(monkeypatch):
    model, images = network("digits_cnn"), torch.randn(2, 3, 16, 16)
    monkeypatch.setattr(choice, "_seconds_of", lambda *_: (1.0, 2.0))
    small, report = hg.skip_dead_kernels(model, images, repeats=0)
    assert {layer.dense_because for layer in report.layers} == {"faster"}
    assert isinstance(small, DenseNetwork)
    assert report.left_dense == "no layer pays"
    _, timed = hg.skip_dead_kernels(model, images, repeats=2, batches=(2,))
    before, after, gain = timed.table().loc["milliseconds, batch 2"]
    assert before > 0
    assert math.isnan(after)
    assert math.isnan(gain), "one form timed twice is no gain"
    alive = choice.choose_layer(nn.Conv2d(3, 3, 1), torch.Size((1, 3, 8, 8)), True)
    assert alive == (None, "no dead kernel")
    assert distance(model, small, images) < 1e-5
    monkeypatch.setattr(choice, "_seconds_of", lambda _, __, count, *___: (1.0, 2.0 if count == 1 else 0.1))
    small, report = hg.skip_dead_kernels(model, images, repeats=0)
    assert {layer.dense_because for layer in report.layers} == {"faster, for one image only"}
    names = ", ".join(layer.name for layer in report.layers)
    assert f"kept dense (faster, for one image only): {names}" in str(report).splitlines()
    for fresh in (images, images[:1], torch.randn(40, 3, 16, 16)):
        assert distance(model, small, fresh) < 1e-5


def _slow_below(count: int):
    """A network without dead kernels that takes longer than any dense one for fewer images than this."""
    return lambda network, images, tile: time.sleep(0.5) if len(images) < count else None


def test_few_images_go_through_the_dense_network_where_that_is_faster(monkeypatch):
    monkeypatch.setattr(choice, "_seconds_of", lambda *_: (1.0, 0.1))
    monkeypatch.setattr(choice, "_in_tiles", _slow_below(8))
    model, images = network("digits_cnn"), torch.randn(2, 3, 16, 16)
    small, report = hg.skip_dead_kernels(model, images, repeats=0)
    assert (small.dense_below, report.dense_below) == (8, 8)
    assert "fewer than 8 images go through the dense network" in str(report)
    taken = []
    for form in (small.dense, small.network):
        form.register_forward_hook(lambda module, *_: taken.append(type(module)))
    for count, way in ((1, DenseNetwork), (7, DenseNetwork), (8, GraphModule), (40, GraphModule)):
        assert distance(model, small, torch.randn(count, 3, 16, 16)) < 1e-5
        assert issubclass(taken.pop(), way)
    exported = torch.export.export(small, (images,)).module()
    assert distance(model, exported, images) < 1e-5


def test_a_network_that_never_pays_stays_dense(monkeypatch):
    monkeypatch.setattr(choice, "_seconds_of", lambda *_: (1.0, 0.1))
    monkeypatch.setattr(choice, "_in_tiles", _slow_below(1000))
    model, images = network("digits_cnn"), torch.randn(2, 3, 16, 16)
    small, report = hg.skip_dead_kernels(model, images, repeats=0)
    assert isinstance(small, DenseNetwork)
    assert "faster for every batch that was timed" in str(report)
    assert distance(model, small, images) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_no_batch_takes_longer_than_in_the_dense_network(share):
    """Measured. A neighbour on the same machine can take half of it, so the best of three counts."""
    model, images = network("digits_cnn", share), torch.randn(128, 3, 8, 8)
    small, _ = hg.skip_dead_kernels(model, images, repeats=0)
    dense = fuse(model)
    for count in (1, 16, 128):
        ratios = []
        for _ in range(3):
            seconds = latency({"dense": dense, "small": small}, images[:count], 50)
            ratios.append(seconds["small"] / seconds["dense"])
        assert min(ratios) < 1.25, (count, ratios)


@pytest.mark.usefixtures("never_dense")
def test_a_gradient_is_refused_with_the_reason_and_training_mode_is_none():
    small, _ = hg.skip_dead_kernels(network("digits_cnn"), torch.randn(2, 3, 8, 8), repeats=0)
    with pytest.raises(RuntimeError, match="has no gradient: ask the dense network"):
        small(torch.randn(2, 3, 8, 8, requires_grad=True))
    assert not small(torch.randn(2, 3, 8, 8)).requires_grad
    assert not any(module.training for module in small.train().modules())


@pytest.mark.usefixtures("never_dense")
def test_the_report_counts_what_is_done_and_stored():
    model = nn.Sequential(nn.Conv2d(4, 4, 3, bias=False))
    model[0].weight.data[:, :3] = 0
    small, report = hg.skip_dead_kernels(model, torch.ones(1, 4, 10, 10), repeats=1, batches=(1, 16))
    assert (report.kernels, report.dead_kernels) == (16, 12)
    assert macs(small, torch.ones(1, 4, 10, 10)) == 4 * 9 * 64
    table = report.table()
    assert table.loc["multiply-adds per image"].tolist() == [16 * 9 * 64, 4 * 9 * 64, 4.0]
    assert table.loc["numbers stored", "after"] == 4 * 9
    assert (table.loc[["milliseconds, batch 1", "milliseconds, batch 16"]] > 0).all(axis=None)
    assert f"a dead kernel saves {9 * 64} multiply-adds an image" in str(report)
    assert "<table" in report._repr_html_()


def test_the_report_times_torch_compile_too_where_it_is_asked_to():
    model, images = network("digits_cnn"), torch.randn(1, 3, 8, 8)
    quiet, asked = (
        hg.skip_dead_kernels(model, images, batches=(1, 8), repeats=2, compile_dense=compile_dense)[1]
        for compile_dense in (False, True)
    )
    assert quiet.costs.not_compiled is None
    assert "fastest form" not in str(quiet)
    assert asked.costs.not_compiled == ""
    assert list(asked.costs.dense_forms) == [1, 8]
    assert set(asked.costs.dense_forms.values()) <= {"contiguous", "channels_last", "torch.compile"}
    assert f"by the number of images: {asked.costs.dense_forms[1]} for 1, " in str(asked)


def test_a_network_that_torch_compile_cannot_take_as_one_graph_is_timed_without_it():
    class Chooses(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Conv2d(3, 4, 3)

        def forward(self, images):
            found = self.layer(images)
            return found if found.sum() > 0 else -found

    model, images = Chooses(), torch.randn(1, 3, 8, 8)
    _, report = hg.skip_dead_kernels(model, images, batches=(1, 2), repeats=2, compile_dense=True)
    assert "torch.compile could not be timed: " in str(report)
    assert "torch.compile" not in report.costs.dense_forms.values()
    assert report.costs.by_batch[2][0].seconds > 0


@pytest.mark.usefixtures("never_dense")
def test_channels_and_kernels_are_in_one_table():
    model = network("digits_cnn")
    model.features.conv2.weight.data[:, :7] = 0
    images = torch.randn(4, 3, 16, 16)
    compacted, first = hg.compact(model, images, repeats=0)
    small, report = hg.skip_dead_kernels(compacted, images, compacted=first, repeats=0)
    table = report.table()
    steps = table.loc["multiply-adds per image"]
    assert steps["before compact"] > steps["before"] > steps["after"]
    living = report.kernels - report.dead_kernels
    assert table.loc["kernels", ["before", "after"]].tolist() == [report.kernels, living]
    channels = table.loc["output channels", ["before compact", "before", "after"]]
    assert first.exact + first.approximate > 0
    assert channels.diff().tolist()[1:] == [-first.exact - first.approximate, 0]
    assert "both together" in str(report)
    assert "multiply-adds an image and " in str(report)
    assert " bytes of the file; without all of them" in str(report)
    assert distance(compacted, small, images) < 1e-5


def test_the_file_is_as_small_as_its_living_kernels(tmp_path):
    model = network("vgg11_bn")
    size = save_living(model, tmp_path / "living.safetensors")
    layers = [module.weight for module in model.modules() if isinstance(module, nn.Conv2d)]
    kernels = sum(weight.shape[0] * weight.shape[1] for weight in layers)
    living = sum(int((weight != 0).flatten(2).any(-1).sum()) for weight in layers)
    rest = sum(t.numel() * t.element_size() for t in model.state_dict().values()) - 4 * sum(
        map(Tensor.numel, layers)
    )
    assert size == living_bytes(model)
    assert size < 1.1 * (4 * 9 * living + kernels / 8 + rest)


def test_a_network_of_twice_the_precision_has_twice_the_bytes():
    model = network("digits_cnn")
    images = torch.randn(2, 3, 8, 8)
    costs = [
        hg.skip_dead_kernels(each, shown, repeats=0)[1].costs
        for each, shown in ((model, images), (copy.deepcopy(model).double(), images.double()))
    ]
    numbers = sum(t.numel() for t in model.state_dict().values())
    counters = sum(t.numel() for t in model.state_dict().values() if t.dtype == torch.int64)
    assert [each.bytes_before for each in costs] == [4 * (numbers + counters), 8 * numbers]
    assert 1.7 < costs[1].bytes_after / costs[0].bytes_after < 2


def test_what_is_as_fast_as_the_dense_network_is_left_to_it(monkeypatch):
    model, images = network("digits_cnn"), torch.randn(2, 3, 16, 16)
    monkeypatch.setattr(choice, "_seconds_of", lambda *_: (1.0, 0.1))
    seconds = {"living": 1.0}
    monkeypatch.setattr(
        choice,
        "_interleaved",
        lambda calls, *_, **__: (seconds["living"], *[1.0] * (len(calls) - 1)),
    )
    for living, is_dense in ((0.99, True), (0.9, False)):  # five percent are a clock's noise
        seconds["living"] = living
        small, _ = hg.skip_dead_kernels(model, images, repeats=0)
        assert isinstance(small, DenseNetwork) == is_dense


def test_a_cut_network_comes_back_from_its_file_and_from_torch_load(tmp_path):
    model = network("digits_cnn")
    model.features.conv2.weight.data[:, :7] = 0
    images = torch.randn(4, 3, 8, 8)
    small, _ = hg.compact(model, images, repeats=0)
    save_living(small, tmp_path / "living.safetensors")
    torch.save(living_state(small), tmp_path / "living.pt")
    whole = hg.build_model("digits_cnn", in_channels=3, num_classes=10).eval()
    for file in (tmp_path / "living.safetensors", torch.load(tmp_path / "living.pt", weights_only=True)):
        assert distance(small, load_living(whole, file), images) == 0


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda state: state.pop("0.weight.living_shape"), "not its shape"),
        (
            lambda state: state.update({"0.weight.living_bitmap": torch.zeros(9, dtype=torch.uint8)}),
            "belong together",
        ),
        (lambda state: state["0.weight.living_bitmap"].fill_(255), "belong together"),
        (lambda state: state["0.weight.living_bitmap"].bitwise_or_(1), "belong together"),  # of no kernel
        (
            lambda state: state.update({"0.weight.living_shape": torch.tensor([3, -1, 3, 3])}),
            "none of a convolution",
        ),
        (lambda state: state.update({"1.bias": torch.zeros(3)}), "does not fit"),
    ],
)
def test_a_damaged_file_is_refused(damage, words):
    layer = nn.Sequential(nn.Conv2d(2, 3, 3))
    layer[0].weight.data[0] = 0
    state = living_state(layer)
    damage(state)
    state[CHECKSUM] = checksum_of({key: tensor for key, tensor in state.items() if key != CHECKSUM})
    with pytest.raises(ValueError, match=words):  # whoever wrote it made no mistake in the checksum
        load_living(layer, state)


def test_a_file_of_something_else_is_refused(tmp_path):
    (tmp_path / "text").write_text("no tensors here, but long enough to look like it")
    with pytest.raises(ValueError, match="no file of living kernels"):
        load_living(nn.Sequential(nn.Conv2d(2, 3, 3)), tmp_path / "text")
