"""The regularizer adds one number and one gradient, to the right layers, at the right strength."""

from __future__ import annotations

import copy
import math
import pickle
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import prune
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hgsr_lite import GROUPINGS, PENALTIES, Penalty, Regularizer, build_model
from hgsr_lite.fast import plain_gradient_
from hgsr_lite.layers import weight_layers
from hgsr_lite.proximal import NotFiniteError


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
    for progress, expected in [(0.0, 0.0), (0.25, 1.0), (0.5, 2.0), (1.0, 2.0)]:
        reg.set_progress(progress)
        assert reg.current_strength == expected


@pytest.mark.parametrize("use", [Regularizer.add_gradient_, Regularizer.__call__, lambda reg: reg.prox_(0.1)])
def test_a_loop_that_never_tells_the_progress_is_told_that_its_warm_up_does_nothing(use):
    reg = Regularizer(small_network()[:1], "gl", strength=2.0, warmup=0.5)
    with pytest.warns(UserWarning, match=r"warmup=0.5 has no effect yet: .* set_progress\(step / steps\)"):
        use(reg)
    reg.set_progress(0.0)
    before = reg.layers[0].weight.detach().clone()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        use(reg)
        use(Regularizer(small_network()[:1], "gl", strength=2.0))
    assert torch.equal(before, reg.layers[0].weight)


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


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (torch.zeros(4, 1, 8, 8), torch.zeros(4)),
        (torch.zeros(4, 1, 8, 8), torch.full((4,), 99)),
        (torch.zeros(4, 1, 8, 8), torch.zeros(4, 1, dtype=torch.long)),
        (torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.zeros(4, dtype=torch.long)),
        (torch.zeros(4, 3, 8, 8), torch.zeros(4, dtype=torch.long)),
    ],
    ids=["labels that are floats", "a label too large", "a column of labels", "bytes", "other channels"],
)
def test_a_batch_that_model_or_loss_does_not_take_is_refused_in_words_and_the_strength_stays(images, labels):
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, 10))
    regularizer = Regularizer(model, "gl", strength=0.5)
    with pytest.raises(ValueError, match=r"cannot calibrate: model or loss does not take this batch \(.+\)"):
        regularizer.calibrate_(images, labels)
    assert regularizer.strength == 0.5


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


COMPUTED = {
    "weight norm": torch.nn.utils.parametrizations.weight_norm,
    "a mask": lambda layer: prune.random_unstructured(layer, "weight", 0.5),
    "spectral norm": torch.nn.utils.parametrizations.spectral_norm,
}


@pytest.mark.parametrize("make", COMPUTED.values(), ids=COMPUTED)
def test_a_computed_weight_is_regularised_through_what_it_is_made_of(make):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3)).eval()
    make(model[0])
    reg = Regularizer(model, "hsq_gl12", strength=0.5, l1_mix=0.2)
    # By hand: the closed form's gradient, sent on by autograd.
    weight = reg.layers[0].weight
    penalty = reg.penalty.gradient(weight.detach())
    weight.backward(0.5 * (0.8 * penalty + 0.2 * weight.detach().sign()))
    expected = {name: p.grad.clone() for name, p in model[0].named_parameters() if p.grad is not None}
    assert expected
    for way in (lambda: reg().backward(), reg.add_gradient_):
        model.zero_grad()
        model(torch.randn(1, 4, 8, 8)).sum().backward()  # an older graph, used up
        model.zero_grad()
        way()
        for name, gradient in expected.items():
            torch.testing.assert_close(model[0].get_parameter(name).grad, gradient)
        assert model[1].weight.grad.any()


def test_a_computed_weight_is_refused_where_it_would_have_to_be_written_to():
    model = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3))
    torch.nn.utils.parametrizations.weight_norm(model[1])
    before = model[0].weight.detach().clone()
    reg = Regularizer(model, "gl", strength=1.0)
    with pytest.raises(ValueError, match=r"no proximal step was taken: .*layer '1' is computed"):
        reg.prox_(0.1)
    with pytest.raises(ValueError, match=r"cannot calibrate: .*layer '1' is computed"):
        reg.calibrate_(torch.randn(2, 4, 8, 8), torch.zeros(2))
    assert torch.equal(model[0].weight, before)


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
    layer = reg.layers[0]
    plain = plain_gradient_(
        reg.penalty, [layer.weight], [layer.layout], [layer.weight.grad], *reg.strengths()
    )
    assert plain.item() == pytest.approx(expected, rel=1e-13)


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


def two_layers():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3))


