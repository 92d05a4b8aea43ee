"""Batched crops and flips are those of a loop over images that makes the same draw."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from hgsr_lite.data import Split
from hgsr_lite.data.augment import augmented_batches, augmented_specs, window_at

UNMOVED = {"offsets": torch.zeros(1, 2, dtype=torch.int64), "mirrored": torch.tensor([False])}


def one_by_one(images, offsets, mirrored, padding):
    results = []
    for image, (row, column), mirror in zip(images, offsets.tolist(), mirrored.tolist(), strict=True):
        height, width = image.shape[1:]
        window = F.pad(image, (padding,) * 4)[:, row : row + height, column : column + width]
        results.append(window.flip(2) if mirror else window)
    return torch.stack(results)


@pytest.mark.parametrize("shape", [(300, 3, 32, 32), (5, 1, 8, 8), (7, 4, 5, 9), (1, 2, 1, 1), (0, 3, 8, 8)])
@pytest.mark.parametrize("padding", [0, 1, 4])
def test_a_batch_is_cropped_and_flipped_as_its_images_one_by_one(shape, padding):
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(shape, generator=generator)
    offsets = torch.randint(2 * padding + 1, (len(images), 2), generator=generator)
    mirrored = torch.rand(len(images), generator=generator) < 0.5
    found = window_at(images, torch.arange(len(images)), offsets, mirrored, padding)
    assert found.shape == images.shape
    if len(images):
        assert torch.equal(found, one_by_one(images, offsets, mirrored, padding))


def epoch(images, seed, padding):
    """All images of one augmented epoch, in batches of 128."""
    split = Split(images, torch.arange(len(images)))
    return [
        torch.cat(parts)
        for parts in zip(
            *augmented_batches(split, 128, torch.Generator().manual_seed(seed), padding), strict=True
        )
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.uint8])
def test_an_epoch_is_augmented_as_its_images_one_by_one_with_the_same_draw(dtype):
    images = (torch.rand(300, 3, 12, 10, generator=torch.Generator().manual_seed(1)) * 255).to(dtype)
    found, order = epoch(images, 7, padding=2)
    generator = torch.Generator().manual_seed(7)
    offsets = torch.randint(5, (300, 2), generator=generator)
    mirrored = torch.rand(300, generator=generator) < 0.5
    assert found.dtype == dtype
    assert torch.equal(order, torch.randperm(300, generator=generator))
    assert torch.equal(found, one_by_one(images, offsets, mirrored, 2)[order])


def test_channels_last_images_are_augmented_to_the_same_values():
    images = torch.randn(200, 3, 8, 8)
    last = images.to(memory_format=torch.channels_last)
    assert torch.equal(epoch(images, 0, padding=4)[0], epoch(last, 0, padding=4)[0])


def test_lookups_and_the_compiled_loop_cut_the_same_windows():
    generator = torch.Generator().manual_seed(0)
    images, chosen = torch.randn(50, 2, 7, 9), torch.randint(50, (80,), generator=generator)
    offsets = torch.randint(7, (80, 2), generator=generator)
    mirrored = torch.rand(80, generator=generator) < 0.5
    compiled = window_at(images, chosen, offsets, mirrored, 3)
    # Half precision goes by lookups; these whole numbers are exact in it.
    whole = (images * 10).round()
    looked_up = window_at(whole.bfloat16(), chosen, offsets, mirrored, 3).float()
    assert torch.equal(window_at(whole, chosen, offsets, mirrored, 3), looked_up)
    assert torch.equal(compiled, one_by_one(images[chosen], offsets, mirrored, 3))


def test_every_crop_and_both_flips_come_up_about_equally_often():
    split = Split(torch.zeros(9000, 1, 3, 3), torch.arange(9000))
    whole = next(augmented_specs(split, 9000, torch.Generator().manual_seed(0), padding=1))
    places = whole.offsets[:, 0] * 3 + whole.offsets[:, 1]
    assert (places.bincount(minlength=9) - 1000).abs().max() < 150
    assert abs(int(whole.mirrored.sum()) - 4500) < 200


def test_augmentation_leaves_the_images_given_in_unchanged():
    images = torch.randn(10, 1, 6, 6)
    before = images.clone()
    epoch(images, 0, padding=1)
    assert torch.equal(images, before)


@pytest.mark.parametrize("padding", [-1, 1.5])
def test_an_impossible_padding_is_refused(padding):
    with pytest.raises(ValueError, match="padding must be a whole number of pixels, 0 or more"):
        epoch(torch.zeros(1, 1, 4, 4), 0, padding)


def test_images_without_a_batch_dimension_are_refused():
    with pytest.raises(ValueError, match=r"shape \(batch, channels, height, width\), not \(3, 8, 8\)"):
        epoch(torch.zeros(3, 8, 8), 0, padding=1)


@pytest.mark.parametrize("number", [-1, 4])
def test_an_image_that_is_not_there_is_refused(number):
    with pytest.raises(ValueError, match="chosen must number images from 0 to 3"):
        window_at(torch.zeros(4, 1, 2, 2), torch.tensor([number]), **UNMOVED, padding=0)


@pytest.mark.parametrize("given", ["offsets", "mirrored"])
def test_a_row_too_few_is_refused(given):
    rows = {"offsets": torch.ones(4, 2, dtype=torch.int64), "mirrored": torch.ones(4, dtype=torch.bool)}
    rows[given] = rows[given][:2]
    with pytest.raises(ValueError, match=f"{given} has 2 rows for 4 images: give one row for each"):
        window_at(torch.zeros(4, 1, 4, 4), torch.arange(4), **rows, padding=1)


def test_a_gradient_flows_back_through_a_flip():
    images = torch.randn(4, 1, 3, 3, requires_grad=True)
    offsets, mirrored = torch.zeros(4, 2, dtype=torch.int64), torch.tensor([True, False, True, True])
    window_at(images, torch.arange(4), offsets, mirrored, padding=0).sum().backward()
    assert torch.equal(images.grad, torch.ones_like(images))
