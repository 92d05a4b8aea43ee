"""A convolution over living kernels is the dense one, whatever its shape, compiled or plain."""

from __future__ import annotations

import math
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import conv2d

import hgsr_lite.fast.operators  # noqa: F401 - registers the operator
from benchmarks.dense_forms import threads as threads_of
from hgsr_lite.fast import LivingKernels, Window, alive_kernels, plain_sparse_convolution
from hgsr_lite.fast.living import batch_innermost as plain_batch_innermost

loops = pytest.importorskip("hgsr_lite.fast.cpu.sparse_convolution")
sparse_convolution = loops.sparse_convolution
batch_innermost = pytest.importorskip("hgsr_lite.fast.cpu.layout").batch_innermost
LIMIT = {torch.float32: 1e-5, torch.float64: 1e-12}
AS_BITS = {torch.float32: torch.int32, torch.float64: torch.int64}
BOUNDS = st.sampled_from([(-math.inf, math.inf), (0.0, math.inf), (0.0, 0.5)])


@st.composite
def convolutions(draw, slides=False):
    """Images, a weight with dead kernels, and how the kernel moves; `slides`: three wide, by one pixel."""
    kernel, stride, dilation = (
        draw(st.tuples(sizes, sizes)) for sizes in (st.integers(1, 4), st.integers(1, 3), st.integers(1, 2))
    )
    if slides:
        kernel, stride, dilation = (kernel[0], 3), (stride[0], 1), (dilation[0], 1)
    padding = draw(st.tuples(*[st.integers(0, 3)] * 4))
    window = Window(kernel, stride, padding, dilation)
    height, width = (
        draw(st.integers(max(1, d * (k - 1) + 1 - sum(p)), 21))
        for d, k, p in zip(dilation, kernel, (padding[:2], padding[2:]), strict=True)
    )
    groups = draw(st.integers(1, 3))
    outputs, inputs = groups * draw(st.integers(1, 6)), draw(st.integers(1, 4))
    batch = draw(st.one_of(st.integers(1, 20), st.integers(1, 130)))
    torch.manual_seed(draw(st.integers(0, 1000)))
    dtype = draw(st.sampled_from(list(LIMIT)))
    weight = torch.randn(outputs, inputs, *kernel, dtype=dtype)
    pattern = draw(st.sampled_from(["random", "all dead", "none dead", "one alive", "channels dead"]))
    alive = torch.rand(outputs, inputs) < 0.4
    if pattern == "channels dead":
        alive[0], alive[:, -1] = False, False
    elif pattern != "random":
        alive[:] = pattern == "none dead"
        alive[-1, 0] |= pattern == "one alive"
    weight *= alive[..., None, None]
    return torch.randn(batch, groups * inputs, height, width, dtype=dtype), weight, window, groups


def dense(images: Tensor, weight: Tensor, bias: Tensor | None, window: Window, groups: int) -> Tensor:
    above, below, left, right = window.padding
    padded = torch.nn.functional.pad(images, (left, right, above, below))
    return conv2d(padded, weight, bias, window.stride, 0, window.dilation, groups)


def close(found: Tensor, wanted: Tensor, terms: float = 0.0) -> bool:
    """As far apart as numbers round, relative to the largest finite one; all others the same.

    A few outputs may all cancel: then relative to an eighth of `terms`, the largest sum of sizes.
    """
    finite = wanted.isfinite()
    same = (found == wanted) | (found.isnan() & wanted.isnan())
    distance, size = (found - wanted)[finite].abs(), wanted[finite].abs()
    limit = LIMIT[wanted.dtype] * (max(float(size.max()), terms / 8) if size.any() else 1.0)
    return found.shape == wanted.shape and bool(same[~finite].all() and (distance <= limit).all())


def largest_terms(images: Tensor, weight: Tensor, bias: Tensor, window: Window, groups: int) -> float:
    """The largest output if nothing cancelled and what is not finite were 0."""
    sizes = [each.nan_to_num(0.0, 0.0, 0.0).abs() for each in (images, weight, bias)]
    return float(dense(*sizes, window, groups).max())


def on_one_thread_and_on_two(*arguments) -> tuple[Tensor, Tensor]:
    """The compiled convolution on one thread, and shared by two, however small it is."""
    found = []
    for count, least in ((1, loops.PARALLEL_FROM), (2, 0)):
        with threads_of(count), mock.patch.object(loops, "PARALLEL_FROM", least):
            found.append(sparse_convolution(*arguments))
            assert torch.get_num_threads() == count
    return tuple(found)


def same_bits(one: Tensor, other: Tensor) -> bool:
    """NaN is not equal to itself, its bits are."""
    return torch.equal(*(each.view(AS_BITS[each.dtype]) for each in (one, other)))


