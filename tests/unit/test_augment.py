"""Batched crops and flips are those of a loop over images that makes the same draw."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from hgsr_lite.augment import augmented, random_crop, random_flip, window_at


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
    found = window_at(images, offsets, mirrored, padding)
    assert found.shape == images.shape
    if len(images):
        assert torch.equal(found, one_by_one(images, offsets, mirrored, padding))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.uint8])
def test_an_epoch_is_augmented_as_its_images_one_by_one_with_the_same_draw(dtype):
    images = (torch.rand(300, 3, 12, 10, generator=torch.Generator().manual_seed(1)) * 255).to(dtype)
    found = augmented(images, torch.Generator().manual_seed(7), padding=2)
    generator = torch.Generator().manual_seed(7)
    offsets = torch.randint(5, (300, 2), generator=generator)
    mirrored = torch.rand(300, generator=generator) < 0.5
    assert found.dtype == dtype
    assert torch.equal(found, one_by_one(images, offsets, mirrored, 2))


def test_channels_last_images_are_augmented_to_the_same_values():
    images = torch.randn(200, 3, 8, 8)
    plain = augmented(images, torch.Generator().manual_seed(0))
    found = augmented(images.to(memory_format=torch.channels_last), torch.Generator().manual_seed(0))
    assert torch.equal(plain, found)


def test_every_crop_and_both_flips_come_up_about_equally_often():
    generator = torch.Generator().manual_seed(0)
    marked = torch.zeros(9000, 1, 3, 3)
    marked[:, 0, 1, 1] = 1
    places = random_crop(marked, padding=1, generator=generator).flatten(1).argmax(1)
    assert (places.bincount(minlength=9) - 1000).abs().max() < 150
    left = torch.tensor([1.0, 0.0]).expand(4000, 1, 1, 2)
    assert abs(int(random_flip(left, generator)[:, 0, 0, 0].sum()) - 2000) < 150


def test_no_padding_leaves_images_where_they_are():
    images = torch.randn(4, 1, 6, 6)
    assert torch.equal(random_crop(images, padding=0), images)


def test_augmentation_leaves_the_images_given_in_unchanged():
    images = torch.randn(10, 1, 6, 6)
    before = images.clone()
    augmented(images)
    assert torch.equal(images, before)


@pytest.mark.parametrize("padding", [-1, 1.5])
def test_an_impossible_padding_is_refused(padding):
    with pytest.raises(ValueError, match="padding must be a whole number of pixels, 0 or more"):
        random_crop(torch.zeros(1, 1, 4, 4), padding)


def test_images_without_a_batch_dimension_are_refused():
    with pytest.raises(ValueError, match=r"shape \(batch, channels, height, width\), not \(3, 8, 8\)"):
        random_flip(torch.zeros(3, 8, 8))
