"""One run of a study: from a recipe and images to a record of plain values that can be written down."""

from __future__ import annotations

import hashlib
import platform
import subprocess
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hgsr_lite.data import Data, find_device, load_data
from hgsr_lite.study.baselines import held_zeros, zero_lowest_
from hgsr_lite.study.distractors import readings
from hgsr_lite.study.measurement import by_layer, measure
from hgsr_lite.training import FINISHED, Cut, DivergedError, Recipe, accuracy, fit, one_thread

PACKAGES = ("torch", "torchvision", "numpy", "numba", "hgsr-lite")
"""What must be the same in a worker as in its driver; so must Python's minor version.

No part of a run's key: a table may hold runs of other versions, and `study status` says how many it does.
"""


@dataclass(frozen=True)
class Images:
    """Which images a study trains on: the arguments of `load_data`, and distractors drawn by the run's seed.

    >>> Images("digits", limit=100).load().num_classes
    10
    """

    name: str = "digits"
    validation: float = 0.1
    seed: int = 0
    limit: int | None = None
    image_size: int | None = None
    distractors: int = 0
    distractor_kind: str = "noise"

    def load(self, device: str = "cpu") -> Data:
        """Read the images, without distractors; nothing is downloaded."""
        options = {name: getattr(self, name) for name in ("validation", "seed", "limit", "image_size")}
        return load_data(self.name, device=device, download=False, **options)

    def of_run(self, data: Data, seed: int) -> Data:
        """The images as the run with this seed sees them."""
        if not self.distractors:
            return data
        return data.with_distractors(self.distractors, self.distractor_kind, seed)


def fingerprint(data: Data) -> str:
    """A hash of every pixel and label of all three parts: equal if and only if the images are."""
    digest = hashlib.sha256()
    for part in data.parts.values():
        for tensor in (part.images, part.labels):
            digest.update(str(tuple(tensor.shape)).encode())
            digest.update(tensor.cpu().contiguous().numpy().data)
    return digest.hexdigest()[:16]


def versions() -> dict[str, str]:
    """The versions of Python and of `PACKAGES` here."""
    found = {name: version(name) for name in PACKAGES}
    return {"python": ".".join(platform.python_version_tuple()[:2]), **found}


def environment(device: torch.device) -> dict[str, str]:
    """Where a run was made: versions, processor, device, commit of the package's code."""
    is_cuda = device.type == "cuda"
    return {
        **versions(),
        "processor": _processor(),
        "device": torch.cuda.get_device_name(device) if is_cuda else "cpu, one thread",
        "commit": _commit(),
    }


def conditions(environment: Mapping[str, str]) -> dict[str, str]:
    """What of a run's environment may move its last digits, in words: versions, and the processor or GPU.

    >>> conditions({"torch": "2.11.0", "processor": "a processor", "device": "a GPU", "commit": "0123"})
    {'torch': 'torch 2.11.0', 'machine': 'a GPU'}
    """
    found = {name: f"{name} {environment[name]}" for name in ("python", *PACKAGES) if name in environment}
    on_cpu = environment.get("device", "").startswith("cpu")
    machine = environment.get("processor" if on_cpu else "device")
    return found | ({"machine": machine} if machine else {})


def conditions_here(device: str) -> dict[str, str]:
    """The conditions of this process; without the machine where only the workers have such a device."""
    try:
        return conditions(environment(find_device(device)))
    except ValueError:
        return conditions(versions())


@lru_cache(maxsize=1)
def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


@lru_cache(maxsize=1)
def _commit() -> str:
    return commit_of(Path(__file__).parents[1])


def commit_of(package: Path) -> str:
    """The commit that a package lies at, with a plus if files in it were changed since; or nothing."""
    ask = partial(subprocess.run, cwd=package, capture_output=True, text=True, check=True)
    try:
        commit = ask(["git", "rev-parse", "--short=10", "HEAD"]).stdout.strip()
        return commit + "+" * bool(ask(["git", "status", "--porcelain", "--", "."]).stdout)
    except (OSError, subprocess.CalledProcessError):
        return ""


class WrongVersionsError(RuntimeError):
    """A worker has other packages than the driver: its figures would not be comparable."""