def test_a_layer_frozen_or_thawed_later_is_left_alone_or_taken_from_then_on():
    model = two_layers()
    model[1].requires_grad_(False)
    reg = Regularizer(model, "gl", strength=1.0)
    reg.add_gradient_()
    model.requires_grad_(True)
    model[0].requires_grad_(False)
    before, gradient = model[0].weight.clone(), model[0].weight.grad.clone()
    assert [layer.name for layer in reg.layers] == ["1"]
    value = reg.add_gradient_()
    assert value.item() == pytest.approx(reg().item()) == pytest.approx(reg.penalty(model[1].weight).item())
    reg.prox_(0.1)
    assert torch.equal(model[0].weight, before)
    assert torch.equal(model[0].weight.grad, gradient)
    assert model[1].weight.grad.any()
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="frozen"):
        reg.prox_(0.1)


@pytest.mark.parametrize("place", ["itself", "what it lies in"])
def test_a_layer_that_is_replaced_is_followed(place):
    model = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3)), nn.Conv2d(4, 4, 3))
    reg = Regularizer(model, "gl", strength=1.0)
    old = model[0][0].weight
    reg.add_gradient_()
    old.grad = None
    if place == "itself":
        model[0][0] = nn.Conv2d(3, 4, 5)
    else:
        model[0] = nn.Sequential(nn.Conv2d(3, 4, 5))
    before = old.clone()
    reg.add_gradient_()
    reg.prox_(0.1)
    assert model[0][0].weight.grad.any()
    assert old.grad is None
    assert torch.equal(old, before)


def test_a_layer_that_is_added_is_taken():
    model = two_layers()
    reg = Regularizer(model, "gl", strength=1.0)
    model.append(nn.Conv2d(4, 2, 3))
    assert [layer.name for layer in reg.layers] == ["0", "1", "2"]


def test_a_regularizer_belongs_to_its_model_and_can_be_made_for_another():
    big, small = two_layers(), nn.Sequential(nn.Conv2d(3, 2, 3), nn.Conv2d(2, 2, 3))
    reg = Regularizer(big, "gl", grouping="neuron", strength=0.3, l1_mix=0.2, warmup=0.5, exclude=("1",))
    reg.set_progress(0.25)
    reg.check_acts_on(big)
    reg.check_acts_on(nn.Sequential(big))
    with pytest.raises(ValueError, match=r"acts on another model: its layer '0' .*regularizer\.on\(model\)"):
        reg.check_acts_on(small)
    moved = reg.on(small)
    moved.check_acts_on(small)
    assert repr(moved) == repr(reg)
    assert (moved.current_strength, [layer.name for layer in moved.layers]) == (reg.current_strength, ["0"])
    assert [layer.name for layer in reg.on(small[:1]).layers] == ["0"]


def test_a_penalty_that_is_made_already_keeps_its_grouping_and_none_is_ignored():
    model, penalty = two_layers(), Penalty("gl", "neuron")
    assert (
        Regularizer(model, penalty).penalty
        == Regularizer(model, penalty, grouping="neuron").penalty
        == penalty
    )
    with pytest.raises(ValueError, match=r"grouping='feature' contradicts Penalty\('gl', 'neuron'\)"):
        Regularizer(model, penalty, grouping="feature")
    with pytest.raises(ValueError, match="unknown grouping 'nonsense'"):
        Regularizer(model, penalty, grouping="nonsense")


@pytest.mark.parametrize("name", ["downsample", "block.downsample"])
def test_the_default_exclusion_is_idle_where_no_weight_bears_that_name(name):
    model = nn.Sequential(nn.Conv2d(3, 4, 3))
    model.register_module("block", nn.Module())
    parent = model.get_submodule(name.rpartition(".")[0])
    parent.register_module("downsample", nn.Identity())
    assert [layer.name for layer in Regularizer(model, "gl").layers] == ["0"]


@pytest.mark.parametrize("lr", [-0.5, math.nan, math.inf, "0.1", True, None])
def test_a_step_that_is_no_step_is_refused_and_changes_nothing(lr):
    for convert in (nn.Module.float, nn.Module.bfloat16):  # compiled and plain
        model = convert(two_layers())
        before = model[0].weight.clone()
        with pytest.raises(ValueError, match=r"lr .* is not a finite number >= 0"):
            Regularizer(model, "gl", strength=1.0).prox_(lr)
        assert torch.equal(model[0].weight, before)


