"""The layers of a model whose weights have groups: which they are, and what their weights are now."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations, compress
from operator import attrgetter

from torch import Tensor, nn

from hgsr_lite.arguments import as_names, nearest, shown
from hgsr_lite.computed_weights import computed_weight, way_to_plain
from hgsr_lite.groups import CONVOLUTIONS, WITH_KERNELS, Layout

AUTHORS_EXCLUDE = ("downsample",)
"""The authors leave a residual network's 1x1 shortcuts out; harmless where a model has none."""

_TRAINED = attrgetter("requires_grad")


@dataclass(frozen=True)
class WeightLayer:
    """One layer of a model that a penalty acts on: its dotted name, its module and its layout."""

    name: str
    module: nn.Module
    layout: Layout

    @property
    def weight(self) -> Tensor:
        """The layer's weight as it is now: also after `.to()`, a swap of the parameter, an optimizer's step.

        A computed weight is computed; gradients flow to the parameters that it is made of.
        """
        # Ten times faster than the attribute, which is for a computed weight (torch.nn.utils.parametrize).
        plain = self.module._parameters.get("weight")
        return computed_weight(self.module) if plain is None else plain

    @property
    def learns(self) -> bool:
        """Whether the weight, or any parameter that it is computed from, is trained and not frozen."""
        plain = self.module._parameters.get("weight")
        if plain is not None:
            return plain.requires_grad
        bias = self.module._parameters.get("bias")
        return any(part.requires_grad for part in self.module.parameters() if part is not bias)

    def stored_weight(self, purpose: str) -> nn.Parameter:
        """The weight as a parameter that may be written to; `ValueError` for one that is computed.

        What is written to a computed weight is lost when it is computed again.
        """
        plain = self.module._parameters.get("weight")
        if plain is None:
            raise ValueError(
                f"{purpose}: the weight of layer {self.name!r} is computed from other parameters (what "
                f"is written to it is lost): make it plain with {way_to_plain(self.module)[0]}, or leave it "
                "out with exclude"
            )
        return plain


def _has_part(name: str, wanted: str) -> bool:
    return f".{wanted}." in f".{name}."


def _check_names(kind: str, wanted: tuple[str, ...], names: list[str]) -> None:
    for part in wanted:
        if not any(_has_part(name, part) for name in names):
            parts = sorted({part for name in names for part in [name, *name.split(".")]})
            near = nearest(part, parts)
            hint = f"did you mean {near!r}?" if near else f"the layers are {', '.join(names) or 'none'}"
            raise ValueError(f"{kind} name {part!r} matches no layer of the model: {hint}")


def weight_layers(
    model: nn.Module, include: Iterable[str] | None = None, exclude: Iterable[str] = ()
) -> list[WeightLayer]:
    """The layers of a model whose weights have groups, in the order of `model.named_modules()`.

    Without `include`: every convolution, plain, grouped or transposed (in a network that has none,
    every linear layer). With `include`: the convolutions and linear layers whose name contains one of
    the given dotted parts. `exclude` takes
    layers away by the same rule, so `"downsample"` excludes `layer2.0.downsample.0`. A weight that two
    layers share is listed once.

    Raises `ValueError` for a name that matches nothing and for a model in which no layer is left.

    >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Linear(4, 2))
    >>> [layer.name for layer in weight_layers(model)]
    ['0', '2']
    >>> [layer.name for layer in weight_layers(model, include=("2", "3"))]
    ['2', '3']
    """
    check_model(model)
    include = None if include is None else as_names("include", include)
    exclude = as_names("exclude", exclude)
    found = _layers_by_name(model)
    if include is None and any(isinstance(layer.module, CONVOLUTIONS) for layer in found.values()):
        found = {name: layer for name, layer in found.items() if isinstance(layer.module, CONVOLUTIONS)}
    _check_names("excluded", exclude, list(found))
    if include is not None:
        _check_names("included", include, list(found))
        found = {name: layer for name, layer in found.items() if any(_has_part(name, p) for p in include)}
    kept = [layer for name, layer in found.items() if not any(_has_part(name, part) for part in exclude)]
    # A computed weight is a new tensor whenever it is asked for: its layer stands for it.
    once = {id(layer.module._parameters.get("weight", layer.module)): layer for layer in reversed(kept)}
    if not once:
        raise ValueError(
            f"{type(model).__name__} has no layer to regularise: it needs a convolution or a linear layer "
            "that is not excluded"
        )
    return list(reversed(once.values()))


