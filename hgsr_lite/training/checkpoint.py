"""Checkpoints: written whole or not at all, and read without running any code from the file."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import torch


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write `state` to `path` so that a reader sees the old file or the new one, never a part.

    The file is written beside its target, flushed to the disk, then renamed over it: a rename within a
    folder is one step.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.name, suffix=".part", delete=False) as part:
        try:
            torch.save(state, part)
            part.flush()
            os.fsync(part.fileno())
        except BaseException:
            part.close()
            os.unlink(part.name)
            raise
    os.replace(part.name, path)


def load_checkpoint(path: Path, identity: dict[str, Any]) -> dict[str, Any]:
    """Read a checkpoint and make sure that it belongs to the run described by `identity`.

    Loads with `weights_only=True`: a file from elsewhere cannot run code. Raises `ValueError` for a file
    that is damaged or belongs to another run, naming what differs.
    """
    advice = f"give another checkpoint path, or delete {path.name} to start anew"
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        found = state["identity"]
    except Exception as error:
        raise ValueError(f"{path.name} is no readable checkpoint of this package: {advice}") from error
    differing = [
        f"{name} was {found.get(name)!r}, now {now!r}"
        for name, now in identity.items()
        if found.get(name) != now
    ]
    if differing:
        raise ValueError(f"{path.name} belongs to another run ({'; '.join(differing)}): {advice}")
    return state
