"""Many networks at once: one architecture under many penalties, strengths and seeds."""

from __future__ import annotations

import logging
import statistics
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from hgsr_lite.arguments import available_cores, check_count, choose
from hgsr_lite.data import Data
from hgsr_lite.models import build_model
from hgsr_lite.regularizer import Regularizer
from hgsr_lite.training.history import History
from hgsr_lite.training.lockstep import Lockstep
from hgsr_lite.training.loop import fit
from hgsr_lite.training.measurement import test_result
from hgsr_lite.training.processes import in_processes
from hgsr_lite.training.settings import Settings
from hgsr_lite.training.state import Run
from hgsr_lite.training.threads import one_thread

WAYS = ("auto", "loop", "processes", "lockstep")
_OPTIONS = [field.name for field in fields(Settings) if field.name != "seed"]  # the seed is in FitConfig
_MOST_IN_STEP = 64  # networks: more would need more memory and no longer save launches
_TRIED_IN_STEP = 4  # networks in a trial on the CPU, where more do not make each one cheaper
_TRIAL_SHARE = 0.02  # of all steps: where finding the fastest way takes more, the loop is taken untried
_REPEATS = 2  # timed steps of each way, after one to warm up
_START = 6.0  # seconds until processes that were just started begin to train
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class FitConfig:
    """What distinguishes one network of `fit_many` from the next: a regularizer and a seed.

    The fields are `Regularizer`'s arguments; `penalty=None` trains without one. The seed fixes the first
    weights and the order of the images.

    >>> FitConfig("gl", strength=1e-2, seed=3)
    FitConfig(penalty='gl', grouping='feature', strength=0.01, l1_mix=0.0, warmup=0.0, seed=3)
    """

    penalty: str | None = "hsq_gl12"
    grouping: str = "feature"
    strength: float = 1e-3
    l1_mix: float = 0.0
    warmup: float = 0.0
    seed: int = 0

    def regularizer(self, model: nn.Module) -> Regularizer | None:
        """This configuration's regularizer on a model; None where it names no penalty."""
        if self.penalty is None:
            return None
        options = {name: getattr(self, name) for name in ("grouping", "strength", "l1_mix", "warmup")}
        return Regularizer(model, self.penalty, **options)


@dataclass(frozen=True, eq=False)
class Fitted:
    """One network that `fit_many` trained: its configuration, the network in eval mode, its history.

    `diverged` tells why training stopped early (a loss that is not finite); it is empty where it did not.
    `way` is how it was trained: one of `WAYS`.
    """

    config: FitConfig
    model: nn.Module
    history: History
    way: str
    diverged: str = ""


def fit_many(
    configs: Iterable[FitConfig],
    data: Data,
    *,
    model: str = "alexnet",
    width: float = 1.0,
    way: str = "auto",
    processes: int | None = None,
    progress: bool = True,
    **options: Any,
) -> list[Fitted]:
    """Train one architecture under many configurations; return them in the order given.

    Each network is trained as `fit` would train it alone, with the same `options` (`epochs`, `lr`, ...; the
    seed is the configuration's): the same images in the same order, so that the first steps agree within
    float rounding and the results within what another seed would change.

    `way`: `"loop"` trains one after the other; `"processes"` trains several at a time, each in a process of
    its own with one thread (CPU only; `processes` says how many, None one a core); `"lockstep"` stacks the
    weights and trains all of them in one pass. `"auto"` times some steps of each and takes the fastest;
    where training is too short for that to pay, the loop.

    A network that diverges keeps its history and does not stop the others. Ctrl-C returns those that are
    finished. Raises `ValueError` for settings that `fit`, `Regularizer` or `build_model` refuse.

    >>> from hgsr_lite.data import load_data
    >>> digits = load_data("digits", device="cpu", limit=200)
    >>> configs = [FitConfig("gl", strength=strength) for strength in (1e-4, 1e-2)]
    >>> [fitted.way for fitted in fit_many(configs, digits, model="digits_cnn", epochs=1, progress=False)]
    ['loop', 'loop']
    """
    configs = _listed(configs)
    choose("way", way, WAYS)
    for name in options:
        choose("option of fit_many", name, _OPTIONS)
    processes = available_cores() if processes is None else processes
    check_count("processes", processes)
    job = _Job(model, width, options)
    for config in configs:  # whatever is refused is refused before anything is trained
        job.start(config, data)
    if way == "auto":
        try:
            way = _fastest_way(job, configs, data, min(processes, len(configs)))
        except FloatingPointError:  # the loop will say which network diverges
            way = "loop"
        _LOG.info("fit_many: %s", way)
    train = {"loop": _loop, "processes": partial(_processes, processes=processes), "lockstep": _lockstep}[way]
    fitted: dict[int, Fitted] = {}
    with _quiet(), tqdm(total=len(configs), desc=way, unit="net", disable=not progress, leave=False) as bar:
        try:
            for number, one in train(job, configs, data):
                fitted[number] = one
                bar.update()
        except KeyboardInterrupt:
            _LOG.warning("fit_many: interrupted with %d of %d networks trained", len(fitted), len(configs))
    return [fitted[number] for number in sorted(fitted)]


