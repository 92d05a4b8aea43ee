"""Weights made anew from other parameters: by weight or spectral norm, a mask, any parametrization."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial

from torch import Tensor, nn
from torch.nn import utils
from torch.nn.utils import parametrize, prune

from hgsr_lite.groups import WITH_KERNELS


def is_computed(module: nn.Module) -> bool:
    """Whether the module's weight is no parameter of its own.

    >>> is_computed(utils.parametrizations.weight_norm(nn.Linear(2, 2)))
    True
    """
    return module._parameters.get("weight") is None


def computed_weight(module: nn.Module) -> Tensor:
    """The weight as its parameters make it now; gradients flow to them."""
    for hook in _hooks_that_set_the_weight(module):
        hook(module, ())
    return module.weight


def _hooks_that_set_the_weight(module: nn.Module) -> list[Callable]:
    """PyTorch's older way to compute a weight: before each forward, by torch.nn.utils.prune and its like."""
    names = ("name", "_tensor_name")
    hooks = module._forward_pre_hooks.values()
    return [hook for hook in hooks if any(getattr(hook, name, None) == "weight" for name in names)]


def way_to_plain(module: nn.Module) -> tuple[str, Callable[[], object]]:
    """What makes a computed weight a parameter again: as a text for a reader, and as a call."""
    if parametrize.is_parametrized(module, "weight"):
        text = 'torch.nn.utils.parametrize.remove_parametrizations(layer, "weight")'
        return text, partial(parametrize.remove_parametrizations, module, "weight")
    hooks = [type(hook) for hook in _hooks_that_set_the_weight(module)]
    if hooks and issubclass(hooks[0], prune.BasePruningMethod):
        return 'torch.nn.utils.prune.remove(layer, "weight")', partial(prune.remove, module, "weight")
    name = (
        "remove_weight_norm" if "WeightNorm" in [hook.__name__ for hook in hooks] else "remove_spectral_norm"
    )
    return f"torch.nn.utils.{name}(layer)", partial(getattr(utils, name), module)


def plain_copy(model: nn.Module) -> nn.Module:
    """A copy that computes the same, with each computed weight a parameter of its own that can be written to.

    >>> layer = utils.parametrizations.weight_norm(nn.Conv2d(1, 2, 3))
    >>> copied = plain_copy(layer)
    >>> bool((copied.weight == layer.weight).all()), [name for name, _ in copied.named_parameters()]
    (True, ['bias', 'weight'])
    """
    # A weight that a hook has set is part of an autograd graph and cannot be copied: it is left out.
    made = [vars(module).get("weight") for module in model.modules()]
    copied = copy.deepcopy(model, {id(weight): None for weight in made if isinstance(weight, Tensor)})
    for module in copied.modules():
        if isinstance(module, WITH_KERNELS) and is_computed(module):
            # A parametrized module shares its class with its copies, and plain again it loses parts of that.
            kind = type(module)
            module.__class__ = type(kind.__name__, kind.__bases__, {**vars(kind)})
            way_to_plain(module)[1]()
    return copied