@pytest.mark.parametrize("number", [np.float32, np.float64, np.array, torch.tensor])
def test_numbers_from_numpy_and_pytorch_are_numbers(number):
    model, twin = two_layers(), two_layers()
    reg = Regularizer(model, "gl", strength=number(0.5), l1_mix=number(0.25), warmup=number(0.5))
    assert (reg.strength, reg.l1_mix, reg.warmup) == (0.5, 0.25, 0.5)
    for convert in (nn.Module.float, nn.Module.bfloat16):
        for network, lr in ((convert(model), number(0.25)), (convert(twin), 0.25)):
            Regularizer(network, "gl", strength=0.5).prox_(lr)
        assert torch.equal(model[0].weight, twin[0].weight)


@pytest.mark.parametrize("convert", [nn.Module.float, nn.Module.bfloat16], ids=["compiled", "plain"])
def test_weights_that_are_not_finite_raise_one_error_in_every_version(convert):
    model = convert(two_layers())
    with torch.no_grad():
        model[1].weight[0, 0, 0, 0] = torch.nan
    reg = Regularizer(model, "gl", strength=1.0)
    with pytest.raises(NotFiniteError, match="1 groups hold NaN or infinite weights"):
        reg.prox_(0.1)
    assert issubclass(NotFiniteError, FloatingPointError)
    assert issubclass(NotFiniteError, ValueError)


@pytest.mark.parametrize("convert", [nn.Module.float, nn.Module.bfloat16], ids=["compiled", "plain"])
def test_the_proximal_step_scales_both_its_parts_by_the_learning_rate(convert):
    model, lr = convert(two_layers()), 0.125
    reg = Regularizer(model, "gl", strength=0.25, l1_mix=0.5)
    expected = [
        reg.penalty.prox(layer.weight, lr * 0.125, layer.layout, l1_step=lr * 0.125) for layer in reg.layers
    ]
    without_l1 = [reg.penalty.prox(layer.weight, lr * 0.125, layer.layout) for layer in reg.layers]
    reg.prox_(lr)
    for layer, wanted, other in zip(reg.layers, expected, without_l1, strict=True):
        torch.testing.assert_close(layer.weight.detach(), wanted)
        assert (wanted - other).abs().max() > 1e-3


@pytest.mark.parametrize("key", PENALTIES)
@pytest.mark.parametrize("convert", [nn.Module.float, nn.Module.bfloat16], ids=["compiled", "plain"])
@pytest.mark.parametrize("factor", [1.0, 3.0])
def test_the_term_in_a_loss_is_one_node_with_the_closed_forms_gradient(convert, key, factor):
    model = convert(two_layers())
    reg = Regularizer(model, key, strength=0.5, l1_mix=0.2)
    value = reg()
    assert len(value.grad_fn.next_functions) == len(reg.layers)
    (factor * value).backward(retain_graph=True)
    first = [layer.weight.grad.clone() for layer in reg.layers]
    (factor * value).backward()
    for layer, gradient in zip(reg.layers, first, strict=True):
        by_hand = (
            0.5 * factor * (0.8 * reg.penalty.gradient(layer.weight) + 0.2 * layer.weight.detach().sign())
        )
        torch.testing.assert_close(
            gradient, by_hand, rtol=2e-2 if gradient.dtype == torch.bfloat16 else 1e-5, atol=1e-4
        )
        torch.testing.assert_close(layer.weight.grad, 2 * gradient)
    with torch.no_grad():
        assert reg().item() == pytest.approx(value.item())


def test_the_term_is_followed_by_functional_transforms_and_refuses_a_second_derivative():
    model = two_layers()
    reg = Regularizer(model, "gl", strength=0.5)
    parameters = {name: value.detach() for name, value in model.named_parameters()}

    def term(parameters):
        swapped = torch.nn.utils.stateless._reparametrize_module(model, parameters)
        with swapped:
            return reg()

    found = torch.func.grad(term)(parameters)
    reg.add_gradient_()
    assert all(torch.allclose(found[f"{n}.weight"], model[n].weight.grad) for n in (0, 1))
    (gradient,) = torch.autograd.grad(reg(), [model[0].weight], create_graph=True)
    with pytest.raises(RuntimeError, match="twice"):
        gradient.sum().backward()


@pytest.mark.trains
def test_beside_a_gradient_scaler_the_gradient_is_added_after_unscaling():
    model, images = two_layers(), torch.randn(2, 3, 8, 8)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    reg = Regularizer(model, "gl", strength=0.5)
    with torch.autocast("cpu", torch.float16):
        loss = model(images).float().square().mean()
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    plain = [layer.weight.grad.clone() for layer in reg.layers]
    expected = [
        layer.weight.detach() - 0.1 * (gradient + 0.5 * reg.penalty.gradient(layer.weight))
        for layer, gradient in zip(reg.layers, plain, strict=True)
    ]
    reg.add_gradient_()
    scaler.step(optimizer)
    assert scaler._found_inf_per_device(optimizer)[torch.device("cpu")].item() == 0
    for layer, wanted in zip(reg.layers, expected, strict=True):
        torch.testing.assert_close(layer.weight.detach(), wanted)


