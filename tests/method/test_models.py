"""The networks have the published sizes, take any image, and go through PyTorch's tools."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, interpolate
from torchvision.models import resnet18 as torchvision_resnet18

from hgsr_lite.data.load import load_data
from hgsr_lite.models import MODELS, build_model

NAMES = tuple(MODELS)


def convolutions(model):
    return [module for module in model.modules() if isinstance(module, nn.Conv2d)]


@pytest.mark.parametrize(
    ("name", "channels", "hidden"),
    [
        ("alexnet", [8, 16, 32, 16, 16], [128, 128, 10]),
        ("vgg11", [16, 32, 64, 64, 128, 128, 128, 128], [128, 128, 10]),
    ],
)
def test_plain_networks_have_the_published_channels_and_head(name, channels, hidden):
    model = build_model(name, in_channels=3, num_classes=10)
    assert [layer.out_channels for layer in convolutions(model)] == channels
    assert {layer.kernel_size for layer in convolutions(model)} == {(3, 3)}
    linear = [module.out_features for module in model.modules() if isinstance(module, nn.Linear)]
    assert linear == hidden
    assert not [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]


def test_the_narrow_networks_have_as_many_convolution_weights_as_published():
    def weights(name):
        layers = convolutions(build_model(name, in_channels=3, num_classes=10))
        return sum(layer.weight.numel() for layer in layers)

    assert weights("alexnet") == 9 * (3 * 8 + 8 * 16 + 16 * 32 + 32 * 16 + 16 * 16)
    stage = {8: 4 * 8 * 8, 16: 8 * 16 + 3 * 16 * 16, 32: 16 * 32 + 3 * 32 * 32, 64: 32 * 64 + 3 * 64 * 64}
    shortcuts = 8 * 16 + 16 * 32 + 32 * 64
    assert weights("resnet18") == 49 * 3 * 8 + 9 * sum(stage.values()) + shortcuts


def test_resnet18_has_torchvisions_layers_under_torchvisions_names():
    def layers(model):
        return [
            (name, type(module), getattr(module, "stride", None), getattr(module, "kernel_size", None))
            for name, module in model.named_modules()
            if not list(module.children())
        ]

    ours = build_model("resnet18", in_channels=3, num_classes=10)
    assert layers(ours) == layers(torchvision_resnet18())


def test_resnet18_at_torchvisions_width_computes_what_torchvisions_does():
    theirs = torchvision_resnet18(num_classes=10).eval()
    ours = build_model("resnet18", in_channels=3, num_classes=10, width=8).eval()
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(2, 3, 64, 64)
    assert torch.equal(ours(images), theirs(images))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("channels", "size"), [(1, (8, 8)), (3, (32, 32)), (2, (28, 45)), (4, (1, 1))])
def test_images_of_any_size_and_channels_pass_forward_and_backward(name, channels, size):
    model = build_model(name, in_channels=channels, num_classes=5, seed=0)
    scores = model(torch.randn(2, channels, *size))
    assert scores.shape == (2, 5)
    scores.sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("width", [1e-6, 0.5, 2])
def test_width_scales_every_hidden_layer_and_leaves_at_least_one_channel(name, width):
    published = convolutions(build_model(name, in_channels=3, num_classes=10))
    scaled = build_model(name, in_channels=3, num_classes=10, width=width)
    wanted = [max(1, round(layer.out_channels * width)) for layer in published]
    assert [layer.out_channels for layer in convolutions(scaled)] == wanted
    assert scaled(torch.randn(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize("name", NAMES)
def test_a_seed_makes_the_same_weights_and_leaves_the_global_random_state_alone(name):
    before = torch.get_rng_state()
    one, other, different = (
        build_model(name, in_channels=1, num_classes=3, seed=seed).state_dict() for seed in (4, 4, 5)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert any(not torch.equal(one[key], different[key]) for key in one)


def test_without_a_seed_the_weights_come_from_the_global_random_state():
    def first_weight():
        return build_model("alexnet", in_channels=1, num_classes=3).features.conv1.weight

    torch.manual_seed(0)
    one, other = first_weight(), first_weight()
    torch.manual_seed(0)
    assert torch.equal(one, first_weight())
    assert not torch.equal(one, other)


@pytest.mark.trains
@pytest.mark.parametrize("name", NAMES)
def test_every_network_learns_a_batch_of_digits_within_seconds(name):
    """The loss, 2.3 by chance, ended between 0.0 and 0.35 for six seeds of each network."""
    train = load_data("digits", device="cpu", limit=500).train
    images = interpolate(train.images[:32], 8 if name == "digits_cnn" else 16)
    model = build_model(name, in_channels=1, num_classes=10, seed=0)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(40):
        optimizer.zero_grad()
        cross_entropy(model(images), train.labels[:32]).backward()
        optimizer.step()
    assert cross_entropy(model.eval()(images), train.labels[:32]) < math.log(10) / 2


@pytest.mark.parametrize("name", NAMES)
def test_the_signal_neither_fades_nor_explodes_at_the_start(name):
    model = build_model(name, in_channels=3, num_classes=10, seed=0)
    scores = model(torch.randn(64, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    assert 0.005 < scores.std(0).mean() < 5
    assert cross_entropy(scores, torch.arange(64) % 10) < 2 * math.log(10)


@pytest.mark.parametrize("name", NAMES)
def test_every_network_exports_to_the_same_function(name):
    model = build_model(name, in_channels=3, num_classes=10, seed=0).eval()
    images = torch.randn(2, 3, 32, 32)
    exported = torch.export.export(model, (images,)).module()
    assert torch.allclose(exported(images), model(images), atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_every_network_is_captured_whole_by_the_compiler_front_end(name):
    model = build_model(name, in_channels=3, num_classes=10, seed=0).eval()
    images = torch.randn(2, 3, 32, 32)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    assert torch.allclose(compiled(images), model(images), atol=1e-6)


def test_an_unknown_model_is_refused_with_the_valid_names_and_the_nearest():
    with pytest.raises(ValueError, match=r"unknown model 'resnet'.*digits_cnn, alexnet, vgg11.*'resnet18'"):
        build_model("resnet", in_channels=3, num_classes=10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"in_channels": 0}, "in_channels must be a whole number of at least 1, not 0"),
        ({"in_channels": 1.5}, "in_channels must be a whole number of at least 1, not 1.5"),
        ({"num_classes": 1}, "num_classes must be a whole number of at least 2, not 1"),
        ({"num_classes": True}, "num_classes must be a whole number of at least 2, not True"),
        ({"width": 0}, "width must be a finite number above 0"),
        ({"width": math.nan}, "width must be a finite number above 0"),
        ({"width": math.inf}, "width must be a finite number above 0"),
        ({"width": "2"}, "width must be a finite number above 0"),
    ],
)
def test_sizes_that_make_no_network_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        build_model("alexnet", **{"in_channels": 3, "num_classes": 10, **options})


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(2, 1, 32, 32), (3, 32, 32)])
def test_images_of_the_wrong_shape_are_refused_with_the_right_one(name, shape):
    model = build_model(name, in_channels=3, num_classes=10)
    with pytest.raises(ValueError, match=r"takes images of shape \(batch, 3, height, width\), not \("):
        model(torch.zeros(shape))


@pytest.mark.parametrize("name", NAMES)
def test_the_start_is_he_or_pytorch_and_each_networks_own_unless_told(name):
    sizes = {"in_channels": 3, "num_classes": 10, "seed": 0}
    he, plain, own = (build_model(name, **sizes, start=start) for start in ("he", "pytorch", None))
    expected = he if MODELS[name].start == "he" else plain
    assert all(map(torch.equal, own.state_dict().values(), expected.state_dict().values()))
    for one, other in zip(convolutions(he), convolutions(plain), strict=True):
        outputs_or_inputs = one.weight.shape[0 if name == "resnet18" else 1] * one.weight[0, 0].numel()
        assert one.weight.std().item() == pytest.approx((2 / outputs_or_inputs) ** 0.5, rel=0.25)
        fan_in = other.weight[0].numel()
        assert other.weight.abs().max().item() <= fan_in**-0.5, "PyTorch draws evenly up to 1 / sqrt(fan in)"


def test_an_unknown_start_is_refused():
    with pytest.raises(ValueError, match=r"unknown start 'hee'.*did you mean 'he'"):
        build_model("alexnet", in_channels=3, num_classes=10, start="hee")
