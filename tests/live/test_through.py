"""One image through the layers: the page computes what PyTorch computes, with channels on and off."""

from __future__ import annotations

import base64
import json

import pytest
import torch
from torch import nn

import hgsr_lite as hg
from hgsr_lite.live import ThroughLayers

PASS = """
  const numbers = (name) => Uint8Array.from(atob(given[name]), (letter) => letter.charCodeAt(0));
  const networks = live.networksOf({ ...given, weights: numbers("weights") });
  const pixels = new Float32Array(numbers("images").slice().buffer);
  const length = given.inputs * given.height * given.width;
  const off = [0, 1, 2].map((block) => given.off.filter(([, b]) => b === block).map(([, , c]) => c));
  return networks.map((found) => ({
    ...live.passThrough(found, pixels.subarray(given.number * length, (given.number + 1) * length), off),
    unread: found.unread, unmade: found.unmade,
  }));
"""


def trained_like(in_channels: int, seed: int) -> nn.Module:
    """A small network whose batch norms have seen something, with dead inputs and outputs."""
    model = hg.build_model(
        "digits_cnn", in_channels=in_channels, num_classes=10, width=0.25, seed=seed
    ).eval()
    for norm in (module for module in model.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.running_mean.uniform_(-0.2, 0.2)
        norm.running_var.uniform_(0.5, 2)
        norm.bias.data.uniform_(-0.5, 0.5)
    model.features.conv2.weight.data[:, 3] = 0
    model.features.conv3.weight.data[5] = 0
    model.classifier.output.weight.data[:, 2] = 0
    return model


@pytest.fixture(scope="module", params=["digits", "colours", "an odd oblong"])
def data(request, image_folder) -> hg.Data:
    if request.param == "digits":
        return hg.load_data("digits", device="cpu")
    size = (9, 13) if request.param == "an odd oblong" else None
    return hg.load_data(image_folder, device="cpu", image_size=size)


@pytest.fixture
def models(data) -> dict[str, nn.Module]:
    return {name: trained_like(data.in_channels, seed) for seed, name in enumerate(("one", "other"))}


def computed(in_node, figure: ThroughLayers) -> list[dict]:
    return in_node("through.js", PASS, json.loads(json.dumps(figure.page_state())))


def shown(model: nn.Module, image: torch.Tensor, off: list) -> tuple[list[torch.Tensor], torch.Tensor]:
    """The maps behind each ReLU and the shares of the classes, with channels off."""
    maps = []

    def switch(block):
        def hook(module, inputs, output):
            channels = [c for _, b, c in off if b == block]
            maps.append(output.index_fill(1, torch.tensor(channels, dtype=torch.long), 0.0))
            return maps[-1]

        return hook

    relus = [getattr(model.features, f"relu{n}") for n in (1, 2, 3)]
    hooks = [relu.register_forward_hook(switch(block)) for block, relu in enumerate(relus)]
    with torch.no_grad():
        shares = model(image).softmax(1)[0]
    for hook in hooks:
        hook.remove()
    return [each[0] for each in maps], shares


@pytest.mark.parametrize(
    "off", [[], [[0, 0, 1], [0, 1, 4], [0, 2, 0], [0, 2, 7]]], ids=["all on", "some off"]
)
def test_the_page_computes_what_pytorch_computes(in_node, data, models, off):
    figure = ThroughLayers(models, data, number=3, off=off)
    for found, model in zip(computed(in_node, figure), models.values(), strict=True):
        maps, shares = shown(model, data.test.images[3:4], off)
        for one, wanted in zip(found["maps"], maps, strict=True):
            torch.testing.assert_close(torch.tensor(one), wanted.flatten(1), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(torch.tensor(found["shares"]), shares, rtol=1e-4, atol=1e-6)


def test_what_nobody_reads_and_what_nobody_makes_is_told(in_node, data, models):
    for found in computed(in_node, ThroughLayers(models, data)):
        assert [[c for c, dead in enumerate(block) if dead] for block in found["unread"]] == [[3], [], [2]]
        assert [[c for c, dead in enumerate(block) if dead] for block in found["unmade"]] == [[], [], [5]]


def test_switching_off_what_nobody_reads_changes_no_score(in_node, data, models):
    before, after = (
        computed(in_node, ThroughLayers(models, data, off=off))[0]["shares"]
        for off in ([], [[0, 0, 3], [0, 2, 2]])
    )
    assert before == after


def test_the_models_are_neither_changed_nor_followed(data, models):
    before = {key: tensor.clone() for key, tensor in models["one"].state_dict().items()}
    models["one"].train()
    figure = ThroughLayers(models, data)
    assert models["one"].training
    assert all(torch.equal(tensor, before[key]) for key, tensor in models["one"].state_dict().items())
    assert len(base64.b64decode(figure.page_state()["weights"])) % 4 == 0
    assert figure.alt().startswith("An image of a ")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda data: {"net": hg.build_model("alexnet", in_channels=1, num_classes=10)}, "digits_cnn alone"),
        (lambda data: {}, "one to three networks of one size"),
        (
            lambda data: {
                str(width): hg.build_model("digits_cnn", in_channels=1, num_classes=10, width=width)
                for width in (0.25, 0.5)
            },
            "one to three networks of one size",
        ),
    ],
)
def test_what_the_page_cannot_compute_is_refused_in_words(make, words):
    data = hg.load_data("digits", device="cpu")
    with pytest.raises(ValueError, match=words):
        ThroughLayers(make(data), data)


def test_images_of_other_channels_are_refused_in_words():
    with pytest.raises(ValueError, match="takes 3 channels, the images have 1"):
        ThroughLayers({"net": trained_like(3, 0)}, hg.load_data("digits", device="cpu"))
