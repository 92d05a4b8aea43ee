"""One launch for all layers: the plain formula's numbers, run by Triton's interpreter where no GPU is."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

import hgsr_lite as hg
from hgsr_lite.fast.plan import plan_for_gpu
from hgsr_lite.groups import Layout
from hgsr_lite.penalties import Penalty

pytest.importorskip("triton", reason="no Triton on this system: the single launch for GPUs was not tested")

from hgsr_lite.fast.gpu import one_launch
from hgsr_lite.fast.gpu.one_launch import launch_table, launched_gradient_

# The interpreter works out both branches of a selection.
pytestmark = pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
LAYERS = {
    (9, 7, 3, 3): Layout(),
    (5, 4, 1, 1): Layout(),
    (4, 3, 11, 11): Layout(),
    (6, 2, 3): Layout(conv_groups=3),
    (6, 1, 3, 3): Layout(conv_groups=6),
    (4, 6, 3, 2): Layout(transposed=True),
    (4, 3, 5, 5): Layout(conv_groups=2, transposed=True),
    (6, 4): Layout(),
}
LAYOUTS = list(LAYERS.values())


def some_weights():
    draw = torch.Generator().manual_seed(0)
    weights = [torch.randn(shape, generator=draw) for shape in LAYERS]
    return [weight.to(DEVICE) for weight in weights]


def assert_plain_numbers(penalty, weights, layouts, strength=0.3, l1_strength=0.2):
    gradients = [torch.ones_like(weight) for weight in weights]
    table = launch_table(weights, layouts, penalty.grouping)
    value = launched_gradient_(penalty, table, gradients, strength, l1_strength)
    expected = 0.0
    for weight, gradient, layout in zip(weights, gradients, layouts, strict=True):
        wide = weight.double()
        expected += (
            strength * penalty.value(wide, layout) + l1_strength * Penalty("l1").value(wide, layout)
        ).item()
        plain = 1 + strength * penalty.gradient(wide, layout) + l1_strength * wide.sign()
        assert gradient.isfinite().all()
        assert (gradient - plain).abs().max() <= 1e-6 * plain.abs().max()
    assert value.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("shape", "grouping"), [((200, 2, 3, 3), "feature"), ((2, 2100), "neuron")])
@pytest.mark.parametrize("key", ["es", "hsq_gl12", "gl"])
def test_groups_with_more_kernels_than_a_tile_holds_agree_too(key, shape, grouping):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    assert_plain_numbers(Penalty(key, grouping), [weight], [Layout()])


@pytest.mark.parametrize("grouping", hg.GROUPINGS)
def test_any_memory_format_that_shows_the_kernels_will_do(grouping):
    weights = [torch.randn(8, 6, 3, 3, device=DEVICE).to(memory_format=torch.channels_last)]
    assert_plain_numbers(Penalty("hsq_gl12", grouping), weights, [Layout()])


@pytest.mark.parametrize("key", ["gl", "hsq_gl12", "es"])
def test_a_nan_weight_stays_visible(key):
    weight = torch.randn(4, 4, 3, 3, device=DEVICE)
    weight[0, 0, 0, 0] = torch.nan
    gradient = torch.zeros_like(weight)
    value = launched_gradient_(Penalty(key), launch_table([weight], [Layout()], "feature"), [gradient], 1.0)
    assert value.isnan()
    assert gradient[:, 0].isnan().any()
    assert gradient[:, 1:].isfinite().all()


def test_gradients_that_lie_elsewhere_in_the_next_step_are_found():
    weights = some_weights()
    table = launch_table(weights, LAYOUTS, "feature")
    first, second = ([torch.zeros_like(weight) for weight in weights] for _ in range(2))
    for gradients in (first, second, first):
        launched_gradient_(Penalty("gl"), table, gradients, 1.0)
    assert all(torch.equal(one, 2 * other) for one, other in zip(first, second, strict=True))


@pytest.mark.parametrize("change", [torch.Tensor.double, torch.Tensor.bfloat16])
def test_another_dtype_is_left_to_the_other_versions(change):
    weights = [change(weight) for weight in some_weights()]
    assert launch_table(weights, LAYOUTS, "feature") is None
    assert plan_for_gpu(Penalty("gl"), weights, LAYOUTS).backend == "stacked"


def test_the_plan_for_a_gpu_takes_the_single_launch_and_gives_its_numbers():
    model = hg.build_model("alexnet", in_channels=3, num_classes=10, seed=0).to(DEVICE)
    reg = hg.Regularizer(model, "hsq_gl12", strength=0.1, l1_mix=0.3)
    weights, layouts = [layer.weight.detach() for layer in reg.layers], [Layout()] * len(reg.layers)
    plan = plan_for_gpu(reg.penalty, weights, layouts)
    assert plan.backend == "triton"
    reg.add_gradient_()
    found = [torch.zeros_like(weight) for weight in weights]
    plan.add_gradient(found, *reg.strengths())
    for gradient, layer in zip(found, reg.layers, strict=True):
        assert torch.allclose(gradient, layer.weight.grad, rtol=1e-5, atol=1e-8)


def test_without_a_working_triton_the_layers_are_stacked_and_the_log_says_why(monkeypatch, caplog):
    def no_compiler(*_):
        raise RuntimeError("Failed to find C compiler")

    monkeypatch.setattr(one_launch, "launched_gradient_", no_compiler)
    with caplog.at_level("INFO", logger="hgsr_lite"):
        assert plan_for_gpu(Penalty("gl"), some_weights(), LAYOUTS).backend == "stacked"
    assert "not in one launch (RuntimeError: Failed to find C compiler)" in caplog.text


def test_wrong_numbers_from_a_compiler_are_noticed_and_not_used(monkeypatch, caplog):
    def wrong(penalty, table, gradients, strength, l1_strength):
        gradients[0][0, 0] += 1.0
        return torch.ones((), device=DEVICE)

    monkeypatch.setattr(one_launch, "launched_gradient_", wrong)
    assert plan_for_gpu(Penalty("gl"), some_weights(), LAYOUTS).backend == "stacked"
    assert "Triton's numbers are wrong on this machine" in caplog.text


def test_weights_that_are_not_finite_are_no_fault_of_the_compiler(caplog):
    weights = some_weights()
    weights[0][0, 0] = torch.nan
    assert plan_for_gpu(Penalty("gl"), weights, LAYOUTS).backend == "stacked"
    assert "wrong" not in caplog.text


def test_a_system_without_triton_stacks_the_layers(monkeypatch):
    monkeypatch.setitem(sys.modules, "hgsr_lite.fast.gpu.one_launch", None)
    assert plan_for_gpu(Penalty("gl"), some_weights(), LAYOUTS).backend == "stacked"


COMPILE = """
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from hgsr_lite import PENALTIES
from hgsr_lite.fast.gpu.one_launch import COLUMNS, LARGEST, TILE, _serve_all

types = {"addresses": "*i64", "groups": "*i64", "values": "*fp64", "strength": "fp32", "l1_strength": "fp32"}
for spec in {(spec.norm, spec.inner, spec.outer) for spec in PENALTIES.values()}:
    fixed = dict(zip(("norm", "inner", "outer"), spec))
    fixed |= {"sizes": 0b10010001, "largest": LARGEST, "columns": COLUMNS, "tile": TILE}
    source = ASTSource(_serve_all, types | dict.fromkeys(fixed, "constexpr"), fixed)
    for capability in (75, 90):
        print(len(compile(source, target=GPUTarget("cuda", capability, 32)).asm["cubin"]) > 0)
"""


@pytest.mark.slow
def test_it_compiles_for_real_gpus_from_turing_to_hopper(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["True"] * 2 * len(hg.PENALTIES)
