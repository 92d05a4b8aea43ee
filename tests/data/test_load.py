"""An image set comes normalised, split by seed and on the device, or with one error that says why not."""

from __future__ import annotations

import copy
import re
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits

from hgsr_lite.data import Split, find_device, load_data
from hgsr_lite.data.splits import draw, split_indices


@pytest.fixture(scope="module")
def digits():
    return load_data("digits", device="cpu")


def rows(images):
    return {image.numpy().tobytes() for image in images}


# What a set holds


def test_digits_are_normalised_by_their_training_part(digits):
    train = digits.train.images
    assert train.dtype == torch.float32
    assert digits.train.labels.dtype == torch.int64
    assert abs(train.mean()) < 1e-5
    assert abs(train.std(correction=0) - 1) < 1e-5
    pixels = digits.brightness(train) * 16
    assert torch.allclose(pixels, pixels.round(), atol=1e-4)
    assert pixels.min() >= 0
    assert pixels.max() <= 16 + 1e-4


def test_the_three_parts_hold_every_digit_once(digits):
    parts = digits.parts.values()
    assert sum(len(part) for part in parts) == 1797
    bunch = load_digits()
    truth = zip(bunch.data.sum(1).astype(int).tolist(), bunch.target.tolist(), strict=True)
    found = [
        (int(image.sum().round()), int(label))
        for part in parts
        for image, label in zip(digits.brightness(part.images) * 16, part.labels, strict=True)
    ]
    assert sorted(found) == sorted(truth)


def test_every_part_holds_the_classes_in_proportion(digits):
    whole = torch.cat([part.labels for part in digits.parts.values()]).bincount() / 1797
    for part in digits.parts.values():
        assert (part.labels.bincount(minlength=10) / len(part) - whole).abs().max() < 1 / len(part) + 1e-3


def test_the_test_part_is_the_same_for_every_seed_and_the_validation_part_is_not():
    one, other = (load_data("digits", device="cpu", seed=seed) for seed in (0, 1))
    assert torch.equal(one.test.labels, other.test.labels)
    assert torch.allclose(one.brightness(one.test.images), other.brightness(other.test.images), atol=1e-6)
    assert not torch.equal(one.validation.labels, other.validation.labels)
    again = load_data("digits", device="cpu", seed=1)
    assert torch.equal(other.train.images, again.train.images)


def test_a_set_says_what_it_is(digits):
    assert digits.name == "digits"
    assert digits.classes == tuple("0123456789")
    assert (digits.num_classes, digits.in_channels, digits.image_size) == (10, 1, (8, 8))
    assert digits.relevant_channels == (0,)
    assert repr(digits) == (
        "Data(digits, 10 classes, 8x8 pixels, 1 channel, on cpu: train 1294, validation 144, test 359)"
    )
    assert "<td>train</td><td>1,294</td>" in digits._repr_html_()


def test_limit_caps_training_and_cuts_the_other_parts_in_proportion(digits):
    small = load_data("digits", device="cpu", limit=647)
    assert [len(part) for part in small.parts.values()] == [647, 72, 180]
    ours, all_of_them = (
        rows((data.brightness(data.test.images) * 16).round().byte()) for data in (small, digits)
    )
    assert ours <= all_of_them
    assert len(load_data("digits", device="cpu", limit=10**6).train) == 1294
    fewest = load_data("digits", device="cpu", limit=10)
    assert [sorted(part.labels.tolist()) for part in fewest.parts.values()] == [list(range(10))] * 3


def test_a_named_set_is_resized_on_request():
    assert load_data("digits", device="cpu", image_size=16, limit=50).train.images.shape == (50, 1, 16, 16)
    assert load_data("digits", device="cpu", image_size=(6, 9), limit=50).image_size == (6, 9)


def test_a_set_moves_between_devices_and_dtypes_stay(digits):
    moved = digits.to("cpu")
    assert moved.train.images.dtype == torch.float32
    assert moved.device == torch.device("cpu")
    assert repr(moved) == repr(digits)


# Batches


def test_batches_hold_every_image_once_with_its_own_label():
    split = Split(torch.arange(100.0).reshape(100, 1, 1, 1), torch.arange(100))
    seen = []
    for images, labels in split.batches(32, torch.Generator().manual_seed(0)):
        assert torch.equal(images.flatten().long(), labels)
        seen += labels.tolist()
    assert sorted(seen) == list(range(100))
    assert seen != list(range(100))


