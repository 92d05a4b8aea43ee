"""Everything that decides how a network turns out, as one frozen value: network, start, method, settings.

A `Recipe` is a dictionary key and a study's row. It is written as flat fields, by the names that stand in a
study's file and at the head of its table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from numbers import Real
from typing import Any, TypeAlias

from torch import nn

from hgsr_lite.arguments import (
    as_names,
    as_number,
    check_count,
    check_number,
    check_share,
    choose,
    plain,
    set_plain_,
    shown,
)
from hgsr_lite.data import Data
from hgsr_lite.groups import GROUPINGS
from hgsr_lite.models import MODELS, STARTS, build_model
from hgsr_lite.regularizer import Regularizer
from hgsr_lite.table import PENALTIES
from hgsr_lite.training.settings import Settings

UNITS = ("weight", "kernel", *GROUPINGS)
"""What a cut takes out at a time: a weight, a kernel, or a whole group."""
RANKINGS = ("magnitude", "random")
BASELINES = ("dense", *RANKINGS)
"""What knows nothing of penalties: nothing at all, or a cut by magnitude or at random."""
ALIKE_IN_BOTH_GROUPINGS = ("l1", "l2")
_CALIBRATION_IMAGES = 1000


@dataclass(frozen=True)
class Penalised:
    """A penalty beside the loss. Either its `strength` is given, or the `fraction` that it is calibrated to.

    `fraction` is the norm of the penalty's gradient in units of the loss's, before the first step, on the
    first thousand training images. `layers` names the layers it acts on (None: the default of
    `Regularizer`). `l1` and `l2` know no groups: their grouping is always `"feature"`.

    >>> Penalised("l1", "neuron", fraction=0.1).grouping
    'feature'
    """

    penalty: str = "hsq_gl12"
    grouping: str = "feature"
    strength: float | None = None
    fraction: float | None = None
    l1_mix: float = 0.0
    warmup: float = 0.0
    layers: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        set_plain_(self)
        choose("penalty", self.penalty, PENALTIES)
        choose("grouping", self.grouping, GROUPINGS)
        if self.penalty in ALIKE_IN_BOTH_GROUPINGS:
            object.__setattr__(self, "grouping", "feature")
        if (self.strength is None) == (self.fraction is None):
            raise ValueError(
                f"strength {self.strength!r} and fraction {self.fraction!r}: give one of them, a fixed "
                "strength or the fraction of the loss's gradient that it is calibrated to"
            )
        for name in ("strength", "fraction"):
            given = getattr(self, name)
            if given is not None:
                check_number(name, given, "without a penalty, dense", above_zero=True)
        check_share("l1_mix", self.l1_mix)
        check_share("warmup", self.warmup)
        if self.layers is not None:
            object.__setattr__(self, "layers", as_names("layers", self.layers))

    def regularizer(self, model: nn.Module, data: Data) -> Regularizer:
        """The regularizer on a model, its strength calibrated if that is asked for."""
        reg = Regularizer(
            model,
            self.penalty,
            grouping=self.grouping,
            strength=self.strength if self.strength is not None else 1.0,
            l1_mix=self.l1_mix,
            warmup=self.warmup,
            include=self.layers,
        )
        if self.fraction is not None:
            images, labels = data.train.images, data.train.labels
            reg.calibrate_(images[:_CALIBRATION_IMAGES], labels[:_CALIBRATION_IMAGES], self.fraction)
        return reg


@dataclass(frozen=True)
class Cut:
    """A share of the weights set to zero after training, the lowest-ranked units first; no penalty.

    `by` is one of `RANKINGS`, `unit` one of `UNITS`, `share` above 0 and below 1.
    """

    by: str = "magnitude"
    unit: str = "weight"
    share: float = 0.5

    def __post_init__(self) -> None:
        set_plain_(self)
        choose("ranking", self.by, RANKINGS)
        choose("unit", self.unit, UNITS)
        if not 0 < as_number(self.share) < 1:
            raise ValueError(f"share {self.share!r} must be above 0 and below 1: without a cut, dense")


Method: TypeAlias = Penalised | Cut | None
"""What is done for sparsity; None: nothing, the dense network."""


@dataclass(frozen=True)
class Recipe:
    """How one network is made: which, from which start, by which method, under which settings.

    `start` None becomes the network's usual one. `settings.epochs` are trained with the method; then the
    small weights (or the cut ones) are set to zero, what is dead is removed, and `finetune` epochs follow
    without a penalty, the zeros held, with the settings' own course of the learning rate. So the total budget
    is `settings.epochs + finetune`.

    >>> recipe = Recipe("alexnet", method=Penalised("gl", fraction=0.1), settings=Settings(epochs=2, seed=3))
    >>> recipe.start, recipe.name, Recipe.from_fields(recipe.fields()) == recipe
    ('he', 'gl feature fraction 0.1 seed 3', True)
    """

    network: str = "digits_cnn"
    width: float = 1.0
    start: str | None = None
    method: Method = None
    settings: Settings = field(default_factory=Settings)
    finetune: int = 0

    def __post_init__(self) -> None:
        set_plain_(self)
        choose("network", self.network, MODELS)
        check_number("width", self.width, "1 is the network as it is", above_zero=True)
        if not isinstance(self.method, Penalised | Cut | None):
            raise TypeError(f"method must be a Penalised, a Cut or None, not {shown(self.method)}")
        if not isinstance(self.settings, Settings):
            raise TypeError(f"settings must be Settings(epochs=..., ...), not {shown(self.settings)}")
        start = MODELS[self.network].start if self.start is None else choose("start", self.start, STARTS)
        object.__setattr__(self, "start", start)
        if not isinstance(self.method, Penalised) and self.settings.proximal:
            object.__setattr__(self, "settings", replace(self.settings, proximal=False))
        check_count("finetune", self.finetune, 0)
        self.settings.check()

    @property
    def seed(self) -> int:
        """Fixes the first weights, the order of the images, and what a random cut takes."""
        return self.settings.seed

    @property
    def name(self) -> str:
        """The method and the seed in a few words."""
        match self.method:
            case Penalised() as by:
                amount = f"fraction {by.fraction:g}" if by.strength is None else f"strength {by.strength:g}"
                proximal = " proximal" if self.settings.proximal else ""
                words = f"{by.penalty} {by.grouping} {amount}{proximal}"
            case Cut() as by:
                words = f"{by.by} {by.unit} {by.share:g}"
            case _:
                words = "dense"
        return f"{words} seed {self.seed}"

    def build(self, data: Data) -> tuple[nn.Module, Regularizer | None]:
        """The untrained network on the data's device, and its regularizer if it has one."""
        sizes = {"in_channels": data.in_channels, "num_classes": data.num_classes, "width": self.width}
        model = build_model(self.network, **sizes, seed=self.seed, start=self.start).to(data.device)
        return model, self.method.regularizer(model, data) if isinstance(self.method, Penalised) else None

    def fields(self) -> dict[str, Any]:
        """Every field by its flat name, those of methods that are not this one as None."""
        found = dict.fromkeys(FIELDS)
        found |= {"network": self.network, "width": self.width, "start": self.start}
        match self.method:
            case Penalised() as by:
                found |= asdict(by)
            case Cut() as by:
                found |= {"baseline": by.by, "unit": by.unit, "share": by.share}
            case _:
                found |= {"baseline": "dense"}
        return found | asdict(self.settings) | {"finetune": self.finetune}

    @classmethod
    def from_fields(cls, given: Mapping[str, Any]) -> Recipe:
        """The recipe with these flat fields; what is left out or None takes its default.

        Raises `ValueError` for a name that is no field, for a field of another method, and for an impossible
        value.
        """
        for name in given:
            choose("field", name, FIELDS)
        values = {name: plain(value) for name, value in given.items() if value is not None}
        if isinstance(values.get("layers"), list | str):
            layers = values["layers"]
            values["layers"] = (layers,) if isinstance(layers, str) else tuple(layers)
        own = {name: values.pop(name) for name in _METHOD_FIELDS if name in values}
        settings = {name: values.pop(name) for name in _SETTINGS if name in values}
        _check_types({**own, **settings, **values})
        return cls(**values, method=_method(own), settings=Settings(**settings))


