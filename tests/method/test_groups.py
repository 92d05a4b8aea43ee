"""Every layer type is seen as the same stack of kernels, and groups are the right ones."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from hgsr_lite import Layout, kernel_norms, kernel_stack, weight_layers
from hgsr_lite.computed_weights import is_computed, plain_copy

LAYERS = {
    "Conv1d": (nn.Conv1d(4, 6, 5), (1, 6, 4, 5)),
    "Conv2d": (nn.Conv2d(4, 6, (3, 2)), (1, 6, 4, 6)),
    "Conv3d": (nn.Conv3d(4, 6, 2), (1, 6, 4, 8)),
    "Linear": (nn.Linear(4, 6), (1, 6, 4, 1)),
    "grouped": (nn.Conv2d(4, 6, 3, groups=2), (2, 3, 2, 9)),
    "depthwise": (nn.Conv2d(4, 8, 3, groups=4), (4, 2, 1, 9)),
    "transposed": (nn.ConvTranspose2d(4, 6, 3), (1, 6, 4, 9)),
    "transposed grouped": (nn.ConvTranspose2d(4, 6, 3, groups=2), (2, 3, 2, 9)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_type_becomes_a_stack_of_its_kernels(name):
    layer, shape = LAYERS[name]
    assert kernel_stack(layer.weight, Layout.of(layer)).shape == shape


@pytest.mark.parametrize("name", ["Conv2d", "grouped", "depthwise", "transposed", "transposed grouped"])
def test_an_emptied_feature_group_makes_the_layer_ignore_that_input_channel(name):
    layer, (conv_groups, _, inputs, _) = LAYERS[name]
    images = torch.randn(2, 4, 8, 8)
    for channel in range(conv_groups * inputs):
        with torch.no_grad():
            weight = layer.weight.clone()
            kernel_stack(layer.weight, Layout.of(layer))[channel // inputs, :, channel % inputs] = 0
            changed = images.clone()
            changed[:, channel] += 7
            assert torch.allclose(layer(images), layer(changed))
            layer.weight.copy_(weight)
            assert not torch.allclose(layer(images), layer(changed))


@pytest.mark.parametrize("name", ["Conv2d", "grouped", "depthwise", "transposed", "transposed grouped"])
def test_an_emptied_neuron_group_makes_that_output_channel_constant(name):
    layer, (conv_groups, outputs, _, _) = LAYERS[name]
    for channel in range(conv_groups * outputs):
        with torch.no_grad():
            weight = layer.weight.clone()
            kernel_stack(layer.weight, Layout.of(layer))[channel // outputs, channel % outputs] = 0
            made = layer(torch.randn(2, 4, 8, 8))[:, channel]
            assert torch.allclose(made, layer.bias[channel].expand_as(made))
            layer.weight.copy_(weight)


def test_kernel_norms_are_a_picture_of_outputs_by_inputs():
    weight = torch.randn(6, 4, 3, 3, dtype=torch.float64)
    assert torch.allclose(kernel_norms(weight, 1), weight.abs().sum((2, 3)))
    assert torch.allclose(kernel_norms(weight, 2), weight.square().sum((2, 3)).sqrt())
    assert torch.equal(kernel_norms(weight), kernel_norms(weight, 1))


def test_layers_are_all_convolutions_and_each_shared_weight_once():
    shared = nn.Conv2d(2, 2, 3)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), shared, nn.BatchNorm2d(2), shared, nn.Linear(2, 2))
    model[3] = nn.Conv2d(2, 2, 3)
    model[3].weight = shared.weight
    assert [layer.name for layer in weight_layers(model)] == ["0", "1"]


def test_a_network_without_convolutions_offers_its_linear_layers():
    assert [layer.name for layer in weight_layers(nn.Sequential(nn.Linear(3, 2), nn.ReLU()))] == ["0"]


def test_names_match_by_dotted_part():
    model = nn.ModuleDict({"body": nn.Conv2d(1, 1, 1), "bodywork": nn.Conv2d(1, 1, 1)})
    assert [layer.name for layer in weight_layers(model, exclude=("body",))] == ["bodywork"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: weight_layers(nn.ReLU()), "ReLU has no layer to regularise"),
        (lambda: weight_layers(nn.Sequential(nn.Conv2d(1, 1, 1)), exclude=("0",)), "not excluded"),
        (
            lambda: weight_layers(nn.ModuleDict({"downsample": nn.Conv2d(1, 1, 1)}), exclude=("downsampl",)),
            "excluded name 'downsampl' matches no layer of the model: did you mean 'downsample'",
        ),
        (lambda: weight_layers(nn.Sequential(nn.Conv2d(1, 1, 1)), include=("9",)), "included name '9'"),
        (lambda: kernel_stack(torch.zeros(0, 3, 3, 3)), "is empty"),
        (lambda: kernel_stack(torch.zeros(3)), "has no kernels"),
        (lambda: kernel_stack(torch.zeros(3, 1), Layout(conv_groups=2)), "multiple"),
    ],
)
def test_bad_input_is_named_with_what_is_allowed(call, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: kernel_stack(torch.zeros(2, 2, dtype=torch.int64)), "convert it with .float()"),
        (lambda: kernel_stack([[1.0]]), "must be a torch.Tensor, not list"),
        (lambda: weight_layers(nn.Sequential(nn.Conv2d(1, 1, 1)), exclude="0"), "give a tuple"),
    ],
)
def test_wrong_types_are_named(call, message):
    with pytest.raises(TypeError, match=message):
        call()


COMPUTED = {
    "weight norm": torch.nn.utils.parametrizations.weight_norm,
    "spectral norm": torch.nn.utils.parametrizations.spectral_norm,
    "a mask": lambda layer: prune.random_unstructured(layer, "weight", 0.5),
    "two masks": lambda layer: prune.l1_unstructured(
        prune.random_unstructured(layer, "weight", 0.3), "weight", 0.3
    ),
    "the older weight norm": torch.nn.utils.weight_norm,
    "the older spectral norm": torch.nn.utils.spectral_norm,
}
older = pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated:FutureWarning")


def computed_network(make):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 3, 3), nn.Conv2d(3, 1, 1)
    )
    for layer in model[:4]:
        if isinstance(layer, nn.Conv2d):
            make(layer)
    return model


@older
@pytest.mark.parametrize("make", COMPUTED.values(), ids=COMPUTED)
def test_every_layer_with_a_computed_weight_is_seen(make):
    model = computed_network(make)
    assert [layer.name for layer in weight_layers(model)] == ["0", "2", "3", "4"]


@older
@pytest.mark.parametrize("make", COMPUTED.values(), ids=COMPUTED)
def test_a_computed_weight_is_the_one_that_the_next_forward_uses(make):
    model = computed_network(make).eval()
    model(torch.randn(2, 2, 9, 9)).sum().backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    weights = [layer.weight.detach().clone() for layer in weight_layers(model)]
    model(torch.randn(2, 2, 9, 9))
    assert all(
        torch.equal(layer.module.weight, weight)
        for layer, weight in zip(weight_layers(model), weights, strict=True)
    )


@older
@pytest.mark.parametrize("make", COMPUTED.values(), ids=COMPUTED)
def test_a_plain_copy_computes_the_same_and_can_be_written_to(make):
    model, images = computed_network(make).eval(), torch.randn(2, 2, 9, 9)
    expected = model(images)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    copied = plain_copy(model)
    torch.testing.assert_close(copied(images), expected)
    assert not any(is_computed(layer.module) for layer in weight_layers(copied))
    with torch.no_grad():
        for layer in weight_layers(copied):
            layer.weight.zero_()
    assert not torch.equal(copied(images), expected)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    torch.testing.assert_close(model(images), expected)  # its own class, too, is as before


@pytest.mark.parametrize("norm", ["1", 0, 3, math.inf])
def test_a_norm_that_is_none_of_ours_is_refused(norm):
    with pytest.raises(ValueError, match="give 1 or 2"):
        kernel_norms(torch.ones(2, 2, 3, 3), norm=norm)


def test_a_layout_is_a_record_that_nothing_changes_afterwards():
    with pytest.raises(FrozenInstanceError):
        Layout().conv_groups = 2
    assert len({Layout(), Layout(1, False), Layout(2)}) == 2
