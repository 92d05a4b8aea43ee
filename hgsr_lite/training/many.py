"""Many networks at once: one architecture under many penalties, strengths and seeds."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace

from torch import nn
from tqdm import tqdm

from hgsr_lite.arguments import choose
from hgsr_lite.data import Data, check_data
from hgsr_lite.training.history import History
from hgsr_lite.training.lockstep import Lockstep
from hgsr_lite.training.loop import fit, training_conditions
from hgsr_lite.training.measurement import test_result
from hgsr_lite.training.recipe import Cut, Recipe
from hgsr_lite.training.state import FINISHED, DivergedError, TrainingState

WAYS = ("auto", "loop", "lockstep")
_MOST_IN_STEP = 64  # networks: more would need more memory and no longer save launches
_SMALL_IMAGES = 16  # pixels: up to here a step is a queue of tiny operators, and stacking them pays on a CPU
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Trained:
    """One network and how it came about: its recipe, the network in eval mode, its history, how it ended.

    `ended` is `"finished"`, or why training stopped early: the reason, where a loss is not finite.
    """

    recipe: Recipe
    model: nn.Module
    history: History
    ended: str = FINISHED

    @property
    def finished(self) -> bool:
        """Whether training went on to its last epoch."""
        return self.ended == FINISHED


def fit_many(
    recipes: Iterable[Recipe], data: Data, *, way: str = "auto", progress: bool = True
) -> list[Trained]:
    """Train networks by their recipes; return them in the order given.

    Each network is trained as `fit` would train it alone: the same first weights, the same images in the same
    order. `way`: `"loop"` trains one after the other, to the same bits as `fit`; `"lockstep"` stacks the
    weights of networks that differ in seed, start and penalty alone and trains them in one pass, so that the
    first steps agree within float rounding and the results within what another seed would change. `"auto"`
    takes lockstep on a GPU and for images of at most 16 pixels, where it was measured to pay, else the loop.
    For many trainings on many cores or machines there is `hgsr_lite.study`.

    A network that diverges keeps its history and does not stop the others. Ctrl-C returns those that are
    finished. Raises `TypeError` for what is no recipe, and `ValueError` for a recipe that trains in two parts
    (a cut, or fine-tuning: see `hgsr_lite.study.make_run`) and for settings that `fit` or `Regularizer`
    refuse.

    >>> from hgsr_lite.data import load_data
    >>> from hgsr_lite.training import Penalised, Settings
    >>> digits = load_data("digits", device="cpu", limit=200)
    >>> recipes = [Recipe(method=Penalised("gl", fraction=f), settings=Settings(epochs=1)) for f in (0.1, 1)]
    >>> [trained.ended for trained in fit_many(recipes, digits, progress=False)]
    ['finished', 'finished']
    """
    recipes = _checked(recipes)
    check_data(data)
    choose("way", way, WAYS)
    if way == "auto":
        is_small = max(data.image_size) <= _SMALL_IMAGES
        way = "lockstep" if len(recipes) > 1 and (data.device.type == "cuda" or is_small) else "loop"
        _LOG.info("fit_many: %s", way)
    states = [_start(recipe, data) for recipe in recipes]  # whatever is refused is refused before training
    trained: dict[int, Trained] = {}
    train = _lockstep if way == "lockstep" else _loop
    with _quiet(), tqdm(total=len(recipes), desc=way, unit="net", disable=not progress, leave=False) as bar:
        try:
            for number, one in train(recipes, states):
                trained[number] = one
                bar.update()
        except KeyboardInterrupt:
            _LOG.warning("fit_many: interrupted with %d of %d networks trained", len(trained), len(recipes))
    return [trained[number] for number in sorted(trained)]


def _checked(recipes: Iterable[Recipe]) -> list[Recipe]:
    listed = list(recipes) if isinstance(recipes, Iterable) else [recipes]
    wrong = sorted({type(recipe).__name__ for recipe in listed if not isinstance(recipe, Recipe)})
    if wrong or isinstance(recipes, Recipe):
        given = f"something that holds {', '.join(wrong)}" if wrong else "a single Recipe"
        raise TypeError(f"recipes must be a list of Recipe, not {given}: give [Recipe(settings=Settings())]")
    for recipe in listed:
        if isinstance(recipe.method, Cut) or recipe.finetune:
            raise ValueError(
                f"{recipe.name} is trained in two parts, with a removal between them: make it with "
                "hgsr_lite.study.make_run, or as a study"
            )
    return listed


def _start(recipe: Recipe, data: Data) -> TrainingState:
    """A run by this recipe, ready for its first step."""
    model, regularizer = recipe.build(data)
    return TrainingState(model, data, regularizer, recipe.settings)


def _loop(recipes: list[Recipe], states: list[TrainingState]) -> Iterator[tuple[int, Trained]]:
    for number, (recipe, state) in enumerate(zip(recipes, states, strict=True)):
        ended = FINISHED
        try:
            options = asdict(recipe.settings)
            history = fit(state.model, state.data, state.regularizer, progress=False, **options)
        except DivergedError as error:
            history, ended = error.history, error.reason
        if history.interrupted:
            raise KeyboardInterrupt
        yield number, Trained(recipe, state.model.eval(), history, ended)


def _lockstep(recipes: list[Recipe], states: list[TrainingState]) -> Iterator[tuple[int, Trained]]:
    """Networks of one kind together, up to `_MOST_IN_STEP` at a time."""
    kinds: dict[tuple[Recipe, bool], list[int]] = {}
    for number, recipe in enumerate(recipes):
        alike = replace(recipe, start=None, method=None, settings=replace(recipe.settings, seed=0))
        kinds.setdefault((alike, recipe.settings.proximal), []).append(number)
    for numbers in kinds.values():
        for first in range(0, len(numbers), _MOST_IN_STEP):
            chosen = numbers[first : first + _MOST_IN_STEP]
            yield from zip(chosen, _in_step([(recipes[n], states[n]) for n in chosen]), strict=True)


def _in_step(both: list[tuple[Recipe, TrainingState]]) -> Iterator[Trained]:
    states = [state for _, state in both]
    data, settings = states[0].data, states[0].settings
    for state in states:
        state.history.take_snapshot(state.model, 0, settings.epochs)
    conditions = training_conditions(states[0].model, data, settings, networks=len(states))
    with conditions, Lockstep(states) as together:
        for _ in together.train():
            pass
    for place, (recipe, state) in enumerate(both):
        error = together.failed.get(place)
        if error is None:
            state.history.test = test_result(state.model, data, settings.tolerance, settings.relative)
        ended = FINISHED if error is None else error.reason
        yield Trained(recipe, state.model.eval(), state.history, ended)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings of dying networks: the histories' notes say the same."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        yield