@settings(max_examples=150)
@given(
    st.one_of(convolutions(), convolutions(slides=True)),
    st.booleans(),
    BOUNDS,
)
def test_it_is_the_dense_convolution_with_what_follows_it_and_equal_bit_for_bit_on_two_threads(
    case, with_residual, bounds
):
    images, weight, window, groups = case
    living, bias = LivingKernels.of(weight, groups), torch.randn(len(weight), dtype=weight.dtype)
    wanted = dense(images, weight, bias, window, groups)
    residual = torch.randn_like(wanted) if with_residual else None
    terms = largest_terms(images, weight, bias, window, groups)
    wanted = (wanted if residual is None else wanted + residual).clamp(*bounds)
    arguments = (images, living, bias, window, residual, *bounds)
    assert close(plain_sparse_convolution(*arguments), wanted, terms)
    found, shared = on_one_thread_and_on_two(*arguments)
    assert close(found, wanted, terms)
    assert found.permute(1, 2, 3, 0).is_contiguous()
    assert same_bits(found, shared)


def put_(number: float, where: str, place: int, images: Tensor, weight: Tensor, bias: Tensor, groups: int):
    """Put a number into a bias, a living kernel, or an image's channel that a dead or a living one reads."""
    kind, _, of = where.partition(" of ")
    kernels = (alive_kernels(weight) == (of == "the living")).nonzero()
    if kind == "bias":
        bias[place % len(bias)] = number
    elif len(kernels):
        output, channel = kernels[place % len(kernels)].tolist()
        read = output // (len(weight) // groups) * weight.shape[1] + channel
        numbers = weight[output, channel] if kind == "weight" else images[place % len(images), read]
        numbers.view(-1)[place % numbers.numel()] = number


@settings(max_examples=200)
@given(
    st.one_of(convolutions(), convolutions(slides=True)),
    st.lists(
        st.tuples(
            st.sampled_from([math.nan, math.inf, -math.inf]),
            st.sampled_from(["bias", "weight of the living", "image of the living", "image of the dead"]),
            st.integers(0, 10**6),
        ),
        min_size=1,
        max_size=4,
    ),
    BOUNDS,
)
def test_nan_and_infinity_come_out_where_a_living_kernel_meets_them_and_nowhere_else(case, put, bounds):
    images, weight, window, groups = case
    bias = torch.randn(len(weight), dtype=weight.dtype)
    for number, where, place in put:
        put_(number, where, place, images, weight, bias, groups)
    arguments = (images, LivingKernels.of(weight, groups), bias, window, None, *bounds)
    wanted = plain_sparse_convolution(*arguments)
    found, shared = on_one_thread_and_on_two(*arguments)
    assert same_bits(found, shared)
    if not weight.isfinite().all():  # the plain formula multiplies the padding, which is 0, by them too
        ones = torch.ones_like(images[:1, :1])
        inside = dense(ones, ones.new_ones(1, 1, *window.kernel), None, window, 1) == math.prod(window.kernel)
        found, wanted = (each.where(inside, 0.0) for each in (found, wanted))
    assert close(found, wanted, largest_terms(images, weight, bias, window, groups))


def test_a_large_layer_is_shared_by_two_threads_and_equal_bit_for_bit():
    torch.manual_seed(0)
    weight = torch.randn(48, 48, 3, 3) * (torch.rand(48, 48, 1, 1) < 0.2)
    images, bias = torch.randn(32, 48, 12, 12), torch.randn(48)
    arguments = (images, LivingKernels.of(weight), bias, Window((3, 3), (1, 1), (1, 1, 1, 1)))
    found = []
    for threads in (1, 2, 3):
        with threads_of(threads):
            found.append(sparse_convolution(*arguments))
    assert close(found[0], conv2d(images, weight, bias, padding=1))
    assert all(torch.equal(found[0], other) for other in found[1:])


