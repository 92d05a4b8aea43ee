"""The regularizer adds one number and one gradient, to the right layers, at the right strength."""

from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch
from torch import nn

from hgsr_lite import GROUPINGS, PENALTIES, Penalty, Regularizer, build_model
from hgsr_lite.groups import weight_layers


def small_network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=2),
        nn.ConvTranspose2d(8, 4, 2), nn.Flatten(), nn.LazyLinear(5),
    )  # fmt: skip


def ready(model):
    model(torch.randn(2, 3, 8, 8))
    return model


@pytest.mark.parametrize("key", PENALTIES)
@pytest.mark.parametrize("grouping", GROUPINGS)
@pytest.mark.parametrize("l1_mix", [0.0, 0.3, 1.0])
def test_the_fast_gradient_is_the_one_of_autograd_and_adds_to_what_is_there(key, grouping, l1_mix):
    model = ready(small_network())
    reg = Regularizer(model, key, grouping=grouping, strength=0.02, l1_mix=l1_mix)
    model(torch.randn(2, 3, 8, 8)).sum().backward()
    other = copy.deepcopy(model)
    value = Regularizer(other, key, grouping=grouping, strength=0.02, l1_mix=l1_mix)()
    for parameter, twin in zip(model.parameters(), other.parameters(), strict=True):
        twin.grad = parameter.grad.clone()
    value.backward()
    assert reg.add_gradient_().item() == pytest.approx(value.item(), rel=1e-5)
    for (name, parameter), twin in zip(model.named_parameters(), other.parameters(), strict=True):
        assert torch.allclose(parameter.grad, twin.grad, rtol=1e-5, atol=1e-7), name


def test_the_value_is_the_written_formula():
    model = ready(small_network())
    reg = Regularizer(model, "hsq_gl12", strength=0.01, l1_mix=0.5)
    penalty, l1 = Penalty("hsq_gl12"), Penalty("l1")
    expected = sum(
        0.01 * (0.5 * penalty(layer.weight, layer.layout) + 0.5 * l1(layer.weight))
        for layer in weight_layers(model)
    )
    assert reg().item() == pytest.approx(expected.item(), rel=1e-6)


def test_biases_batch_norm_and_linear_layers_are_never_touched():
    model = ready(small_network())
    reg = Regularizer(model, "l1", strength=10.0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    reg.add_gradient_()
    reg.prox_(lr=1.0)
    touched = {name for name, value in model.named_parameters() if value.grad is not None}
    assert touched == {"0.weight", "3.weight", "4.weight"}
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == touched


def test_linear_layers_are_regularised_when_named():
    model = ready(small_network())
    assert [layer.name for layer in Regularizer(model, "gl", include=("6",)).layers] == ["6"]


def test_the_authors_exclusion_leaves_shortcuts_out_and_is_harmless_elsewhere():
    residual = build_model("resnet18", in_channels=3, num_classes=10)
    assert not any("downsample" in layer.name for layer in Regularizer(residual, "gl").layers)
    everything = Regularizer(residual, "gl", exclude=()).layers
    assert any("downsample" in layer.name for layer in everything)
    Regularizer(small_network()[:1], "gl")


def test_a_frozen_layer_is_left_alone():
    model = ready(small_network())
    model[0].requires_grad_(False)
    assert [layer.name for layer in Regularizer(model, "gl").layers] == ["3", "4"]
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="frozen"):
        Regularizer(model, "gl")


def test_the_warm_up_raises_the_strength_linearly_to_its_full_value():
    reg = Regularizer(small_network()[:1], "gl", strength=2.0, warmup=0.5)
    assert reg.current_strength == 2.0
    for progress, expected in [(0.0, 0.0), (0.25, 1.0), (0.5, 2.0), (1.0, 2.0)]:
        reg.set_progress(progress)
        assert reg.current_strength == expected


@pytest.mark.parametrize("key", PENALTIES)
@pytest.mark.parametrize("l1_mix", [0.0, 0.4])
def test_calibration_makes_the_gradient_the_given_fraction_of_the_losss(key, l1_mix):
    model = ready(small_network())
    images, labels = torch.randn(16, 3, 8, 8), torch.arange(16) % 5
    reg = Regularizer(model, key, l1_mix=l1_mix)
    before = copy.deepcopy(model.state_dict())
    strength = reg.calibrate_(images, labels, fraction=0.25)
    assert strength == reg.strength
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    weights = [layer.weight for layer in reg.layers]

    def norm(value):
        gradients = torch.autograd.grad(value, weights)
        return torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt().item()

    loss = norm(nn.functional.cross_entropy(model(images), labels))
    assert norm(reg()) == pytest.approx(0.25 * loss, rel=1e-4)


def test_calibration_refuses_a_penalty_without_a_gradient():
    model = small_network()[:1]
    nn.init.zeros_(model[0].weight)
    images = torch.randn(2, 3, 8, 8)
    with pytest.raises(ValueError, match=r"cannot calibrate: the loss's gradient norm is .* the penalty's 0"):
        Regularizer(model, "gl").calibrate_(images, images, loss=_sum_loss)


def _sum_loss(output, _):
    return output.square().sum() + output.sum()


