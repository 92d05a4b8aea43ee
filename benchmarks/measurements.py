"""The measurements behind the benchmark's table: each function returns rows, one a variant."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torchvision
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset
from torchvision.transforms import v2

import hgsr_lite as hg
from benchmarks.textbook import textbook_model_penalty
from hgsr_lite.data import augmented_batches, find_device
from hgsr_lite.fast import buckets, plain_gradient_, stacked_gradient_
from hgsr_lite.removal.cost import seconds_in_turn
from hgsr_lite.training import Penalised, Recipe, Settings, TrainingState

DEVICE = find_device(None)
"""A CUDA GPU where there is one, else the CPU."""

MANY = 64 if DEVICE.type == "cuda" else 6
"""Networks trained together: on a GPU as many as keep it busy."""

GROUP_PENALTIES = [key for key in hg.PENALTIES if key not in ("l1", "l2")]
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "alexnet": lambda: hg.build_model("alexnet", in_channels=3, num_classes=10, seed=0),
    "vgg11": lambda: hg.build_model("vgg11", in_channels=3, num_classes=10, seed=0),
    "resnet18": lambda: hg.build_model("resnet18", in_channels=3, num_classes=10, seed=0),
    "torchvision resnet18": torchvision.models.resnet18,
}
SMALL_AND_LARGE: dict[str, Callable[[], nn.Module]] = {
    "digits_cnn": lambda: hg.build_model("digits_cnn", in_channels=1, num_classes=10, seed=0),
    **NETWORKS,
}
IMAGES = dict.fromkeys(NETWORKS, (3, 32, 32)) | {
    "digits_cnn": (1, 8, 8),
    "torchvision resnet18": (3, 224, 224),
}
"""The shape of the images that each of them is timed on."""
Row = dict[str, Any]


def interleaved(
    variants: dict[str, Callable[[], Any]], rounds: int, settling: float = 0.0
) -> dict[str, np.ndarray]:
    """Seconds of every variant in every round, in turn; see `seconds_in_turn`."""
    found = seconds_in_turn(variants, rounds, DEVICE, settling)
    return {name: np.array(values) for name, values in found.items()}


def rows_of(what: str, seconds: dict[str, np.ndarray], against: str, **labels: Any) -> list[Row]:
    """One row a variant: median and quartiles in milliseconds, and how often it fits into `against`."""
    base = np.median(seconds[against])
    return [
        {
            "what": what, **labels, "variant": name, "ms": 1e3 * np.median(values),
            "ms q1": 1e3 * np.quantile(values, 0.25), "ms q3": 1e3 * np.quantile(values, 0.75),
            f"times {against}": base / np.median(values), "against": against,
        }
        for name, values in seconds.items()
    ]  # fmt: skip


def write_gpu_table(name: str, measure: Callable[[], list[Row]]) -> None:
    """Measure rows on a CUDA GPU and write them to results/cuda; without a GPU this ends in one line."""
    if DEVICE.type != "cuda":
        raise SystemExit(f"{name} is measured on a CUDA GPU, and there is none here")
    table = pd.DataFrame(measure()).assign(device=torch.cuda.get_device_name(), torch=torch.__version__)
    place = Path(__file__).parent / "results" / "cuda" / name
    table.drop(columns=["what", "against"]).to_csv(place, index=False, float_format="%.3f")
    print(table.to_string(index=False))


def penalty_rows(network: str, key: str, grouping: str, rounds: int) -> list[Row]:
    """The textbook, the term in a loss, the plain form, the compiled loop, the proximal step, the floor."""
    model = NETWORKS[network]().to(DEVICE)
    reg = hg.Regularizer(model, key, grouping=grouping, strength=1e-9, exclude=())
    weights = [layer.weight for layer in reg.layers]
    for weight in weights:
        weight.grad = torch.zeros_like(weight)

    def textbook() -> None:
        # Added to the gradients that are there already, as after loss.backward().
        (1e-9 * textbook_model_penalty(model, key, grouping)).backward()

    def floor() -> None:
        with torch.no_grad():
            for weight in weights:
                weight.grad.add_(weight, alpha=1e-9)

    variants = {
        "textbook autograd": textbook,
        "reg() in a loss": lambda: (2 * reg()).backward(),  # as where a loss is scaled or averaged
        "plain closed form": lambda: plain_gradient_(reg.penalty, *parts_of(reg), 1e-9),
        "add_gradient_": reg.add_gradient_,
        "prox_": lambda: reg.prox_(1.0),
        "floor": floor,
    }
    if DEVICE.type == "cuda":
        variants["layers stacked"] = _stacked(reg)
    seconds = interleaved(variants, rounds)
    agreement = agreement_of(model, reg, key, grouping)
    return rows_of(
        "penalty", seconds, "textbook autograd", network=network, penalty=key, grouping=grouping,
        backend=reg.backend, agreement=agreement,
    )  # fmt: skip


def parts_of(reg: hg.Regularizer) -> tuple[list, list, list]:
    """The weights, their layouts and their gradients."""
    weights = [layer.weight for layer in reg.layers]
    return weights, [layer.layout for layer in reg.layers], [weight.grad for weight in weights]


def _stacked(reg: hg.Regularizer) -> Callable[[], torch.Tensor]:
    """What `add_gradient_` takes on a GPU where Triton cannot be had."""
    weights, layouts, gradients = parts_of(reg)
    tables = buckets(weights, layouts, reg.penalty.grouping)
    return lambda: stacked_gradient_(reg.penalty, weights, layouts, tables, gradients, 1e-9)


def agreement_of(model: nn.Module, reg: hg.Regularizer, key: str, grouping: str) -> float:
    """Largest relative distance between the gradients of `add_gradient_` and of the textbook version."""
    reg.strength = 1.0
    weights = [layer.weight for layer in reg.layers]
    expected = torch.autograd.grad(textbook_model_penalty(model, key, grouping), weights)
    for weight in weights:
        weight.grad = torch.zeros_like(weight)
    reg.add_gradient_()
    pairs = [(weight.grad, wanted) for weight, wanted in zip(weights, expected, strict=True)]
    return max(((found - wanted).norm() / wanted.norm()).item() for found, wanted in pairs)


def step_rows(rounds: int) -> list[Row]:
    """One training step of the narrow AlexNet at batch 128: without a penalty, with it, and in bfloat16."""
    images = torch.randn(128, 3, 32, 32, device=DEVICE)
    labels = torch.arange(128, device=DEVICE) % 10

    def plain_step(after: Callable[[nn.Module], Any]) -> Callable[[], None]:
        model = NETWORKS["alexnet"]().to(DEVICE)
        optimizer = torch.optim.SGD(model.parameters(), 1e-6, momentum=0.9)

        def run() -> None:
            optimizer.zero_grad()
            cross_entropy(model(images), labels).backward()
            after(model)
            optimizer.step()

        return run

    def our_step(penalty: str | None, bfloat16: bool = False) -> Callable[[], Any]:
        settings = Settings(lr=1e-6, weight_decay=0.0, bfloat16=bfloat16)
        run = _new_run(random_images(256), settings, penalty)
        shown = settings.as_wanted(images)
        return lambda: run.step(shown, labels)

    variants = {
        "no penalty": our_step(None),
        "add_gradient_": our_step("hsq_gl12"),
        "textbook autograd": plain_step(
            lambda model: (1e-9 * textbook_model_penalty(model, "hsq_gl12", "feature")).backward()
        ),
        "add_gradient_, bfloat16": our_step("hsq_gl12", bfloat16=True),
    }
    return rows_of("training step", interleaved(variants, rounds), "no penalty", network="alexnet")


def random_images(count: int) -> hg.Data:
    """Random pictures of CIFAR-10's shape: times do not depend on what is to be seen."""
    generator = torch.Generator().manual_seed(0)
    parts = [
        hg.Split(torch.randn(n, 3, 32, 32, generator=generator), torch.arange(n) % 10)
        for n in (count, 100, 100)
    ]
    classes = tuple(str(number) for number in range(10))
    return hg.Data("random", classes, *parts, torch.zeros(3), torch.ones(3), (0, 1, 2)).to(DEVICE)


