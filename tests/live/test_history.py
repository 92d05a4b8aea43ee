"""The scrubber over a run's snapshots."""

from __future__ import annotations

import pytest
import torch

from hgsr_lite.live.training import history_scrubber
from hgsr_lite.training.history import History


@pytest.fixture
def history() -> History:
    norms = torch.stack([torch.full((4, 3), size) for size in (1.0, 0.1, 0.0)])
    return History(snapshots={"conv1": norms}, snapshot_epochs=[0, 5, 10])


def test_the_last_snapshot_is_shown_first_and_the_slider_changes_the_picture(history: History):
    controls, image = history_scrubber(history, "conv1").children
    _, slider = controls.children
    last = bytes(image.value)
    assert last.startswith(b"\x89PNG")
    slider.value = 0
    first = bytes(image.value)
    assert first != last
    slider.value = 2
    assert bytes(image.value) == last


def test_playing_moves_the_slider(history: History):
    play, slider = history_scrubber(history, "conv1").children[0].children
    play.value = 1
    assert slider.value == 1
    assert (slider.min, slider.max) == (play.min, play.max) == (0, 2)


def test_an_unknown_layer_is_named_with_the_nearest(history: History):
    with pytest.raises(ValueError, match="did you mean 'conv1'"):
        history_scrubber(history, "conv")
