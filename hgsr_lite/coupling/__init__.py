"""Which slices of which layers are one channel. Start in `channels`; `tracing` follows forward passes by the
`rules` of what each operation does to `shadow`, `blocks` numbers the channels that meet.
"""

from __future__ import annotations

from hgsr_lite.coupling.blocks import NORMS, Block, ConstantInputs, channel_counts, is_depthwise
from hgsr_lite.coupling.channels import (
    CoupledChannels,
    Coupling,
    Slice,
    couple,
    eval_branches,
    first_line,
    tensors,
    training_branches,
)
from hgsr_lite.coupling.tracing import InDouble

__all__ = [
    "NORMS",
    "Block",
    "ConstantInputs",
    "CoupledChannels",
    "Coupling",
    "InDouble",
    "Slice",
    "channel_counts",
    "couple",
    "eval_branches",
    "first_line",
    "is_depthwise",
    "tensors",
    "training_branches",
]
