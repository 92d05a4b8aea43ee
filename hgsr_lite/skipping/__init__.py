"""From single dead kernels to a faster network and a smaller file. Start in `network`: `choice` times each
layer both ways, `layers` holds what takes a convolution's place, `chain` leaves out what lay between them,
`living_file` stores no dead kernel.
"""

from __future__ import annotations

from hgsr_lite.skipping.choice import FORMATS, DenseNetwork, compiled_for
from hgsr_lite.skipping.layers import LivingConvolution
from hgsr_lite.skipping.living_file import living_state, load_living, save_living
from hgsr_lite.skipping.network import skip_dead_kernels

__all__ = [
    "FORMATS",
    "DenseNetwork",
    "LivingConvolution",
    "compiled_for",
    "living_state",
    "load_living",
    "save_living",
    "skip_dead_kernels",
]