class _WritesOf(TorchDispatchMode):
    """Names the operators that give or change as many numbers as a network has weights."""

    def __init__(self, many):
        super().__init__()
        self.many, self.names = many, []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func.is_view:
            return out
        tensors = [t for t in tree_leaves(out if out is not None else args) if isinstance(t, torch.Tensor)]
        if sum(tensor.numel() for tensor in tensors) >= self.many:
            self.names.append(func._schema.name)
        return out


def test_the_term_times_a_factor_moves_its_gradient_through_memory_once():
    """An operator more over all weights made it up to twice as slow as plain autograd."""
    model = nn.Conv2d(64, 64, 3, bias=False)
    reg = Regularizer(model, "hsq_gl12", strength=0.1)
    with _WritesOf(model.weight.numel()) as writes:
        value = reg()
        assert not writes.names, "nothing is held between the value and the way back"
        (3 * value).backward()
    assert set(writes.names) <= {"aten::zeros_like"}


def test_the_way_back_is_that_of_the_penalty_that_gave_the_value():
    model = nn.Conv2d(3, 4, 3)
    reg = Regularizer(model, "es", strength=0.1, l1_mix=0.5)
    (wanted,) = torch.autograd.grad(2 * reg(), model.weight)
    value = 2 * reg()
    reg.penalty, reg.strength, reg.l1_mix = Penalty("gl", "neuron"), 7.0, 0.0
    for _ in range(2):
        (found,) = torch.autograd.grad(value, model.weight, retain_graph=True)
        assert torch.equal(found, wanted)
    with torch.no_grad():
        model.weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.backward()


def test_unless_told_otherwise_it_is_the_authors_penalty_without_l1_and_warm_up():
    reg = Regularizer(two_layers())
    assert reg.penalty == Penalty("hsq_gl12", "feature")
    assert (reg.strength, reg.l1_mix, reg.warmup) == (1e-3, 0.0, 0.0)


def scaled_loss(factor):
    return lambda output, labels: factor * nn.functional.cross_entropy(output.flatten(1), labels)


@pytest.mark.parametrize("factor", [1e-6, 1e6])
@pytest.mark.parametrize("size", [1e-6, 1e6])
def test_calibration_takes_gradients_of_every_size_and_a_tenth_unless_told_otherwise(factor, size):
    model = nn.Sequential(nn.Conv2d(1, 4, 8))
    with torch.no_grad():
        model[0].weight.mul_(size)
    images, labels = torch.randn(8, 1, 8, 8) / size, torch.arange(8) % 4
    reg = Regularizer(model, "es")
    strength = reg.calibrate_(images, labels, loss=scaled_loss(factor))
    scaled_loss(factor)(model(images), labels).backward()
    loss, term = model[0].weight.grad.norm().item(), reg.penalty.gradient(model[0].weight).norm().item()
    assert strength == pytest.approx(0.1 * loss / term, rel=1e-4)


@pytest.mark.parametrize(("loss", "size"), [(0.0, 1.0), (math.inf, 1.0), (1.0, 0.0), (1.0, 1e30)])
def test_calibration_refuses_a_gradient_that_is_nothing_or_infinite(loss, size):
    model = nn.Sequential(nn.Conv2d(1, 4, 8))
    with torch.no_grad():
        model[0].weight.mul_(size)
    images, labels = torch.randn(8, 1, 8, 8) / max(size, 1.0), torch.arange(8) % 4
    reg = Regularizer(model, "hsq_es")
    with pytest.raises(ValueError, match="both must be finite and above 0"):
        reg.calibrate_(images, labels, loss=scaled_loss(loss))


@pytest.mark.parametrize("fraction", [0, -0.1, math.inf])
def test_a_fraction_that_is_not_above_zero_is_refused(fraction):
    reg = Regularizer(nn.Sequential(nn.Conv2d(1, 4, 8)), strength=0.5)
    with pytest.raises(ValueError, match=r"fraction .* is not a finite number > 0"):
        reg.calibrate_(torch.randn(8, 1, 8, 8), torch.arange(8) % 4, fraction)
    assert reg.strength == 0.5


def test_what_is_no_penalty_is_refused_when_it_is_set():
    reg = Regularizer(two_layers(), "gl")
    with pytest.raises(TypeError, match=r"penalty must be a Penalty, not 'es'"):
        reg.penalty = "es"
    assert reg.penalty == Penalty("gl")