def test_batches_come_in_an_order_that_the_generator_decides(digits):
    def order(generator):
        return torch.cat([labels for _, labels in digits.train.batches(64, generator)])

    generator = torch.Generator().manual_seed(0)
    first, second = order(generator), order(generator)
    assert torch.equal(first, order(torch.Generator().manual_seed(0)))
    assert not torch.equal(first, second)


def test_no_batch_holds_a_single_image_unless_asked_for():
    split = Split(torch.zeros(9, 1, 1, 1), torch.arange(9))
    assert [len(labels) for _, labels in split.batches(4)] == [4, 4, 2]
    assert [len(labels) for _, labels in split.batches(2)] == [2] * 5
    assert [len(labels) for _, labels in split.batches(1)] == [1] * 9


# Splitting


@pytest.mark.parametrize("share", [0.01, 0.1, 1 / 3, 0.5, 0.99, 1.0])
def test_a_draw_takes_each_class_in_proportion_and_none_is_left_out(share):
    labels = torch.tensor([0] * 500 + [1] * 60 + [2] * 7)
    pool = torch.arange(567)
    drawn, rest = draw(pool, labels, share, torch.Generator().manual_seed(0))
    assert torch.equal(torch.cat([drawn, rest]).sort().values, pool)
    assert len(drawn) == max(3, round(share * 567))
    counts = labels[drawn].bincount(minlength=3)
    assert counts.min() >= 1
    assert (counts - share * labels.bincount()).abs().max() <= 2


def test_a_part_marked_as_test_is_used_whole_and_alone():
    labels, is_test = torch.arange(60) % 3, torch.arange(60) >= 45
    train, validation, test = split_indices(labels, is_test, "abc", validation=0.2)
    assert test.tolist() == list(range(45, 60))
    assert len(validation) == 9
    assert sorted(torch.cat([train, validation]).tolist()) == list(range(45))


# Distractors


def test_noise_distractors_are_standard_normal_and_follow_the_truth(digits):
    noisy = digits.with_distractors(5, "noise", seed=1)
    assert noisy.in_channels == 6
    assert noisy.relevant_channels == (0,)
    for name, part in noisy.parts.items():
        assert torch.equal(part.images[:, :1], digits.parts[name].images)
    extra = noisy.train.images[:, 1:]
    assert abs(extra.mean()) < 0.01
    assert abs(extra.std() - 1) < 0.01
    assert len(noisy.mean) == len(noisy.std) == 6


def test_shuffled_distractors_are_other_images_of_the_same_part(digits):
    mixed = digits.with_distractors(3, "shuffled")
    for name, part in mixed.parts.items():
        own = digits.parts[name].images
        known = {image.numpy().tobytes(): number for number, image in enumerate(own)}
        for channel in (1, 2, 3):
            found = [known[image.numpy().tobytes()] for image in part.images[:, channel : channel + 1]]
            assert all(index != number for number, index in enumerate(found))


def test_colour_distractors_cycle_through_the_channels(image_folder):
    data = load_data(image_folder, device="cpu").with_distractors(4, "shuffled")
    assert data.relevant_channels == (0, 1, 2)
    for extra, source in ((3, 0), (4, 1), (5, 2), (6, 0)):
        assert rows(data.train.images[:, extra]) <= rows(data.train.images[:, source])
        assert data.mean[extra] == data.mean[source]


def test_distractors_are_fixed_by_their_seed(digits):
    one, same, other = (digits.with_distractors(2, seed=seed).train.images for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert torch.equal(one, digits.with_distractors(2).train.images)
    assert not torch.equal(one, other)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 0}, "channels must be a whole number of at least 1, not 0"),
        ({"channels": 2, "kind": "shufled"}, "unknown kind of distractor 'shufled'.*did you mean 'shuffled'"),
    ],
)
def test_impossible_distractors_are_refused(digits, options, message):
    with pytest.raises(ValueError, match=message):
        digits.with_distractors(**options)


# Bad input


def test_an_unknown_set_is_refused_with_the_valid_names_and_the_nearest():
    with pytest.raises(ValueError, match=r"'mnits': choose one of digits, mnist.*did you mean 'mnist'"):
        load_data("mnits")


@pytest.mark.parametrize("name", [Path("nowhere"), "./nowhere", "some/where"])
def test_a_folder_that_is_not_there_is_refused(name, tmp_path):
    with pytest.raises(ValueError, match=r"there is no folder '.*where', nor one of that name in"):
        load_data(name, root=tmp_path)


