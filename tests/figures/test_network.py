"""The picture of a network tells live, dead and missing channels apart."""

from __future__ import annotations

import matplotlib as mpl
import pytest
import torch
from torch import nn

from hgsr_lite.figures.network import channel_strips, reading_norms
from hgsr_lite.removal.compaction import compact

mpl.use("Agg")


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 6, 3), nn.ReLU(), nn.Conv2d(6, 3, 3)).eval()
    net[2].weight.data[:, [1, 4]] = 0
    return net


def test_a_norm_is_zero_exactly_where_a_layer_ignores_a_channel(net):
    norms = reading_norms(net)
    assert list(norms) == ["0", "2"]
    assert (norms["2"] == 0).nonzero().flatten().tolist() == [1, 4]


def test_grouped_and_transposed_layers_have_one_norm_an_input_channel():
    net = nn.Sequential(nn.Conv2d(4, 6, 3, groups=2), nn.ConvTranspose2d(6, 2, 3))
    assert [len(row) for row in reading_norms(net).values()] == [4, 6]


def test_before_and_after_share_scale_and_width_and_hatched_cells_are_the_dead_channels(net):
    small, _ = compact(net, torch.ones(1, 2, 9, 9), repeats=0)
    figure = channel_strips({"before": net, "after": small})
    before, after = figure.axes[:2]
    assert before.images[0].get_clim() == after.images[0].get_clim()
    assert before.get_xlim() == after.get_xlim()
    assert [bool(patch.get_hatch()) for patch in before.patches] == [True, True]
    assert not after.patches
    assert [label.get_text() for label in after.get_yticklabels() if label.get_text()] == ["0 (2)", "2 (4)"]


def test_a_network_with_nothing_to_draw_is_refused():
    with pytest.raises(ValueError, match="no convolution or linear layer"):
        channel_strips({"empty": nn.Sequential(nn.ReLU())})