def _recipe(settings: Settings, penalty: str | None = "hsq_gl12") -> Recipe:
    method = None if penalty is None else Penalised(penalty, strength=1e-6)
    return Recipe("alexnet", method=method, settings=settings)


def _new_run(data: hg.Data, settings: Settings, penalty: str | None) -> TrainingState:
    model, regularizer = _recipe(settings, penalty).build(data)
    return TrainingState(model, data, regularizer, settings)


class _Transformed(TensorDataset):
    transform = v2.Compose([v2.RandomCrop(32, padding=4), v2.RandomHorizontalFlip()])

    def __getitem__(self, index: int) -> tuple:
        image, label = super().__getitem__(index)
        return self.transform(image), label


def transformed_loader(data: hg.Data, batch_size: int = 128) -> DataLoader:
    """The training images as a tutorial would feed them: cropped and flipped one by one, in two workers."""
    pictures = _Transformed(data.train.images.cpu(), data.train.labels.cpu())
    return DataLoader(pictures, batch_size, shuffle=True, num_workers=2, persistent_workers=True)


def pipeline_rows(images: int, rounds: int) -> list[Row]:
    """An epoch of crop and flip: whole tensors at once, against transforms in a 2-worker DataLoader."""
    data = random_images(images)
    loader = transformed_loader(data)
    variants = {
        "DataLoader, 2 workers": lambda: [batch.to(DEVICE) for batch, _ in loader],
        "batched tensors": lambda: [None for _ in augmented_batches(data.train, 128)],
    }
    return rows_of("input pipeline", interleaved(variants, rounds), "DataLoader, 2 workers", images=images)