def check_model(model: object) -> None:
    """Refuse what is no PyTorch module.

    >>> check_model("alexnet")
    Traceback (most recent call last):
    ...
    TypeError: model must be a torch.nn.Module, not 'alexnet': build_model makes one
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, not {shown(model)}: build_model makes one")


def _layers_by_name(model: nn.Module) -> dict[str, WeightLayer]:
    return {
        name: WeightLayer(name, module, Layout.of(module))
        for name, module in model.named_modules()
        if isinstance(module, WITH_KERNELS)
    }


class FollowedLayers:
    """The layers of a model that a term acts on, followed while the model changes.

    Chosen as `weight_layers` chooses; of these, the ones whose weights are trained and not frozen. A layer
    that is replaced, frozen or unfrozen later is seen at the next look. Raises `ValueError` where all are
    frozen.

    >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3))
    >>> followed = FollowedLayers(model)
    >>> _ = model[0].requires_grad_(False)
    >>> [layer.name for layer in followed.layers]
    ['1']
    """

    def __init__(
        self,
        model: nn.Module,
        include: Iterable[str] | None = None,
        exclude: Iterable[str] = AUTHORS_EXCLUDE,
    ) -> None:
        self.model = model
        self._include = None if include is None else as_names("include", include)
        self._exclude = as_names("exclude", exclude)
        self._select()

    def _select(self) -> None:
        """Choose the layers of the model as it hangs together now, and remember how that is."""
        excluded = self._exclude
        if excluded == AUTHORS_EXCLUDE:
            named = _dotted_parts(layer.name for layer in weight_layers(self.model, self._include))
            excluded = tuple(name for name in excluded if name in named)
        self._candidates = weight_layers(self.model, self._include, excluded)
        self._stores = [layer.module._parameters for layer in self._candidates]
        self._parts = [module._modules for module in self.model.modules() if module._modules]
        self._hung = [*map(tuple, map(dict.values, self._parts))]
        self._select_trained([layer.learns for layer in self._candidates])

    def _select_trained(self, trained: list[bool]) -> None:
        self._layers = [layer for layer, learns in zip(self._candidates, trained, strict=True) if learns]
        self._layouts = [layer.layout for layer in self._layers]
        self._trained = trained
        if not self._layers:
            raise ValueError("every layer to regularise is frozen: call .requires_grad_(True) on the model")

    def look(self) -> tuple[list[nn.Parameter | None], list[Layout]]:
        """The layers' weights now, None for a computed one, and their layouts."""
        # Each training step comes by here: plain lists, compared by identity, and no walk over the model.
        if [*map(tuple, map(dict.values, self._parts))] != self._hung:
            self._select()
        weights = [store.get("weight") for store in self._stores]
        try:
            trained = [*map(_TRAINED, weights)]
        except AttributeError:  # None: one is computed
            trained = [layer.learns for layer in self._candidates]
        if trained != self._trained:
            self._select_trained(trained)
        return (weights if all(trained) else [*compress(weights, trained)]), self._layouts

    @property
    def layers(self) -> list[WeightLayer]:
        """Those that the term acts on now."""
        self.look()
        return self._layers

    def check_part_of(self, model: nn.Module) -> None:
        """Refuse another model than the one these layers are of (or one that contains it)."""
        check_model(model)
        modules = {*model.modules()}
        for layer in self.layers:
            if layer.module not in modules:
                raise ValueError(
                    f"the regularizer acts on another model: its layer {layer.name!r} is no part of the "
                    f"{type(model).__name__} given; make one for this model, with regularizer.on(model)"
                )

    def names_in(self, model: nn.Module) -> tuple[list[str] | None, list[str]]:
        """`include` and `exclude` for another model, without the names that are gone there."""
        check_model(model)
        parts = _dotted_parts(name for name, _ in model.named_modules())
        include = None if self._include is None else [name for name in self._include if name in parts]
        return include, [name for name in self._exclude if name in parts]


def _dotted_parts(names: Iterable[str]) -> set[str]:
    """Every run of the dotted names' parts: what `include` and `exclude` may call them.

    >>> sorted(_dotted_parts(["layer2.0"]))
    ['0', 'layer2', 'layer2.0']
    """
    split = [name.split(".") for name in names]
    runs = [(parts, *ends) for parts in split for ends in combinations(range(len(parts) + 1), 2)]
    return {".".join(parts[first:end]) for parts, first, end in runs}
