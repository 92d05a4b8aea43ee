"""Folders of images and published sets are read right, and what is missing or broken is named."""

from __future__ import annotations

import hashlib
import pickle
import re
import shutil
import socket
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import CIFAR10, MNIST, STL10

from hgsr_lite.data import sources
from hgsr_lite.data.load import load_data
from hgsr_lite.data.pixels import decode
from hgsr_lite.data.splits import split_indices


def write_image(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, dtype=np.uint8)).save(path)


def write_classes(folder, names=("cat", "dog"), count=10, shape=(8, 8, 3), low=0):
    generator = np.random.default_rng(0)
    for name in names:
        for number in range(count):
            pixels = generator.integers(low, 256, shape)
            write_image(folder / name / f"{number:02d}.png", pixels)
    return folder


def test_a_folder_with_train_and_test_keeps_its_parts(image_folder):
    data = load_data(image_folder, device="cpu")
    assert data.classes == ("across", "down", "plain")
    assert (data.in_channels, data.image_size, len(data.test)) == (3, (24, 24), 24)
    assert len(data.train) + len(data.validation) == 72
    name, label = "down", 1
    with Image.open(image_folder / "test" / name / "03.png") as image:
        truth = torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255
    same = torch.isclose(data.brightness(data.test.images), truth, atol=1e-5).flatten(1).all(1)
    assert data.test.labels[same].tolist() == [label]


def test_a_folder_of_classes_gives_up_a_fixed_fifth_as_its_test_part(tmp_path):
    folder = write_classes(tmp_path / "pets", count=20)
    one, other = (load_data(str(folder), device="cpu", seed=seed) for seed in (0, 1))
    assert one.name == "pets"
    assert [len(part) for part in one.parts.values()] == [29, 3, 8]
    assert one.test.labels.bincount().tolist() == [4, 4]
    assert torch.allclose(one.brightness(one.test.images), other.brightness(other.test.images), atol=1e-6)


def test_a_folder_may_be_named_relative_to_the_root(tmp_path):
    write_classes(tmp_path / "pets")
    assert load_data("pets", root=tmp_path, device="cpu").name == "pets"


def test_the_root_is_hgsr_data_unless_given(tmp_path, monkeypatch):
    write_classes(tmp_path / "pets")
    monkeypatch.setenv("HGSR_DATA", str(tmp_path))
    assert load_data("pets", device="cpu").num_classes == 2
    assert sources.data_root("elsewhere") == Path("elsewhere")
    monkeypatch.delenv("HGSR_DATA")
    assert sources.data_root(None) == Path("~/.cache/hgsr_lite").expanduser()


def test_images_of_differing_size_take_the_size_of_the_first_or_the_one_asked_for(tmp_path):
    folder = write_classes(tmp_path / "set")
    write_image(folder / "cat" / "00.png", np.zeros((6, 10, 3)))
    assert load_data(folder, device="cpu").image_size == (6, 10)
    assert load_data(folder, device="cpu", image_size=12).image_size == (12, 12)


def test_a_folder_of_grey_images_has_one_channel_and_a_mixed_one_three(tmp_path):
    folder = write_classes(tmp_path / "set", shape=(8, 8))
    assert load_data(folder, device="cpu").in_channels == 1
    write_image(folder / "dog" / "colour.png", np.random.default_rng(0).integers(0, 256, (8, 8, 3)))
    assert load_data(folder, device="cpu").in_channels == 3


def test_palettes_transparency_deep_grey_and_jpeg_are_read(tmp_path):
    folder = write_classes(tmp_path / "set")
    colour = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    colour.convert("P").save(folder / "cat" / "palette.png")
    colour.convert("RGBA").save(folder / "cat" / "alpha.png")
    colour.save(folder / "dog" / "large.jpg")
    Image.fromarray(np.full((8, 8), 32768, dtype=np.uint16)).save(folder / "dog" / "deep.png")
    data = load_data(folder, device="cpu", image_size=8)
    assert sum(len(part) for part in data.parts.values()) == 24
    assert (decode(folder / "dog" / "deep.png") == 128).all()


def test_hidden_folders_beside_the_classes_are_passed_over(tmp_path):
    folder = write_classes(tmp_path / "set")
    (folder / ".ipynb_checkpoints").mkdir()
    assert load_data(folder, device="cpu").classes == ("cat", "dog")


