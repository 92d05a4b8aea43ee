"""One image file as eight-bit colour: depth scaled, turned upright, laid on white where it is transparent.

What has no known white (floating-point pixels, 32-bit whole numbers) or no conversion (LAB) is refused, never
guessed: a picture that is clipped to black trains without a word.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from tqdm import tqdm

_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0  # tags of a TIFF file
_OPAQUE = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV")


class _UnknownWhiteError(ValueError):
    """The file is an image, but of a kind whose brightness is not known; the message is the kind."""


def decode_all(paths: Sequence[str], indices: Tensor, size: tuple[int, int] | None) -> Tensor:
    """Read the chosen files as uint8 (images, channels, height, width).

    All grey gives one channel, else there are three.
    `size` (height, width) resizes; None takes that of `paths[0]`. Of a file with several frames the first is
    read. Raises `ValueError` that counts the files that cannot be read, by kind, and names one of each.
    """
    chosen = [paths[index] for index in indices.tolist()]
    size = size or _first_size(paths[0])
    pixels = torch.empty((len(chosen), 3, *size), dtype=torch.uint8)
    refused: dict[str, list[str]] = defaultdict(list)
    with ThreadPoolExecutor() as pool:
        images = pool.map(partial(_decode_or_reason, size=size), chosen, chunksize=64)
        for place, image in enumerate(tqdm(images, "decoding images", len(chosen), leave=False)):
            if isinstance(image, str):
                refused[image].append(chosen[place])
            else:
                pixels[place] = image
    if refused:
        raise ValueError(_complaint(refused, len(chosen)))
    is_grey = bool((pixels[:, :1] == pixels[:, 1:]).all())
    return pixels[:, :1].clone() if is_grey else pixels


def _first_size(path: str) -> tuple[int, int]:
    image = _decode_or_reason(path, None)
    if isinstance(image, str):
        raise ValueError(_complaint({image: [path]}, 1))
    return tuple(image.shape[1:])


def _complaint(refused: dict[str, list[str]], count: int) -> str:
    kinds = "; ".join(f"{len(paths)} {kind} ({paths[0]})" for kind, paths in refused.items())
    total = sum(map(len, refused.values()))
    files = "1 file cannot" if total == 1 else f"{total} of {count} files cannot"
    return f"{files} be read as an image: {kinds}: convert to 8 or 16 bits of grey or colour, mend or delete"


def _decode_or_reason(path: str, size: tuple[int, int] | None) -> Tensor | str:
    try:
        return decode(path, size)
    except _UnknownWhiteError as refused:
        return str(refused)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        # Pillow repeats the path, which would make every damaged file a kind of its own.
        return f"damaged, {str(error).replace(repr(path), 'it').replace(path, 'it')}"


def decode(path: str | Path, size: tuple[int, int] | None = None) -> Tensor:
    """Read one file as uint8 (3, height, width), resized to `size` (height, width) if that is given."""
    with Image.open(path) as image:
        if size is not None:
            # A large JPEG is decoded at a fraction of its size; it may lie on its side, hence a square.
            image.draft("RGB", (max(size),) * 2)
        upright = ImageOps.exif_transpose(_eight_bits(image))
    if size is not None and upright.size != size[::-1]:
        upright = upright.resize(size[::-1], Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(upright)).permute(2, 0, 1)


def _eight_bits(image: Image.Image) -> Image.Image:
    """The image in RGB, its EXIF orientation kept for later."""
    if image.mode.startswith("I"):
        result = _scaled(image).convert("RGB")
    elif image.has_transparency_data:
        shown = image.convert("LA").convert("RGBA") if image.mode == "La" else image.convert("RGBA")
        result = Image.alpha_composite(Image.new("RGBA", shown.size, "white"), shown).convert("RGB")
    elif image.mode in _OPAQUE:
        result = image.convert("RGB")
    else:
        raise _UnknownWhiteError(f"of the kind {image.format} {image.mode}, whose brightness is not known")
    result.info["exif"] = image.getexif().tobytes()
    return result


def _scaled(image: Image.Image) -> Image.Image:
    """Deep grey from 0 to 65535, or as many bits as the file says it has, to 0..255; Pillow would clip it."""
    deep = image.mode.startswith("I;16") or image.format in ("PPM", "PNG")  # these scale "I" to 16 bits
    if not deep:
        raise _UnknownWhiteError(f"of the kind {image.format} {image.mode}, whose brightness is not known")
    tags = image.tag_v2 if image.format == "TIFF" else {}
    (bits, *_) = tags.get(_BITS_PER_SAMPLE, (16,))
    values = np.array(image)
    grey = np.rint(values.astype(np.float32) * (255 / (2**bits - 1)))
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        grey = 255 - grey
    if "transparency" in image.info:  # one shade that stands for nothing
        grey[values == image.info["transparency"]] = 255
    return Image.fromarray(grey.astype(np.uint8))
