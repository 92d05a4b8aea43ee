"""Whatever a forward method does, a network without its dead kernels says the same, or stays dense."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import hgsr_lite as hg
from hgsr_lite.skipping import load_living, save_living
from hgsr_lite.skipping.network import SkippingNetwork

pytestmark = pytest.mark.usefixtures("never_dense")


class Forward(nn.Module):
    """Three convolutions and two norms, half of the kernels dead, used as `use` says."""

    def __init__(self, use: Callable[[Forward, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first, self.middle = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.last = nn.Conv2d(8, 3, 1)
        self.norm, self.other = nn.BatchNorm2d(8), nn.BatchNorm2d(8)
        for norm in (self.norm, self.other):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.3, 2)
        for layer in (self.first, self.middle, self.last):
            layer.weight.data[:, ::2] = 0
        self.use = use
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        return self.use(self, images)


def straight(net: Forward, images: Tensor) -> Tensor:
    return net.last(net.middle(net.first(images)))


def twice(net: Forward, images: Tensor) -> Tensor:
    seen = net.first(images)
    for _ in range(2):
        seen = F.relu(net.norm(net.middle(seen)))
    return net.last(seen)


def two_norms(net: Forward, images: Tensor) -> Tensor:
    seen = net.first(images)
    return net.last(net.norm(net.middle(seen)) + net.other(net.middle(seen.relu())))


def by_type(net: Forward, images: Tensor) -> Tensor:
    return straight(net, images * 2 if isinstance(images, Tensor) else images)


def pooled(net: Forward, images: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(straight(net, images), 1)


FORWARDS = {
    "a convolution and its norm called twice": twice,
    "two norms behind one convolution": two_norms,
    "a branch on a type": by_type,
    "the mean of the batch taken away": lambda net, x: (h := straight(net, x)) - h.mean(0, keepdim=True),
    "a softmax over the batch": lambda net, x: straight(net, x).softmax(0),
    "norms of the batch itself": lambda net, x: net.last(
        F.batch_norm(net.first(x), None, None, training=True)
    ),
    "the batch's own statistics": lambda net, x: straight(net, x).mean((0, 2, 3)),
    "each image against each": lambda net, x: (h := straight(net, x).flatten(1)) @ h.t(),
    "another dimension first": lambda net, x: straight(net, x).permute(1, 0, 2, 3),
    "a sum over everything": lambda net, x: straight(net, x).sum(),
    "a view by the batch's size": lambda net, x: straight(net, x).view(x.size(0), -1),
    "a view of what was pooled": lambda net, x: pooled(net, x).view(x.shape[0], -1),
    "a view like another": lambda net, x: straight(net, x).view_as(x),
    "a view in another dtype": lambda net, x: (
        straight(net, x).contiguous().view(torch.int32).view(torch.float32)
    ),
    "joined by the name of the dimension": lambda net, x: torch.cat(
        tensors=(net.first(x), net.first(-x)), dim=1
    ),
    "joined along an axis": lambda net, x: torch.cat((net.first(x), net.first(-x)), axis=1),
    "joined from behind": lambda net, x: torch.cat((net.first(x), net.first(-x)), -3),
    "joined along the batch": lambda net, x: torch.cat((net.first(x), net.first(-x))),
}


@pytest.mark.parametrize("what", FORWARDS)
def test_a_network_of_any_forward_method_gives_the_same_numbers_whole_and_in_parts(what):
    model = Forward(FORWARDS[what])
    small, report = hg.skip_dead_kernels(model, torch.randn(2, 3, 8, 8), repeats=0)
    for count in (1, 2, 150):
        images = torch.randn(count, 3, 8, 8)
        with torch.no_grad():
            wanted, found = model(images), small(images)
        assert found.shape == wanted.shape
        assert torch.allclose(found, wanted, atol=1e-4 * float(wanted.abs().max())), (what, count)
    assert report.change["example"].relative < 1e-4


def test_a_network_without_a_dead_kernel_is_chained_too_where_that_is_faster():
    """Much of the speed is the form, layers chained with the batch innermost: not for sparse ones alone."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3)).eval()
    images = torch.randn(20, 3, 8, 8)
    small, report = hg.skip_dead_kernels(model, images, repeats=0)
    assert report.dead_kernels == 0
    assert report.left_dense == ""
    assert small.chains
    with torch.no_grad():
        assert torch.allclose(small(images), model(images), atol=1e-5)


