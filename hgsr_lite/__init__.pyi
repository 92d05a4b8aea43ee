from .data import Data, Split, load_data
from .groups import GROUPINGS, Layout, kernel_norms, kernel_stack
from .layers import weight_layers
from .models import MODELS, build_model
from .penalties import Penalty
from .regularizer import Regularizer
from .removal import compact, load_compact, prune
from .skipping import skip_dead_kernels
from .study import Study
from .table import PENALTIES
from .training import (
    Cut,
    History,
    Penalised,
    Recipe,
    Settings,
    Trained,
    accuracy,
    fit,
    fit_many,
    seed_everything,
    test_result,
)
from .zeros import SparsityReport, sparsity, zero_below_

__all__ = [
    "GROUPINGS",
    "MODELS",
    "PENALTIES",
    "Cut",
    "Data",
    "History",
    "Layout",
    "Penalised",
    "Penalty",
    "Recipe",
    "Regularizer",
    "Settings",
    "SparsityReport",
    "Split",
    "Study",
    "Trained",
    "accuracy",
    "build_model",
    "compact",
    "fit",
    "fit_many",
    "kernel_norms",
    "kernel_stack",
    "load_compact",
    "load_data",
    "prune",
    "seed_everything",
    "skip_dead_kernels",
    "sparsity",
    "test_result",
    "weight_layers",
    "zero_below_",
]
