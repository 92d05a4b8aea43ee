"""How long runs will take: some steps of each network and penalty are measured, the rest is counted."""

from __future__ import annotations

import time
from collections.abc import Iterable

from tqdm import tqdm

from hgsr_lite.data import Data
from hgsr_lite.removal import wait_for
from hgsr_lite.study.job import Images
from hgsr_lite.training import Penalised, Recipe, TrainingState, accuracy, one_thread

_UNTIMED_STEPS = 5  # a GPU records the pass in the fourth, and plays it back from then on
_PROBED_STEPS = 6


def predicted_seconds(recipes: Iterable[Recipe], images: Images, data: Data) -> float:
    """Seconds of these runs one after the other, on the device where `data`, the study's images, lies.

    >>> from hgsr_lite.training import Settings
    >>> images = Images("digits", limit=100)
    >>> predicted_seconds([Recipe(settings=Settings(epochs=1))], images, images.load()) > 0
    True
    """
    rates: dict[tuple, tuple[float, float]] = {}
    total = 0.0
    for recipe in tqdm(recipes, "probe", leave=False, disable=None):
        penalty = recipe.method.penalty if isinstance(recipe.method, Penalised) else None
        settings = recipe.settings
        like = (recipe.network, recipe.width, penalty, settings.batch_size, settings.proximal)
        if like not in rates:
            rates[like] = _probe(recipe, images.of_run(data, recipe.seed))
        step, looks = rates[like]
        epochs = settings.epochs + recipe.finetune
        steps = epochs * -(-len(data.train) // settings.batch_size)
        total += steps * step + epochs * looks
    return total


def _probe(recipe: Recipe, data: Data) -> tuple[float, float]:
    """Seconds of a training step, and of what follows each epoch."""
    with one_thread():
        model, regularizer = recipe.build(data)
        state = TrainingState(model, data, regularizer, recipe.settings)
        state.start_epoch()
        if regularizer is not None:
            regularizer.set_progress(1.0)  # at full strength, as most steps of a warmed-up run are
        batches = state.batches()
        first = next(batches)
        for _ in range(_UNTIMED_STEPS):
            state.step(*first)
        wait_for(data.device)
        started = time.perf_counter()
        for images, labels in (next(batches, None) or next(state.batches()) for _ in range(_PROBED_STEPS)):
            state.step(images, labels)
        wait_for(data.device)
        step = (time.perf_counter() - started) / _PROBED_STEPS
        started = time.perf_counter()
        accuracy(state.model, data.validation)
        return step, time.perf_counter() - started
