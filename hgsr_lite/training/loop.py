"""Training: plain SGD as the authors use it, a regularizer beside the loss, and a run that can stop."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from hgsr_lite.arguments import as_path, check_flag, check_seed
from hgsr_lite.data import Data, check_data
from hgsr_lite.layers import check_model
from hgsr_lite.regularizer import Regularizer
from hgsr_lite.training.checkpoint import check_room, load_checkpoint, save_checkpoint
from hgsr_lite.training.history import History
from hgsr_lite.training.measurement import eval_mode, test_result
from hgsr_lite.training.settings import Settings
from hgsr_lite.training.state import TrainingState
from hgsr_lite.training.threads import one_thread, threads_for


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and PyTorch's random numbers with one call.

    >>> seed_everything(0); first = torch.rand(1); seed_everything(0); bool(first == torch.rand(1))
    True
    """
    seed = check_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def fit(
    model: nn.Module,
    data: Data,
    regularizer: Regularizer | None = None,
    *,
    epochs: int = Settings.epochs,
    seed: int = Settings.seed,
    lr: float = Settings.lr,
    momentum: float = Settings.momentum,
    weight_decay: float = Settings.weight_decay,
    batch_size: int = Settings.batch_size,
    optimizer: str = Settings.optimizer,
    proximal: bool = Settings.proximal,
    augment: bool = Settings.augment,
    tolerance: float = Settings.tolerance,
    relative: bool = Settings.relative,
    bfloat16: bool = Settings.bfloat16,
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> History:
    """Train a model in place, with a regularizer beside the cross-entropy, and return its history.

    The defaults are the authors': SGD with momentum, weight decay, the learning rate times 0.2 after
    each third of the epochs. The regularizer acts through its gradient, or with `proximal=True` through
    a proximal step of size lr * strength after each SGD step, which gives exact zeros (refused with
    Adam). Momentum multiplies the gradient's pull by 1 / (1 - momentum) but not the proximal step, so the
    same strength acts about ten times weaker there. `augment` crops and flips the training images.
    `bfloat16` computes forward and backward passes in bfloat16 (weights, gradients and the penalty stay
    float32, measurements too): faster where the processor has instructions for it, else slower. On a CPU it
    can make NaN where images shrink to one pixel before a strided convolution (seen with PyTorch 2.15).
    On a GPU the passes of a network of PyTorch's modules without hooks are recorded once and played back,
    which spares a narrow network most of a step's time.

    One `seed` makes two runs on a CPU equal bit for bit; a small network trains there on one thread, which is
    several times faster on a busy machine. `checkpoint` names a file that is written, whole or not at all,
    after every epoch (its folder is made); the same call resumes from it to the very same end.
    The test part is read once, at the end. Ctrl-C returns what there is; a loss that is not finite raises
    `DivergedError` with the history in its `.history`; a layer that dies is warned about.

    Raises `ValueError` for impossible settings and for a checkpoint of another run.
    """
    settings = Settings(
        epochs=epochs,
        seed=seed,
        lr=lr,
        momentum=momentum,
        weight_decay=weight_decay,
        batch_size=batch_size,
        optimizer=optimizer,
        proximal=proximal,
        augment=augment,
        tolerance=tolerance,
        relative=relative,
        bfloat16=bfloat16,
    )
    _check_parts(model, data, regularizer, checkpoint, progress)
    settings.check()
    model.to(data.device)
    _check_scores(model, data)
    with training_conditions(model, data, settings):
        state = TrainingState(model, data, regularizer, settings)
        path = None if checkpoint is None else Path(checkpoint)
        if path is not None and path.exists():
            state.restore(load_checkpoint(path, state.identity()))
        else:
            state.history.take_snapshot(model, 0, settings.epochs)
        if path is not None and state.history.test is None:
            # A place that cannot be written is found before the training, not after it.
            save_checkpoint(path, state.state())
            check_room(path)
        return _to_the_end(state, path, progress)


@contextmanager
def training_conditions(
    model: nn.Module, data: Data, settings: Settings, networks: int = 1
) -> Iterator[None]:
    """What a training's numbers depend on besides its parts: random numbers by its seed, and the threads.

    Both are as before when the context ends. So many `networks` are trained in lockstep: then the images of
    all are in each operator, and more of the work is worth sharing.
    """
    cuda = [data.device] if data.device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda), threads_for(model, data, networks * settings.batch_size):
        torch.manual_seed(settings.seed)
        yield


def _check_parts(
    model: object, data: object, regularizer: object, checkpoint: object, progress: object
) -> None:
    """Refuse what is no model, no data, no regularizer of this model, no path: before anything is trained."""
    check_model(model)
    check_data(data)
    if regularizer is not None:
        if not isinstance(regularizer, Regularizer):
            raise TypeError(
                f"regularizer must be a Regularizer, not {regularizer!r}: give Regularizer(model, ...)"
            )
        regularizer.check_acts_on(model)
    if checkpoint is not None:
        as_path("checkpoint", checkpoint)
    check_flag("progress", progress)


@torch.no_grad()
def _check_scores(model: nn.Module, data: Data) -> None:
    """Refuse a network without a score for each class, by its answer to one image."""
    with one_thread(), eval_mode(model):
        scores = model(data.train.images[:1])
    if not isinstance(scores, Tensor) or scores.ndim != 2 or scores.shape[1] < data.num_classes:
        shape = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise ValueError(
            f"the model answers one image with {shape}, not with a score for each of {data.num_classes} "
            "classes: build it with num_classes=data.num_classes"
        )


def _to_the_end(state: TrainingState, path: Path | None, progress: bool) -> History:
    settings, history = state.settings, state.history
    total = settings.epochs * state.steps
    with tqdm(total=total, initial=state.epoch * state.steps, disable=not progress, leave=False) as bar:
        try:
            for _ in state.train():
                bar.update()
                if state.is_between_epochs:
                    bar.set_postfix_str(state.standing())
                    if path is not None:
                        save_checkpoint(path, state.state())
            if history.test is None:
                history.test = test_result(state.model, state.data, settings.tolerance, settings.relative)
                if path is not None:
                    save_checkpoint(path, state.state())
        except KeyboardInterrupt:
            history.interrupted = True
    state.model.eval()
    return history
