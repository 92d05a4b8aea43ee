"""The notebooks as a job: run, commit and time them, check exercises, collect figures. Start in `run`."""

from __future__ import annotations

import lazy_loader

# A notebook asks for a few small names; what runs the notebooks (papermill) need not be installed for that.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["checks"],
    submod_attrs={
        "example": ["example_budget", "example_network"],
        "header": ["banner"],
        "recall": ["quiz"],
        "results": ["scoreboard"],
        "tables": ["shipped"],
    },
)
