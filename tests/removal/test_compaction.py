"""Which channels go, what stays of them, what is refused: each rule on the smallest network that shows it."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchvision.models.resnet import BasicBlock

from hgsr_lite.models import build_model
from hgsr_lite.removal import compact, load_compact
from hgsr_lite.removal.cost import latency, macs, parameters

ACTIVATIONS = [
    *(nn.ReLU, nn.LeakyReLU, nn.ReLU6, nn.Sigmoid, nn.Hardsigmoid, nn.SiLU, nn.Hardswish, nn.Tanh, nn.GELU),
    *(nn.ELU, nn.Mish, nn.Softplus),
]


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def images(channels=3, size=8, batch=2):
    return torch.randn(batch, channels, size, size)


def chain(*channels, padding=0, norm=True, kernel=3):
    """conv (- norm) - relu, repeated, with norms as they are after training."""
    layers = []
    for inputs, outputs in itertools.pairwise(channels):
        layers.append(nn.Conv2d(inputs, outputs, kernel, padding=padding))
        if norm:
            layers.append(nn.BatchNorm2d(outputs))
            for tensor in (layers[-1].weight, layers[-1].running_var):
                nn.init.uniform_(tensor, 0.5, 1.5)
            nn.init.uniform_(layers[-1].bias, 0.2, 0.6)
            nn.init.uniform_(layers[-1].running_mean, -0.5, 0.5)
        layers.append(nn.ReLU())
    return nn.Sequential(*layers).eval()


def largest_change(model, small, batch):
    with torch.no_grad():
        return float((model.eval()(batch) - small.eval()(batch)).abs().max())


def test_a_channel_that_no_layer_reads_goes_with_whatever_makes_it():
    net = chain(3, 8, 4)
    net[3].weight.data[:, [1, 5]] = 0
    small, report = compact(net, images(), exact_only=True, repeats=0)
    assert (small[0].out_channels, small[1].num_features, small[3].in_channels) == (6, 6, 6)
    assert (report.exact, report.approximate) == (2, 0)
    assert largest_change(net, small, images()) < 1e-6


@pytest.mark.parametrize("norm", [True, False])
def test_the_constant_of_a_dead_filter_is_carried_on_not_dropped(norm):
    net = chain(3, 8, 4, norm=norm)
    net[0].weight.data[2] = 0
    net[0].bias.data[2] = 0.7
    dropped = copy.deepcopy(net)
    dropped[3 if norm else 2].weight.data[:, 2] = 0
    small, _ = compact(net, images(), exact_only=True, repeats=0)
    assert small[0].out_channels == 7
    assert largest_change(net, dropped, images()) > 1e-2, "the constant must matter for this test to tell"
    assert largest_change(net, small, images()) < 1e-6


def test_a_batch_norm_that_ignores_its_input_leaves_a_constant_as_well():
    net = chain(3, 8, 4)
    net[1].weight.data[3] = 0
    small, _ = compact(net, images(), exact_only=True, repeats=0)
    assert small[0].out_channels == 7
    assert largest_change(net, small, images()) < 1e-6


def test_a_layer_without_bias_gets_one_or_hands_the_constant_to_the_norm_behind_it():
    net = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1, bias=False), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1, bias=False)
    ).eval()
    net[0].weight.data[0] = 0
    net[1].weight.data[1] = 0
    net[2].bias.data.fill_(0.3)
    small, _ = compact(net, images(), exact_only=True, repeats=0)
    assert small[1].bias is None
    assert small[3].bias is not None
    assert largest_change(net, small, images()) < 1e-6
    assert largest_change(net, load_compact(net, small.state_dict()), images()) < 1e-6


def test_a_constant_at_a_zero_padded_border_is_approximate_and_only_taken_if_allowed():
    net = chain(3, 8, 4, padding=1)
    net[0].weight.data[2] = 0
    batch = images(size=16)
    kept, exact = compact(net, batch, exact_only=True, repeats=0)
    assert (kept[0].out_channels, exact.exact, exact.approximate) == (8, 0, 0)
    small, report = compact(net, batch, repeats=0)
    assert (small[0].out_channels, report.exact, report.approximate) == (7, 0, 1)
    change = largest_change(net, small, batch)
    assert change > 1e-4
    assert report.change["example"].absolute == pytest.approx(change)
    dropped = copy.deepcopy(net)
    dropped[3].weight.data[:, 2] = 0

    @torch.no_grad()
    def squared(other):
        return float((net(batch) - other.eval()(batch)).square().mean())

    assert squared(small) < 0.3 * squared(dropped)


def test_a_zero_constant_is_exact_even_at_a_zero_padded_border():
    net = chain(3, 8, 4, padding=1)
    net[0].weight.data[2] = 0
    net[1].bias.data[2] = -5.0  # the ReLU behind it makes that zero
    small, report = compact(net, images(), exact_only=True, repeats=0)
    assert (small[0].out_channels, report.exact) == (7, 1)
    assert largest_change(net, small, images()) < 1e-6


def test_padding_that_repeats_the_image_keeps_a_constant_exact():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 3, padding=1, padding_mode="reflect")).eval()
    net[0].weight.data[1] = 0
    small, _ = compact(net, images(), exact_only=True, repeats=0)
    assert small[0].out_channels == 3
    assert largest_change(net, small, images()) < 1e-6


def test_a_sleeping_relu_is_no_dead_channel():
    net = chain(3, 8, 4)
    net[1].bias.data[2] = -100.0  # zero on every image anyone will sample, yet the filter is alive
    small, report = compact(net, images(), repeats=0)
    assert (small[0].out_channels, report.exact) == (8, 0)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_poison_passes_every_activation_and_constants_too(activation):
    assert activation()(torch.tensor([torch.nan], dtype=torch.float64)).isnan()
    net = nn.Sequential(nn.Conv2d(3, 4, 1), activation(), nn.Conv2d(4, 2, 1)).eval()
    net[0].weight.data[1] = 0
    small, report = compact(net, images(), exact_only=True, repeats=0)
    assert (small[0].out_channels, report.exact) == (3, 1)


@pytest.mark.parametrize(
    "pool", [nn.MaxPool2d(2), nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(2), nn.AdaptiveMaxPool2d(2)]
)
def test_poison_passes_every_pooling(pool):
    assert pool(torch.full((1, 1, 4, 4), torch.nan, dtype=torch.float64)).isnan().all()


def test_removals_follow_from_one_another_until_nothing_more_can_go():
    net = chain(3, 8, 8, 4, norm=False)
    net[4].weight.data[:, 1:] = 0  # only channel 0 of the middle layer is read ...
    net[2].weight.data[0, 2:] = 0  # ... and that one reads two channels
    small, _ = compact(net, images(), exact_only=True, repeats=0)
    assert [small[at].out_channels for at in (0, 2, 4)] == [2, 1, 4]
    assert largest_change(net, small, images()) < 1e-6


def test_a_layer_keeps_its_last_channel_and_the_report_says_so():
    net = chain(3, 8, 4)
    net[0].weight.data.zero_()
    small, report = compact(net, images(), exact_only=True, repeats=0)
    assert small[0].out_channels == 1
    assert "0" in report.kept_for_shape
    assert "a layer needs a channel in each group: 0" in str(report)
    assert largest_change(net, small, images()) < 1e-6


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = chain(3, 6, kernel=1)
        self.block = BasicBlock(6, 6)
        self.wider = BasicBlock(
            6, 8, stride=2, downsample=nn.Sequential(nn.Conv2d(6, 8, 1, 2), nn.BatchNorm2d(8))
        )
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x):
        return self.head(self.wider(self.block(self.stem(x))))


def test_a_residual_channel_goes_only_if_every_reader_ignores_it():
    net = Residual().eval()
    for conv in (net.block.conv1, net.wider.conv1):
        conv.weight.data[:, 1] = 0
    kept, _ = compact(net, images(), exact_only=True, repeats=0)
    assert kept.stem[0].out_channels == 6, "the downsample layer still reads channel 1"
    net.wider.downsample[0].weight.data[:, 1] = 0
    small, _ = compact(net, images(), exact_only=True, repeats=0)
    assert small.stem[0].out_channels == small.block.conv2.out_channels == 5
    assert small.wider.downsample[0].in_channels == 5
    assert largest_change(net, small, images()) < 1e-6


def test_a_residual_channel_is_constant_only_if_every_part_of_the_sum_is():
    net = Residual().eval()
    net.wider.conv2.weight.data[3] = 0
    kept, _ = compact(net, images(), exact_only=True, repeats=0)
    assert kept.head.in_channels == 8
    net.wider.downsample[0].weight.data[3] = 0
    small, _ = compact(net, images(), exact_only=True, repeats=0)
    assert small.head.in_channels == 7
    assert largest_change(net, small, images()) < 1e-6


class Joined(nn.Module):
    def __init__(self, grid):
        super().__init__()
        self.left, self.right, self.grid = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 6, 1), grid
        self.head = nn.Linear(10 * grid**2, 5)

    def forward(self, x):
        both = torch.cat([self.left(x), self.right(x)], 1)
        return self.head(nn.functional.adaptive_avg_pool2d(both, self.grid).flatten(1))


def test_concatenated_channels_go_from_the_right_place():
    net = Joined(grid=1).eval()
    net.left.weight.data[1] = 0
    net.right.weight.data[4] = 0
    net.head.weight.data[:, 5] = 0
    small, report = compact(net, images(), exact_only=True, repeats=0)
    assert (small.left.out_channels, small.right.out_channels, small.head.in_features) == (3, 4, 7)
    assert report.exact == 3
    assert largest_change(net, small, images()) < 1e-6


def test_concatenated_maps_that_are_flattened_take_the_right_columns_along():
    net = Joined(grid=4).eval()
    net.left.weight.data[1] = 0
    net.right.weight.data[4] = 0
    small, report = compact(net, images(), exact_only=True, repeats=0)
    assert (small.left.out_channels, small.right.out_channels, small.head.in_features) == (3, 5, 8 * 16)
    assert report.exact == 2
    assert largest_change(net, small, images()) < 1e-6


def test_flattened_channels_take_all_their_columns_along():
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 5)).eval()
    net[0].weight.data[2] = 0
    small, report = compact(net, images(), exact_only=True, repeats=0)
    assert (small[3].in_features, report.exact) == (48, 1)
    assert largest_change(net, small, images()) < 1e-6


def test_a_grouped_convolution_loses_as_many_channels_in_each_group():
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, groups=2), nn.Conv2d(8, 2, 1)).eval()
    net[0].weight.data[[0, 2, 5]] = 0  # two in the first group, one in the second
    small, _ = compact(net, images(), exact_only=True, repeats=0)
    assert (small[1].in_channels, small[1].groups) == (6, 2)
    assert largest_change(net, small, images()) < 1e-6
    assert largest_change(net, load_compact(net, small.state_dict()), images()) < 1e-6


def test_a_depthwise_convolution_goes_along_with_its_channel():
    net = nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 2, 1)
    ).eval()
    net[2].weight.data[3] = 0
    small, _ = compact(net, images(), exact_only=True, repeats=0)
    assert small[0].out_channels == small[2].groups == 7
    assert largest_change(net, small, images()) < 1e-6
    assert largest_change(net, load_compact(net, small.state_dict()), images()) < 1e-6


def test_a_transposed_convolution_loses_the_channels_it_does_not_read():
    net = nn.Sequential(nn.ConvTranspose2d(3, 4, 2, 2), nn.ReLU(), nn.ConvTranspose2d(4, 2, 2, 2)).eval()
    net[2].weight.data[1] = 0
    net[0].weight.data[:, 3] = 0
    net[0].bias.data[3] = -1
    small, report = compact(net, images(), exact_only=True, repeats=0)
    assert (small[0].out_channels, report.exact) == (2, 2)
    assert largest_change(net, small, images()) < 1e-6
    assert largest_change(net, load_compact(net, small.state_dict()), images()) < 1e-6


class Gated(nn.Module):
    """Squeeze and excitation: every channel is multiplied by a gate that sees them all."""

    def __init__(self):
        super().__init__()
        self.conv, self.squeeze, self.excite = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 2, 1), nn.Conv2d(2, 6, 1)
        self.head = nn.Conv2d(6, 2, 1)

    def forward(self, x):
        x = self.conv(x).relu()
        return self.head(x * self.excite(self.squeeze(x.mean((2, 3), keepdim=True)).relu()).sigmoid())


def test_a_gated_channel_goes_if_neither_the_head_nor_the_gate_reads_it():
    net = Gated().eval()
    net.head.weight.data[:, 2] = 0
    assert compact(net, images(), exact_only=True, repeats=0)[0].conv.out_channels == 6
    net.squeeze.weight.data[:, 2] = 0
    small, _ = compact(net, images(), exact_only=True, repeats=0)
    assert small.conv.out_channels == small.excite.out_channels == 5
    assert largest_change(net, small, images()) < 1e-6


@settings(max_examples=40, deadline=None)
@given(
    widths=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    padding=st.integers(0, 1),
    norm=st.booleans(),
    share=st.floats(0, 1),
    seed=st.integers(0, 1000),
)
def test_no_pattern_of_zeros_changes_what_an_exact_removal_computes(widths, padding, norm, share, seed):
    torch.manual_seed(seed)
    net = chain(2, *widths, 2, padding=padding, norm=norm).double()
    for module in net:
        if isinstance(module, nn.Conv2d):
            module.weight.data[torch.rand(module.out_channels) < share] = 0
            module.weight.data[:, torch.rand(module.in_channels) < share] = 0
    batch = images(2, size=9).double()
    small, report = compact(net, batch, exact_only=True, repeats=0)
    assert largest_change(net, small, batch) <= 1e-10 * max(1.0, net(batch).abs().max().item())
    assert report.after.parameters == parameters(small) <= parameters(net)


def test_float64_networks_agree_to_ten_digits_and_bfloat16_ones_stay_bfloat16():
    for dtype, limit in ((torch.float64, 1e-10), (torch.bfloat16, 0.05)):
        net = chain(3, 8, 4).to(dtype)
        net[0].weight.data[:3] = 0
        small, report = compact(net, images().to(dtype), exact_only=True, repeats=0)
        assert {tensor.dtype for tensor in small.parameters()} == {dtype}
        assert report.change["random"].relative <= limit


def test_counts_fall_in_a_chain_as_by_hand():
    """The package's VGG11 on 32 x 32 images: every third channel of every convolution is unread."""
    net = build_model("vgg11", in_channels=3, num_classes=10, seed=0)
    convs = [module for module in net.modules() if isinstance(module, nn.Conv2d)]
    linears = [module for module in net.modules() if isinstance(module, nn.Linear)]
    for reader in [*convs[1:], linears[0]]:
        reader.weight.data[:, ::3] = 0
    small, report = compact(net, images(size=32), exact_only=True, repeats=0)
    widths = [16, 32, 64, 64, 128, 128, 128, 128]
    sides = [32, 16, 8, 8, 4, 4, 2, 2]
    kept = [width - (width + 2) // 3 for width in widths]
    inputs = [3, *kept[:-1]]
    hand_parameters = sum(9 * i * o + o for i, o in zip(inputs, kept, strict=True))
    hand_parameters += kept[-1] * 128 + 128 + 128 * 128 + 128 + 128 * 10 + 10
    hand_macs = sum(9 * i * o * s * s for i, o, s in zip(inputs, kept, sides, strict=True))
    hand_macs += kept[-1] * 128 + 128 * 128 + 128 * 10
    assert report.after.parameters == hand_parameters
    assert report.after.macs == hand_macs
    assert largest_change(net, small, images(size=32)) < 1e-5


def test_counts_fall_in_a_residual_network_as_by_hand():
    """The package's ResNet18 on 32 x 32 images: two trunk channels a stage and three inside each block."""
    net = build_model("resnet18", in_channels=3, num_classes=10, seed=0)
    blocks = [block for block in net.modules() if isinstance(block, BasicBlock)]
    for block in blocks:
        block.conv2.weight.data[:, :3] = 0
        block.conv1.weight.data[:, -2:] = 0
        if block.downsample is not None:
            block.downsample[0].weight.data[:, -2:] = 0
    net.fc.weight.data[:, -2:] = 0
    small, report = compact(net, images(size=32), exact_only=True, repeats=0)
    trunk, side = 8 - 2, 16
    hand_parameters = 49 * 3 * trunk + 2 * trunk
    hand_macs = 49 * 3 * trunk * side**2
    side = 8
    for stage, width in enumerate((8, 16, 32, 64)):
        for first in (True, False):
            inside, out = width - 3, width - 2
            before = trunk if first else out
            side = side // 2 if first and stage else side
            hand_parameters += 9 * before * inside + 2 * inside + 9 * inside * out + 2 * out
            hand_macs += 9 * (before * inside + inside * out) * side**2
            if first and stage:
                hand_parameters += before * out + 2 * out
                hand_macs += before * out * side**2
        trunk = out
    assert report.after.parameters == hand_parameters + trunk * 10 + 10
    assert report.after.macs == hand_macs + trunk * 10
    assert largest_change(net, small, images(size=32)) < 1e-5


def test_cost_counts_operations_as_by_hand():
    net = nn.Sequential(nn.Conv2d(4, 8, 3, groups=2, stride=2), nn.Flatten(), nn.Linear(8 * 9, 5)).eval()
    assert macs(net, torch.ones(3, 4, 8, 8)) == 9 * 2 * 8 * 3 * 3 + 8 * 9 * 5
    assert parameters(net) == 8 * 2 * 9 + 8 + 8 * 9 * 5 + 5
    assert latency({"net": net}, torch.ones(3, 4, 8, 8), repeats=0)["net"] != 0


def test_a_network_with_a_fraction_of_the_work_is_measured_to_be_faster():
    net = chain(3, 64, 64, 64, padding=1)
    for at in (3, 6):
        net[at].weight.data[:, 4:] = 0
    _, report = compact(net, images(size=32, batch=16), exact_only=True, repeats=5)
    assert report.before.macs > 15 * report.after.macs
    assert report.after.seconds < report.before.seconds
