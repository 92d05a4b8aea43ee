"""What is slow only the first time, done beforehand: compiled loops, and the list of fonts."""

from __future__ import annotations

import torch

from hgsr_lite.data import augmented_batches, load_data
from hgsr_lite.groups import GROUPINGS
from hgsr_lite.models import build_model
from hgsr_lite.regularizer import Regularizer
from hgsr_lite.table import PENALTIES


def warm() -> None:
    """Compile the loops that a training on the CPU uses, for float32; numba keeps them on the disk.

    A second call finds them and takes the time of the imports.
    """
    from matplotlib import font_manager  # makes its list of fonts when it is first imported

    font_manager.get_font_names()
    model = build_model("digits_cnn", in_channels=1, num_classes=10, seed=0)
    with torch.no_grad():
        for key in PENALTIES:
            for grouping in GROUPINGS:
                regularizer = Regularizer(model, key, grouping=grouping, strength=1e-6)
                regularizer.add_gradient_()
                regularizer.prox_(1e-3)
    next(augmented_batches(load_data("digits", device="cpu", limit=64).train, 64))
