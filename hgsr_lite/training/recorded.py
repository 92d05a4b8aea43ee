"""The forward and backward pass of a training step, recorded once on a GPU and then played back.

A narrow network's pass is a row of short launches: Python takes longer to ask for them than the GPU to do
them. A CUDA graph asks for all of them at once. It repeats what was launched, though, and no line of Python:
so only networks are recorded whose every module is known to do the same in every step.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Pass = Callable[[Tensor, Tensor], Tensor]
_HOMES = ("torch.nn.modules.", "torchvision.models.resnet", "hgsr_lite.models")
_BEFORE_RECORDING = 3  # passes of each shape: what PyTorch and its libraries set up at first is no part of it
_MOST_SHAPES = 4  # full batches, a smaller last one, and some to spare: each keeps memory
_LOG = logging.getLogger(__name__)


def repeats_itself(model: nn.Module) -> bool:
    """Whether a pass of this network launches the same in every step, as far as its parts tell.

    Its modules are those of `torch.nn`, of this package's networks or of torchvision's ResNets as they are,
    without hooks and without computed weights; a hook of a parameter says of itself that it `repeats_itself`.

    >>> repeats_itself(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()))
    True
    >>> class Counting(nn.ReLU):
    ...     calls = 0
    ...     def forward(self, images):
    ...         self.calls += 1
    ...         return super().forward(images)
    >>> repeats_itself(nn.Sequential(nn.Conv2d(1, 2, 3), Counting()))
    False
    """
    return all(map(_module_repeats_itself, model.modules())) and all(
        getattr(hook, "repeats_itself", False) for hook in _tensor_hooks(model)
    )


def _module_repeats_itself(module: nn.Module) -> bool:
    counts_in_python = getattr(module, "track_running_stats", False) and module.momentum is None
    return (
        type(module).__module__.startswith(_HOMES)
        and "forward" not in vars(module)
        and not counts_in_python
        and not module._forward_hooks
        and not module._forward_pre_hooks
        and not module._backward_hooks
        and not module._backward_pre_hooks
    )


def _tensor_hooks(model: nn.Module) -> list[Callable]:
    return [
        hook
        for parameter in model.parameters()
        for hooks in (parameter._backward_hooks, parameter._post_accumulate_grad_hooks)
        for hook in (hooks or {}).values()
    ]


@dataclass(eq=False)
class _Recording:
    """A pass that can be played back: where it reads its batch, and where it leaves loss and gradients."""

    graph: torch.cuda.CUDAGraph
    images: Tensor
    labels: Tensor
    loss: Tensor
    gradients: list[Tensor | None]
    form: list


class RecordedPasses:
    """`run(images, labels)` returns the loss and leaves new gradients in the model's parameters.

    Called in its place, this does the same, and from the fourth batch of a shape on it plays the pass back
    where that is safe: on a GPU with room, for a model that `repeats_itself`, and until a weight is moved,
    frozen or given a hook. What a module's attributes say is taken to stay as it is. If recording fails, the
    log says why, and the passes go on as they are.
    """

    def __init__(self, model: nn.Module, run: Pass, device: torch.device) -> None:
        self.model, self.run = model, run
        self._may_record = device.type == "cuda" and repeats_itself(model)
        self._beside = torch.cuda.Stream(device) if self._may_record else None
        self._seen: Counter[tuple] = Counter()
        self._recordings: dict[tuple, _Recording] = {}

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """The loss of one batch; the gradients stand in the parameters' `.grad`."""
        if not self._may_record:
            return self.run(images, labels)
        shape = (images.shape, images.stride(), images.dtype, labels.shape)
        recording = self._recordings.get(shape)
        if recording is not None and recording.form != self._form():
            del self._recordings[shape]
            self._seen[shape], recording = 0, None
        if recording is None:
            recording = self._record_in_time(shape, images, labels)
        if recording is None:
            with self._on_a_stream_beside():
                return self.run(images, labels)
        return self._play(recording, images, labels)

    def _form(self) -> list:
        """Where the tensors lie that a recording reads and writes, and what its layers do in training."""
        model = self.model
        return [
            [(parameter.data_ptr(), parameter.requires_grad) for parameter in model.parameters()],
            [*map(Tensor.data_ptr, model.buffers())],
            [(id(module), module.training) for module in model.modules()],
            [*map(id, _tensor_hooks(model))],
        ]

    def _record_in_time(self, shape: tuple, images: Tensor, labels: Tensor) -> _Recording | None:
        """Record a shape that was seen often enough, if it may be and there is room."""
        self._seen[shape] += 1
        if self._seen[shape] <= _BEFORE_RECORDING or len(self._recordings) == _MOST_SHAPES:
            return None
        if not (repeats_itself(self.model) and self._has_room()):
            return None
        try:
            recording = self._recordings[shape] = self._record(images.clone(), labels.clone())
        except RuntimeError as error:
            self._may_record = False
            self._recordings.clear()
            _LOG.warning("training: passes are not recorded (%s)", str(error).partition("\n")[0])
            return None
        return recording

    def _has_room(self) -> bool:
        """A recording keeps what its pass needs, beside what other passes need: only where plenty is free."""
        device = self._beside.device
        free, _ = torch.cuda.mem_get_info(device)
        return free > 2 * torch.cuda.memory_reserved(device)

    def _record(self, images: Tensor, labels: Tensor) -> _Recording:
        # What a graph writes must be its own: gradients that are there already would be added to.
        self.model.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        with (
            _all_as_before_if_it_fails(self._beside.device),
            torch.cuda.graph(graph, stream=self._beside, capture_error_mode="thread_local"),
        ):
            loss = self.run(images, labels)
        gradients = [parameter.grad for parameter in self.model.parameters()]
        return _Recording(graph, images, labels, loss, gradients, self._form())

    def _play(self, recording: _Recording, images: Tensor, labels: Tensor) -> Tensor:
        recording.images.copy_(images)
        recording.labels.copy_(labels)
        recording.graph.replay()
        for parameter, gradient in zip(self.model.parameters(), recording.gradients, strict=True):
            parameter.grad = gradient
        return recording.loss.clone()

    @contextmanager
    def _on_a_stream_beside(self) -> Iterator[None]:
        """Run on the stream that records: what autograd keeps between steps belongs to one stream."""
        here = torch.cuda.current_stream(self._beside.device)
        self._beside.wait_stream(here)
        try:
            with torch.cuda.stream(self._beside):
                yield
        finally:
            here.wait_stream(self._beside)


@contextmanager
def _all_as_before_if_it_fails(device: torch.device) -> Iterator[None]:
    """Put back what a failed recording leaves behind in some versions of PyTorch.

    That is the stream, and random numbers that wait to be recorded: Dropout would raise from then on. A copy
    of the generator's state draws the same numbers, and waits for nothing. (What else was recorded on this
    GPU before and draws numbers goes on with the state it knows.)
    """
    with torch.cuda.stream(torch.cuda.current_stream(device)):
        try:
            yield
        except BaseException:  # Ctrl-C too
            generator = torch.cuda.default_generators[device.index]
            generator.graphsafe_set_state(generator.clone_state())
            raise