@pytest.mark.parametrize("batch", [1, 8, 16, 40, 128])
@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (1, 2), (3, 1), (3, 2), (5, 1), (7, 2)])
@pytest.mark.parametrize("outputs", [3, 4, 9])
def test_channels_of_a_layer_that_all_live_are_computed_together_and_each_as_if_alone(
    batch, kernel, stride, outputs
):
    torch.manual_seed(0)
    images, bias = torch.randn(batch, 3, 11, 13), torch.randn(outputs + 1)
    weight = torch.randn(outputs + 1, 3, kernel, kernel)
    weight[outputs, 1] = 0  # with it, output channels read different inputs: one after the other
    window = Window((kernel, kernel), (stride, stride), (kernel // 2,) * 4)
    residual = torch.randn(batch, outputs + 1, *window.output_size(11, 13))
    for added, low in ((None, -math.inf), (residual, 0.0)):
        alone, together = (
            sparse_convolution(
                images, LivingKernels.of(weight[:count]), bias[:count], window,
                None if added is None else added[:, :count], low,
            )
            for count in (outputs + 1, outputs)
        )  # fmt: skip
        assert torch.equal(together, alone[:, :outputs])
        wanted = conv2d(images, weight, bias, stride, kernel // 2)
        assert close(alone, wanted if added is None else (wanted + added).clamp(min=low))


@given(
    st.tuples(st.integers(1, 40), st.integers(1, 5), st.integers(1, 9), st.integers(1, 9)),
    st.sampled_from(list(LIMIT)),
    st.sampled_from(["as they come", "channels_last", "cut out", "turned already"]),
)
def test_images_turned_by_blocks_are_the_same_images(shape, dtype, lying):
    images = torch.randn(shape, dtype=dtype)
    if lying == "channels_last":
        images = images.to(memory_format=torch.channels_last)
    elif lying == "cut out":
        images = torch.randn(2 * shape[0], *shape[1:3], shape[3] + 1, dtype=dtype)[::2, ..., 1:]
    elif lying == "turned already":
        images = plain_batch_innermost(images)
    before, found = images.clone(), batch_innermost(images)
    assert torch.equal(found, before)
    assert torch.equal(images, before)
    assert found.permute(1, 2, 3, 0).is_contiguous()


@pytest.mark.parametrize("batch", [1, 16])
@pytest.mark.parametrize("number", [math.nan, math.inf])
@pytest.mark.parametrize("convolve", [sparse_convolution, plain_sparse_convolution])
def test_a_dead_kernel_ignores_infinity_and_nan_and_a_living_one_passes_them_on(batch, number, convolve):
    weight = torch.zeros(2, 2, 1, 1)
    weight[0, 0], weight[1, 1] = 1.0, 1.0
    images = torch.ones(batch, 2, 2, 2)
    images[:, 0, 0, 0] = number
    found = convolve(images, LivingKernels.of(weight), torch.zeros(2), Window((1, 1)), None, 0.0)
    assert torch.equal(
        found[:, 1], torch.ones(batch, 2, 2)
    )  # the dense one says NaN here: zero times infinity
    assert not torch.isfinite(found[:, 0, 0, 0]).any()
    assert torch.equal(found[:, 0, 1], torch.ones(batch, 2))


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_a_kernel_that_is_not_finite_is_alive_and_seen(number):
    weight = torch.zeros(1, 2, 1, 1)
    weight[0, 1] = number
    living = LivingKernels.of(weight)
    found = sparse_convolution(torch.ones(16, 2, 2, 2), living, torch.zeros(1), Window((1, 1)))
    assert living.inputs.tolist() == [1]
    assert not torch.isfinite(found).any()


def test_a_sliding_kernel_spreads_nan_no_further_than_it_reaches():
    weight = torch.ones(1, 1, 3, 3)
    for place in range(10):
        images = torch.zeros(16, 1, 3, 10)
        images[:, :, 1, place] = math.nan
        found = sparse_convolution(
            images, LivingKernels.of(weight), torch.zeros(1), Window((3, 3), (1, 1), (1, 1, 1, 1))
        )
        near = (torch.arange(10) - place).abs() <= 1
        assert torch.equal(found.isnan(), near.expand(16, 1, 3, 10))


def test_images_in_any_memory_format_and_none_at_all():
    weight = torch.randn(3, 2, 3, 3)
    arguments = (LivingKernels.of(weight), torch.zeros(3), Window((3, 3)))
    images = torch.randn(9, 2, 5, 5)
    wanted = conv2d(images, weight)
    for same in (
        images.contiguous(memory_format=torch.channels_last),
        images.flip(0).flip(0),
        images[:, :, :, :],
    ):
        assert close(sparse_convolution(same, *arguments), wanted)
    every_second = torch.randn(18, 2, 5, 5)[::2]
    assert close(sparse_convolution(every_second, *arguments), conv2d(every_second, weight))
    assert sparse_convolution(images[:0], *arguments).shape == (0, 3, 3, 3)


def test_pytorch_finds_nothing_wrong_with_the_operator():
    weight = torch.randn(4, 3, 3, 3) * (torch.rand(4, 3, 1, 1) < 0.5)
    living = LivingKernels.of(weight)
    for batch in (1, 16):
        images = torch.randn(batch, 3, 6, 6)
        numbers = ([1, 1, 1, 1, 1, 1, 1, 1], 3, 1, 0.0, math.inf, False, False)
        arguments = (images, None, *living, torch.randn(4), None, *numbers)
        torch.library.opcheck(torch.ops.hgsr_lite.living_convolution.default, arguments)
