"""From zeros to a smaller network, with proof that it is the same function. Start in `compaction`:
`surgery` cuts what `hgsr_lite.coupling` says is one channel; `pruning` chooses what goes when nothing is
zero.
"""

from __future__ import annotations

from hgsr_lite.removal.compaction import compact
from hgsr_lite.removal.cost import latency, macs, parameters
from hgsr_lite.removal.loading import load_compact
from hgsr_lite.removal.pruning import prune
from hgsr_lite.removal.ranking import LossRise, Norm, Random, Tolerance

__all__ = [
    "LossRise",
    "Norm",
    "Random",
    "Tolerance",
    "compact",
    "latency",
    "load_compact",
    "macs",
    "parameters",
    "prune",
]
