"""From zeros to a smaller network, with proof that it is the same function. Start in `compaction`; `coupling`
says what shrinks together, `surgery` cuts, `pruning` chooses what goes when nothing is zero.
`skipping` leaves out the multiplications of single dead kernels, `living_file` stores none of them.
"""

from __future__ import annotations

from hgsr_lite.removal.compaction import compact
from hgsr_lite.removal.cost import latency, macs, parameters
from hgsr_lite.removal.living_file import living_state, load_living, save_living
from hgsr_lite.removal.loading import load_compact
from hgsr_lite.removal.pruning import prune
from hgsr_lite.removal.ranking import LossRise, Norm, Random, Tolerance
from hgsr_lite.removal.skipping import skip_dead_kernels
from hgsr_lite.removal.skipping_choice import DenseNetwork
from hgsr_lite.removal.skipping_layers import LivingConvolution

__all__ = [
    "DenseNetwork",
    "LivingConvolution",
    "LossRise",
    "Norm",
    "Random",
    "Tolerance",
    "compact",
    "latency",
    "living_state",
    "load_compact",
    "load_living",
    "macs",
    "parameters",
    "prune",
    "save_living",
    "skip_dead_kernels",
]
