"""What compiled code knows: numbers that several versions must agree on, without what compiles them."""

from __future__ import annotations

import numpy as np
import torch

DTYPES = {torch.float32: np.float32, torch.float64: np.float64}
"""The dtypes that numba's loops take, as PyTorch and as NumPy name them; the others go the plain way."""

EXPONENTS = {2.0, 1.0, 0.5, 0.0, -0.5, -1.0}
"""What a compiled `raise_to` has a branch for."""
