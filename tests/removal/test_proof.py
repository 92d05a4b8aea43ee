"""What two networks' outputs are compared on, and how far they count as apart."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from hgsr_lite.removal import proof
from hgsr_lite.removal.proof import OutputChange, Proof


class Times(nn.Module):
    """Each output is the input times a number."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, images: Tensor) -> Tensor:
        return images * self.factor


@pytest.mark.parametrize(
    ("expected", "found", "absolute", "relative"),
    [
        ([4.0, -10.0], [4.0, -11.0], 1, 0.1),
        ([0.5], [0.75], 0.25, 0.5),
        ([0.0], [0.25], 0.25, 0.25),  # nothing to be relative to
        ([torch.inf, 1.0], [torch.inf, 2.0], 1, 1),
        ([torch.nan], [1.0], torch.inf, torch.inf),
        ([], [], 0, 0),
    ],
)
def test_a_change_is_the_largest_of_any_output_and_relative_to_the_largest_output(
    expected, found, absolute, relative
):
    change = OutputChange.between([torch.tensor(expected)], [torch.tensor(found)])
    assert change == OutputChange(absolute, relative)


def test_outputs_of_another_shape_or_number_are_infinitely_far():
    for found in ([torch.ones(3)], [torch.ones(2), torch.ones(2)], []):
        assert OutputChange.between([torch.ones(2)], found).absolute == torch.inf


def test_images_are_compared_twice_as_high_and_training_branches_on_two_images():
    cases = Proof(Times(2.0), torch.randn(4, 3, 5, 7)).cases
    assert {name: tuple(case.images.shape) for name, case in cases.items()} == {
        "example": (4, 3, 5, 7),
        "random": (4, 3, 5, 7),
        "twice as high": (1, 3, 10, 7),
        "training branches": (2, 3, 5, 7),
    }
    series = Proof(Times(2.0), torch.randn(4, 3, 5)).cases
    assert series["twice as high"].images.shape == (1, 3, 10)
    assert "twice as high" not in Proof(Times(2.0), torch.randn(4, 3)).cases


def test_a_network_that_says_something_else_each_time_proves_nothing():
    class Dice(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images + torch.rand(())

    with pytest.raises(ValueError, match="its outputs differ from one run to the next"):
        Proof(Dice(), torch.ones(2, 3))

    class DiceInTraining(nn.Sequential):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images) + (torch.rand(()) if self.training else 0)

    assert list(Proof(DiceInTraining(Times(2.0)), torch.ones(2, 3)).cases) == ["example", "random"]


def test_the_limit_itself_is_allowed_and_more_is_not(monkeypatch):
    monkeypatch.setattr(proof, "PROOF_LIMIT", 0.125)
    held = Proof(Times(8.0), torch.ones(2, 3))
    assert held.fault(Times(9.0), True, ["example"]) == ""
    assert held.fault(Times(9.0625), True, ["example"]) == (
        "without some of them an output moves by 1.3e-01 (example)"
    )
    assert held.fault(Times(9.0625), False, ["example"]) == ""