def test_a_moved_model_is_followed():
    model = ready(small_network())
    reg = Regularizer(model, "hsq_gl12", strength=1.0)
    in_float = reg().item()
    model.double()
    assert reg().item() == pytest.approx(in_float, rel=1e-5)
    assert reg.add_gradient_().item() == pytest.approx(in_float, rel=1e-5)
    assert model[0].weight.grad.dtype == torch.float64


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"penalty": "glasso"}, "unknown penalty 'glasso': choose one of"),
        ({"grouping": "channel"}, "unknown grouping 'channel': choose one of feature, neuron"),
        ({"strength": -1e-3}, "strength -0.001 is not a finite number >= 0"),
        ({"strength": math.nan}, "strength nan is not a finite number >= 0"),
        ({"strength": math.inf}, "strength inf is not a finite number >= 0"),
        ({"strength": "1e-3"}, "strength '1e-3' is not a finite number >= 0"),
        ({"l1_mix": 1.5}, r"l1_mix 1.5 is outside 0\.\.1"),
        ({"l1_mix": -0.1}, r"l1_mix -0.1 is outside 0\.\.1"),
        ({"warmup": 2}, r"warmup 2 is outside 0\.\.1"),
        ({"exclude": ("upsample",)}, "excluded name 'upsample' matches no layer"),
        ({"include": ("conv9",)}, "included name 'conv9' matches no layer"),
    ],
)
def test_bad_arguments_are_answered_with_what_is_allowed(arguments, message):
    with pytest.raises(ValueError, match=message):
        Regularizer(small_network(), **{"penalty": "gl", **arguments})


def test_a_model_without_weights_in_groups_is_refused():
    with pytest.raises(ValueError, match="has no layer to regularise"):
        Regularizer(nn.Sequential(nn.ReLU()), "gl")


def test_the_text_says_what_it_is():
    text = repr(Regularizer(small_network()[:1], "hsq_gl12", strength=1e-4, l1_mix=0.5, warmup=0.5))
    assert text == "Regularizer('hsq_gl12', feature-wise, strength=0.0001, l1_mix=0.5, warmup=0.5, 1 layers)"


def test_a_computed_weight_is_refused_where_its_gradient_would_be_lost():
    model = nn.Sequential(nn.Conv2d(4, 4, 3))
    torch.nn.utils.parametrizations.weight_norm(model[0])
    reg = Regularizer(model, "gl", strength=1.0)
    reg().backward()
    assert all(parameter.grad.any() for name, parameter in model.named_parameters() if "bias" not in name)
    for wrong in (reg.add_gradient_, lambda: reg.prox_(0.1)):
        with pytest.raises(ValueError, match=r"layer '0' is computed .* add reg\(\) to the loss instead"):
            wrong()


def shrunk(weight):
    return weight[:4]


@pytest.mark.parametrize("change", [shrunk, torch.clone, torch.Tensor.double, lambda w: w.transpose(2, 3)])
def test_a_weight_whose_memory_or_form_is_replaced_is_followed(change):
    model = nn.Sequential(nn.Conv2d(6, 8, 3, bias=False))
    reg = Regularizer(model, "hsq_gl12", strength=1.0)
    reg.add_gradient_()
    model[0].weight.grad = None
    model[0].weight.data = change(model[0].weight.data)
    value = reg.add_gradient_()
    expected = Penalty("hsq_gl12").value_and_gradient(model[0].weight)
    assert value.item() == pytest.approx(expected[0].item(), rel=1e-5)
    assert torch.allclose(model[0].weight.grad, expected[1], rtol=1e-5)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_a_copy_acts_on_the_copied_network_alone(duplicate):
    model = nn.Sequential(nn.Conv2d(3, 4, 3))
    reg = Regularizer(model, "gl", strength=1.0)
    reg.prox_(1e-3)
    before = model[0].weight.detach().clone()
    twin, reg_of_twin = duplicate((model, reg))
    reg_of_twin.prox_(10.0)
    assert torch.equal(model[0].weight, before)
    assert not twin[0].weight.any()


def test_the_value_is_as_exact_as_the_weights():
    reg = Regularizer(nn.Conv2d(3, 4, 3).double(), "hsq_gl12", strength=1e-3)
    expected = reg().item()
    assert reg.backend == "compiled"
    assert reg.add_gradient_().item() == pytest.approx(expected, rel=1e-13)
    assert reg._add_plain_gradient_(*reg.strengths()).item() == pytest.approx(expected, rel=1e-13)


def test_the_version_taken_is_said_once(caplog):
    layer = nn.Conv2d(3, 4, 3)
    reg = Regularizer(layer, "gl", strength=1.0)
    with caplog.at_level("INFO", logger="hgsr_lite"):
        for _ in range(3):
            reg.add_gradient_()
            layer.weight.data = layer.weight.data.clone()
    assert caplog.text.count("penalty: compiled version") == 1


def test_another_penalty_set_on_a_regularizer_counts_at_once():
    reg = Regularizer(nn.Conv2d(3, 4, 3), "gl", strength=1.0)
    reg.add_gradient_()
    reg.penalty = Penalty("es", "neuron")
    assert reg.add_gradient_().item() == pytest.approx(reg().item(), rel=1e-5)


@pytest.mark.parametrize("l1_mix", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_proximal_step_is_as_long_as_learning_rate_times_strength_in_both_its_parts(l1_mix, dtype):
    layer = nn.Conv2d(6, 8, 3, bias=False).to(dtype)
    before = layer.weight.detach().clone()
    reg = Regularizer(layer, "gl", strength=0.5, l1_mix=l1_mix, warmup=0.5)
    reg.set_progress(0.25)  # half of the strength
    reg.prox_(lr=0.1)
    step = 0.1 * 0.5 * 0.5
    expected = Penalty("gl").prox(before, step * (1 - l1_mix), l1_step=step * l1_mix)
    assert not torch.equal(expected, before)
    torch.testing.assert_close(layer.weight.detach(), expected)