def test_a_name_that_is_no_text_is_refused():
    with pytest.raises(TypeError, match="the name of an image set or a folder, not int"):
        load_data(10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation": 0}, "validation must be a share above 0 and at most 0.5, not 0"),
        ({"validation": 0.6}, "validation must be a share above 0 and at most 0.5, not 0.6"),
        ({"validation": float("nan")}, "validation must be a share"),
        ({"limit": 9}, "limit must be a whole number of at least 10, not 9"),
        ({"limit": 100.0}, "limit must be a whole number of at least 10, not 100.0"),
        ({"image_size": 0}, "image_size must be a whole number of at least 1, not 0"),
        ({"image_size": (8, 8, 3)}, r"image_size must be a number of pixels or \(height, width\)"),
        ({"device": "gpu"}, "device 'gpu' cannot be used here: take 'cpu'"),
        ({"device": "cuda:99"}, "device 'cuda:99' cannot be used here: take 'cpu'"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        load_data("digits", **options)


def test_a_seed_that_is_no_whole_number_is_refused():
    with pytest.raises(ValueError, match="seed must be a whole number of at least 0, not 'one'"):
        load_data("digits", seed="one")


def test_no_device_means_the_gpu_where_there_is_one():
    assert find_device(None).type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_a_class_of_three_images_has_one_in_each_part_and_one_of_two_is_refused():
    labels = torch.tensor([0] * 3 + [1] * 9)
    for part in split_indices(labels, None, "ab"):
        assert {0, 1} == set(labels[part].tolist())
    words = r"class 'a' has too few images \(2\): every class needs at least 3, one for each of train, val"
    with pytest.raises(ValueError, match=words):
        split_indices(labels[1:], None, "ab")
    with pytest.raises(ValueError, match=r"class 'c' has too few images \(0\)"):
        split_indices(labels, None, "abc")


def test_unless_told_otherwise_a_tenth_is_held_out_by_seed_0_and_at_most_a_half():
    labels = torch.arange(200) % 2
    train, held_out, test = split_indices(labels, None, "ab")
    assert [len(part) for part in (train, held_out, test)] == [144, 16, 40]
    assert torch.equal(held_out, split_indices(labels, None, "ab", 0.1, seed=0)[1])
    assert len(split_indices(labels, None, "ab", 0.5)[1]) == 80
    with pytest.raises(ValueError, match=r"at most 0\.5, not 0\.51"):
        split_indices(labels, None, "ab", 0.51)


def test_a_limit_draws_by_seed_and_one_above_all_there_is_changes_nothing():
    labels = torch.arange(200) % 2
    assert all(
        map(
            torch.equal,
            split_indices(labels, None, "ab", limit=50),
            split_indices(labels, None, "ab", limit=50),
        )
    )
    assert all(
        map(torch.equal, split_indices(labels, None, "ab"), split_indices(labels, None, "ab", limit=999))
    )


def test_drawing_counts_the_classes_that_are_there():
    labels = torch.tensor([1, 1, 1, 1, 3])
    drawn, rest = draw(torch.arange(5), labels, 0.01, torch.Generator().manual_seed(0))
    assert labels[drawn].tolist() == [1, 3]
    assert len(rest) == 3


def test_the_test_part_is_the_same_in_every_version():
    _, _, test = split_indices(torch.arange(40) % 2, None, "ab")
    assert test.tolist() == [4, 5, 11, 14, 16, 21, 26, 39]


def test_a_set_is_a_record_and_itself(digits):
    for record in (digits, digits.train):
        assert record not in (replace(record), copy.deepcopy(record))
        assert record in {record}
        with pytest.raises(FrozenInstanceError):
            record.labels = None


def test_brightness_stays_between_black_and_white(digits):
    images = torch.stack([torch.full((1, 8, 8), value) for value in (-100.0, 100.0)])
    assert digits.brightness(images).unique().tolist() == [0, 1]


def test_of_two_images_a_shuffled_distractor_is_the_other_one_and_of_one_itself(digits):
    for count in (1, 2):
        few = Split(digits.train.images[:count], digits.train.labels[:count])
        mixed = replace(digits, train=few).with_distractors(9, "shuffled")
        for channel in range(1, 10):
            assert torch.equal(mixed.train.images[:, channel], few.images.flip(0)[:, 0])


def test_a_set_of_two_channels_says_so(digits):
    assert "2 channels" in repr(digits.with_distractors(1))


@pytest.mark.parametrize(("has_gpu", "usable"), [(False, "'cpu' (no CUDA GPU was found)"), (True, "'cuda'")])
def test_a_device_that_is_not_there_is_refused_with_those_that_are(has_gpu, usable, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    with pytest.raises(ValueError, match=f"device 'nowhere' cannot be used here: take .*{re.escape(usable)}"):
        find_device("nowhere")