def test_a_blank_set_of_images_stays_finite(tmp_path):
    folder = write_classes(tmp_path / "set", low=255)
    for number, file in enumerate(sorted(folder.rglob("*.png"))):
        Image.new("RGB", (8, 8), "white").save(file, dpi=(number + 1, 1))  # alike as pictures, not as files
    assert torch.isfinite(load_data(folder, device="cpu").train.images).all()


def test_a_limit_leaves_the_other_files_undecoded(tmp_path):
    folder = write_classes(tmp_path / "set", count=50)
    chosen = torch.cat(split_indices(torch.arange(100) // 50, None, ("cat", "dog"), limit=4)).tolist()
    unread = next(index for index in range(1, 100) if index not in chosen)
    (folder / ("cat", "dog")[unread // 50] / f"{unread % 50:02d}.png").write_bytes(b"broken")
    assert len(load_data(folder, device="cpu", limit=4).train) == 4


def test_a_broken_image_is_named(tmp_path):
    folder = write_classes(tmp_path / "set")
    victim = folder / "dog" / "03.png"
    victim.write_bytes(victim.read_bytes()[:60])
    with pytest.raises(
        ValueError, match=r"1 file cannot be read as an image: 1 damaged.*dog/03\.png.*delete"
    ):
        load_data(folder, device="cpu")


def test_an_empty_class_folder_is_named(tmp_path):
    folder = write_classes(tmp_path / "set")
    (folder / "eel").mkdir()
    with pytest.raises(ValueError, match=r"no images in .*classes eel; put them in"):
        load_data(folder, device="cpu")


def test_a_folder_without_class_folders_is_refused(tmp_path):
    write_image(tmp_path / "set" / "lonely.png", np.zeros((8, 8, 3)))
    with pytest.raises(ValueError, match=r"it holds no class folder; put them in .*<class>/"):
        load_data(tmp_path / "set", device="cpu")


def test_a_single_class_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"only one class, 'cat'.*folder/<class>/ or as folder/train/"):
        load_data(write_classes(tmp_path / "set", names=("cat",)), device="cpu")


def test_a_class_too_small_for_three_parts_is_named(tmp_path):
    folder = write_classes(tmp_path / "set")
    write_classes(folder, names=("eel",), count=2, low=128)
    with pytest.raises(ValueError, match=r"class 'eel' has too few images \(2\)"):
        load_data(folder, device="cpu")


def test_parts_of_differing_classes_are_refused(tmp_path):
    write_classes(tmp_path / "set" / "train", names=("cat", "dog"))
    write_classes(tmp_path / "set" / "test", names=("cat", "eel"))
    with pytest.raises(ValueError, match="differ in their classes: dog, eel"):
        load_data(tmp_path / "set", device="cpu")


# Published sets


@pytest.mark.data
def test_mnist_is_read_as_torchvision_reads_it(mnist_root):
    data = load_data("mnist", root=mnist_root, device="cpu", download=False)
    assert data.classes == tuple("0123456789")
    assert [len(part) for part in data.parts.values()] == [54000, 6000, 10000]
    theirs = MNIST(mnist_root, train=False)
    assert torch.equal(data.test.labels, theirs.targets)
    pixels = (data.brightness(data.test.images) * 255).round().byte()
    assert torch.equal(pixels[:, 0], theirs.data)


@pytest.fixture
def damaged_mnist(mnist_root, tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    shutil.copytree(Path(mnist_root) / "MNIST" / "raw", raw)
    return raw


@pytest.mark.data
def test_a_truncated_file_of_mnist_is_named_with_what_to_do(damaged_mnist, tmp_path):
    victim = damaged_mnist / "t10k-images-idx3-ubyte"
    victim.write_bytes(victim.read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"t10k-images-idx3-ubyte is damaged or incomplete: delete it"):
        load_data("mnist", root=tmp_path, download=False)


@pytest.mark.data
def test_a_missing_file_of_mnist_is_named_with_what_to_do(damaged_mnist, tmp_path):
    (damaged_mnist / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(ValueError, match=r"train-labels-idx1-ubyte is missing.*Set HGSR_DATA or root="):
        load_data("mnist", root=tmp_path, download=False)


@pytest.mark.parametrize("name", ["mnist", "cifar10", "cifar100", "stl10"])
def test_a_missing_set_says_where_it_was_sought_and_what_to_do(name, tmp_path):
    sought = re.escape(str(tmp_path))
    with pytest.raises(ValueError, match=f"{name} cannot be read: {sought}.*missing") as caught:
        load_data(name, root=tmp_path, download=False)
    message = str(caught.value)
    assert "Set HGSR_DATA or root= to the folder that holds" in message
    assert "download=True" in message
    assert "\n" not in message


def test_a_refused_download_fails_at_once_with_the_reason(tmp_path, monkeypatch):
    monkeypatch.setattr(MNIST, "mirrors", ["http://127.0.0.1:9/"])
    started = time.perf_counter()
    with pytest.raises(ValueError, match=r"The download failed: .*refused.*Set HGSR_DATA"):
        load_data("mnist", root=tmp_path, device="cpu")
    assert time.perf_counter() - started < 5


def test_a_download_that_never_answers_is_given_up_and_the_time_out_put_back(tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(MNIST, "mirrors", [f"http://127.0.0.1:{server.getsockname()[1]}/"])
        monkeypatch.setattr(sources, "_TIME_OUT", 0.3)
        with pytest.raises(ValueError, match=r"The download failed: .*timed out"):
            load_data("mnist", root=tmp_path, device="cpu")
    assert socket.getdefaulttimeout() is None


def test_a_root_that_cannot_be_written_gives_the_same_clear_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ValueError, match=r"The download failed: .*Set HGSR_DATA"):
        load_data("mnist", root=tmp_path / "file", device="cpu")


def with_checksums(folder, names):
    return [(name, hashlib.md5((folder / name).read_bytes()).hexdigest()) for name in names]


def test_cifar_batches_keep_their_colours_order_and_labels(tmp_path, monkeypatch):
    generator = np.random.default_rng(0)
    folder = tmp_path / CIFAR10.base_folder
    folder.mkdir()
    images, labels = generator.integers(0, 256, (60, 3, 32, 32), dtype=np.uint8), np.arange(60) % 3
    for name, part in (("train", slice(0, 45)), ("test", slice(45, 60))):
        batch = {"data": images[part].reshape(-1, 3072), "labels": labels[part].tolist()}
        (folder / name).write_bytes(pickle.dumps(batch))
    (folder / "names").write_bytes(pickle.dumps({"label_names": ["ant", "bee", "cow"]}))
    train, test, names = with_checksums(folder, ["train", "test", "names"])
    monkeypatch.setattr(CIFAR10, "train_list", [train])
    monkeypatch.setattr(CIFAR10, "test_list", [test])
    monkeypatch.setattr(CIFAR10, "meta", {"filename": "names", "key": "label_names", "md5": names[1]})
    published = replace(sources._PUBLISHED["cifar10"], files=[train, test, names])
    monkeypatch.setitem(sources._PUBLISHED, "cifar10", published)

    data = load_data("cifar10", root=tmp_path, device="cpu", download=False)
    assert data.classes == ("ant", "bee", "cow")
    assert data.test.labels.tolist() == labels[45:].tolist()
    pixels = (data.brightness(data.test.images) * 255).round().byte()
    assert torch.equal(pixels, torch.from_numpy(images[45:]))


def test_stl_images_are_read_upright_and_classes_count_from_zero(tmp_path, monkeypatch):
    generator = np.random.default_rng(0)
    folder = tmp_path / STL10.base_folder
    folder.mkdir()
    images, labels = generator.integers(0, 256, (24, 3, 96, 96), dtype=np.uint8), np.arange(24) % 2
    for name, part in (("train", slice(0, 12)), ("test", slice(12, 24))):
        images[part].transpose(0, 1, 3, 2).tofile(folder / f"{name}_X.bin")
        (labels[part] + 1).astype(np.uint8).tofile(folder / f"{name}_y.bin")
    (folder / "class_names.txt").write_text("ant\nbee\n")
    train = with_checksums(folder, ["train_X.bin", "train_y.bin"])
    test = with_checksums(folder, ["test_X.bin", "test_y.bin"])
    monkeypatch.setattr(STL10, "train_list", train)
    monkeypatch.setattr(STL10, "test_list", test)
    published = replace(sources._PUBLISHED["stl10"], files=[*train, *test])
    monkeypatch.setitem(sources._PUBLISHED, "stl10", published)

    data = load_data("stl10", root=tmp_path, device="cpu", download=False)
    assert data.classes == ("ant", "bee")
    assert data.test.labels.tolist() == labels[12:].tolist()
    pixels = (data.brightness(data.test.images) * 255).round().byte()
    assert torch.equal(pixels, torch.from_numpy(images[12:]))