@dataclass(frozen=True)
class Job:
    """A run to be made anywhere: what to do, on which images, and how to know them for the right ones."""

    recipe: Recipe
    images: Images
    fingerprint: str
    versions: tuple[tuple[str, str], ...]
    device: str = "cpu"

    def __call__(self) -> dict[str, Any]:
        """Make the run in this process and return its record; raise if this process may not make it."""
        here = versions()
        differing = [f"{name} {here[name]} (wanted {wanted})" for name, wanted in self.versions
                     if here[name] != wanted]  # fmt: skip
        if differing:
            raise WrongVersionsError(f"this worker has other versions: {', '.join(differing)}")
        data, found = _load(self.images, self.device)
        if found != self.fingerprint:
            raise ValueError(
                f"the images {self.images.name!r} here are not the driver's: fingerprint {found}, wanted "
                f"{self.fingerprint}"
            )
        return make_run(self.recipe, self.images.of_run(data, self.recipe.seed))


@lru_cache(maxsize=1)
def _load(images: Images, device: str) -> tuple[Data, str]:
    """The images on the device, and their fingerprint, read once in a process.

    They are read on the CPU: another device rounds their mean and standard deviation otherwise.
    """
    data = images.load()
    return data.to(device), fingerprint(data)


def make_run(recipe: Recipe, data: Data) -> dict[str, Any]:
    """Train by a recipe, zero, remove, fine-tune, and measure after each: one run's whole record.

    The parts of the record: `metrics` (see `measure`; `calibrated strength`; the accuracies after
    fine-tuning), `layers`, the counts of each layer, `epochs`, a record each, `environment`, `seconds`, and
    `ended`: `"finished"`, or why the run diverged, with the metrics that could still be had.

    >>> from hgsr_lite.training import Settings
    >>> found = make_run(Recipe(settings=Settings(epochs=1)), load_data("digits", device="cpu", limit=100))
    >>> found["ended"], found["metrics"]["parameters"], len(found["epochs"])
    ('finished', 56554, 1)
    """
    started = time.perf_counter()
    where = environment(data.device)  # first: in a process that lives long the files may be others at the end
    record: dict[str, Any] = {"ended": FINISHED, "metrics": {}, "layers": {}, "epochs": []}
    with one_thread(), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the history's notes say the same
        try:
            _make(recipe, data, record)
        except DivergedError as error:
            record["ended"] = f"diverged: {error.reason}"
            record["epochs"] = error.history.records
    record["seconds"] = round(time.perf_counter() - started, 2)
    return {**record, "environment": where}


def network_of(recipe: Recipe, data: Data) -> nn.Module:
    """The network that a run of this recipe ends with, made anew: its dead channels removed, and fine-tuned.

    A run file holds no weights; on the same processor the same recipe makes the same network again.
    Raises `DivergedError` where the run diverges.

    >>> from hgsr_lite.training import Settings
    >>> data = load_data("digits", device="cpu", limit=100)
    >>> network = network_of(Recipe(settings=Settings(epochs=1)), data)
    >>> sum(weight.numel() for weight in network.parameters())
    56554
    """
    with one_thread(), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return _make(recipe, data, {})


def _make(recipe: Recipe, data: Data, record: dict[str, Any]) -> nn.Module:
    """Fill the record, each part as soon as it is known; return the network that is left."""
    model, regularizer = recipe.build(data)
    metrics = record.setdefault("metrics", {})
    metrics["calibrated strength"] = regularizer.strength if regularizer is not None else 0.0
    history = fit(model, data, regularizer, progress=False, **asdict(recipe.settings))
    if history.interrupted:
        raise KeyboardInterrupt
    record["epochs"], record["notes"] = history.records, history.notes
    settings = recipe.settings
    found = measure(model, data, settings.tolerance, settings.relative, zero=_cut(recipe), test=True)
    metrics |= found.metrics | readings(model, data)
    record["layers"] = by_layer(found.report).to_dict("index")
    if recipe.finetune:
        options = asdict(replace(settings, epochs=recipe.finetune, proximal=False))
        with held_zeros(found.small):
            if fit(found.small, data, progress=False, **options).interrupted:
                raise KeyboardInterrupt
        metrics["validation accuracy after fine-tuning"] = accuracy(found.small, data.validation)
        metrics["test accuracy after fine-tuning"] = accuracy(found.small, data.test)
    return found.small


def _cut(recipe: Recipe) -> Callable[[nn.Module], object] | None:
    match recipe.method:
        case Cut(by, unit, share):
            return partial(zero_lowest_, share=share, unit=unit, by=by, seed=recipe.seed)
    return None
