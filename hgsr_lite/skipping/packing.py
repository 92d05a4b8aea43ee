"""A state dict without dead kernels, packed into few tensors, and back.

Safetensors spends some 60 bytes on naming a tensor, as much as two kernels: so all bits that say which
kernels live are one tensor, all numbers of a dtype another, and an index, compressed, says what they are.
"""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hgsr_lite.arguments import shown
from hgsr_lite.fast import alive_kernels

INDEX, BITS = "living_index", "living_bits"
CHECKSUM = "living_checksum"
"""The entry with the SHA-256 of all others: 32 bytes."""
VERSION = 2
"""Of the layout. The first had no index, but three entries for each convolution."""
_LONGEST = 1 << 26  # bytes of an index: a few damaged ones could unfold to more than there is memory
_AGAIN = "save it again with save_living"


class Entry(NamedTuple):
    """A tensor of a model's state dict as the index names it; of a living one dead kernels are left out."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    is_living: bool

    @property
    def kernels(self) -> int:
        """How many kernels a living one has, dead ones too."""
        return math.prod(self.shape[:2])

    def check(self) -> None:
        """Raise `ValueError` for a shape that no tensor has, or no convolution."""
        least = 1 if self.is_living else 0
        if (self.is_living and len(self.shape) < 3) or min(self.shape, default=least) < least:
            kind = "convolution" if self.is_living else "tensor"
            raise ValueError(
                f"the shape {self.shape} that the file gives for {self.name} is none of a {kind}: {_AGAIN}"
            )


def packed(state: Mapping[str, Tensor], convolutions: Collection[str]) -> dict[str, Tensor]:
    """An index, bits, the numbers of each dtype, and a checksum, for a state dict.

    `convolutions` names the weights `(channels, channels, ...)` whose dead kernels are left out.
    """
    entries: list[Entry] = []
    alive = [torch.empty(0, dtype=torch.bool)]
    numbers: dict[str, list[Tensor]] = {}
    for name, tensor in state.items():
        values = tensor.detach().cpu()
        dtype = str(values.dtype).removeprefix("torch.")
        entries.append(Entry(name, dtype, tuple(values.shape), name in convolutions))
        if name in convolutions:
            alive.append(alive_kernels(values).flatten())
            values = values.flatten(2).flatten(0, 1)[alive[-1]]
        numbers.setdefault(dtype, []).append(values.flatten())
    parts = {
        INDEX: packed_index(entries),
        BITS: torch.from_numpy(np.packbits(torch.cat(alive).numpy())),
        **{dtype: torch.cat(values) for dtype, values in numbers.items()},
    }
    return parts | {CHECKSUM: checksum_of(parts)}


def packed_index(entries: Sequence[Sequence[object]], version: int = VERSION) -> Tensor:
    """The index as the bytes that are stored."""
    text = json.dumps({"version": version, "tensors": entries}, separators=(",", ":"))
    return torch.frombuffer(bytearray(zlib.compress(text.encode(), 9)), dtype=torch.uint8)


def checksum_of(state: Mapping[str, Tensor]) -> Tensor:
    """The SHA-256 of names, dtypes, shapes and numbers, as 32 bytes."""
    digest = hashlib.sha256()
    for key in sorted(state):
        tensor = state[key]
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return torch.tensor([*digest.digest()], dtype=torch.uint8)


def unpacked(stored: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict that was stored, for a model whose own is `present`."""
    numbers = _checked_parts(stored)
    entries = _entries(numbers.pop(INDEX))
    for entry in entries:
        if entry.is_living:
            _check_no_larger(entry, present.get(entry.name))
    alive = _alive(numbers.pop(BITS), entries)
    dtypes = sorted({entry.dtype for entry in entries})
    if dtypes != sorted(numbers):
        raise ValueError(
            f"the file of living kernels holds numbers of {sorted(numbers)}, its index those of {dtypes}: "
            f"{_AGAIN}"
        )
    state = {}
    for dtype, values in numbers.items():
        state |= _whole_tensors(values, [entry for entry in entries if entry.dtype == dtype], alive)
    return state


