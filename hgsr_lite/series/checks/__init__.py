"""One check for each exercise of the series; see `engine` for how they work."""

from __future__ import annotations

from hgsr_lite.series.checks.foundations import (
    check_drop_ignored_inputs,
    check_feature_sums,
    check_ignored_inputs,
    check_share_below,
    check_zero_small,
)
from hgsr_lite.series.checks.hierarchy import (
    check_kernel_force,
    check_measured_degree,
    check_row_from_values,
    check_sees_kernels,
)
from hgsr_lite.series.checks.living import check_living_convolution
from hgsr_lite.series.checks.loop import check_complete_the_loop
from hgsr_lite.series.checks.norms import (
    check_exclusive_sparsity,
    check_lasso_step,
    check_to_unit_ball,
)
from hgsr_lite.series.checks.scale import (
    check_count_weights,
    check_empty_layers,
    check_on_the_front,
    check_one_step,
    check_smallest_sure,
    check_steps_to_zero,
)
from hgsr_lite.series.checks.smaller import (
    check_constant_behind,
    check_deadly_step,
    check_emptying_steps,
    check_folded_bias,
    check_proximal_strength,
    check_shrink_kernels,
)
from hgsr_lite.series.checks.training import (
    check_calibrated_strength,
    check_choose_sparsest,
    check_half_width,
    check_magnitude_mask,
    check_precision_and_recall,
)
from hgsr_lite.series.checks.zero import (
    check_group_stays_zero,
    check_rebound_radius,
    check_safe_gl12,
    check_small_share,
)

__all__ = [
    "check_calibrated_strength",
    "check_choose_sparsest",
    "check_complete_the_loop",
    "check_constant_behind",
    "check_count_weights",
    "check_deadly_step",
    "check_drop_ignored_inputs",
    "check_empty_layers",
    "check_emptying_steps",
    "check_exclusive_sparsity",
    "check_feature_sums",
    "check_folded_bias",
    "check_group_stays_zero",
    "check_half_width",
    "check_ignored_inputs",
    "check_kernel_force",
    "check_lasso_step",
    "check_living_convolution",
    "check_magnitude_mask",
    "check_measured_degree",
    "check_on_the_front",
    "check_one_step",
    "check_precision_and_recall",
    "check_proximal_strength",
    "check_rebound_radius",
    "check_row_from_values",
    "check_safe_gl12",
    "check_sees_kernels",
    "check_share_below",
    "check_shrink_kernels",
    "check_small_share",
    "check_smallest_sure",
    "check_steps_to_zero",
    "check_to_unit_ball",
    "check_zero_small",
]
