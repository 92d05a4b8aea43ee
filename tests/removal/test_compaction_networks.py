"""Removal on whole networks: the function stays, the counts fall as by hand, the result is a normal model."""

from __future__ import annotations

import io

import pytest
import torch
import torchvision
from torch import nn

from hgsr_lite.groups import Layout, kernel_stack
from hgsr_lite.models import build_model
from hgsr_lite.removal import compact, load_compact


def vgg11_bn() -> nn.Module:
    """Torchvision's, with 64 instead of 4,096 hidden neurons: 4,096 make 128 million weights to compare."""
    model = torchvision.models.vgg11_bn(init_weights=False)
    model.classifier = nn.Sequential(nn.Linear(512 * 49, 64), nn.ReLU(), nn.Dropout(), nn.Linear(64, 10))
    return model


# A narrow network without batch norm goes blind at once when channels die at random: it loses fewer.
NETWORKS = {
    "alexnet": (lambda: build_model("alexnet", in_channels=3, num_classes=10, seed=0), 0.1),
    "vgg11": (lambda: build_model("vgg11", in_channels=3, num_classes=10, seed=0), 0.2),
    "resnet18": (lambda: build_model("resnet18", in_channels=3, num_classes=10, seed=0), 0.2),
    "torchvision resnet18": (lambda: torchvision.models.resnet18(num_classes=10), 0.3),
    "torchvision vgg11_bn": (vgg11_bn, 0.3),
    "torchvision mobilenet_v2": (lambda: torchvision.models.mobilenet_v2(num_classes=10), 0.1),
    "torchvision densenet121": (lambda: torchvision.models.densenet121(num_classes=10), 0.3),
}


def randomise_batch_norms_(model: nn.Module) -> nn.Module:
    """Statistics and affine parameters as after training, so that a dead filter leaves a constant behind."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                (module.weight, 0.5, 1.5),
                (module.bias, -0.5, 0.5),
                (module.running_mean, -0.5, 0.5),
                (module.running_var, 0.5, 1.5),
            ):
                tensor.data.uniform_(low, high)
    return model


def kill_channels_(model: nn.Module, share: float) -> nn.Module:
    """Set whole rows and whole columns of every weight to zero at random."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            stack = kernel_stack(module.weight.data, Layout.of(module))
            stack[torch.rand(stack.shape[:2]) < share] = 0
            stack.transpose(1, 2)[torch.rand(stack.shape[0], stack.shape[2]) < share] = 0
    return model


@pytest.fixture(scope="module", params=NETWORKS)
def network(request):
    """A network with dead channels, its smaller copies and their report; built once for all the tests."""
    build, share = NETWORKS[request.param]
    torch.manual_seed(0)
    model = kill_channels_(randomise_batch_norms_(build()), share).eval()
    images = torch.randn(2, 3, 32, 32)
    small, report = compact(model, images, exact_only=True, repeats=1)
    return model, images, small, report


def relative_change(model, small, images):
    with torch.no_grad():
        expected, found = model(images), small(images)
    return float((expected - found).abs().max() / expected.abs().max())


def test_exact_removals_leave_the_function_as_it_was(network):
    model, images, small, report = network
    with torch.no_grad():
        assert model(images).std(0).max() > 0, "the test's network says the same about every image"
    assert report.exact > 0
    assert report.approximate == 0
    assert relative_change(model, small.eval(), images) <= 1e-5
    assert max(change.relative for change in report.change.values()) <= 1e-5
    assert max(change.relative for change in report.proof.values()) <= 1e-10


def test_the_report_counts_the_smaller_network(network):
    model, _, small, report = network
    assert report.before.parameters == sum(p.numel() for p in model.parameters())
    assert report.after.parameters == sum(p.numel() for p in small.parameters()) < report.before.parameters
    assert report.after.macs < report.before.macs
    assert report.before.seconds > 0
    for name, row in report.to_frame().iterrows():
        weight = small.get_submodule(name).weight
        assert weight.shape[0] == row.outputs_after
        assert row.outputs_before - row.outputs_after == row.exact + row.approximate


def test_the_smaller_network_trains_on(network):
    _, images, small, _ = network
    start = {name: tensor.clone() for name, tensor in small.state_dict().items()}
    parameters = list(small.parameters())
    labels = torch.tensor([1, 7])

    def loss():
        return nn.functional.cross_entropy(small.eval()(images), labels)

    before = loss()
    gradients = torch.autograd.grad(before, parameters)
    assert all(gradient.isfinite().all() for gradient in gradients)
    step = 0.01 * before.item() / sum(gradient.square().sum().item() for gradient in gradients)
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter -= step * gradient
        assert loss() < before
    small.load_state_dict(start)


def test_the_smaller_network_is_saved_and_loaded_without_pickled_code(network):
    model, images, small, _ = network
    file = io.BytesIO()
    torch.save(small.state_dict(), file)
    file.seek(0)
    loaded = load_compact(model, torch.load(file, weights_only=True)).eval()
    with torch.no_grad():
        assert torch.equal(loaded(images), small.eval()(images))
    assert str(loaded) == str(small)


def test_the_smaller_network_exports_and_compiles(network):
    _, images, small, _ = network
    exported = torch.export.export(small.eval(), (images,)).module()
    compiled = torch.compile(small, backend="eager")
    with torch.no_grad():
        expected = small(images)
        torch.testing.assert_close(exported(images), expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(compiled(images), expected, rtol=1e-4, atol=1e-5)
    torch.compiler.reset()
