"""Removals on trial: what goes, what breaks a network and therefore stays, and how the culprits are found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from tqdm import tqdm

from hgsr_lite.coupling import CoupledChannels, Coupling
from hgsr_lite.removal.proof import Proof
from hgsr_lite.removal.surgery import cut_, fold_, hold_back, undone

_SHOWN_AFTER = 3.0  # seconds


def long_work(what: str, progress: bool, total: int | None = None) -> tqdm:
    """A bar on stderr for what may take long; it shows once it does."""
    return tqdm(desc=what, total=total, unit="", disable=not progress, leave=False, delay=_SHOWN_AFTER)


class Removals:
    """What has gone so far: outputs of each layer, exactly or not; layers kept for their shape or left alone.

    `places` says of every number that is left where it stood in the original tensor.
    """

    def __init__(self, model: nn.Module) -> None:
        self.exact: Counter[str] = Counter()
        self.approximate: Counter[str] = Counter()
        self.kept_for_shape: set[str] = set()
        self.fixed: dict[str, str] = {}
        self.unsound: dict[str, str] = {}
        named = [
            *model.named_parameters(remove_duplicate=False),
            *model.named_buffers(remove_duplicate=False),
        ]
        self.places = {name: torch.arange(t.numel()).view(t.shape) for name, t in named}

    def allowed(self, coupling: Coupling) -> list[CoupledChannels]:
        """The channels that can go and did not break the model when they were tried."""
        return [channels for channels in coupling.free if channels.name not in self.unsound]

    def note(self, sets: list[CoupledChannels], removed: list[Tensor], exact: list[Tensor]) -> None:
        """Count outputs that go."""
        for channels, gone, is_exact in zip(sets, removed, exact, strict=True):
            for part in channels.slices:
                if not part.reads:
                    self.exact[part.name] += len(part.positions(gone & is_exact))
                    self.approximate[part.name] += len(part.positions(gone & ~is_exact))


@dataclass(frozen=True)
class Trials:
    """Removals tried on a network before they are made."""

    work: nn.Module
    coupling: Coupling
    sets: list[CoupledChannels]
    removed: list[Tensor]
    removals: Removals
    proof: Proof
    exact: bool
    bar: tqdm

    def only(self, numbers: list[int]) -> list[Tensor]:
        """What goes if only these sets lose channels."""
        some = [gone & (number in numbers) for number, gone in enumerate(self.removed)]
        hold_back(self.sets, some)
        return some

    def fault(self, numbers: list[int], cases: Iterable[str]) -> str:
        """Why these sets cannot lose their channels; "" if they can."""
        some = self.only(numbers)
        with undone(self.work):
            fold_(self.coupling, self.sets, some)
            cut_(self.sets, some)
            self.bar.update()
            return self.proof.fault(self.work, self.exact, cases)

    def sound(self) -> list[Tensor]:
        """The removals that work. The example alone finds most culprits, in a fraction of the time."""
        numbers = [number for number, gone in enumerate(self.removed) if gone.any()]
        for cases in (["example"], list(self.proof.cases)):
            if not numbers or not self.fault(numbers, self.proof.cases):
                break
            numbers = self._without_culprits(numbers, [], cases)
        return self.only(numbers)

    def _without_culprits(self, numbers: list[int], taken: list[int], cases: list[str]) -> list[int]:
        """Those taken and, of these, all that work beside them: halved until each culprit is found."""
        why = self.fault(taken + numbers, cases)
        if not why:
            return taken + numbers
        if len(numbers) == 1:
            self.removals.unsound[self.sets[numbers[0]].name] = why
            return taken
        half = len(numbers) // 2
        return self._without_culprits(
            numbers[half:], self._without_culprits(numbers[:half], taken, cases), cases
        )
