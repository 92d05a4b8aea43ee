"""Checkpoints: written whole or not at all, with a checksum, read without running code from the file."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import shutil
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_MARK = b"hgsr_lite checkpoint 3\n"


STATE = {"identity", "epoch", "model", "optimizer", "shuffling", "random", "history"}
"""What a checkpoint holds."""


def fingerprint(tensors: Iterable[Tensor]) -> str:
    """Sixteen characters that change with any number, shape or dtype among the tensors.

    >>> fingerprint([torch.zeros(2)]) == fingerprint([torch.zeros(2)])
    True
    >>> fingerprint([torch.zeros(2)]) == fingerprint([torch.tensor([0.0, 1e-45])])
    False
    """
    digest = hashlib.sha256()
    for tensor in tensors:
        plain = tensor.detach().cpu().contiguous()
        digest.update(f"{plain.dtype} {tuple(plain.shape)};".encode())
        digest.update(plain.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write `state` to `path` so that a reader sees the old file or the new one, never a part.

    The file is written beside its target, flushed to the disk, then renamed over it: a rename within a
    folder is one step. Of a symbolic link the target is replaced, not the link; the file's mode is the
    old one's, or what the umask says. Raises `ValueError` where it cannot be written.
    """
    payload = io.BytesIO()
    torch.save(state, payload)
    content = payload.getbuffer()
    checksum = hashlib.sha256(content).hexdigest().encode()
    target = Path(os.path.realpath(path))
    part = target.with_name(f"{target.name}.{uuid.uuid4().hex}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(part, "xb") as file:
                file.writelines((_MARK, checksum, b"\n", content))
                file.flush()
                os.fsync(file.fileno())
            if target.exists():
                shutil.copymode(target, part)
            os.replace(part, target)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise ValueError(
            f"the checkpoint {path} cannot be written ({error.strerror or error}): make room and let it be "
            "written there, or give another path"
        ) from error


def check_room(path: Path) -> None:
    """Refuse a disk without room for the next checkpoint, which is written beside the last one.

    A first checkpoint, before any step, lacks the optimizer's state: up to two numbers a weight more.
    """
    needed = 3 * os.path.getsize(path)
    free = shutil.disk_usage(os.path.dirname(os.path.realpath(path))).free
    if free < needed:
        raise ValueError(
            f"the checkpoint {path} needs {needed / 1e6:.1f} MB beside it while it is written, the disk has "
            f"{free / 1e6:.1f} MB: make room, or give another path"
        )


def load_checkpoint(path: Path, identity: dict[str, Any]) -> dict[str, Any]:
    """Read a checkpoint and make sure that it is undamaged and belongs to the run described by `identity`.

    Loads with `weights_only=True`: a file from elsewhere cannot run code. Raises `ValueError` for a file
    that is damaged or belongs to another run, naming what differs.
    """
    advice = f"give another checkpoint path, or delete {path.name} to start anew"
    if path.is_char_device():  # it may have no end
        raise ValueError(f"{path} is no file: give another checkpoint path")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}): {advice}") from error
    start = len(_MARK) + 64 + 1
    header, payload = content[:start], content[start:]
    if not content.startswith(_MARK):
        raise ValueError(f"{path.name} is no readable checkpoint of this version of the package: {advice}")
    if header != _MARK + hashlib.sha256(payload).hexdigest().encode() + b"\n":
        raise ValueError(f"{path.name} is damaged, its checksum does not fit: {advice}")
    try:
        state = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
        found = dict(state["identity"])
        missing = sorted(STATE - state.keys())
        if missing:
            raise LookupError(f"without {', '.join(missing)}")
    except (pickle.UnpicklingError, RuntimeError, EOFError, LookupError, TypeError) as error:
        # The checksum fits, so these are the bytes that were written, but by no version of this package.
        raise ValueError(f"{path.name} is no readable checkpoint of this package: {advice}") from error
    differing = [
        f"{name} was {found.get(name)!r}, now {now!r}"
        for name, now in identity.items()
        if found.get(name) != now
    ]
    if differing:
        raise ValueError(f"{path.name} belongs to another run ({'; '.join(differing)}): {advice}")
    return state
