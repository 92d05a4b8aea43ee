"""What a study's engine costs and gains: the figures in README.md.

    python -m benchmarks.engine overhead [--runs 10000]
    python -m benchmarks.engine throughput [--images cifar10]

`overhead` sends runs of empty work, with a real run's record, through the engine and says what each costs,
what the driver's memory grows by, and what it takes to look at all of them and to collect them; it writes
results/cpu/overhead.json. `throughput` makes runs with the engine, one a core, in float32 and in bfloat16,
and in turn trains the same network as a tutorial would: a DataLoader with two workers that crop and flip
image by image, the penalty in the loss, float32; it writes results/cpu/throughput.json.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import torch

from benchmarks.loops import dataloader_loop
from hgsr_lite.study.engine import dask_executor, make_all
from hgsr_lite.study.grid import Grid
from hgsr_lite.study.job import Images, Job, environment, fingerprint, make_run, versions
from hgsr_lite.study.runs import RunFolder
from hgsr_lite.study.study import Study
from hgsr_lite.training import Penalised, Recipe, Settings

TRAINING = {"epochs": 4, "lr": 0.02, "batch_size": 64, "augment": True}
PRECISIONS = {"engine": False, "engine in bfloat16": True}
ROUNDS = 6
RESULTS = Path(__file__).parent / "results" / "cpu"
IMAGES = 3000


@dataclass(frozen=True)
class EmptyJob:
    """A job that hands back a real run's record, and does no work."""

    recipe: Recipe
    images: Images
    fingerprint: str
    record: dict[str, Any]

    def __call__(self) -> dict[str, Any]:
        """The record."""
        return self.record


def overhead(count: int) -> dict[str, object]:
    """Milliseconds a run, and the driver's memory and times when all are there."""
    busy = os.getloadavg()[0]
    images = Images(limit=150)
    real = Recipe(method=Penalised("gl", fraction=1.0), settings=Settings(epochs=12), finetune=4)
    record = make_run(real, images.load())
    recipes = tuple(replace(real, settings=replace(real.settings, seed=seed)) for seed in range(count))
    with tempfile.TemporaryDirectory() as place:
        study = Study(Path(place, "empty.toml"), Grid("", images, recipes), Path(place, "runs"))
        study.__dict__["fingerprint"] = "none"
        study.folder.check_writable()
        jobs = {key: EmptyJob(recipe, images, "none", record) for key, recipe in study.keys().items()}
        memory = psutil.Process().memory_info
        with dask_executor() as (executor, at_once):
            found: dict[str, object] = {"runs": count, "workers": at_once}
            before, started = memory().rss, time.perf_counter()
            make_all(jobs, study.folder, executor, at_once)
            found["milliseconds a run"] = round(1e3 * (time.perf_counter() - started) / count, 2)
            found["MiB more in the driver"] = round((memory().rss - before) / 2**20, 1)
        before = memory().rss
        for look in (study.missing, study.status, study.collect):
            started = time.perf_counter()
            look()
            found[f"seconds of {look.__name__}"] = round(time.perf_counter() - started, 2)
        peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # Linux counts in KiB
        found["MiB more at the peak of all three"] = round((peak - before) / 2**20, 1)
        sizes = {"run files": study.folder.path.glob("*.json"), "tables": study.path.parent.glob("*.csv")}
        for what, files in sizes.items():
            found[f"MiB of {what}"] = round(sum(file.stat().st_size for file in files) / 2**20, 1)
    load = {"load at the start": round(busy, 1), "load at the end": round(os.getloadavg()[0], 1)}
    return {**found, **load, **environment(torch.device("cpu"))}


def throughput(name: str) -> dict[str, object]:
    """Runs an hour of the engine, in both precisions, and of the plain loop, in turn, and their ratios."""
    images, busy = Images(name, limit=IMAGES), os.getloadavg()[0]
    data = images.load()
    seen, expected = fingerprint(data), tuple(versions().items())
    found: dict[str, list[float]] = defaultdict(list)
    with dask_executor() as (executor, at_once), tempfile.TemporaryDirectory() as place:
        folder = RunFolder(Path(place))
        folder.check_writable()
        for turn in range(-1, ROUNDS):  # the first turn warms both up
            now = {}
            for precision, bfloat16 in PRECISIONS.items():
                seeds = range((turn + 1) * 2 * at_once, (turn + 2) * 2 * at_once)
                recipes = [_recipe(seed, bfloat16) for seed in seeds]
                jobs = {f"{precision} {each.seed}": Job(each, images, seen, expected) for each in recipes}
                started = time.perf_counter()
                outcome = make_all(jobs, folder, executor, at_once, progress=False)
                now[precision] = 3600 * outcome.written / (time.perf_counter() - started)
            started = time.perf_counter()
            dataloader_loop(data, seed=turn + 1, training=TRAINING)
            loop = 3600 / (time.perf_counter() - started)
            rates = {f"{what}, runs an hour": rate for what, rate in (now | {"loop": loop}).items()}
            ratios = {what.replace("engine", "ratio"): rate / loop for what, rate in now.items()}
            for what, value in (rates | ratios).items():
                found[what].extend([round(value, 2)] * (turn >= 0))
    made = {"images": name, "limit": IMAGES, **TRAINING, "workers": at_once}
    load = {"load at the start": round(busy, 1), "load at the end": round(os.getloadavg()[0], 1)}
    return {**made, **found, **load, **environment(data.device)}


def _recipe(seed: int, bfloat16: bool) -> Recipe:
    settings = Settings(seed=seed, bfloat16=bfloat16, **TRAINING)
    return Recipe("alexnet", method=Penalised("hsq_gl12", strength=1e-5), settings=settings)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("overhead", "throughput"))
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--images", default="cifar10")
    arguments = parser.parse_args()
    result = overhead(arguments.runs) if arguments.what == "overhead" else throughput(arguments.images)
    text = json.dumps(result, indent=1)
    print(text)
    (RESULTS / f"{arguments.what}.json").write_text(text + "\n", encoding="utf-8")
