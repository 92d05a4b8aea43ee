"""Called again, in another process, compiled or exported, a network without dead kernels says the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.fx.experimental.optimization import fuse

import hgsr_lite as hg
from hgsr_lite.skipping import DenseNetwork
from hgsr_lite.skipping.network import SkippingNetwork
from tests.skipping.networks import distance, skipping

pytestmark = pytest.mark.usefixtures("never_dense")
OTHER_PROCESS = """
import sys
import torch

threads, small, batches, outputs = sys.argv[1:]
torch.set_num_threads(int(threads))
small = torch.load(small, weights_only=False)
torch.save([small(images) for images in torch.load(batches)], outputs)
"""


def with_dense_form(name: str) -> tuple[nn.Module, SkippingNetwork]:
    """A network, and the same without dead kernels: fewer than four images go through its dense form."""
    model, small = skipping(name)
    small.take_dense_below(4, DenseNetwork(fuse(model), torch.channels_last))
    return model, small


def in_another_process(small: nn.Module, batches: list[torch.Tensor], folder: Path) -> list[torch.Tensor]:
    """What a network that was saved whole says there, with as many threads as here."""
    paths = [str(folder / name) for name in ("small.pt", "batches.pt", "outputs.pt")]
    torch.save(small, paths[0])
    torch.save(batches, paths[1])
    threads = str(torch.get_num_threads())
    subprocess.run([sys.executable, "-c", OTHER_PROCESS, threads, *paths], check=True, timeout=200)
    return torch.load(paths[2])


@pytest.mark.slow
def test_no_bit_differs_in_a_second_call_and_in_another_process(tmp_path):
    _, small = with_dense_form("resnet18")
    batches = [torch.randn(count, 3, 32, 32) for count in (1, 3, 7, 16, 40)]
    found = [small(images) for images in batches]
    assert all(map(torch.equal, map(small, batches), found))
    assert all(map(torch.equal, in_another_process(small, batches, tmp_path), found))


@pytest.mark.parametrize("backend", ["eager", "aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiled_as_one_graph_it_says_the_same(backend):
    model, small = with_dense_form("digits_cnn")
    torch.compiler.reset()
    compiled = torch.compile(small, backend=backend, fullgraph=True)
    for count in (40, 17, 2):
        assert distance(model, compiled, torch.randn(count, 3, 32, 32)) < 1e-5
    torch.compiler.reset()


@pytest.mark.parametrize("name", hg.MODELS)
def test_an_export_for_any_number_of_images_takes_any_number(name):
    model, small = skipping(name)
    sizes = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(small, (torch.randn(3, 3, 32, 32),), dynamic_shapes=sizes)
    exported = program.module()
    for images in (torch.randn(count, 3, 32, 32) for count in (1, 2, 3, 19, 40)):
        assert distance(model, exported, images) < 1e-5
