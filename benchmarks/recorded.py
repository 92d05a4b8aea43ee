"""The table behind "Recorded passes" in README.md; it needs a CUDA GPU.

    python -m benchmarks.recorded

trains some steps of each network with passes that are played back and with passes that are not, in turn, and
writes results/cuda/recorded.csv: medians and quartiles of a step, in milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from benchmarks.measurements import Row, interleaved, random_images, rows_of, write_gpu_table
from hgsr_lite.training import Penalised, Recipe, Settings, TrainingState

STEPS = 50
ROUNDS = 15


def some_steps(run: TrainingState, images: Tensor, labels: Tensor) -> Callable[[], None]:
    """What is timed: so many steps on one batch."""

    def steps() -> None:
        for _ in range(STEPS):
            run.step(images, labels)

    return steps


def rows() -> list[Row]:
    """One row a network and variant."""
    data, found = random_images(256), []
    images, labels = data.train.images[:128], data.train.labels[:128]
    for network in ("digits_cnn", "alexnet", "vgg11", "resnet18"):
        recipe = Recipe(network, method=Penalised("hsq_gl12", strength=1e-6), settings=Settings(lr=1e-6))
        variants = {}
        for name in ("as they are", "played back"):
            model, regularizer = recipe.build(data)
            if name == "as they are":  # a hook that does nothing: networks with one are not recorded
                model.register_forward_hook(lambda *_: None)
            run = TrainingState(model.train(), data, regularizer, recipe.settings)
            variants[name] = some_steps(run, images, labels)
        seconds = {name: each / STEPS for name, each in interleaved(variants, ROUNDS).items()}
        found += rows_of("training step", seconds, "as they are", network=network, images=128)
    return found


if __name__ == "__main__":
    write_gpu_table("recorded.csv", rows)
