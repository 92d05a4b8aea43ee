"""The compiled gradient is the plain one, for every penalty, grouping, layout and mix."""

from __future__ import annotations

import copy
import dataclasses
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from hgsr_lite import GROUPINGS, Layout, Penalty, Regularizer
from hgsr_lite.fast.cpu.gradient import block_rows, compiled_work, fused_gradient_, fused_value

LAYERS = {
    (9, 7, 3, 3): Layout(),
    (5, 4, 1, 1): Layout(),
    (6, 4, 2, 5): Layout(),
    (1, 6, 3, 3): Layout(),
    (7, 1, 3, 3): Layout(),
    (6, 4): Layout(),
    (6, 2, 3): Layout(conv_groups=3),
    (6, 1, 3, 3): Layout(conv_groups=6),
    (4, 6, 3, 2): Layout(transposed=True),
    (4, 3, 3, 3): Layout(conv_groups=2, transposed=True),
}


def weights_of(dtype):
    draw = torch.Generator().manual_seed(0)
    weights = [torch.randn(shape, generator=draw, dtype=torch.float64).to(dtype) for shape in LAYERS]
    return weights


@pytest.mark.parametrize("key", ["gl", "hsq_gl12", "es"])
@pytest.mark.parametrize("grouping", GROUPINGS)
def test_large_layers_cut_into_blocks_for_several_threads_agree_too(key, grouping):
    weights = [torch.randn(700, 701, 3, 3), torch.randn(64, 64, 3, 3), torch.randn(300, 512, 3, 3)]
    layouts = [Layout()] * 3
    gradients = [torch.zeros_like(weight) for weight in weights]
    work = compiled_work(weights, layouts, grouping)
    assert len(work.blocks) > len(weights)
    fused_gradient_(Penalty(key, grouping), work, gradients, 1.0)
    for weight, gradient in zip(weights, gradients, strict=True):
        plain = Penalty(key, grouping).gradient(weight.double())
        assert (gradient - plain).norm() <= 1e-6 * plain.norm()


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("grouping", GROUPINGS)
def test_the_blocks_hold_every_group_once_in_equal_stretches(grouping, threads):
    weights = [*weights_of(torch.float32), torch.randn(512, 512, 3, 3), torch.randn(64, 200, 3, 3)]
    layouts = [*LAYERS.values(), Layout(), Layout()]
    work = compiled_work(weights, layouts, grouping)
    blocks = block_rows(work.layers, threads)
    seen = [
        (layer, conv_group, group)
        for layer, conv_group, first, end in blocks.tolist()
        for group in range(first, end)
    ]
    assert len(seen) == len(set(seen)) == sum(row[0] * row[1] for row in work.layers.tolist())
    work_of = (blocks[:, 3] - blocks[:, 2]) * work.layers[blocks[:, 0], 2] * work.layers[blocks[:, 0], 3]
    stretches = work_of.reshape(threads, -1).sum(1)
    assert stretches.max() <= 1.2 * work_of.sum() / threads
    gradients = [[torch.zeros_like(weight) for weight in weights] for _ in range(2)]
    for one, part in zip(gradients, (work, dataclasses.replace(work, blocks=blocks)), strict=True):
        fused_gradient_(Penalty("hsq_gl12", grouping), part, one, 1.0)
    assert all(torch.allclose(*pair, rtol=1e-6) for pair in zip(*gradients, strict=True))


TWO_THREADS = """
import torch, hgsr_lite as hg
torch.set_num_threads(2)
for grouping in hg.GROUPINGS:
    for key in ("es", "hsq_gl12", "gl"):
        model = hg.build_model("vgg11", in_channels=3, num_classes=10, seed=0)
        reg = hg.Regularizer(model, key, grouping=grouping, strength=1.0)
        value = reg.add_gradient_()
        assert reg.backend == "compiled"
        assert abs(value.item() - reg().item()) <= 1e-5 * value.item()
        for layer in reg.layers:
            expected = reg.penalty.gradient(layer.weight)
            assert (layer.weight.grad - expected).norm() <= 1e-6 * expected.norm()
print("agree")
"""
THREADS = """
import torch, hgsr_lite as hg
from hgsr_lite.data import Split, augmented_batches
torch.set_num_threads({threads})
reg = hg.Regularizer(torch.nn.Conv2d(130, 130, 3), "gl", strength=1e-3)
reg.add_gradient_()
print(torch.get_num_threads())
reg.prox_(0.1)
next(augmented_batches(Split(torch.zeros(100, 3, 32, 32), torch.arange(100)), 100))
print(torch.get_num_threads())
"""


def test_two_threads_agree_with_the_plain_formula():
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "NUMBA_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-c", TWO_THREADS], env=environment, capture_output=True, text=True, timeout=200
    )
    assert done.stdout.split() == ["agree"], done.stderr[-2000:]


