"""Image sets, their splits and their augmentation. Start in `load`: a name or a folder becomes a `Data`."""

from __future__ import annotations

from hgsr_lite.data.augment import Look, augmented_batches, augmented_looks, one_look
from hgsr_lite.data.load import Data, Split, check_data, find_device, load_data

__all__ = [
    "Data",
    "Look",
    "Split",
    "augmented_batches",
    "augmented_looks",
    "check_data",
    "find_device",
    "load_data",
    "one_look",
]
