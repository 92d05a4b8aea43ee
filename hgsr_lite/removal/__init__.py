"""From zeros to a smaller network, with proof that it is the same function. Start in `compaction`:
`surgery` cuts what `hgsr_lite.coupling` says is one channel; `pruning` chooses what goes when nothing is
zero.
"""

from __future__ import annotations

from hgsr_lite.removal.compaction import check_input, compact, compare
from hgsr_lite.removal.cost import Cost, latency, macs, parameters, wait_for
from hgsr_lite.removal.loading import load_compact
from hgsr_lite.removal.proof import OutputChange, random_like
from hgsr_lite.removal.pruning import prune
from hgsr_lite.removal.ranking import LossRise, Norm, Random, Tolerance
from hgsr_lite.removal.report import CompactReport, Report, before_and_after, written

__all__ = [
    "CompactReport",
    "Cost",
    "LossRise",
    "Norm",
    "OutputChange",
    "Random",
    "Report",
    "Tolerance",
    "before_and_after",
    "check_input",
    "compact",
    "compare",
    "latency",
    "load_compact",
    "macs",
    "parameters",
    "prune",
    "random_like",
    "wait_for",
    "written",
]
