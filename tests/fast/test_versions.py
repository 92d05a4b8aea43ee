"""Every version of the penalty gives the plain formula's numbers, at every scale of the weights."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hgsr_lite.fast import buckets, plain_gradient_, stacked_gradient_
from hgsr_lite.fast.cpu.gradient import compiled_work, fused_gradient_
from hgsr_lite.fast.cpu.prox import fused_prox_
from hgsr_lite.fast.known import DTYPES
from hgsr_lite.fast.plain import plain_prox_
from hgsr_lite.groups import GROUPINGS, Layout
from hgsr_lite.penalties import Penalty
from hgsr_lite.table import PENALTIES

try:
    from hgsr_lite.fast.gpu.one_launch import launch_table, launched_gradient_
except ImportError:  # tests/fast/test_one_launch.py says so in the summary
    launch_table = None

# The interpreter works out both branches of a selection.
pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in.*:RuntimeWarning")

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
PRECISION = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 2e-2, torch.float16: 2e-3}
LAYERS = {
    (5, 4, 3, 3): Layout(),
    (9, 8, 3, 3): Layout(),
    (4, 3, 1, 1): Layout(),
    (1, 6, 3, 3): Layout(),
    (7, 1, 3, 3): Layout(),
    (6, 1, 3, 3): Layout(conv_groups=6),
    (4, 6, 3, 2): Layout(transposed=True),
    (6, 2, 3): Layout(conv_groups=3),
    (4, 3, 2, 2): Layout(conv_groups=2, transposed=True),
    (6, 4): Layout(),
}


def compiled(penalty, weights, layouts):
    return partial(fused_gradient_, penalty, compiled_work(weights, layouts, penalty.grouping))


def stacked(penalty, weights, layouts):
    return partial(stacked_gradient_, penalty, weights, layouts, buckets(weights, layouts, penalty.grouping))


def launched(penalty, weights, layouts):
    table = launch_table([weight.to(DEVICE) for weight in weights], layouts, penalty.grouping)

    def add_gradient(gradients, *strengths):
        there = [gradient.to(DEVICE) for gradient in gradients]
        value = launched_gradient_(penalty, table, there, *strengths)
        for here, added in zip(gradients, there, strict=True):
            here.copy_(added)
        return value

    return add_gradient


def plain(penalty, weights, layouts):
    return partial(plain_gradient_, penalty, weights, layouts)


VERSIONS = {"plain": plain, "compiled": compiled, "stacked": stacked}
if launch_table is not None:
    VERSIONS["triton"] = launched
TAKES = {"compiled": tuple(DTYPES), "triton": (torch.float32,)}
CASES = [(name, dtype) for name in VERSIONS for dtype in TAKES.get(name, PRECISION)]


def some_weights(seed, dtype, exponent, empty, layers=LAYERS):
    """Normal weights times 10^exponent; where wanted with empty groups and kernels, one 1e-15 as large."""
    draw = torch.Generator().manual_seed(seed)
    weights = []
    for shape in layers:
        weight = torch.randn(shape, generator=draw, dtype=torch.float64)
        if empty:
            weight[0, 0] = 0
            weight[:, -1] = 0
            weight[-1] *= 1e-15
        weights.append((weight * 10.0**exponent).to(dtype).nan_to_num())
    return weights, list(layers.values())


def assert_is_the_plain_formula(version, penalty, weights, layouts, strength=0.3, l1_strength=0.2):
    """Against the plain formula on the same weights in float64; what is too large for a dtype is infinite."""
    dtype = weights[0].dtype
    gradients = [torch.zeros_like(weight) for weight in weights]
    value = VERSIONS[version](penalty, weights, layouts)(gradients, strength, l1_strength)
    wide = [weight.double() for weight in weights]
    expected = [torch.zeros_like(weight) for weight in wide]
    total = plain_gradient_(penalty, wide, layouts, expected, strength, l1_strength)
    assert value.item() == pytest.approx(total.to(value.dtype).item(), rel=PRECISION[torch.float32])
    limits = torch.finfo(dtype)
    for found, wanted in zip(gradients, expected, strict=True):
        assert not found.isnan().any()
        inside = wanted.abs() < limits.max / 4
        # Element by element: a small kernel's force must not drown in a large one's.
        slack = PRECISION[dtype] * wanted.abs() + 2 * limits.tiny
        assert ((found.double() - wanted).abs() <= slack)[inside].all()


@pytest.mark.parametrize("empty", [False, True])
@pytest.mark.parametrize("grouping", GROUPINGS)
@pytest.mark.parametrize("key", PENALTIES)
@pytest.mark.parametrize(("version", "dtype"), CASES)
def test_value_and_gradient_are_those_of_the_plain_formula(version, dtype, key, grouping, empty):
    weights, layouts = some_weights(0, dtype, 0, empty)
    assert_is_the_plain_formula(version, Penalty(key, grouping), weights, layouts)


SCALES = given(
    key=st.sampled_from(list(PENALTIES)),
    grouping=st.sampled_from(list(GROUPINGS)),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16]),
    exponent=st.integers(-38, 38),
    strength=st.sampled_from([1e-8, 1.0, 1e6]),
    empty=st.booleans(),
    seed=st.integers(0, 999),
)


@pytest.mark.parametrize("version", [version for version in VERSIONS if version != "triton"])
@settings(max_examples=80)
@SCALES
def test_the_scale_of_the_weights_does_not_matter(
    version, key, grouping, dtype, exponent, strength, empty, seed
):
    dtype = dtype if dtype in TAKES.get(version, PRECISION) else torch.float32
    weights, layouts = some_weights(seed, dtype, exponent, empty, LAYERS)
    assert_is_the_plain_formula(version, Penalty(key, grouping), weights, layouts, strength, 0.0)


@settings(max_examples=20)  # without a GPU an interpreter runs it, some seconds an example
@SCALES
def test_the_scale_of_the_weights_does_not_matter_to_the_single_launch(
    key, grouping, dtype, exponent, strength, empty, seed
):
    dtype = dtype if dtype in TAKES.get("triton", PRECISION) else torch.float32
    weights, layouts = some_weights(seed, dtype, exponent, empty, dict(list(LAYERS.items())[::2]))
    assert_is_the_plain_formula("triton", Penalty(key, grouping), weights, layouts, strength, 0.0)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("key", ["gl", "hsqrt_gl", "hsqrt_es"])
@pytest.mark.parametrize("scale", [1e-30, 1e19, 1e30])
def test_a_gradient_of_size_one_is_not_lost_where_squares_leave_float32(version, key, scale):
    weight = scale * torch.ones(2, 3, 3, 3)
    gradient = torch.zeros_like(weight)
    VERSIONS[version](Penalty(key), [weight], [Layout()])(
        [gradient], 1.0 if key != "hsqrt_gl" else scale**0.5
    )
    assert gradient.min() > 0.05


STEPS = ("plain", "compiled")


def stepped(version, penalty, weight, step, layout):
    moved = weight.clone()
    if version == "plain":
        assert plain_prox_(penalty, [moved], [layout], step) == 0
    else:
        assert fused_prox_(penalty, compiled_work([moved], [layout], penalty.grouping), step) == 0
    return moved.double()


@pytest.mark.parametrize("version", STEPS)
@settings(max_examples=80)
@given(
    key=st.sampled_from(list(PENALTIES)),
    grouping=st.sampled_from(list(GROUPINGS)),
    dtype=st.sampled_from([torch.float64, torch.float32]),
    exponent=st.integers(-37, 37),
    size_of_step=st.integers(-6, 20),
    layer=st.sampled_from(list(LAYERS.items())),
    seed=st.integers(0, 999),
)
def test_a_proximal_step_is_never_far_above_the_optimum_at_any_scale(
    version, key, grouping, dtype, exponent, size_of_step, layer, seed
):
    """The objective in units of the weights, against the plain solver's in float64 at scale 1."""
    (shape, layout), penalty, unit = layer, Penalty(key, grouping), 10.0**exponent
    (weight,), _ = some_weights(seed, dtype, exponent, False, {shape: layout})
    step = 10.0**size_of_step
    true_step = step * unit ** (2 - penalty.spec.degree)
    in_units = weight.double() / unit
    best = penalty.prox(in_units, step, layout)
    found = stepped(version, penalty, weight, true_step, layout) / unit
    assert found.isfinite().all()
    lowest, reached = (
        (0.5 * (moved - in_units).square().sum() + step * penalty(moved, layout)).item()
        for moved in (best, found)
    )
    assert reached <= lowest + 1e-5 * in_units.square().sum().item()
    assert (found * in_units >= 0).all()


@pytest.mark.parametrize("version", STEPS)
@pytest.mark.parametrize("key", PENALTIES)
def test_groups_that_are_not_finite_are_counted_and_left_alone(version, key):
    weight = torch.randn(6, 5, 3, 3, generator=torch.Generator().manual_seed(0))
    weight[0, 1, 0, 0], weight[3, 4, 1, 1] = float("nan"), float("inf")
    moved, penalty = weight.clone(), Penalty(key)
    if version == "plain":
        broken = plain_prox_(penalty, [moved], [Layout()], 0.05)
    else:
        broken = fused_prox_(penalty, compiled_work([moved], [Layout()], "feature"), 0.05)
    assert broken == 2
    torch.testing.assert_close(moved[:, [1, 4]], weight[:, [1, 4]], rtol=0, atol=0, equal_nan=True)
    assert not torch.equal(moved[:, 0], weight[:, 0])
