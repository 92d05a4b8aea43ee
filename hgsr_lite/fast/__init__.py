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
        "chain": ["Convolution", "Linear", "Link", "MaxPool", "MeanPool", "prepare_chain", "smallest_batch"],
        "gpu.round_trip": ["copied_prox"],
        "gpu.stacked": ["buckets", "send", "stacked_gradient_"],
        "living": [
            "LivingKernels",
            "Window",
            "alive_kernels",
            "batch_innermost",
            "plain_sparse_convolution",
        ],
        "node": ["term"],
        "operators": ["called_directly", "calls_directly", "has_numba", "living_convolution"],
        "plain": ["plain_gradient_", "plain_prox_"],
        "plan": ["Plan", "Plans", "make_plan"],
    },
)
