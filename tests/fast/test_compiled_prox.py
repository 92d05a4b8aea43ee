"""The compiled proximal step gives the answers of the readable one."""

from __future__ import annotations

import pytest
import torch

from hgsr_lite.fast import copied_prox, plan
from hgsr_lite.fast.cpu.gradient import compiled_work
from hgsr_lite.fast.cpu.prox import fused_prox_
from hgsr_lite.groups import Layout
from hgsr_lite.penalties import Penalty
from hgsr_lite.table import PENALTIES

KEYS = list(PENALTIES)
PRECISION = {torch.float32: 1e-6, torch.float64: 1e-10}
SHAPES = [(6, 5, 3, 3), (16, 8, 3, 3), (3, 4, 5), (12, 7), (8, 3, 7, 7), (1, 6, 3, 3), (6, 1, 3, 3)]
STRENGTHS = (1e-5, 1e-3, 0.03, 0.1, 0.3, 1.0, 3.0)


def usual_step(key, strength):
    """A step that empties some kernels of a unit normal weight where the strength is 0.1."""
    return strength * {0.25: 10.0, 0.5: 4.0, 1.0: 3.0, 2.0: 0.3, 4.0: 0.003}[PENALTIES[key].degree]


def some_weight(shape, seed, dtype):
    """Normal weights; every third time with nearly empty kernels, with ties and zeros."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(shape, generator=generator, dtype=torch.float64)
    if seed % 3 == 1:
        size = (*shape[:2], *[1] * (len(shape) - 2))
        weight *= 10 ** (-2 * torch.rand(size, generator=generator, dtype=torch.float64))
    if seed % 3 == 2:
        weight[::2] = weight[:1].clone()
        weight[0, 0] = 0
    return weight.to(dtype)


def objective(penalty, moved, weight, step, l1_step, layout):
    moved, weight = moved.double(), weight.double()
    distance = 0.5 * (moved - weight).square().sum()
    return float(distance + step * penalty(moved, layout) + l1_step * moved.abs().sum())


def compiled(penalty, weight, step, l1_step=0.0, layout=Layout()):
    moved = weight.clone()
    assert fused_prox_(penalty, compiled_work([moved], [layout], penalty.grouping), step, l1_step) == 0
    return moved


@pytest.mark.parametrize("dtype", PRECISION)
@pytest.mark.parametrize("grouping", ["feature", "neuron"])
@pytest.mark.parametrize("key", KEYS)
def test_the_objective_is_never_above_that_of_the_readable_version(key, grouping, dtype):
    penalty = Penalty(key, grouping)
    for seed, shape in enumerate(SHAPES):
        weight = some_weight(shape, seed, dtype)
        for strength in STRENGTHS:
            step = usual_step(key, strength)
            l1_step = 0.2 * strength if seed % 2 else 0.0
            found = compiled(penalty, weight, step, l1_step)
            reference = penalty.prox(weight.double(), step, l1_step=l1_step)
            lowest = objective(penalty, reference, weight, step, l1_step, Layout())
            assert objective(penalty, found, weight, step, l1_step, Layout()) <= lowest * (
                1 + PRECISION[dtype]
            )
            assert (found * weight >= 0).all()


@pytest.mark.parametrize("key", [key for key in KEYS if key not in ("hsq_gl12", "hsqrt_gl12")])
def test_closed_forms_and_convex_solvers_give_the_same_weights(key):
    for seed, shape in enumerate(SHAPES):
        weight = some_weight(shape, seed, torch.float64)
        for strength in STRENGTHS:
            step = usual_step(key, strength)
            torch.testing.assert_close(
                compiled(Penalty(key), weight, step), Penalty(key).prox(weight, step), rtol=0, atol=1e-10
            )


@pytest.mark.parametrize("key", KEYS)
def test_grouped_transposed_and_linear_layers_keep_their_layout(key):
    step = usual_step(key, 0.1)
    for shape, layout in [
        ((6, 4, 3, 3), Layout(conv_groups=2)),
        ((6, 1, 3, 3), Layout(conv_groups=6)),
        ((6, 4, 3, 3), Layout(transposed=True)),
        ((6, 4, 3, 3), Layout(conv_groups=3, transposed=True)),
        ((6, 4), Layout()),
        ((6, 4, 1, 1), Layout()),
    ]:
        weight = some_weight(shape, 0, torch.float64)
        for grouping in ("feature", "neuron"):
            penalty = Penalty(key, grouping)
            found = compiled(penalty, weight, step, layout=layout)
            torch.testing.assert_close(found, penalty.prox(weight, step, layout), rtol=0, atol=1e-8)


@pytest.mark.parametrize("key", KEYS)
def test_one_call_on_many_layers_is_one_call_on_each(key):
    weights = [some_weight(shape, seed, torch.float32) for seed, shape in enumerate(SHAPES)]
    penalty, step = Penalty(key, "neuron"), usual_step(key, 0.1)
    alone = [compiled(penalty, weight, step) for weight in weights]
    fused_prox_(penalty, compiled_work(weights, [Layout()] * len(weights), "neuron"), step)
    assert all(torch.equal(a, b) for a, b in zip(weights, alone, strict=True))


@pytest.mark.parametrize("key", ["es", "hsqrt_es", "hsqrt_gl12", "hsq_gl12"])
def test_threads_change_nothing(key):
    weight = some_weight((160, 48, 3, 3), 1, torch.float32)
    penalty, step = Penalty(key), usual_step(key, 0.03)
    whole = compiled(penalty, weight, step)
    parts = torch.cat([compiled(penalty, part.contiguous(), step) for part in weight.split(8, 1)], 1)
    assert torch.equal(whole, parts)


@pytest.mark.parametrize("key", KEYS)
def test_step_zero_changes_nothing_and_zero_groups_stay_zero(key):
    weight = some_weight((6, 5, 3, 3), 0, torch.float32)
    weight[:, 2] = 0
    assert torch.equal(compiled(Penalty(key), weight, 0.0), weight)
    moved = compiled(Penalty(key), weight, usual_step(key, 0.1))
    assert not moved[:, 2].any()
    assert not torch.signbit(moved[moved == 0]).any()


@pytest.mark.parametrize("key", KEYS)
def test_a_training_like_path_of_small_steps_stays_with_the_readable_version(key):
    generator = torch.Generator().manual_seed(0)
    weight = 0.05 * torch.randn(32, 16, 3, 3, generator=generator, dtype=torch.float64)
    penalty = Penalty(key)
    step = 0.01 * float(weight.norm() / penalty.gradient(weight).norm())
    for _ in range(30):
        weight = weight + 1e-4 * torch.randn(weight.shape, generator=generator, dtype=torch.float64)
        reference = penalty.prox(weight, step)
        found = compiled(penalty, weight, step)
        lowest = objective(penalty, reference, weight, step, 0.0, Layout())
        assert objective(penalty, found, weight, step, 0.0, Layout()) <= lowest * (1 + 1e-10)
        weight = found


@pytest.mark.parametrize("key", KEYS)
def test_by_way_of_a_copy_the_step_is_the_same_to_the_last_bit(key):
    """As on a GPU; there and here, weights that the loops cannot read where they lie are served, too."""
    penalty, step = Penalty(key, "neuron"), usual_step(key, 0.1)
    weights = [some_weight(shape, seed, torch.float32) for seed, shape in enumerate(SHAPES)]
    weights[1] = weights[1].to(memory_format=torch.channels_last)
    expected = [compiled(penalty, weight.contiguous(), step, 0.01) for weight in weights]
    take_step = copied_prox(penalty, weights, [Layout()] * len(weights))
    assert take_step(step, 0.01) == 0
    assert all(map(torch.equal, weights, expected))
    assert weights[1].is_contiguous(memory_format=torch.channels_last)


def test_by_way_of_a_copy_broken_groups_are_counted_and_left_alone():
    weight = torch.tensor([[torch.nan, 1.0], [1.0, 2.0]])
    assert copied_prox(Penalty("gl", "neuron"), [weight], [Layout()])(9.0, 0.0) == 1
    assert torch.equal(weight.nan_to_num(5.0), torch.tensor([[5.0, 1.0], [0.0, 0.0]]))


def test_weights_in_one_memory_are_not_copied_apart():
    """Else each copy would take its step alone, and the last one back would undo the others'."""
    whole = torch.ones(4, 4)
    assert copied_prox(Penalty("l1"), [whole[:3], whole[1:]], [Layout()] * 2) is None