def _checked_parts(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All entries but the checksum, which must fit; an index and bits are among them."""
    for key, value in stored.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise ValueError(f"the entry {shown(key)} of the file of living kernels is no tensor with a name")
    parts = {key: tensor.cpu() for key, tensor in stored.items() if key != CHECKSUM}
    found = stored.get(CHECKSUM)
    if found is None or not torch.equal(found.cpu(), checksum_of(parts)):
        why = "holds no checksum" if found is None else "is damaged, its checksum does not fit"
        raise ValueError(f"the file of living kernels {why}: {_AGAIN}")
    for key in (INDEX, BITS):
        if key not in parts:
            raise ValueError(
                f"the file of living kernels holds no {key}, it is not of version {VERSION}, which alone is "
                f"read here: {_AGAIN}"
            )
        if parts[key].dtype != torch.uint8 or parts[key].ndim != 1:
            raise ValueError(
                f"{key} of the file of living kernels must be bytes in a row, not {parts[key].dtype} of "
                f"shape {tuple(parts[key].shape)}: {_AGAIN}"
            )
    return parts


def _entries(index: Tensor) -> list[Entry]:
    """What the index says, after a look at whether it can be true."""
    try:
        found = json.loads(_unpacked(index))
    except (zlib.error, ValueError, RecursionError) as error:
        raise ValueError(f"the index of the file of living kernels is damaged, {error}: {_AGAIN}") from error
    match found:
        case {"version": int(version)} if version != VERSION:
            raise ValueError(
                f"the file of living kernels is of version {version}, read here is {VERSION}: {_AGAIN}"
            )
        case {"version": int(), "tensors": [*rows]}:
            entries = [_entry(row) for row in rows]
        case _:
            raise ValueError(f"the index of the file of living kernels holds no list of tensors: {_AGAIN}")
    if len({entry.name for entry in entries}) < len(entries):
        raise ValueError(f"the index of the file of living kernels names a tensor twice: {_AGAIN}")
    return entries


def _unpacked(index: Tensor) -> bytes:
    reader = zlib.decompressobj()
    text = reader.decompress(index.numpy().tobytes(), _LONGEST)
    if not reader.eof:
        raise ValueError(f"cut off or longer than {_LONGEST} bytes")
    return text


def _entry(row: object) -> Entry:
    match row:
        case [str(name), str(dtype), [*shape], bool(is_living)] if all(type(size) is int for size in shape):
            entry = Entry(name, dtype, tuple(shape), is_living)
            entry.check()
            return entry
    raise ValueError(
        f"the index of the file of living kernels holds {shown(row)}, not a name, a dtype, a shape and "
        f"whether dead kernels are left out: {_AGAIN}"
    )


def _check_no_larger(entry: Entry, present: Tensor | None) -> None:
    """Dead kernels take no room in a file, but in memory: a wrong shape could ask for any amount."""
    if present is None or math.prod(entry.shape) > present.numel():
        has = "has none of that name" if present is None else f"one of shape {tuple(present.shape)}"
        raise ValueError(
            f"the file holds {entry.name} of shape {entry.shape}, the model {has}: build the network that "
            "was saved"
        )


def _alive(bits: Tensor, entries: list[Entry]) -> dict[str, Tensor]:
    """Which kernels of each convolution's weight live."""
    kernels = {entry.name: entry.kernels for entry in entries if entry.is_living}
    total = sum(kernels.values())
    flags = torch.from_numpy(np.unpackbits(bits.numpy()).astype(bool))
    if len(bits) != -(-total // 8) or flags[total:].any():
        raise ValueError(
            f"the parts of the file do not belong together: {len(bits)} bytes of bits for {total} kernels, "
            f"with {int(flags[total:].sum())} set behind the last: {_AGAIN}"
        )
    return dict(zip(kernels, flags[:total].split([*kernels.values()]), strict=True))


def _whole_tensors(numbers: Tensor, entries: list[Entry], alive: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All tensors of one dtype, with zeros for dead kernels."""
    sizes = [
        int(alive[entry.name].sum()) * math.prod(entry.shape[2:])
        if entry.is_living
        else math.prod(entry.shape)
        for entry in entries
    ]
    dtype = entries[0].dtype
    if str(numbers.dtype) != f"torch.{dtype}" or numbers.ndim != 1 or len(numbers) != sum(sizes):
        raise ValueError(
            f"the parts of the file do not belong together: {numbers.dtype} of shape {tuple(numbers.shape)} "
            f"for {sum(sizes)} numbers of {dtype}: {_AGAIN}"
        )
    return {
        entry.name: _with_dead_kernels(values, entry, alive[entry.name])
        if entry.is_living
        else values.view(entry.shape)
        for entry, values in zip(entries, numbers.split(sizes), strict=True)
    }


def _with_dead_kernels(values: Tensor, entry: Entry, alive: Tensor) -> Tensor:
    elements = math.prod(entry.shape[2:])
    weight = values.new_zeros(entry.kernels, elements)
    weight[alive] = values.view(len(values) // elements, elements)
    return weight.view(entry.shape)
