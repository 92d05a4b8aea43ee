"""The tables behind "the same accuracy" and "auto finds the fastest way" in benchmarks/README.md.

    python studies/run_loops.py [--images cifar10]

Trains the narrow AlexNet on 10,000 images with crop and flip, five seeds in each of six ways, and writes
studies/loops.csv: a row a network. Then times `fit_many`'s loop against its choice, in turn, on two
architectures, and writes studies/ways.csv. `--images` is a name or folder that `load_data` knows.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset
from torchvision.transforms import v2
from tqdm import tqdm

import hgsr_lite as hg
from hgsr_lite.evaluate import test_result
from hgsr_lite.history import TestResult
from hgsr_lite.run import Settings

SEEDS = (0, 1, 2, 3, 4)
IMAGES = 10_000
STRENGTH = 1e-5
TRAINING = {"epochs": 8, "lr": 0.02, "batch_size": 64, "augment": True}
TIMED = {"model": ("alexnet", "resnet18"), "networks": 8, "rounds": 3}

Row = dict[str, object]


class _Transformed(TensorDataset):
    transform = v2.Compose([v2.RandomCrop(32, padding=4), v2.RandomHorizontalFlip()])

    def __getitem__(self, index: int) -> tuple:
        image, label = super().__getitem__(index)
        return self.transform(image), label


def dataloader_loop(data: hg.Data, seed: int) -> TestResult:
    """Training as a tutorial would write it: transforms image by image, the penalty in the loss."""
    model, regularizer = _network(data, seed)
    settings = Settings(seed=seed, **TRAINING)
    optimizer = settings.make_optimizer(model.parameters())
    torch.manual_seed(seed)
    pictures = _Transformed(data.train.images.cpu(), data.train.labels.cpu())
    loader = DataLoader(pictures, settings.batch_size, shuffle=True, num_workers=2, persistent_workers=True)
    for epoch in range(1, settings.epochs + 1):
        optimizer.param_groups[0]["lr"] = settings.lr_in(epoch)
        model.train()
        for images, labels in loader:
            images, labels = images.to(data.device), labels.to(data.device)
            optimizer.zero_grad()
            (cross_entropy(model(images), labels) + regularizer()).backward()
            optimizer.step()
    return test_result(model, data, settings.tolerance, settings.relative)


def fit_loop(data: hg.Data, seed: int, bfloat16: bool) -> TestResult:
    """`fit`, which makes a batch at once and adds the penalty's gradient in closed form."""
    model, regularizer = _network(data, seed)
    return hg.fit(model, data, regularizer, seed=seed, bfloat16=bfloat16, progress=False, **TRAINING).test


def _network(data: hg.Data, seed: int) -> tuple[torch.nn.Module, hg.Regularizer]:
    sizes = {"in_channels": data.in_channels, "num_classes": data.num_classes}
    model = hg.build_model("alexnet", **sizes, seed=seed).to(data.device)
    return model, hg.Regularizer(model, "hsq_gl12", strength=STRENGTH)


def _one_by_one(train: Callable[[hg.Data, int], TestResult], data: hg.Data) -> list[TestResult]:
    return [train(data, seed) for seed in tqdm(SEEDS, leave=False)]


def _many(way: str, data: hg.Data) -> list[TestResult]:
    configs = [hg.FitConfig("hsq_gl12", strength=STRENGTH, seed=seed) for seed in SEEDS]
    return [one.history.test for one in hg.fit_many(configs, data, way=way, **TRAINING)]


def accuracy_rows(data: hg.Data) -> Iterable[Row]:
    """One row a way and seed: what the network reaches on the test images, read once."""
    ways: dict[str, Callable[[hg.Data], list[TestResult]]] = {
        "DataLoader loop": partial(_one_by_one, dataloader_loop),
        "fit": partial(_one_by_one, partial(fit_loop, bfloat16=False)),
        "fit, bfloat16": partial(_one_by_one, partial(fit_loop, bfloat16=True)),
        "fit_many, lockstep": partial(_many, "lockstep"),
    }
    if data.device.type == "cpu":
        ways["fit_many, processes"] = partial(_many, "processes")
    for name, train in ways.items():
        started = time.perf_counter()
        results = train(data)
        seconds = (time.perf_counter() - started) / len(SEEDS)
        for seed, result in zip(SEEDS, results, strict=True):
            yield {
                "images": data.name, "device": data.device.type, "way": name, "seed": seed,
                "test accuracy": result.accuracy, "below tolerance": result.below_tolerance,
                "seconds a network": seconds,
            }  # fmt: skip


def timing_rows() -> Iterable[Row]:
    """One row a run of `fit_many`: its loop and its own choice, in turn."""
    data = hg.load_data("digits")
    configs = [hg.FitConfig("hsq_gl12", strength=STRENGTH, seed=seed) for seed in range(TIMED["networks"])]
    for model in TIMED["model"]:
        for turn in range(TIMED["rounds"]):
            for way in ("loop", "auto"):
                started = time.perf_counter()
                fitted = hg.fit_many(configs, data, model=model, way=way, epochs=10, lr=0.02)
                yield {
                    "device": data.device.type, "model": model, "networks": len(configs), "turn": turn,
                    "asked for": way, "taken": fitted[0].way, "seconds": time.perf_counter() - started,
                }  # fmt: skip


def main() -> None:
    """Make both tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", default="cifar10", help="an image set, or a folder of images")
    data = hg.load_data(parser.parse_args().images, limit=IMAGES)
    for name, rows in (("loops.csv", accuracy_rows(data)), ("ways.csv", timing_rows())):
        table = pd.DataFrame(rows)
        table.to_csv(Path(__file__).with_name(name), index=False, float_format="%.6g")
        print(table.to_string(index=False))


if __name__ == "__main__":
    main()
