"""Image sets, their splits and their augmentation. Start in `load`: a name or a folder becomes a `Data`."""

from __future__ import annotations

from hgsr_lite.data.augment import BatchSpec, augmented_batches, augmented_specs, one_batch
from hgsr_lite.data.load import load_data
from hgsr_lite.data.parts import DISTRACTORS, Data, Split, check_data, find_device

__all__ = [
    "DISTRACTORS",
    "BatchSpec",
    "Data",
    "Split",
    "augmented_batches",
    "augmented_specs",
    "check_data",
    "find_device",
    "load_data",
    "one_batch",
]
