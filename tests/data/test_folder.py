"""A folder of images as people have them: links, odd files, deep, turned and transparent pictures."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from hgsr_lite.data.load import load_data
from hgsr_lite.data.pixels import decode


def write_class(folder: Path, count: int = 6, seed: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    for number in range(count):
        Image.fromarray(generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(
            folder / f"{number:02d}.png"
        )


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    for seed, name in enumerate(("cat", "dog")):
        write_class(tmp_path / "pets" / name, seed=seed)
    return tmp_path / "pets"


def images_in(data) -> int:
    return sum(len(part) for part in data.parts.values())


def test_a_link_to_its_own_folder_counts_no_image_twice(pets):
    (pets / "cat" / "again").symlink_to(pets / "cat")
    (pets / "dog" / "once more.png").symlink_to(pets / "dog" / "00.png")
    os.link(pets / "dog" / "01.png", pets / "dog" / "hard.png")
    assert images_in(load_data(pets, device="cpu")) == 12


def test_a_linked_class_folder_is_read(pets, tmp_path):
    write_class(tmp_path / "elsewhere", seed=2)
    (pets / "eel").symlink_to(tmp_path / "elsewhere")
    data = load_data(pets, device="cpu")
    assert data.classes == ("cat", "dog", "eel")
    assert images_in(data) == 18


@pytest.mark.parametrize("target", [".", "dog"])
def test_a_picture_under_two_labels_is_refused_with_both_its_names(pets, target):
    (pets / "cat" / "link").symlink_to(pets / target)
    with pytest.raises(ValueError, match=r"dog/.*00\.png and .*cat/link/.*same file under two labels"):
        load_data(pets, device="cpu")


def test_a_picture_in_train_and_test_is_refused(tmp_path):
    for seed, name in enumerate(("cat", "dog")):
        write_class(tmp_path / "train" / name, seed=seed)
    (tmp_path / "test").symlink_to(tmp_path / "train")
    with pytest.raises(ValueError, match="one and the same file in train and test: remove"):
        load_data(tmp_path, device="cpu")


def test_a_copy_of_a_picture_in_its_class_counts_once_and_is_told(pets):
    for number in range(4):
        shutil.copy(pets / "cat" / f"{number:02d}.png", pets / "cat" / f"copy{number}.png")
    told = (
        r"4 files are copies of others in their class and were left out: cat/copy0.png = cat/00.png, .*\.\.\."
    )
    with pytest.warns(RuntimeWarning, match=told):
        data = load_data(pets, device="cpu")
    assert images_in(data) == 12
    pictures = torch.cat([part.images for part in data.parts.values()]).flatten(1)
    assert len(pictures.unique(dim=0)) == 12


def test_copies_under_two_labels_are_counted_and_named(pets):
    shutil.copy(pets / "cat" / "03.png", pets / "dog" / "x.png")
    shutil.copy(pets / "cat" / "03.png", pets / "dog" / "y.png")
    with pytest.warns(RuntimeWarning) as caught:
        assert images_in(load_data(pets, device="cpu")) == 13
    said = [str(one.message) for one in caught]
    assert (
        "pets: 1 files are copies of others in their class and were left out: dog/y.png = dog/x.png"
        in said[0]
    )
    assert "1 pictures stand under two labels, and no network can be right for both: dog/x.png =" in said[1]
    assert caught[0].filename == __file__


def test_copies_in_train_and_test_are_counted_and_named(tmp_path):
    for seed, name in enumerate(("cat", "dog")):
        write_class(tmp_path / "train" / name, seed=seed)
        write_class(tmp_path / "test" / name, seed=seed + 2)
    for copy in ("06", "07"):  # the second is left out, and not one of those that are counted
        shutil.copy(tmp_path / "train" / "cat" / "05.png", tmp_path / "test" / "cat" / f"{copy}.png")
    with pytest.warns(RuntimeWarning) as caught:
        assert len(load_data(tmp_path, device="cpu").test) == 13
    assert re.search(
        r"1 of 13 test .* too.*: test/cat/06.png = train/cat/05.png; rem", str(caught[-1].message)
    )


def test_a_link_that_leads_nowhere_is_named(pets):
    (pets / "cat" / "gone.png").symlink_to(pets / "cat" / "never.png")
    with pytest.raises(ValueError, match=r"gone\.png cannot be opened .*: mend or delete it"):
        load_data(pets, device="cpu")


def test_the_copies_that_notebook_servers_and_desktops_hide_are_passed_over(pets):
    write_class(pets / "cat" / ".ipynb_checkpoints")
    (pets / "dog" / "._00.png").write_bytes(b"not an image")
    assert images_in(load_data(pets, device="cpu")) == 12


def test_files_that_are_not_read_are_named_with_those_that_are(pets):
    Image.new("RGB", (8, 8)).save(pets / "cat" / "moving.gif")
    (pets / "dog" / "notes.txt").write_text("good dogs")
    with pytest.warns(RuntimeWarning, match=r"pets: 1 \.gif, 1 \.txt passed over, read are \.jpg .*\.webp$"):
        assert images_in(load_data(pets, device="cpu")) == 12
    (pets / "eel").mkdir()
    (pets / "eel" / "a.gif").write_bytes(b"")
    with pytest.raises(ValueError, match=r"no images in .* for the classes eel; .*2 \.gif.*read are \.jpg"):
        load_data(pets, device="cpu")


def test_a_part_that_would_be_empty_is_refused(tmp_path):
    for seed, name in enumerate(("cat", "dog")):
        write_class(tmp_path / "train" / name, count=1, seed=seed)
        write_class(tmp_path / "test" / name, count=4, seed=seed + 2)
    with pytest.raises(
        ValueError, match=r"class 'cat' .* for the train part \(2 such classes\): .*two in train"
    ):
        load_data(tmp_path, device="cpu")


GREY = np.array([[0, 64], [128, 255]], dtype=np.uint8)


def deep(bits: int) -> np.ndarray:
    return np.rint(GREY.astype(np.float64) / 255 * (2**bits - 1)).astype(np.uint16)


def save_tiff(path: Path, values: np.ndarray, bits: int, photometric: int = 1) -> None:
    """A minimal TIFF, written by hand: Pillow writes neither 12 bits nor white as zero."""
    if bits == 12:
        a, b = values[:, 0].astype(int), values[:, 1].astype(int)
        rows = np.stack([a >> 4, (a & 15) << 4 | b >> 8, b & 255], axis=1).astype(np.uint8).tobytes()
    else:
        rows = values.astype("<u2").tobytes()
    entries = [(256, 2), (257, 2), (258, bits), (259, 1), (262, photometric), (273, 8)]
    entries += [(277, 1), (278, 2), (279, len(rows))]
    start = 8 + len(rows)
    body = b"II*\0" + start.to_bytes(4, "little") + rows + len(entries).to_bytes(2, "little")
    for tag, value in entries:
        body += tag.to_bytes(2, "little") + (4).to_bytes(2, "little") + (1).to_bytes(4, "little")
        body += value.to_bytes(4, "little")
    path.write_bytes(body + bytes(4))


@pytest.mark.parametrize(
    "kind", ["png", "pgm", "tiff 12", "tiff 16", "tiff, white is zero", "2 bits", "1 bit"]
)
def test_grey_of_any_depth_keeps_its_brightness(kind, tmp_path):
    path = tmp_path / f"image.{kind[:4] if kind.startswith('tiff') else kind[-3:].strip()}"
    wanted = torch.from_numpy(GREY)
    if kind == "png":
        Image.fromarray(deep(16)).save(path)
    elif kind == "pgm":
        path.write_bytes(b"P5 2 2 1023\n" + deep(10).astype(">u2").tobytes())
    elif kind == "tiff, white is zero":
        save_tiff(path, 65535 - deep(16), 16, photometric=0)
    elif kind.startswith("tiff"):
        save_tiff(path, deep(int(kind[-2:])), int(kind[-2:]))
    elif kind == "2 bits":
        path = tmp_path / "image.png"
        Image.fromarray(GREY // 85).convert("P").save(path, bits=2)
        with Image.open(path) as image:
            image.putpalette([0, 0, 0, 85, 85, 85, 170, 170, 170, 255, 255, 255])
            image.save(path)
        wanted = torch.from_numpy(GREY // 85 * 85)
    else:
        path = tmp_path / "image.png"
        Image.fromarray(GREY > 100).save(path)
        wanted = torch.from_numpy((GREY > 100) * np.uint8(255))
    found = decode(path)
    assert_close(found, wanted.expand(3, 2, 2), atol=1, rtol=0)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["jpg", "png", "tif", "webp"])
def test_a_picture_is_read_upright(ending, orientation, tmp_path):
    shown = np.zeros((16, 32), dtype=np.uint8)  # height, width
    shown[:8, :16] = 250  # upper left
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the transposition that the orientation undoes
    image = Image.fromarray(shown).convert("RGB")
    if orientation > 1:
        image = image.transpose(undo[orientation])
    exif = Image.Exif()
    exif[274] = orientation
    options = {"lossless": True} if ending == "webp" else {}
    image.save(tmp_path / f"turned.{ending}", exif=exif, **options)
    for size in (None, (16, 32), (4, 8)):
        found = decode(tmp_path / f"turned.{ending}", size)
        assert found.shape[1:] == (size or (16, 32))
        height, width = found.shape[1] // 2, found.shape[2] // 2
        quarters = [part.float().mean() for half in found.split(height, 1) for part in half.split(width, 2)]
        assert quarters[0] > 200
        assert max(quarters[1:]) < 30


def transparent(mode: str) -> Image.Image:
    """Left half: opaque and dark; right half: fully transparent, over a hidden colour."""
    image = Image.new("RGBA", (4, 4), (40, 40, 40, 255))
    image.paste((200, 10, 10, 0), (2, 0, 4, 4))
    if mode != "P":
        return image.convert(mode)
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([40, 40, 40, 200, 10, 10])
    palette.paste(1, (2, 0, 4, 4))
    palette.info["transparency"] = 1
    return palette


@pytest.mark.parametrize(
    ("mode", "ending"),
    [("RGBA", "png"), ("LA", "png"), ("P", "png"), ("RGBA", "webp"), ("RGBA", "tif"), ("RGB", "png")],
)
def test_what_is_transparent_is_white(mode, ending, tmp_path):
    path = tmp_path / f"image.{ending}"
    options = {"lossless": True} if ending == "webp" else {}
    if mode == "RGB":  # one colour named as transparent
        options["transparency"] = (200, 10, 10)
    transparent(mode).save(path, **options)
    found = decode(path)
    assert (found[:, :, :2] == 40).all()
    assert (found[:, :, 2:] == 255).all()


def test_a_transparent_shade_of_deep_grey_is_white(tmp_path):
    path = tmp_path / "image.png"
    Image.fromarray(deep(16)).save(path, transparency=0)
    assert decode(path)[0].tolist() == [[255, 64], [128, 255]]


def test_kinds_without_a_known_white_are_refused_with_their_count(pets):
    for number in range(3):
        depths = np.full((8, 8), 0.5 + number, dtype=np.float32)
        Image.fromarray(depths).save(pets / "cat" / f"float{number}.tif")
    Image.fromarray(np.full((8, 8), 7, dtype=np.int32)).save(pets / "dog" / "whole.tif")
    Image.new("LAB", (8, 8)).save(pets / "dog" / "lab.tif")
    (pets / "dog" / "torn.png").write_bytes((pets / "dog" / "00.png").read_bytes()[:70])
    with pytest.raises(ValueError, match=r"^6 of 18 files cannot be read") as refused:
        load_data(pets, device="cpu")
    said = str(refused.value)
    for part in (
        "3 of the kind TIFF F, ",
        "1 of the kind TIFF I, ",
        "1 of the kind TIFF LAB, ",
        "1 damaged, ",
    ):
        assert part in said
    assert said.count("float") == 1  # one example of each kind


def test_colours_of_print_and_video_are_read(tmp_path):
    Image.new("CMYK", (4, 4), (0, 0, 0, 128)).save(tmp_path / "print.jpg")
    Image.new("YCbCr", (4, 4), (128, 128, 128)).save(tmp_path / "video.jpg")
    for name in ("print.jpg", "video.jpg"):
        assert 120 <= decode(tmp_path / name).float().mean() <= 135
