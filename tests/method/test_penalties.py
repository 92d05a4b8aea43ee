"""Each penalty is what the authors' code, autograd and finite differences say, and is safe at zero."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.textbook import textbook_penalty
from hgsr_lite import GROUPINGS, PENALTIES, Layout, Penalty, kernel_stack

AUTHORS = json.loads((Path(__file__).parent / "authors_figures.json").read_text())["rows"]
EVERY = [(key, grouping) for key in PENALTIES for grouping in GROUPINGS]
DEGREES = {
    "gl": 1, "hsqrt_gl": 1 / 2, "hsq_gl": 2, "es": 2, "hsqrt_es": 1, "hsq_es": 4, "gl12": 1 / 2,
    "hsqrt_gl12": 1 / 4, "hsq_gl12": 1, "l1": 1, "l2": 2,
}  # fmt: skip
LAYOUTS = {
    (6, 4, 3, 3): Layout(),
    (6, 4, 1, 1): Layout(),
    (6, 4, 2, 5): Layout(),
    (6, 4, 7): Layout(),
    (6, 4, 2, 2, 2): Layout(),
    (6, 4): Layout(),
    (6, 2, 3, 3): Layout(conv_groups=3),
    (6, 1, 3, 3): Layout(conv_groups=6),
    (4, 6, 3, 2): Layout(transposed=True),
    (4, 3, 3, 3): Layout(conv_groups=2, transposed=True),
}


def random_weight(shape, dtype=torch.float64, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def authors_weight(row, dtype):
    index = torch.arange(math.prod(row["shape"]), dtype=torch.float64)
    return (row["scale"] * torch.sin(row["a"] * index + row["b"])).reshape(row["shape"]).to(dtype)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("row", AUTHORS, ids=lambda row: f"{row['penalty']}-{row['grouping']}-{row['shape']}")
def test_value_and_gradient_are_the_authors_figures(row, dtype, tolerance):
    weight = authors_weight(row, dtype).requires_grad_()
    penalty = Penalty(row["penalty"], row["grouping"])
    value = penalty(weight)
    value.backward()
    for gradient in (weight.grad, penalty.gradient(weight)):
        flat = gradient.double().flatten()
        found = [value.item(), flat.norm().item(), flat[0].item(), flat[-1].item()]
        wanted = [row[name] for name in ("value", "grad_norm", "grad_first", "grad_last")]
        assert found == pytest.approx(wanted, rel=tolerance)


def test_the_authors_figures_cover_both_groupings_of_every_group_penalty():
    covered = {(row["penalty"], row["grouping"]) for row in AUTHORS}
    assert covered >= {(key, grouping) for key, grouping in EVERY if key not in ("l1", "l2")}


@pytest.mark.parametrize(("key", "grouping"), EVERY)
def test_gradient_is_that_of_finite_differences(key, grouping):
    weight = random_weight((3, 2, 2, 2)).requires_grad_()
    assert torch.autograd.gradcheck(Penalty(key, grouping), weight)


@pytest.mark.parametrize(("key", "grouping"), EVERY)
def test_gradient_is_that_of_the_textbook_formula_under_autograd(key, grouping):
    weight = random_weight((5, 4, 3, 3)).requires_grad_()
    value = textbook_penalty(weight, key, grouping)
    value.backward()
    assert Penalty(key, grouping).value(weight).item() == pytest.approx(value.item(), rel=1e-12)
    assert torch.allclose(Penalty(key, grouping).gradient(weight), weight.grad, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("key", PENALTIES)
def test_degree_is_that_of_the_method(key):
    weight, scale = random_weight((4, 3, 3, 3)), 1.7
    assert PENALTIES[key].degree == DEGREES[key]
    assert Penalty(key).value(scale * weight).item() == pytest.approx(
        scale ** DEGREES[key] * Penalty(key).value(weight).item(), rel=1e-12
    )


@pytest.mark.parametrize(("key", "grouping"), EVERY)
@pytest.mark.parametrize("shape", LAYOUTS)
def test_layouts_agree_with_a_plain_convolution_of_the_same_kernels(key, grouping, shape):
    weight, layout = random_weight(shape), LAYOUTS[shape]
    stack = kernel_stack(weight, layout)
    penalty = Penalty(key, grouping)
    expected = sum(penalty.value(group).item() for group in stack)
    assert penalty.value(weight, layout).item() == pytest.approx(expected, rel=1e-12)
    gradient = kernel_stack(penalty.gradient(weight, layout), layout)
    assert torch.allclose(gradient, torch.stack([penalty.gradient(group) for group in stack]), rtol=1e-12)


@given(
    key=st.sampled_from(list(PENALTIES)),
    sizes=st.tuples(*[st.integers(1, 5)] * 4),
    dtype=st.sampled_from([torch.float64, torch.float32]),
    seed=st.integers(0, 10**6),
)
def test_feature_wise_is_neuron_wise_of_the_transposed_weight(key, sizes, dtype, seed):
    weight = random_weight(sizes, dtype, seed)
    flipped = weight.transpose(0, 1)
    relative = {torch.float64: 1e-12, torch.float32: 1e-5}[dtype]
    assert Penalty(key, "feature").value(weight).item() == pytest.approx(
        Penalty(key, "neuron").value(flipped).item(), rel=relative
    )
    assert torch.allclose(
        Penalty(key, "feature").gradient(weight),
        Penalty(key, "neuron").gradient(flipped).transpose(0, 1),
        rtol=relative,
    )


@given(
    key=st.sampled_from(list(PENALTIES)),
    grouping=st.sampled_from(list(GROUPINGS)),
    sizes=st.tuples(*[st.integers(1, 5)] * 4),
    seed=st.integers(0, 10**6),
)
def test_the_order_of_channels_and_the_signs_do_not_matter(key, grouping, sizes, seed):
    weight = random_weight(sizes, seed=seed)
    draw = torch.Generator().manual_seed(seed)
    outputs, inputs = (torch.randperm(size, generator=draw) for size in sizes[:2])
    signs = torch.randint(0, 2, sizes, generator=draw) * 2 - 1
    penalty = Penalty(key, grouping)
    assert penalty.value(weight).item() == pytest.approx(
        penalty.value((signs * weight)[outputs][:, inputs]).item(), rel=1e-12
    )
    assert torch.allclose(
        penalty.gradient((signs * weight)[outputs][:, inputs]),
        (signs * penalty.gradient(weight))[outputs][:, inputs],
        rtol=1e-10,
    )


def with_zeros(shape, kind):
    weight = random_weight(shape)
    empty = {
        "an element": (0,) * len(shape),
        "a kernel": (1, 2),
        "an input channel": (slice(None), 2),
        "an output channel": (1,),
        "the whole layer": (slice(None),),
    }[kind]
    weight[empty] = 0
    return weight


KINDS = ("an element", "a kernel", "an input channel", "an output channel", "the whole layer")


@pytest.mark.parametrize(("key", "grouping"), EVERY)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_value_and_gradient_are_finite_at_zeros_and_zero_stays_zero(key, grouping, kind, dtype):
    for shape in [(4, 3, 3, 3), (4, 3, 1, 1), (4, 3)]:
        weight = with_zeros(shape, kind).to(dtype).requires_grad_()
        value = Penalty(key, grouping)(weight)
        value.backward()
        assert value.isfinite()
        assert weight.grad.isfinite().all()
        assert weight.grad.dtype == dtype
        assert (weight.grad[weight == 0] == 0).all()


@pytest.mark.parametrize(
    ("kind", "broken"),
    [
        ("a kernel", {"hsqrt_gl", "hsq_gl", "hsqrt_gl12", "hsq_gl12"}),
        ("an input channel", {"hsqrt_gl", "hsq_gl", "hsqrt_gl12", "hsq_gl12", "gl", "hsqrt_es", "gl12"}),
    ],
)
def test_the_textbook_formula_gives_nan_where_this_package_does_not(kind, broken):
    found = set()
    for key in PENALTIES:
        weight = with_zeros((4, 3, 3, 3), kind).requires_grad_()
        textbook_penalty(weight, key, "feature").backward()
        found |= {key} if weight.grad.isnan().any() else set()
        assert Penalty(key, "feature").gradient(weight).isfinite().all()
    assert found == broken


@given(
    key=st.sampled_from(list(PENALTIES)),
    grouping=st.sampled_from(list(GROUPINGS)),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.float16, torch.bfloat16]),
    exponent=st.integers(-300, 3),
    seed=st.integers(0, 10**6),
)
def test_gradient_is_finite_down_to_the_smallest_numbers_of_every_dtype(key, grouping, dtype, exponent, seed):
    weight = (random_weight((3, 2, 2, 2), seed=seed) * 10.0**exponent).to(dtype)
    assert Penalty(key, grouping).gradient(weight).isfinite().all()


@pytest.mark.parametrize(("key", "grouping"), EVERY)
def test_memory_format_does_not_matter(key, grouping):
    weight = random_weight((6, 4, 3, 3))
    penalty = Penalty(key, grouping)
    for other in (
        weight.to(memory_format=torch.channels_last),
        weight.permute(2, 3, 0, 1).contiguous().permute(2, 3, 0, 1),
    ):
        assert torch.allclose(penalty.value(other), penalty.value(weight), rtol=1e-12)
        assert torch.allclose(penalty.gradient(other), penalty.gradient(weight), rtol=1e-12)


@pytest.mark.parametrize("key", PENALTIES)
def test_force_is_the_slope_along_a_kernels_norm(key):
    weight = random_weight((4, 3, 2, 2))
    penalty = Penalty(key, "feature")
    force, gradient = penalty.force(weight), penalty.gradient(weight)
    assert force.shape == (4, 3)
    expected = gradient.abs().amax((2, 3)) if penalty.spec.norm == 1 else gradient.square().sum((2, 3)).sqrt()
    assert torch.allclose(force, expected, rtol=1e-12)


def test_half_precision_values_come_in_float32_and_do_not_overflow():
    weight = torch.ones(64, 64, 3, 3, dtype=torch.float16)
    value = Penalty("es")(weight)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(64 * (64 * 9) ** 2)


def test_the_second_derivative_is_refused_clearly():
    weight = random_weight((2, 2, 2, 2)).requires_grad_()
    (gradient,) = torch.autograd.grad(Penalty("hsq_gl12")(weight), weight, create_graph=True)
    with pytest.raises(RuntimeError, match="twice"):
        gradient.sum().backward()


def test_per_sample_transforms_see_the_same_numbers():
    weights = random_weight((5, 4, 3, 3, 3))
    penalty = Penalty("hsq_gl12")
    batched = torch.func.vmap(torch.func.grad(penalty))(weights)
    assert torch.allclose(batched, torch.stack([penalty.gradient(weight) for weight in weights]), rtol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("hsq_gl2",), r"unknown penalty 'hsq_gl2': choose one of gl, .*did you mean 'hsq_gl"),
        (
            ("gl", "features"),
            r"unknown grouping 'features': choose one of feature, neuron \(did you mean 'feature'",
        ),
        ((3,), "unknown penalty 3"),
    ],
)
def test_unknown_names_are_answered_with_the_valid_ones(arguments, message):
    with pytest.raises(ValueError, match=message):
        Penalty(*arguments)


def test_a_penalty_is_frozen_and_hashable():
    with pytest.raises(AttributeError):
        Penalty("gl").key = "es"
    assert Penalty("gl") == Penalty("gl", "feature")
    assert len({Penalty("gl"), Penalty("gl"), Penalty("gl", "neuron")}) == 2


def test_force_at_a_zero_kernel_is_the_formulas_wherever_that_is_finite():
    weight = torch.tensor([[[0.0, 0.0], [3.0, 4.0]]])
    assert Penalty("l1").force(weight).tolist() == [[1.0, 1.0]]
    assert Penalty("hsq_gl", "neuron").force(weight).tolist() == [[10.0, 10.0]]
    assert Penalty("hsq_gl12", "neuron").force(weight)[0, 0] == 0  # infinite by the formula


def test_a_half_precision_gradient_has_both_signs_and_saturates_at_the_largest_finite_number():
    weight = torch.tensor([[[3.0, -4.0], [900.0, -900.0]]], dtype=torch.float16)
    gradient, largest = Penalty("hsq_es", "feature").gradient(weight), torch.finfo(torch.float16).max
    assert gradient.tolist() == [[[1372.0, -1372.0], [largest, -largest]]]
    assert Penalty("hsq_es").gradient(1e30 * weight.float()).isinf().all()
