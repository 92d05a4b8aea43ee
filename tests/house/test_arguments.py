"""Wrong arguments of public calls are refused before any work, in words of this package; right ones taken."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

import hgsr_lite as hg
from hgsr_lite.skipping import load_living, save_living
from hgsr_lite.study import Study
from hgsr_lite.training import Recipe

pytestmark = pytest.mark.trains
SCALARS = [np.float32, np.float64, np.array, torch.tensor]
WHOLE = [np.int64, np.array, torch.tensor]


@pytest.fixture(scope="module")
def data() -> hg.Data:
    return hg.load_data("digits", device="cpu", limit=60)


def net(classes: int = 10) -> nn.Module:
    return hg.build_model("digits_cnn", in_channels=1, num_classes=classes, width=0.25, seed=0)


def fit(data: hg.Data, model: nn.Module | None = None, **options) -> hg.History:
    return hg.fit(model or net(), data, **{"epochs": 1, "batch_size": 60, "progress": False, **options})


@pytest.mark.parametrize("number", SCALARS)
@pytest.mark.parametrize("name", ["lr", "momentum", "weight_decay", "tolerance"])
def test_a_number_of_numpy_or_pytorch_trains_as_pythons_does(data, name, number):
    assert fit(data, **{name: number(0.25)}).test == fit(data, **{name: 0.25}).test


@pytest.mark.parametrize("number", WHOLE)
@pytest.mark.parametrize("name", ["epochs", "batch_size", "seed"])
def test_a_whole_number_of_numpy_or_pytorch_trains_as_pythons_does(data, name, number):
    assert fit(data, **{name: number(2)}).test == fit(data, **{name: 2}).test


@pytest.mark.parametrize("number", WHOLE)
def test_counts_of_data_and_networks_may_come_from_numpy_or_pytorch(number):
    small = hg.load_data("digits", device="cpu", limit=number(50), seed=number(1), image_size=number(9))
    same = hg.load_data("digits", device="cpu", limit=50, seed=1, image_size=9)
    assert torch.equal(small.train.images, same.train.images)
    given = {"in_channels": number(1), "num_classes": number(10), "seed": number(1)}
    model = hg.build_model("digits_cnn", width=np.float32(0.25), **given)
    twin = hg.build_model("digits_cnn", in_channels=1, num_classes=10, seed=1, width=0.25)
    assert all(map(torch.equal, model.state_dict().values(), twin.state_dict().values()))


@pytest.mark.parametrize("number", SCALARS)
def test_shares_may_come_from_numpy_or_pytorch(data, number):
    assert len(hg.load_data("digits", device="cpu", validation=number(0.25)).validation) == 360
    small, _ = hg.prune(net(), data, "norm", number(0.5), repeats=0)
    twin, _ = hg.prune(net(), data, "norm", 0.5, repeats=0)
    assert all(map(torch.equal, small.state_dict().values(), twin.state_dict().values()))


def example(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.zeros(2, 1, 8, 8, dtype=dtype)


def calibrated(images=None, labels=None, loss=nn.functional.cross_entropy) -> float:
    images = example() if images is None else images
    return hg.Regularizer(net()).calibrate_(images, torch.arange(2) if labels is None else labels, loss=loss)


HUGE = 10**400
"""A whole number beyond all floats."""
WRONG: dict[str, tuple[Callable[[hg.Data], object], str]] = {
    "an optimizer in capitals": (lambda data: fit(data, optimizer="SGD"), "did you mean 'sgd'"),
    "a penalty in capitals": (lambda _: hg.Penalty("HSQ_GL12"), "did you mean 'hsq_gl12'"),
    "a truth as a number": (lambda data: fit(data, lr=True), "lr True must be"),
    "a seed too large": (lambda data: fit(data, seed=2**70), "below 2.*63"),
    "a seed of data too large": (lambda _: hg.load_data("digits", seed=2**70), "below 2.*63"),
    "too few classes": (
        lambda data: fit(data, net(3)),
        "answers one image with .1, 3., .* each of 10 classes",
    ),
    "no model": (lambda _: hg.sparsity("net"), "model must be a torch.nn.Module, not 'net'"),
    "a model's class": (lambda _: hg.Regularizer(nn.Conv2d), "model must be a torch.nn.Module"),
    "no data to prune with": (lambda _: hg.prune(net(), None, "norm", 0.5), "data must be what load_data"),
    "no data to test on": (lambda _: hg.test_result(net(), 3), "data must be what load_data returns"),
    "no data for many": (lambda _: hg.fit_many([], "digits"), "data must be what load_data returns, not str"),
    "no part of the data": (lambda data: hg.accuracy(net(), data), "split must be a part of the data"),
    "a share above 1": (lambda data: hg.prune(net(), data, "norm", 1.5), "amount 1.5 is outside 0..1"),
    "a share below 0": (lambda data: hg.prune(net(), data, "norm", -0.5), "amount -0.5 is outside 0..1"),
    "repeats below 0": (lambda data: hg.prune(net(), data, "norm", 0.5, repeats=-1), "repeats must be"),
    "no flag": (lambda _: hg.compact(net(), torch.zeros(1, 1, 8, 8), exact_only="x"), "exact_only must be"),
    "a mix set later": (lambda _: setattr(hg.Regularizer(net()), "l1_mix", 7), "l1_mix 7 is outside"),
    "a warm-up set later": (lambda _: setattr(hg.Regularizer(net()), "warmup", -1), "warmup -1 is outside"),
    "a key set later": (lambda _: setattr(hg.Regularizer(net()), "penalty", "gl"), "must be a Penalty"),
    "no batch": (lambda _: hg.Regularizer(net()).calibrate_(None, None), "tensors of one length"),
    "labels of other images": (
        lambda data: hg.Regularizer(net()).calibrate_(data.train.images, data.train.labels[:3]),
        "tensors of one length",
    ),
    "no layout": (lambda _: hg.Penalty("gl")(torch.ones(2, 2), layout=3), "layout must be a Layout"),
    "a sparse weight": (
        lambda _: hg.Penalty("gl")(torch.ones(2, 2).to_sparse()),
        "convert it with .to_dense",
    ),
    "a key that is no name": (
        lambda _: hg.load_compact(net(), {**net().state_dict(), 3: torch.ones(1)}),
        "key 3 is no parameter's name",
    ),
    "a huge learning rate": (lambda _: hg.Regularizer(net()).prox_(HUGE), "lr 10+.* is not a finite number"),
    "a huge fraction": (lambda _: hg.Regularizer(net()).prox_(Fraction(HUGE, 3)), "lr .* is not a finite"),
    "a huge negative": (lambda _: hg.Regularizer(net()).prox_(-HUGE), "lr -10+.* is not a finite number"),
    "more digits than Python writes": (lambda _: hg.Regularizer(net(), strength=10**5000), "16610 bits"),
    "a huge share": (lambda _: hg.Regularizer(net(), l1_mix=HUGE), "l1_mix 10.* is outside 0..1"),
    "a huge tolerance": (lambda _: hg.zero_below_(net(), HUGE), "tolerance 10.* is not a finite number"),
    "a huge step": (lambda _: hg.Penalty("gl").prox(torch.ones(2, 2), HUGE), "step 10.* is not a finite"),
    "a huge count": (lambda data: fit(data, batch_size=HUGE), "batch_size 10.* is too large: .*below 2.*63"),
    "a huge limit": (lambda _: hg.load_data("digits", limit=HUGE), "limit 10.* is too large"),
    "a huge picture": (lambda _: hg.load_data("digits", image_size=HUGE), "image_size 10.* is too large"),
    "a picture for nobody's memory": (
        lambda _: hg.load_data("digits", device="cpu", image_size=10**7),
        "image_size .10000000, 10000000.: 1797 images .* GB a channel, more than",
    ),
    "a picture beyond all counting": (
        lambda _: hg.load_data("digits", device="cpu", image_size=(10**18, 10**18)),
        "image_size .* GB a channel, more than",
    ),
    "a weight without numbers": (
        lambda _: hg.Penalty("gl").prox(torch.ones(2, 2, device="meta"), 0.1),
        "a weight on the meta device has a shape and no numbers",
    ),
    "a model without numbers": (
        lambda _: hg.Regularizer(net().to("meta")).add_gradient_(),
        "a weight on the meta device has a shape and no numbers",
    ),
    "a network for nobody's memory": (
        lambda _: hg.build_model("digits_cnn", in_channels=1, num_classes=2, width=1e300),
        "digits_cnn with .* width=1e.300 is too large to be built here",
    ),
    "a number that is none yet": (
        lambda _: hg.Regularizer(net(), strength=torch.tensor(1.0, device="meta")),
        "strength tensor.*meta.* is not a finite number",
    ),
    "no groups": (lambda _: hg.Layout(0), "conv_groups must be a whole number of at least 1, not 0"),
    "groups as a text": (lambda _: hg.Layout("2"), "conv_groups must be a whole number .* not '2'"),
    "half a group": (lambda _: hg.Layout(1.5), "conv_groups must be a whole number .* not 1.5"),
    "groups turned round": (lambda _: hg.Layout(1, 2), "transposed must be True or False, not 2"),
    "a layer without kernels": (lambda _: hg.Layout.of(nn.ReLU()), "layout is that of a conv.*not of ReLU"),
    "two norms": (lambda _: hg.kernel_norms(torch.ones(2, 2), torch.ones(2)), "norm=tensor.*give 1 or 2"),
    "a path as the model": (lambda _: hg.load_compact("m", {}), "model must be a torch.nn.Module, not 'm'"),
    "a path as the state": (
        lambda _: hg.load_compact(net(), "m"),
        "not 'm'; .*torch.load.path, weights_only",
    ),
    "a model to move to": (lambda _: hg.Regularizer(net()).on("x"), "model must be a torch.nn.Module"),
    "a model to act on": (lambda _: hg.Regularizer(net()).check_acts_on(3), "model must be a torch.nn.Mod"),
    "one name": (lambda _: hg.Regularizer(net(), include="conv1"), "include='conv1' is one string"),
    "a number as names": (lambda _: hg.Regularizer(net(), include=3), "include must be names of layers"),
    "a number among names": (lambda _: hg.sparsity(net(), include=[7]), "include must be names .* not .7."),
    "no names": (lambda _: hg.sparsity(net(), exclude=None), "exclude must be names of layers.*not None"),
    "one name in a recipe": (
        lambda _: hg.Penalised(strength=1.0, layers="conv1"),
        "layers='conv1' is one string",
    ),
    "a key as the method": (lambda _: Recipe(method="gl"), "method must be a Penalised, a Cut or None"),
    "settings as a dict": (lambda _: Recipe(settings={"epochs": 1}), "settings must be Settings"),
    "a loss that is no tensor": (
        lambda _: calibrated(loss=lambda scores, labels: 3),
        "the loss gave 3, not one number",
    ),
    "a loss an image": (
        lambda _: calibrated(loss=lambda scores, labels: scores),
        "the loss gave .*not one number",
    ),
    "a loss of nothing": (
        lambda _: calibrated(loss=lambda scores, labels: torch.tensor(1.0)),
        "depends on the model's scores",
    ),
    "one label": (lambda _: calibrated(labels=torch.tensor(1)), "must be tensors of one length"),
    "one number as images": (lambda _: calibrated(torch.tensor(1.0), torch.ones(1)), "tensors of one length"),
    "another kind of numbers": (
        lambda _: hg.compact(net(), example(torch.float64)),
        "does not take example_input of dtype torch.float64; its weights are torch.float32: convert",
    ),
    "no layer to cut": (lambda _: hg.compact(nn.ReLU(), example()), "ReLU has no convolution and no linear"),
    "a batch of none": (lambda data: next(data.train.batches(0)), "batch_size must be .* not 0"),
    "a seed as the generator": (lambda data: next(data.train.batches(2, 7)), "must be a torch.Generator"),
    "a flag that is none": (lambda _: hg.load_data("digits", download=3), "download must be True or False"),
    "a name of many letters": (lambda _: hg.load_data("a" * 5000), "unknown image set or folder"),
    "a zero byte": (lambda data: fit(data, checkpoint="a\0b"), "checkpoint .* holds a zero byte"),
    "a width that is none": (
        lambda _: hg.build_model("alexnet", in_channels=1, num_classes=2, width=math.nan),
        "width must be",
    ),
}


@pytest.mark.parametrize(("call", "words"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_refused_in_words(data, call, words):
    with pytest.raises((ValueError, TypeError), match=words) as caught:
        call(data)
    assert "hgsr_lite" in str(caught.traceback[-1].path)


def test_a_checkpoints_folder_is_made_and_one_that_cannot_be_is_refused_before_training(data, tmp_path):
    fit(data, checkpoint=tmp_path / "runs" / "first" / "a.pt")
    assert (tmp_path / "runs" / "first" / "a.pt").is_file()
    (tmp_path / "file").write_text("")
    model = net()
    before = [value.clone() for value in model.state_dict().values()]
    with pytest.raises(ValueError, match=r"file.* cannot be written"):
        fit(data, model, checkpoint=tmp_path / "file" / "a.pt")
    assert all(map(torch.equal, before, model.state_dict().values()))


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("root", lambda: hg.load_data("digits", root=3)),
        ("path", lambda: Study.read(None)),
        ("path", lambda: save_living(net(), None)),
        ("file", lambda: load_living(net(), 3)),
        ("runs", lambda: Study.read("studies/digits.toml", runs=7)),
    ],
)
def test_what_is_no_path_is_refused_by_its_name(name, call):
    with pytest.raises(TypeError, match=rf"^{name} must be a path, a str or a Path, not "):
        call()


def test_a_file_of_living_kernels_that_is_none_is_told_by_its_name(tmp_path):
    for place in (tmp_path / "none", tmp_path):
        with pytest.raises(FileNotFoundError, match=f"no file {place}: give the path that save_living wrote"):
            load_living(net(), place)
    for strange in ({3: torch.ones(1)}, {"living_checksum": 3}):
        with pytest.raises(ValueError, match=r"entry .* of the file of living kernels is no tensor"):
            load_living(net(), strange)
    for call in (save_living, load_living):
        with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module, not 'm'"):
            call("m", tmp_path / "none")


def test_a_message_shows_a_thousand_labels_on_one_short_line():
    regularizer = hg.Regularizer(net(), "gl")
    images, labels = torch.zeros(4, 1, 8, 8), torch.zeros(1000, dtype=torch.long)
    with pytest.raises(ValueError, match=r"fraction tensor.* is not a finite number > 0") as caught:
        regularizer.calibrate_(images, labels[:4], labels)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("number", [np.float32(0.5), torch.tensor(0.5), np.float64(0.5), 0.5])
def test_a_recipe_takes_every_librarys_numbers_and_writes_pythons(number):
    for method in (
        hg.Penalised("gl", strength=number),
        hg.Penalised("gl", fraction=number),
        hg.Cut(share=number),
    ):
        recipe = hg.Recipe(method=method, width=number, settings=hg.Settings(lr=number))
        assert "0.5" in json.dumps(recipe.fields())
    given = {"penalty": "gl", "fraction": number, "lr": number, "epochs": np.int64(3)}
    assert Recipe.from_fields(given) == Recipe.from_fields({**given, "fraction": 0.5, "lr": 0.5, "epochs": 3})


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: hg.Penalised("gl", strength=True),
        lambda: hg.Penalised("gl", fraction=0),
        lambda: hg.Cut(share=True),
        lambda: hg.Cut(share=1.0),
        lambda: hg.Recipe(width=-1),
        lambda: hg.Recipe(width=torch.nan),
    ],
)
def test_a_recipe_refuses_what_is_no_amount_when_it_is_made(wrong):
    with pytest.raises(ValueError, match=r"above 0|> 0"):
        wrong()