@pytest.mark.parametrize("threads", [1, 3])
def test_the_compiled_loops_leave_pytorch_the_threads_it_was_given(threads):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-c", THREADS.format(threads=threads)],
        env=environment, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.stdout.split() == [str(threads)] * 2, done.stderr[-2000:]


def test_what_the_compiled_loop_cannot_take_goes_the_plain_way():
    def backend(change):
        model = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3))
        reg = Regularizer(model, "hsq_gl12", strength=1.0)
        assert reg.backend == "compiled"
        change(model)
        expected = reg().item()
        assert reg.add_gradient_().item() == pytest.approx(expected, rel=1e-2)
        return reg.backend

    assert backend(lambda model: model.to(memory_format=torch.channels_last)) == "plain"
    assert backend(lambda model: model.to(torch.bfloat16)) == "plain"
    assert backend(lambda model: model[0].double()) == "plain"
    assert backend(lambda model: model.double()) == "compiled"


def test_a_gradient_stored_in_another_order_goes_the_plain_way():
    model = nn.Sequential(nn.Conv2d(4, 4, 3))
    twin = copy.deepcopy(model)
    twin[0].weight.grad = torch.zeros_like(twin[0].weight).to(memory_format=torch.channels_last)
    for network in (model, twin):
        Regularizer(network, "gl", strength=1.0).add_gradient_()
    assert torch.allclose(model[0].weight.grad, twin[0].weight.grad, rtol=1e-5)


def test_a_gradient_of_another_dtype_goes_the_plain_way():
    model = nn.Conv2d(4, 4, 3)
    model.weight.grad_dtype = torch.bfloat16
    model.weight.grad = torch.zeros_like(model.weight, dtype=torch.bfloat16)
    Regularizer(model, "es", strength=1.0).add_gradient_()
    expected = Penalty("es").gradient(model.weight)
    assert torch.allclose(model.weight.grad.float(), expected, rtol=1e-2)


@pytest.mark.parametrize("columns", [1, 7, 8, 9, 16, 23])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("key", ["es", "hsq_gl12", "gl"])
def test_rows_that_end_within_a_tile_of_eight_kernels_agree_too(key, dtype, columns):
    weight = torch.randn(5, columns, 3, 3, dtype=dtype)
    weight[:, :, 0, 0] = 0
    weight[1] = 0
    for grouping in GROUPINGS:
        gradient = torch.ones_like(weight)
        penalty = Penalty(key, grouping)
        fused_gradient_(penalty, compiled_work([weight], [Layout()], grouping), [gradient], 0.3, 0.2)
        plain = 1 + 0.3 * penalty.gradient(weight.double()) + 0.2 * weight.double().sign()
        tolerance = 1e-6 if dtype == torch.float32 else 1e-13
        assert torch.allclose(
            gradient.double(), plain, rtol=tolerance, atol=tolerance * plain.abs().max().item()
        )


@pytest.mark.parametrize("key", ["gl12", "hsqrt_gl12", "gl", "hsq_gl12"])
def test_a_nan_weight_is_nan_in_the_gradient_too(key):
    weight = torch.randn(9, 10, 3, 3)
    weight[0, 0, 0, 0] = torch.nan
    work, gradient = compiled_work([weight], [Layout()], "feature"), torch.zeros_like(weight)
    assert fused_gradient_(Penalty(key), work, [gradient], 1.0).isnan()
    assert gradient.isnan().any()


def test_a_nan_weight_stays_visible():
    model = nn.Sequential(nn.Conv2d(2, 2, 3))
    with torch.no_grad():
        model[0].weight[0, 0, 0, 0] = torch.nan
    reg = Regularizer(model, "hsq_gl12")
    assert reg.add_gradient_().isnan()
    assert model[0].weight.grad.isnan().any()


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1e15])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("key", ["l1", "l2", "es", "gl12", "hsq_gl12", "hsqrt_gl"])
@pytest.mark.parametrize("grouping", GROUPINGS)
def test_the_value_alone_is_the_value_beside_the_gradient(key, grouping, dtype, scale):
    weights = [scale * torch.randn(size, dtype=dtype) for size in ((9, 7, 3, 3), (4, 6, 1, 1), (3, 5))]
    layouts = [Layout(), Layout(conv_groups=2), Layout()]
    penalty, work = Penalty(key, grouping), compiled_work(weights, layouts, grouping)
    for l1_strength in (0.0, 0.2):
        beside = fused_gradient_(penalty, work, [*map(torch.zeros_like, weights)], 0.3, l1_strength)
        alone = fused_value(penalty, work, 0.3, l1_strength)
        assert torch.allclose(alone, beside, rtol=1e-6 if dtype == torch.float32 else 1e-13, atol=0)
