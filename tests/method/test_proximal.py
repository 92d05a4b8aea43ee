"""The promises of the proximal operators; their distance from the optimum is tested by brute force apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hgsr_lite.groups import Layout
from hgsr_lite.penalties import Penalty
from hgsr_lite.table import PENALTIES, PenaltySpec

KEYS = list(PENALTIES)
CANNOT_EMPTY_A_GROUP = ("hsq_gl", "es", "hsq_es", "l2")


def total(penalty, moved, weight, step):
    return 0.5 * (moved - weight).square().sum() + step * penalty(moved)


def usual_step(key, strength=0.05):
    """A step that sets some kernels of a unit normal weight to zero."""
    return strength * {0.25: 10.0, 0.5: 4.0, 1.0: 3.0, 2.0: 0.2, 4.0: 0.002}[PENALTIES[key].degree]


@pytest.mark.parametrize("grouping", ["feature", "neuron"])
@pytest.mark.parametrize("key", KEYS)
def test_no_random_perturbation_improves_the_objective(key, grouping):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(6, 5, 3, 3, generator=generator, dtype=torch.float64)
    penalty = Penalty(key, grouping)
    for strength in (0.05, 0.5, 2.0):
        step = usual_step(key, strength)
        moved = penalty.prox(weight, step)
        lowest = total(penalty, moved, weight, step)
        for attempt in range(334):
            scale = 10.0 ** -(attempt % 7)
            noise = scale * torch.randn(weight.shape, generator=generator, dtype=torch.float64)
            kernel = torch.rand(6, 5, 1, 1, generator=generator) < 0.2
            trial = [
                moved + noise,
                moved + noise * kernel,
                moved + noise * (moved != 0),
                torch.where(kernel, 0.0, moved),
                torch.where(kernel, moved + scale * weight, moved),
            ][attempt % 5]
            assert total(penalty, trial, weight, step) >= lowest * (1 - 1e-13)


@pytest.mark.parametrize("key", KEYS)
def test_step_zero_is_the_identity_to_the_last_bit(key):
    weight = torch.randn(4, 3, 3, 3)
    weight[0, 0, 0, 0] = -0.0
    moved = Penalty(key).prox(weight, 0.0)
    assert torch.equal(moved.view(torch.int32), weight.view(torch.int32))
    assert moved.data_ptr() != weight.data_ptr()


@pytest.mark.parametrize("key", [key for key in KEYS if key not in CANNOT_EMPTY_A_GROUP])
def test_a_large_step_gives_exact_zeros(key):
    moved = Penalty(key).prox(torch.randn(4, 3, 3, 3), 1e4)
    assert not moved.any()
    assert not torch.signbit(moved).any()


@pytest.mark.parametrize("key", CANNOT_EMPTY_A_GROUP)
def test_a_penalty_without_a_slope_at_zero_never_empties_a_group(key):
    moved = Penalty(key).prox(torch.randn(4, 3, 3, 3), 1e4)
    assert moved.abs().sum((0, 2, 3)).all()


def test_hsqrt_es_empties_a_group_exactly_from_its_dual_norm_on():
    weight = torch.tensor([[[3.0, -1.0]], [[2.0, -4.0]]], dtype=torch.float64)
    assert not Penalty("hsqrt_es").prox(weight, 5.0).any()
    assert Penalty("hsqrt_es").prox(weight, 4.999999).any()


@pytest.mark.parametrize("key", KEYS)
def test_an_all_zero_weight_stays_zero(key):
    weight = torch.zeros(3, 2, 3, 3)
    weight[0, 1] = 1.0
    moved = Penalty(key).prox(weight, 0.01)
    assert torch.equal(moved[:, 0], weight[:, 0])
    assert moved.isfinite().all()


shapes = st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 4))
cases = {
    "key": st.sampled_from(KEYS),
    "grouping": st.sampled_from(["feature", "neuron"]),
    "shape": shapes,
    "seed": st.integers(0, 10_000),
    "strength": st.sampled_from([1e-4, 0.05, 1.0]),
}


def normal(shape, seed, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@settings(max_examples=60)
@given(**cases)
def test_is_odd_shrinks_and_follows_permutations(key, grouping, shape, seed, strength):
    weight, penalty, step = normal(shape, seed), Penalty(key, grouping), usual_step(key, strength)
    moved = penalty.prox(weight, step)
    assert (moved * weight >= 0).all()
    assert (moved.abs() <= weight.abs()).all()
    assert torch.equal(penalty.prox(-weight, step), -moved)
    order = [torch.randperm(n, generator=torch.Generator().manual_seed(seed)) for n in shape]
    permuted = penalty.prox(weight[order[0]][:, order[1]][:, :, order[2]], step)
    torch.testing.assert_close(permuted, moved[order[0]][:, order[1]][:, :, order[2]])


@settings(max_examples=60)
@given(**cases, exponent=st.integers(-30, 30))
def test_units_play_no_part_even_where_squares_would_overflow(key, grouping, shape, seed, strength, exponent):
    penalty, step, unit = Penalty(key, grouping), usual_step(key, strength), 2.0**exponent
    weight = normal(shape, seed, torch.float32)
    moved = penalty.prox(unit * weight, step * unit ** (2 - penalty.spec.degree))
    torch.testing.assert_close(moved / unit, penalty.prox(weight, step), rtol=1e-4, atol=1e-5)


@settings(max_examples=40)
@given(**cases)
def test_each_group_is_solved_as_if_it_were_alone(key, grouping, shape, seed, strength):
    weight, penalty, step = normal(shape, seed), Penalty(key, grouping), usual_step(key, strength)
    axis = {"feature": 1, "neuron": 0}[grouping]
    alone = torch.cat([penalty.prox(part, step) for part in weight.split(1, axis)], axis)
    torch.testing.assert_close(penalty.prox(weight, step), alone)


@pytest.mark.parametrize("key", KEYS)
def test_neuron_wise_is_feature_wise_with_the_channels_exchanged(key):
    weight, step = normal((5, 4, 3, 3), 1), usual_step(key)
    neuron = Penalty(key, "neuron").prox(weight, step)
    feature = Penalty(key, "feature").prox(weight.transpose(0, 1), step)
    torch.testing.assert_close(neuron, feature.transpose(0, 1))


@pytest.mark.parametrize("grouping", ["feature", "neuron"])
@pytest.mark.parametrize("key", KEYS)
def test_grouped_and_transposed_convolutions_are_solved_in_their_own_layout(key, grouping):
    weight, penalty, step = normal((6, 4, 3, 3), 2), Penalty(key, grouping), usual_step(key)
    halves = torch.cat([penalty.prox(half, step) for half in weight.split(3)])
    torch.testing.assert_close(penalty.prox(weight, step, Layout(conv_groups=2)), halves)
    swapped = penalty.prox(weight.transpose(0, 1), step).transpose(0, 1)
    torch.testing.assert_close(penalty.prox(weight, step, Layout(transposed=True)), swapped)


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 5), (4, 3, 2, 2, 2)])
@pytest.mark.parametrize("key", KEYS)
def test_linear_1d_and_3d_weights_are_kernels_too(key, shape):
    weight, step = normal(shape, 3), usual_step(key)
    moved = Penalty(key).prox(weight, step)
    flat = Penalty(key).prox(weight.reshape(4, 3, -1), step)
    assert torch.equal(moved, flat.reshape(shape))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("key", KEYS)
def test_every_dtype_gives_the_float64_answer_within_its_precision(key, dtype):
    weight, step = normal((6, 5, 3, 3), 4).to(dtype), usual_step(key)
    moved, reference = Penalty(key).prox(weight, step), Penalty(key).prox(weight.double(), step)
    assert moved.dtype == dtype
    tolerance = 4 * torch.finfo(dtype).eps
    assert (moved.double() - reference).abs().max() <= tolerance * weight.abs().max() + 2e-6


def test_memory_format_is_kept_and_changes_nothing():
    weight = normal((6, 5, 3, 3), 5)
    last = weight.to(memory_format=torch.channels_last)
    moved = Penalty("hsq_gl12").prox(last, 0.05)
    assert moved.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(moved, Penalty("hsq_gl12").prox(weight, 0.05))


def test_the_weight_given_in_is_left_alone_and_no_graph_is_kept():
    weight = normal((4, 3, 3, 3), 6).requires_grad_()
    before = weight.detach().clone()
    assert not Penalty("es").prox(weight, 0.1).requires_grad
    assert torch.equal(weight, before)


def test_l1_and_group_lasso_agree_with_pyproximal():
    import pyproximal

    weight, step = normal((6, 5, 3, 3), 7), 0.8
    expected = pyproximal.L1().prox(weight.numpy().ravel(), step)
    np.testing.assert_allclose(Penalty("l1").prox(weight, step).numpy().ravel(), expected, atol=1e-12)
    groups = weight.transpose(0, 1).reshape(5, -1)
    expected = pyproximal.L21(ndim=groups.shape[1]).prox(groups.numpy().T.ravel(), step)
    found = Penalty("gl").prox(weight, step).transpose(0, 1).reshape(5, -1)
    np.testing.assert_allclose(found.numpy().T.ravel(), expected, atol=1e-12)


@pytest.mark.parametrize("step", [-1e-3, float("nan"), float("inf"), "0.1", None])
def test_a_step_that_is_no_step_is_named_and_refused(step):
    with pytest.raises(ValueError, match=r"step .* is not a finite number >= 0"):
        Penalty("gl").prox(torch.ones(2, 2), step)
    with pytest.raises(ValueError, match="l1_step"):
        Penalty("gl").prox(torch.ones(2, 2), 0.1, l1_step=step)


def test_a_weight_with_nan_is_refused_with_the_number_of_entries():
    weight = torch.ones(3, 3)
    weight[0, 0], weight[1, 1] = float("nan"), float("inf")
    with pytest.raises(ValueError, match="has 2 NaN or infinite entries"):
        Penalty("gl").prox(weight, 0.1)


def test_a_row_without_a_solver_still_takes_the_step_of_the_l1_norm_alone(monkeypatch):
    monkeypatch.setitem(PENALTIES, "twelfth", PenaltySpec("twelfth", 1, 1.5, 2.0))
    moved = Penalty("twelfth").prox(torch.tensor([[3.0, -0.5]]), 0.0, l1_step=1.0)
    assert moved.tolist() == [[2.0, 0.0]]


@pytest.mark.parametrize("key", KEYS)
def test_steps_of_any_size_give_finite_weights(key):
    weight = normal((4, 3, 3), 8)
    torch.testing.assert_close(Penalty(key).prox(weight, 1e-300), weight)
    moved = Penalty(key).prox(weight, 1e300)
    assert moved.isfinite().all()
    assert moved.abs().max() < 1e-50


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("size", [1e-38, 1e38])
def test_weights_of_the_smallest_and_the_largest_size_shrink_as_those_in_between(key, size):
    weight, step = normal((4, 3, 3), 9), usual_step(key)
    moved = Penalty(key).prox(size * weight, step * size ** (2 - PENALTIES[key].degree))
    torch.testing.assert_close(moved / size, Penalty(key).prox(weight, step))


def test_lasso_and_squared_norm_are_exact_where_a_difference_of_thresholds_would_be_rounded_away():
    weight = torch.tensor([[1 + 2.0**-51]], dtype=torch.float64)
    assert Penalty("l1").prox(weight, 1.0).item() == 2.0**-51
    assert Penalty("l2").prox(weight, 1e20).item() == pytest.approx(0.5e-20, rel=1e-14, abs=0)
