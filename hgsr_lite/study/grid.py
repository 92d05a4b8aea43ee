"""A study as a file: images, a budget, grids of recipes; read, checked and spread out before anything runs.

    title = "what it asks"

    [images]                    # the fields of `Images`
    name = "digits"
    validation = 0.25

    [shared]                    # fields of `Recipe` that all runs share; a list is an axis
    network = "digits_cnn"
    epochs = 12
    seed = [0, 1, 2]

    [[grid]]                    # as many as wanted: every combination of the lists, the first slowest
    fraction = [0.3, 1, 3]
    penalty = ["gl", "hsq_gl12"]
    grouping = ["feature", "neuron"]

    [[grid]]
    baseline = "dense"

Runs are ordered by seed, then as the grids stand: each seed is complete before the next begins.
"""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from hgsr_lite.arguments import check_count, choose
from hgsr_lite.data import DISTRACTORS
from hgsr_lite.study.job import Images
from hgsr_lite.training import FIELDS, Recipe

_TABLES = ("title", "images", "shared", "grid")
_KINDS = {str: "a text", dict: "a table, [{}]", list: "tables, [[grid]]"}


@dataclass(frozen=True)
class Grid:
    """What a study's file says: its title, its images, its recipes in the order in which they run, and what
    all of its grids share.
    """

    title: str
    images: Images
    recipes: tuple[Recipe, ...]
    shared: Mapping[str, Any] = field(default_factory=dict)


def read_grid(path: Path) -> Grid:
    """Read and check a study's file; whatever is wrong is one `ValueError` that names the place.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp(), "small.toml")
    >>> _ = file.write_text('[shared]\\nseed = [0, 1]\\n[[grid]]\\npenalty = ["gl", "es"]\\nfraction = 0.1')
    >>> [recipe.name for recipe in read_grid(file).recipes][:2]
    ['gl feature fraction 0.1 seed 0', 'es feature fraction 0.1 seed 0']
    """
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: no TOML: {error}") from error
    with placed(str(path)):
        for name in given:
            choose("table", name, _TABLES)
        for name, kind in (("title", str), ("images", dict), ("shared", dict), ("grid", list)):
            if not isinstance(given.get(name, kind()), kind):
                raise ValueError(f"{name} must be {_KINDS[kind].format(name)}")
        if not given.get("grid"):
            raise ValueError("no [[grid]]: add one, say [[grid]] with penalty and fraction")
    with placed(f"{path}, [images]"):
        images = _read_images(given.get("images", {}))
    recipes: dict[Recipe, None] = {}
    for number, grid in enumerate(given["grid"], 1):
        with placed(f"{path}, [[grid]] number {number}"):
            recipes |= dict.fromkeys(_combinations(given.get("shared", {}), grid))
    return Grid(given.get("title", path.stem), images, tuple(_by_seed(recipes)), given.get("shared", {}))


def recipes_of(shared: Mapping[str, Any], *grids: Mapping[str, Any]) -> list[Recipe]:
    """The recipes that a study's file with these tables would give.

    >>> [recipe.name for recipe in recipes_of({"seed": [0, 1]}, {"baseline": "dense"})]
    ['dense seed 0', 'dense seed 1']
    """
    return _by_seed(dict.fromkeys(recipe for grid in grids for recipe in _combinations(shared, grid)))


def _by_seed(recipes: Iterable[Recipe]) -> list[Recipe]:
    return sorted(recipes, key=lambda recipe: recipe.seed)


class placed:  # noqa: N801 - reads as a word in `with`
    """Put the place before what a `ValueError` or `TypeError` says, as a `ValueError`."""

    def __init__(self, place: str) -> None:
        self.place = place

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, ValueError | TypeError):
            raise ValueError(f"{self.place}: {error}") from error


def _combinations(shared: Mapping[str, Any], grid: Any) -> Iterator[Recipe]:
    """Every combination of a grid's lists; what the grid says goes before what is shared."""
    if not isinstance(grid, Mapping):
        raise ValueError(f"a grid is a table of fields, not {grid!r}")
    # Shared fields that say nothing to a baseline are meant for the penalties beside it.
    for_penalties = ("warmup", "l1_mix", "layers", "grouping") if "baseline" in grid else ()
    own = [name for name in shared if name not in grid and name not in for_penalties]
    given = {**{name: shared[name] for name in own}, **grid}
    for name in given:
        choose("field", name, FIELDS)
    # The grid's own axes change slowest, in the order in which they stand.
    axes = {name: _axis(name, given[name]) for name in (*grid, *own)}
    for values in itertools.product(*axes.values()):
        yield Recipe.from_fields(dict(zip(axes, values, strict=True)))


def _axis(name: str, value: Any) -> list[Any]:
    if isinstance(value, list) and not value:
        raise ValueError(f"{name} is an empty list: give at least one value")
    is_axis = isinstance(value, list) and (name != "layers" or any(isinstance(part, list) for part in value))
    return value if is_axis else [value]


def _read_images(given: Mapping[str, Any]) -> Images:
    types = {part.name: str(part.type) for part in fields(Images)}
    for name, value in given.items():
        kind = types[choose("field", name, types)]
        wanted = {"str": str, "float": float | int}.get(kind, int)
        if not isinstance(value, wanted) or isinstance(value, bool):
            raise ValueError(f"{name} {value!r} must be {kind.removesuffix(' | None')}")
    images = Images(**given)
    choose("distractor_kind", images.distractor_kind, DISTRACTORS)
    check_count("distractors", images.distractors, 0)
    return images