def epoch_rows(images: int, rounds: int) -> list[Row]:
    """An epoch of training with crop, flip and penalty: `fit`'s loop against a DataLoader's."""
    data = random_images(images)
    loader = transformed_loader(data)
    theirs = _new_run(data, Settings(), None)

    def from_loader() -> None:
        for batch, labels in loader:
            batch, labels = batch.to(DEVICE), labels.to(DEVICE)
            theirs.optimizer.zero_grad()
            loss = cross_entropy(theirs.model(batch), labels)
            loss = loss + 1e-6 * textbook_model_penalty(theirs.model, "hsq_gl12", "feature")
            loss.backward()
            theirs.optimizer.step()

    def fit_with(settings: Settings) -> Callable[[], None]:
        run = _new_run(data, settings, "hsq_gl12")
        return lambda: [run.step(batch, labels) for batch, labels in run.batches()] and None

    variants = {
        "DataLoader and textbook": from_loader,
        "fit": fit_with(Settings(augment=True)),
        "fit, bfloat16": fit_with(Settings(augment=True, bfloat16=True)),
    }
    return rows_of("training epoch", interleaved(variants, rounds), "DataLoader and textbook", images=images)


def many_rows(networks: int, steps: int, rounds: int) -> list[Row]:
    """Some steps of one narrow AlexNet, and of several: one after the other, in lockstep."""
    data = random_images(128 * steps)
    recipes = [_recipe(Settings(epochs=1, seed=seed)) for seed in range(networks)]
    losses: dict[str, list[float]] = {}

    def fit_in(name: str, way: str, count: int) -> Callable[[], None]:
        def run() -> None:
            trained = hg.fit_many(recipes[:count], data, way=way, progress=False)
            losses[name] = np.array([one.history.records[0]["training loss"] for one in trained])

        return run

    variants = {"one network": fit_in("one network", "loop", 1)}
    variants |= {way: fit_in(way, way, networks) for way in ("loop", "lockstep")}
    rows = rows_of("many networks", interleaved(variants, rounds), "loop", networks=networks)
    for row in rows:
        found = losses[row["variant"]]
        row["agreement"] = float(np.abs(found - losses["loop"][: len(found)]).max())
    return rows


def size_rows(sizes: Sequence[int], rounds: int) -> list[Row]:
    """Cost of the gradient against the number of weights, in one layer of 3x3 kernels."""
    rows = []
    for size in sizes:
        channels = max(1, round((size / 9) ** 0.5))
        layer = nn.Conv2d(channels, channels, 3, bias=False, device=DEVICE)
        reg = hg.Regularizer(layer, "hsq_gl12", strength=1e-9)
        seconds = interleaved({"add_gradient_": reg.add_gradient_}, rounds)
        rows += rows_of("size", seconds, "add_gradient_", weights=layer.weight.numel())
    return rows
