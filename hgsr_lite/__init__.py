"""hgsr_lite: hierarchical group sparse regularization for convolutional networks."""

from __future__ import annotations

from hgsr_lite.compact import compact, load_compact
from hgsr_lite.data import Data, Split, load_data
from hgsr_lite.evaluate import accuracy, test_result
from hgsr_lite.groups import GROUPINGS, Layout, kernel_norms, kernel_stack, weight_layers
from hgsr_lite.history import History
from hgsr_lite.many import FitConfig, Fitted, fit_many
from hgsr_lite.models import MODELS, build_model
from hgsr_lite.penalties import PENALTIES, Penalty
from hgsr_lite.prox import prox
from hgsr_lite.prune import prune
from hgsr_lite.regularizer import Regularizer
from hgsr_lite.results import record_result
from hgsr_lite.sparsity import SparsityReport, sparsity, zero_below_
from hgsr_lite.train import fit, seed_everything

Penalty.prox = prox  # the street runs from penalties to prox, so the method is joined on here

__all__ = [
    "GROUPINGS",
    "MODELS",
    "PENALTIES",
    "Data",
    "FitConfig",
    "Fitted",
    "History",
    "Layout",
    "Penalty",
    "Regularizer",
    "SparsityReport",
    "Split",
    "accuracy",
    "build_model",
    "compact",
    "fit",
    "fit_many",
    "kernel_norms",
    "kernel_stack",
    "load_compact",
    "load_data",
    "prox",
    "prune",
    "record_result",
    "seed_everything",
    "sparsity",
    "test_result",
    "weight_layers",
    "zero_below_",
]
