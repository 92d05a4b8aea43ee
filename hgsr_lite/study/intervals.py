"""How sure a mean over seeds is."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.special import stdtrit  # the quantile of Student's t, without scipy.stats: 60 MB


def confidence_half_width(deviation: pd.Series, count: pd.Series) -> np.ndarray:
    """Half the width of the 95 % interval of a mean, from Student's t; 0 for a single value.

    >>> confidence_half_width(pd.Series([1.0]), pd.Series([4])).round(2)
    array([1.59])
    """
    many = count.to_numpy() > 1
    safe = np.where(many, count, 2)
    half = stdtrit(safe - 1, 0.975) * np.nan_to_num(deviation.to_numpy()) / np.sqrt(safe)
    return np.where(many, half, 0.0)
