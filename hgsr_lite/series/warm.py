"""What is slow only the first time, done beforehand: compiled loops, and the list of fonts."""

from __future__ import annotations

from functools import cache

import torch

from hgsr_lite.data import Data, augmented_batches, load_data
from hgsr_lite.groups import GROUPINGS
from hgsr_lite.models import build_model
from hgsr_lite.regularizer import Regularizer
from hgsr_lite.skipping import skip_dead_kernels
from hgsr_lite.table import PENALTIES
from hgsr_lite.training.threads import one_thread


@cache
def warm() -> None:
    """Compile the loops that a page uses on the CPU, for float32; numba keeps them on the disk.

    Once a process; the next one finds them and takes the time of the imports. Fonts are listed where
    matplotlib is there.

    Numba keeps them for this processor and for the package's files where they lie now: call it where the
    package will be used.
    """
    _list_fonts()
    data = load_data("digits", device="cpu", limit=64)
    # `fit` trains the small networks of the series on one thread, and that takes loops of their own.
    with one_thread(), torch.no_grad():
        _take_steps()
        next(augmented_batches(data.train, 64))
        _skip_dead_kernels(data)


def _list_fonts() -> None:
    try:
        from matplotlib import font_manager  # makes its list of fonts when it is first imported
    except ImportError:  # the package alone draws nothing
        return
    font_manager.get_font_names()


def _take_steps() -> None:
    """A gradient and a proximal step of every penalty."""
    model = build_model("digits_cnn", in_channels=1, num_classes=10, seed=0)
    for key in PENALTIES:
        for grouping in GROUPINGS:
            regularizer = Regularizer(model, key, grouping=grouping, strength=1e-6)
            regularizer.add_gradient_()
            regularizer.prox_(1e-3)


def _skip_dead_kernels(data: Data) -> None:
    """A network with so many dead kernels that its convolutions and pools are those of living kernels."""
    model = build_model("digits_cnn", in_channels=1, num_classes=10, seed=0)
    for parameter in model.parameters():
        if parameter.ndim == 4:
            parameter[:, 2:] = 0
    small, _ = skip_dead_kernels(model, data.train.images[:16], repeats=0)
    small(data.train.images)
