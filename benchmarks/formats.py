"""The table behind "Memory format" in README.md: images that lie channel by channel, or channels last.

    python -m benchmarks.formats

times a float32 training step of the narrow networks, and max-pools alone, on one thread, on both formats in
turn, and writes results/cpu/formats.csv: medians and quartiles.
Close other programs first; it takes half a minute.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from benchmarks.measurements import Row, interleaved, random_images, rows_of
from hgsr_lite.training import Penalised, Recipe, Settings, TrainingState, one_thread
from hgsr_lite.training.settings import in_quick_format

ROUNDS = 15
NETWORKS = (("alexnet", 64), ("alexnet", 128), ("vgg11", 128), ("resnet18", 128))
POOLED = ((64, 8, 32, 32), (64, 24, 16, 16), (128, 48, 8, 8), (128, 64, 16, 16))
FORMATS: dict[str, Callable[[Tensor], Tensor]] = {
    "channel by channel": lambda images: images,
    "channels last": in_quick_format,
}


def steps(network: str, batch: int) -> dict[str, Callable[[], object]]:
    """A training step with `hsq_gl12`, on each format, turning the images included."""
    data = random_images(256).to("cpu")
    images, labels = data.train.images[:batch], data.train.labels[:batch]
    variants: dict[str, Callable[[], object]] = {}
    for name, turned in FORMATS.items():
        recipe = Recipe(network, method=Penalised("hsq_gl12", strength=1e-6), settings=Settings(lr=1e-6))
        model, regularizer = recipe.build(data)
        run = TrainingState(model.train(), data, regularizer, recipe.settings)
        variants[name] = lambda run=run, turned=turned: run.step(turned(images), labels)
    return variants


def pools(shape: tuple[int, ...]) -> dict[str, Callable[[], object]]:
    """A max-pool of 2x2 and its gradient, on each format, without the turning."""
    given = torch.randn(shape).relu()
    variants: dict[str, Callable[[], object]] = {}
    for name, turned in FORMATS.items():
        images = turned(given).clone().requires_grad_()
        variants[name] = lambda images=images: max_pool2d(images, 2).sum().backward()
    return variants


def rows() -> list[Row]:
    """One row a case and format."""
    cases = [("training step", network, batch, steps(network, batch)) for network, batch in NETWORKS]
    cases += [("max-pool", "x".join(map(str, shape)), shape[0], pools(shape)) for shape in POOLED]
    found = []
    for what, which, batch, variants in cases:
        seconds = interleaved(variants, ROUNDS, settling=0.05)
        found += rows_of(what, seconds, "channel by channel", of=which, images=batch)
    return found


if __name__ == "__main__":
    with one_thread():
        table = pd.DataFrame(rows()).drop(columns="against").assign(torch=torch.__version__)
    place = Path(__file__).parent / "results" / "cpu" / "formats.csv"
    table.to_csv(place, index=False, float_format="%.3f")
    print(table.to_string(index=False))
