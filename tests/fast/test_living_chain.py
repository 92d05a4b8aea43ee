"""A chain of layers gives what its layers give one by one, to the bit, and leaves nothing behind."""

from __future__ import annotations

import gc
import math
import weakref
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import adaptive_avg_pool2d, linear, max_pool2d

from benchmarks.dense_forms import threads as threads_of
from hgsr_lite.fast import (
    Convolution,
    Linear,
    Link,
    LivingKernels,
    MaxPool,
    MeanPool,
    Window,
    batch_innermost,
    prepare_chain,
    smallest_batch,
)

convolutions = pytest.importorskip("hgsr_lite.fast.cpu.sparse_convolution")
chains = pytest.importorskip("hgsr_lite.fast.cpu.living_chain")
sparse_convolution = convolutions.sparse_convolution


@settings(max_examples=80)
@given(
    st.integers(0, 60), st.integers(2, 9), st.integers(2, 9), st.integers(1, 3), st.integers(1, 3),
    st.integers(0, 1), st.booleans(), st.sampled_from([torch.float32, torch.float64]),
)  # fmt: skip
def test_its_pools_are_pytorchs_and_nan_wins(more, height, width, kernel, stride, padding, ceil, dtype):
    kernel = min(kernel, height, width)
    padding = min(padding, kernel // 2)
    images = torch.randn(smallest_batch(dtype) + more, 3, height, width, dtype=dtype)
    images[0, 0, 0, 1], images[1, 1] = math.nan, -math.inf
    grid = (min(kernel, height), min(stride, width))
    largest = Link(MaxPool((kernel, kernel), (stride, stride), (padding, padding), ceil), 0)
    for link, wanted in (
        (largest, max_pool2d(images, kernel, stride, padding, ceil_mode=ceil)),
        (Link(MeanPool(grid), 0), adaptive_avg_pool2d(images, grid)),
    ):
        found = prepare_chain([link], images.shape, dtype).run(images)
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6, equal_nan=True)
        assert found.permute(1, 2, 3, 0).is_contiguous()


def convolution(outputs: int, inputs: int, seed: int, high: float = math.inf) -> Convolution:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(outputs, inputs, 3, 3, generator=generator)
    weight *= torch.rand(outputs, inputs, 1, 1, generator=generator) < 0.3
    bias = torch.randn(outputs, generator=generator)
    window = Window((3, 3), (1, 1), (1, 1, 1, 1))
    return Convolution(LivingKernels.of(weight), bias, window, inputs, -1.0, high)


@settings(max_examples=60)
@given(st.data())
def test_whatever_its_layers_read_no_value_is_overwritten_before_it_was_read_for_the_last_time(data):
    images = torch.randn(data.draw(st.integers(16, 40)), 4, 5, 5)
    links, values = [], [images]
    for number in range(data.draw(st.integers(1, 9))):
        known = st.integers(0, len(values) - 1)
        layer, source = convolution(4, 4, number), data.draw(known)
        residual = data.draw(st.one_of(st.none(), known))
        links.append(Link(layer, source, residual))
        added = None if residual is None else values[residual]
        bounds = layer.low, layer.high
        values.append(
            sparse_convolution(values[source], layer.living, layer.bias, layer.window, added, *bounds)
        )
    found = prepare_chain(links, images.shape, images.dtype).run(images)
    assert torch.equal(found, values[-1])


@settings(max_examples=60)
@given(
    st.integers(0, 60), st.integers(1, 5), st.integers(1, 4), st.integers(1, 40), st.booleans(),
    st.integers(1, 2), st.sampled_from([torch.float32, torch.float64]),
)  # fmt: skip
def test_a_linear_layer_reads_all_of_an_image_as_pytorchs_does(
    more, channels, side, outputs, is_bound, threads, dtype
):
    images = torch.randn(smallest_batch(dtype) + more, channels, side, side, dtype=dtype)
    images[0], images[1, 0, 0, 0] = math.nan, math.inf
    weight, bias = (
        torch.randn(outputs, channels * side * side, dtype=dtype),
        torch.randn(outputs, dtype=dtype),
    )
    weight[0] = 0  # times infinity is NaN, as in PyTorch
    low, high = (-0.5, 0.5) if is_bound else (-math.inf, math.inf)
    wanted = linear(images.flatten(1), weight, bias).clamp(low, high)
    with threads_of(threads):
        links = [Link(Linear(weight, bias, low, high), 0)]
        found = prepare_chain(links, images.shape, dtype, tile=20).run(images)
    assert found.shape == (len(images), outputs, 1, 1)
    close = {"rtol": 1e-4, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 1e-12, "atol": 1e-13}
    torch.testing.assert_close(found.flatten(1), wanted, equal_nan=True, **close)