def _listed(configs: Iterable[FitConfig]) -> list[FitConfig]:
    listed = list(configs) if isinstance(configs, Iterable) else [configs]
    wrong = {type(config).__name__ for config in listed if not isinstance(config, FitConfig)}
    if wrong or isinstance(configs, FitConfig):
        given = f"something that holds {', '.join(sorted(wrong))}" if wrong else "a single FitConfig"
        raise TypeError(f"configs must be a list of FitConfig, not {given}: give [FitConfig('gl', seed=0)]")
    return listed


@dataclass(frozen=True, eq=False)
class _Job:
    """What all networks of one call share."""

    model: str
    width: float
    options: dict[str, Any]

    def start(self, config: FitConfig, data: Data) -> Run:
        """A run of this configuration, ready for its first step."""
        sizes = {"in_channels": data.in_channels, "num_classes": data.num_classes, "width": self.width}
        network = build_model(self.model, **sizes, seed=config.seed).to(data.device)
        regularizer = config.regularizer(network)
        settings = Settings(seed=config.seed, **self.options)
        return Run(network, data, regularizer, settings)


def _fit_one(numbered: tuple[int, FitConfig], data: Data, job: _Job, way: str) -> Fitted:
    _, config = numbered
    run, diverged = job.start(config, data), ""
    with _quiet():
        try:
            history = fit(run.model, data, run.regularizer, seed=config.seed, progress=False, **job.options)
        except FloatingPointError as error:
            history, diverged = error.history, str(error)
    return Fitted(config, run.model.eval(), history, way, diverged)


def _loop(job: _Job, configs: list[FitConfig], data: Data) -> Iterator[tuple[int, Fitted]]:
    for numbered in enumerate(configs):
        fitted = _fit_one(numbered, data, job, "loop")
        if fitted.history.interrupted:
            raise KeyboardInterrupt
        yield numbered[0], fitted


def _processes(
    job: _Job, configs: list[FitConfig], data: Data, processes: int
) -> Iterator[tuple[int, Fitted]]:
    if data.device.type != "cpu":
        raise ValueError(f"way='processes' works on the CPU, not on {data.device}: take 'lockstep'")
    alone = partial(_fit_one, job=job, way="processes")
    for (number, _), fitted in in_processes(alone, enumerate(configs), data, processes):
        yield number, fitted


def _lockstep(job: _Job, configs: list[FitConfig], data: Data) -> Iterator[tuple[int, Fitted]]:
    for first in range(0, len(configs), _MOST_IN_STEP):
        numbers = range(len(configs))[first : first + _MOST_IN_STEP]
        runs = [job.start(configs[number], data) for number in numbers]
        settings = runs[0].settings
        for run in runs:
            run.history.take_snapshot(run.model, 0, settings.epochs)
        cuda = [data.device] if data.device.type == "cuda" else []
        with Lockstep(runs) as together, tqdm(disable=True) as bar, torch.random.fork_rng(cuda):
            torch.manual_seed(settings.seed)
            for _ in range(settings.epochs):
                together.train_epoch(bar)
        for place, (number, run) in enumerate(zip(numbers, runs, strict=True)):
            diverged = together.failed.get(place, "")
            if not diverged:
                run.history.test = test_result(run.model, data, settings.tolerance, settings.relative)
            yield number, Fitted(configs[number], run.model.eval(), run.history, "lockstep", diverged)


def _fastest_way(job: _Job, configs: list[FitConfig], data: Data, processes: int) -> str:
    """Time some steps of each way and take the one that should end first."""
    if len(configs) < 2:
        return "loop"
    alone = job.start(configs[0], data)
    in_step = configs[: _MOST_IN_STEP if data.device.type == "cuda" else _TRIED_IN_STEP]
    steps = alone.settings.epochs * alone.steps * len(configs)
    trial = (1 + _REPEATS) * (2 + len(in_step))
    if trial > _TRIAL_SHARE * steps:
        return "loop"
    count = min(alone.settings.batch_size, len(data.train))
    images, labels = data.train.images[:count], data.train.labels[:count]
    step_alone = _seconds(lambda: alone.step(images, labels), data)
    estimates = {"loop": steps * step_alone}
    with Lockstep([job.start(config, data) for config in in_step]) as together:
        for run in together.runs:
            run.start_epoch()
        stacked = [torch.stack([part] * len(in_step)) for part in (images, labels)]
        estimates["lockstep"] = steps / len(in_step) * _seconds(lambda: together.step(*stacked), data)
    if processes > 1 and data.device.type == "cpu":
        with one_thread():
            step_alone = _seconds(lambda: alone.step(images, labels), data)
        estimates["processes"] = _START + steps / processes * step_alone
    _LOG.info(
        "fit_many: estimated seconds %s", {way: round(estimate, 1) for way, estimate in estimates.items()}
    )
    return min(estimates, key=estimates.__getitem__)


def _seconds(step: Callable[[], object], data: Data) -> float:
    """The median time of a step, after one to warm up."""
    seconds = []
    for _ in range(1 + _REPEATS):
        started = time.perf_counter()
        step()
        if data.device.type == "cuda":
            torch.cuda.synchronize(data.device)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:])


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings of dying networks: the histories' notes say the same."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        yield