def _method(own: dict[str, Any]) -> Method:
    """The case that the flat fields of a method describe."""
    if ("penalty" in own) == ("baseline" in own):
        raise ValueError(
            f"penalty {own.get('penalty')!r} and baseline {own.get('baseline')!r}: give one of them "
            f"(penalties: {', '.join(PENALTIES)}; baselines: {', '.join(BASELINES)})"
        )
    baseline = choose("baseline", own.pop("baseline"), BASELINES) if "baseline" in own else None
    case, kind = (Penalised, "a penalty") if baseline is None else (Cut, f"the baseline {baseline!r}")
    known = _PENALISED if baseline is None else () if baseline == "dense" else ("unit", "share")
    for name in own:
        if name not in known:
            raise ValueError(f"{name} says nothing to {kind}: leave it out")
    if baseline == "dense":
        return None
    return case(**own) if baseline is None else case(baseline, **own)


_PENALISED = tuple(part.name for part in fields(Penalised))
_METHOD_FIELDS = (*_PENALISED, "baseline", "unit", "share")
_SETTINGS = tuple(part.name for part in fields(Settings))
FIELDS = ("network", "width", "start", *_METHOD_FIELDS, *_SETTINGS, "finetune")
"""The flat names of a recipe, in the order in which a table has them."""
_TYPES: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("network", "start", "penalty", "grouping", "baseline", "unit", "optimizer"), str),
    **dict.fromkeys(("width", "strength", "fraction", "l1_mix", "warmup", "share"), Real),
    **dict.fromkeys(("lr", "momentum", "weight_decay", "tolerance"), Real),
    **dict.fromkeys(("epochs", "seed", "batch_size", "finetune"), int),
    **dict.fromkeys(("proximal", "augment", "relative", "bfloat16"), bool),
    "layers": tuple,
}


def _check_types(given: Mapping[str, Any]) -> None:
    for name, value in given.items():
        wanted = _TYPES[name]
        if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
            kind = {str: "a text", Real: "a number", int: "a whole number", bool: "true or false"}
            raise ValueError(f"{name} {value!r} must be {kind.get(wanted, 'a list of layer names')}")