@pytest.mark.parametrize("what", ["a convolution and its norm called twice", "a branch on a type"])
def test_a_graph_that_is_another_function_stays_dense_and_the_report_says_so(what):
    small, report = hg.skip_dead_kernels(Forward(FORWARDS[what]), torch.randn(2, 3, 8, 8), repeats=0)
    assert not isinstance(small, SkippingNetwork)
    assert "other numbers" in report.left_dense
    assert "other numbers" in str(report)


def test_images_that_meet_in_the_network_are_never_parted(monkeypatch):
    model = Forward(FORWARDS["a softmax over the batch"])
    example = torch.randn(2, 3, 8, 8)
    small, _ = hg.skip_dead_kernels(model, example, repeats=0)
    assert isinstance(small, SkippingNetwork)
    assert small.chains  # in which they do not meet; behind them they go through all together
    monkeypatch.setattr("hgsr_lite.skipping.network.chain_layers_", lambda graph: [])
    small, _ = hg.skip_dead_kernels(model, example, repeats=0)
    assert small.tile > 10**9


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (torch.randn(20, 2, 8, 8), r"\(batch, 3, height, width\), not \(20, 2, 8, 8\)"),
        (torch.randn(20, 5, 8, 8), r"\(batch, 3, height, width\), not \(20, 5, 8, 8\)"),
        (torch.randn(20, 3, 8, 8).double(), "are torch.float64"),
        (torch.randn(20, 3, 8, 8).half(), "are torch.float16"),
        (torch.ones(20, 3, 8, 8).long(), "are torch.int64"),
        (torch.randn(20, 3, 1, 1), r"1 x 1 pixels"),
    ],
)
def test_images_that_the_layers_do_not_take_are_refused_in_words(images, words):
    model = Forward(straight)
    model.first.padding = model.middle.padding = (0, 0)
    small, _ = hg.skip_dead_kernels(model, torch.randn(2, 3, 8, 8), repeats=0)
    assert isinstance(small, SkippingNetwork)
    small.dense = None  # a dense layer has words of its own
    small.dense_below = 1
    with pytest.raises(ValueError, match=words):
        small(images)


@pytest.mark.parametrize("flip", range(0, 400, 7))
def test_no_flipped_bit_of_a_living_file_goes_unnoticed(flip, tmp_path):
    model = Forward(straight)
    path = tmp_path / "living.safetensors"
    size = save_living(model, path)
    assert torch.equal(load_living(model, path).first.weight, model.first.weight)
    content = bytearray(path.read_bytes())
    content[size - 1 - flip * size // 400] ^= 1 << flip % 8
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"damaged|no file of living kernels|checksum"):
        load_living(model, path)


def test_names_of_layers_are_escaped_in_the_pages_of_both_reports():
    model = nn.Sequential()
    model.add_module("<script>alert(1)</script>", nn.Conv2d(2, 4, 3))
    _, skipped = hg.skip_dead_kernels(model, torch.randn(2, 2, 8, 8), repeats=0)
    _, removed = hg.compact(model, torch.randn(2, 2, 8, 8), repeats=0)
    for report in (skipped, removed):
        assert "<script" not in report._repr_html_()


@pytest.mark.parametrize("batches", [(), (0,), (1.5,), (-1,)])
def test_numbers_of_images_to_time_are_checked_before_any_work(batches):
    with pytest.raises(ValueError, match="batches"):
        hg.skip_dead_kernels(nn.Conv2d(1, 1, 1), torch.ones(1, 1, 2, 2), batches=batches)