LAYOUTS = {
    "image by image": torch.Tensor.contiguous,
    "channels last": lambda images: images.contiguous(memory_format=torch.channels_last),
    "batch innermost": batch_innermost,
    "every other image": lambda images: images.repeat_interleave(2, dim=0)[::2],
}


@settings(max_examples=60)
@given(
    st.integers(16, 100), st.integers(1, 120), st.integers(1, 3), st.sampled_from(list(LAYOUTS)),
    st.integers(1, 6), st.booleans(),
)  # fmt: skip
def test_parts_threads_and_layouts_change_no_bit(count, tile, threads, layout, side, shares_always):
    images = torch.randn(count, 3, side, side)
    links = [
        Link(convolution(4, 3, 0), 0), Link(convolution(4, 4, 1), 1, 1),
        Link(MaxPool((1, 1), (1, 1), (0, 0), False), 2), Link(convolution(5, 4, 2, 1.5), 3),
        Link(Linear(torch.randn(11, 5 * side**2), torch.randn(11), 0.0, math.inf), 4),
    ]  # fmt: skip
    wanted = prepare_chain(links, images.shape, images.dtype).run(images)
    least = 0 if shares_always else 1 << 22
    with (
        threads_of(threads),
        mock.patch.multiple(chains, PARALLEL_FROM=least),
        mock.patch.multiple(convolutions, PARALLEL_FROM=least),
    ):
        found = prepare_chain(links, images.shape, images.dtype, tile).run(LAYOUTS[layout](images))
    assert torch.equal(found, wanted)
    assert found.permute(1, 2, 3, 0).is_contiguous()


def test_what_it_gave_stays_when_it_is_run_again():
    links = [Link(convolution(4, 3, 0), 0), Link(convolution(2, 4, 1), 1)]
    chain = prepare_chain(links, torch.Size((16, 3, 6, 6)), torch.float32)
    first = chain.run(torch.randn(16, 3, 6, 6))
    kept = first.clone()
    chain.run(torch.randn(16, 3, 6, 6))
    assert torch.equal(first, kept)


def test_it_keeps_alive_what_it_reads_by_address():
    layer = convolution(4, 3, 0)
    held = [weakref.ref(tensor) for tensor in (*layer.living, layer.bias)]
    chain = prepare_chain([Link(layer, 0)], torch.Size((16, 3, 6, 6)), torch.float32)
    del layer
    gc.collect()
    assert all(each() is not None for each in held)
    del chain


def test_images_that_a_layer_cannot_take_are_refused_in_words():
    links = [Link(convolution(4, 3, 0), 0)]
    with pytest.raises(ValueError, match=r"takes images of shape \(batch, 3, height, width\)"):
        prepare_chain(links, torch.Size((16, 5, 6, 6)), torch.float32)
    with pytest.raises(ValueError, match=r"convert them with .to\(torch.float32\)"):
        prepare_chain(links, torch.Size((16, 3, 6, 6)), torch.float64)
    wrong = Linear(torch.ones(2, 75), torch.ones(2), -1.0, 1.0)
    with pytest.raises(ValueError, match=r"takes images of shape \(batch, 75, height, width\)"):
        prepare_chain([Link(wrong, 0)], torch.Size((16, 3, 6, 6)), torch.float32)
    with pytest.raises(ValueError, match="the other summand"):
        prepare_chain([Link(convolution(4, 3, 0), 0, 0)], torch.Size((16, 3, 6, 6)), torch.float32)
