"""The same numbers, faster.

Start in `plan`, which chooses for each set of weights: `plain` is the readable formula, `cpu` is compiled by
numba, `gpu` stacked or in one launch. All keep the contract of `Plan`. For networks with dead kernels start
in `living`; `operators` makes PyTorch know them.

Each name is loaded when it is first used: a penalty needs no operator, and PyTorch's counter of operations
alone takes longer to load than all the rest.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "gpu.stacked": ["buckets", "send", "stacked_gradient_"],
        "living": ["LivingKernels", "Window", "batch_innermost", "plain_sparse_convolution"],
        "node": ["term"],
        "operators": ["has_numba", "living_convolution", "living_max_pool", "living_mean_pool"],
        "plain": ["plain_gradient_"],
        "plan": ["Plan", "Plans", "make_plan"],
    },
)
