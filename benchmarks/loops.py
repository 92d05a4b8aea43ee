"""The table behind "the same accuracy" in README.md.

    python -m benchmarks.loops [--images cifar10]

trains the narrow AlexNet on 10,000 images with crop and flip, in each of five ways with five seeds, and
writes results/<device>/loops.csv, a row a network. `--images` is a name or a folder that `load_data` knows.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch.nn.functional import cross_entropy
from tqdm import tqdm

import hgsr_lite as hg
from benchmarks.measurements import Row, transformed_loader
from hgsr_lite.study import confidence_half_width
from hgsr_lite.training import Penalised, Recipe, Settings, TestResult, test_result

SEEDS = (0, 1, 2, 3, 4)
IMAGES = 10_000
STRENGTH = 1e-5
TRAINING = {"epochs": 8, "lr": 0.02, "batch_size": 64, "augment": True}


def dataloader_loop(data: hg.Data, seed: int, training: dict[str, Any] = TRAINING) -> TestResult:
    """Training as a tutorial would write it: transforms image by image, the penalty in the loss."""
    model, regularizer = _network(data, seed)
    settings = Settings(seed=seed, **training)
    optimizer = settings.make_optimizer(model.parameters())
    torch.manual_seed(seed)
    loader = transformed_loader(data, settings.batch_size)
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
    method = Penalised("hsq_gl12", strength=STRENGTH)
    recipes = [Recipe("alexnet", method=method, settings=Settings(seed=seed, **TRAINING)) for seed in SEEDS]
    return [one.history.test for one in hg.fit_many(recipes, data, way=way)]


def accuracy_rows(data: hg.Data) -> Iterable[Row]:
    """One row a way and seed: what the network reaches on the test images, read once."""
    ways: dict[str, Callable[[hg.Data], list[TestResult]]] = {
        "DataLoader loop": partial(_one_by_one, dataloader_loop),
        "fit": partial(_one_by_one, partial(fit_loop, bfloat16=False)),
        "fit, bfloat16": partial(_one_by_one, partial(fit_loop, bfloat16=True)),
        "fit_many, lockstep": partial(_many, "lockstep"),
    }
    for name, train in ways.items():
        for seed, result in zip(SEEDS, train(data), strict=True):
            yield {
                "images": data.name, "device": data.device.type, "way": name, "seed": seed,
                "test accuracy": result.accuracy, "below tolerance": result.below_tolerance,
            }  # fmt: skip


def main() -> None:
    """Make the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", default="cifar10", help="an image set, or a folder of images")
    data = hg.load_data(parser.parse_args().images, limit=IMAGES)
    table = pd.DataFrame(accuracy_rows(data))
    folder = Path(__file__).parent / "results" / data.device.type
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / "loops.csv", index=False, float_format="%.4f")
    summary = table.groupby("way", sort=False)["test accuracy"].agg(["mean", "std", "count"])
    summary["half of the 95 % interval"] = confidence_half_width(summary["std"], summary["count"])
    print(summary.round(4))


if __name__ == "__main__":
    main()