def test_what_the_compiled_loops_do_not_know_is_not_copied():
    half, single = torch.zeros(2, 2, dtype=torch.bfloat16), torch.zeros(2, 2)
    for weights in ([half], [half, single], [single, single.double()]):
        assert copied_prox(Penalty("gl"), weights, [Layout()] * len(weights)) is None


@pytest.mark.parametrize(("size", "calls"), [(1024, 1), (1025, 0)])
def test_a_gpu_s_step_is_chosen_when_the_first_is_taken_and_many_weights_stay(size, calls, monkeypatch):
    asked = []

    def recorder(*parts):
        asked.append(parts)
        return copied_prox(*parts)

    monkeypatch.setattr(plan, "copied_prox", recorder)
    weight = torch.ones(size, 1024)
    take_step = plan.plan_for_gpu(Penalty("l1"), [weight], [Layout()]).take_proximal_step
    assert not asked, "gradients alone compile and copy nothing"
    assert take_step(0.25, 0.0) == take_step(0.25, 0.0) == 0
    assert len(asked) == calls
    assert (weight == 0.5).all()


def test_without_memory_for_the_copies_the_step_is_taken_where_the_weights_are(monkeypatch, caplog):
    def fail(*_):
        raise RuntimeError("cannot pin memory")

    monkeypatch.setattr(plan, "copied_prox", fail)
    weight = torch.ones(2, 2)
    assert plan.plan_for_gpu(Penalty("l1"), [weight], [Layout()]).take_proximal_step(0.25, 0.0) == 0
    assert (weight == 0.75).all()
    assert "cannot pin memory" in caplog.text
