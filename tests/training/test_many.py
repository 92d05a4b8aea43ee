"""Many networks at once are the same networks as one after the other, whichever way is taken."""

from __future__ import annotations

import _thread
import copy
import logging
import threading

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import hgsr_lite as hg
from hgsr_lite import fit_many
from hgsr_lite.data.augment import one_batch
from hgsr_lite.fast import plan
from hgsr_lite.training import many
from hgsr_lite.training.lockstep import Lockstep
from hgsr_lite.training.recipe import Cut, Penalised, Recipe
from hgsr_lite.training.settings import Settings
from hgsr_lite.training.state import TrainingState

pytestmark = pytest.mark.trains

METHODS = [
    Penalised("hsq_gl12", strength=1e-4),
    Penalised("gl", "neuron", strength=1e-3, l1_mix=0.5),
    None,
    Penalised("gl", "neuron", strength=1e-2, warmup=0.5),
]
SEEDS = (0, 1, 2, 0)


def recipe_of(method, seed=0, width=0.5, **settings) -> Recipe:
    return Recipe(width=width, method=method, settings=Settings(seed=seed, **settings))


def recipes_of(**settings) -> list[Recipe]:
    return [recipe_of(method, seed, **settings) for method, seed in zip(METHODS, SEEDS, strict=True)]


@pytest.fixture(scope="module")
def digits() -> hg.Data:
    return hg.load_data("digits", device="cpu")


def first_steps(data, methods, settings, model="digits_cnn", steps=5):
    """The weights after some steps: of each network trained alone, and of all in lockstep.

    In float64: in float32 five steps make more of rounding on one processor than on another. What is left is
    the strengths': lockstep sends them as float32.
    """
    sizes = {"in_channels": data.in_channels, "num_classes": data.num_classes}
    nets = [hg.build_model(model, **sizes, seed=seed).double() for seed in SEEDS[: len(methods)]]
    copies = [copy.deepcopy(net) for net in nets]
    alone, together = (
        [
            TrainingState(net, data, method.regularizer(net, data) if method else None, settings)
            for net, method in zip(own, methods, strict=True)
        ]
        for own in (nets, copies)
    )
    batches = [[(images.double(), y) for images, y in list(run.batches())[:steps]] for run in alone]
    for run, own in zip(alone, batches, strict=True):
        run.start_epoch()
        for images, labels in own:
            run.start_step()
            run.step(images, labels)
    with Lockstep(together) as lockstep:
        for run in together:
            run.start_epoch()
        for step in zip(*batches, strict=True):
            lockstep.step(torch.stack([images for images, _ in step]), torch.stack([y for _, y in step]))
    return nets, copies


def largest_difference(nets: list[nn.Module], others: list[nn.Module]) -> float:
    pairs = zip(nets, others, strict=True)
    tensors = [
        pair
        for net, other in pairs
        for pair in zip(net.state_dict().values(), other.state_dict().values(), strict=True)
    ]
    return max((a.double() - b.double()).abs().max().item() for a, b in tensors)


@pytest.mark.parametrize(
    "options", [{}, {"optimizer": "adam", "lr": 1e-3}, {"augment": True}, {"weight_decay": 0.0}]
)
def test_the_first_steps_in_lockstep_are_those_of_each_network_alone(digits, options):
    assert largest_difference(*first_steps(digits, METHODS, Settings(epochs=2, **options))) < 1e-10


def test_proximal_steps_in_lockstep_are_those_of_each_network_alone(digits):
    methods = [method for method in METHODS if method]
    assert largest_difference(*first_steps(digits, methods, Settings(epochs=2, proximal=True))) < 1e-10


def test_without_a_compiler_networks_of_one_penalty_are_penalised_together(digits, monkeypatch):
    monkeypatch.setattr(plan, "make_plan", plan.plain_plan)
    assert largest_difference(*first_steps(digits, METHODS, Settings(epochs=2))) < 1e-10


class _Counter(TorchDispatchMode):
    count = 0

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        self.count += 1
        return operator(*args, **(kwargs or {}))


@pytest.mark.parametrize("l1_mix", [0.0, 0.3])
def test_an_epoch_in_lockstep_takes_as_many_operators_for_many_networks_as_for_two(
    digits, monkeypatch, l1_mix
):
    monkeypatch.setattr(plan, "make_plan", plan.plain_plan)
    # What is recorded of each network is extra.
    monkeypatch.setattr(TrainingState, "end_epoch", lambda run: None)
    settings, counts = Settings(epochs=1, augment=True, batch_size=256), []
    for networks in (2, 9):
        method = Penalised("hsq_gl12", strength=1e-4, l1_mix=l1_mix, warmup=0.5)
        nets = [hg.build_model("digits_cnn", in_channels=1, num_classes=10, seed=n) for n in range(networks)]
        runs = [TrainingState(net, digits, method.regularizer(net, digits), settings) for net in nets]
        with Lockstep(runs) as together:
            for run in runs:
                run.start_epoch()
            specs = list(zip(*(run.specs() for run in runs), strict=True))
            with _Counter() as counter:
                for step in specs:
                    images, labels = runs[0].show(one_batch(step))
                    together.step(*(part.unflatten(0, (networks, -1)) for part in (images, labels)))
            counts.append(counter.count)
    assert counts[0] == counts[1]


def test_networks_with_shortcuts_run_in_lockstep(digits):
    both = first_steps(digits, METHODS[:2], Settings(epochs=2), "resnet18", steps=2)
    assert largest_difference(*both) < 1e-10


def test_after_lockstep_every_network_owns_its_weights(digits):
    _, nets = first_steps(digits, METHODS[:2], Settings(epochs=2), steps=1)
    for net in nets:
        for tensor in net.state_dict().values():
            assert tensor.untyped_storage().nbytes() == tensor.nbytes
        assert all(parameter.grad is None for parameter in net.parameters())


@pytest.fixture(scope="module")
def by_way(digits) -> dict[str, list[hg.Trained]]:
    recipes = recipes_of(epochs=8, lr=0.05, batch_size=64)
    return {way: fit_many(recipes, digits, way=way, progress=False) for way in ("loop", "lockstep")}


def test_lockstep_ends_where_training_alone_ends(by_way, surely):
    """Accuracies within 2 points, shares within 2 %: one image of 359 and 0.02 % when measured."""
    for figure in ("accuracy", "below_tolerance"):
        ends = [[getattr(one.history.test, figure) for one in by_way[name]] for name in ("lockstep", "loop")]
        low, high = surely([other - alone for other, alone in zip(*ends, strict=True)])
        assert -0.02 < low <= high < 0.02
    for alone, other in zip(by_way["loop"], by_way["lockstep"], strict=True):
        assert (other.recipe, other.ended) == (alone.recipe, "finished")
        assert not other.model.training
        first, expected = other.history.records[0], alone.history.records[0]
        assert first["training loss"] == pytest.approx(expected["training loss"], rel=1e-4)
        assert first["penalty"] == pytest.approx(expected["penalty"], rel=1e-4)
        assert len(other.history.records) == 8
        assert other.history.snapshot_epochs == alone.history.snapshot_epochs


def test_the_loop_is_fit_itself(digits, by_way):
    (recipe,) = recipes_of(epochs=8, lr=0.05, batch_size=64)[:1]
    net, regularizer = recipe.build(digits)
    hg.fit(net, digits, regularizer, epochs=8, lr=0.05, batch_size=64, seed=0, progress=False)
    assert largest_difference([net], [by_way["loop"][0].model]) == 0


@pytest.mark.parametrize("way", ["loop", "lockstep"])
def test_a_network_that_diverges_says_so_and_does_not_stop_the_others(digits, way):
    recipes = [recipe_of(Penalised("es", strength=strength), epochs=2, lr=0.05) for strength in (1e9, 1e-5)]
    broken, fine = fit_many(recipes, digits, way=way, progress=False)
    assert not broken.finished
    assert "lower the strength" in broken.ended
    assert "history" not in broken.ended
    assert broken.history.test is None
    assert fine.finished
    first, second = fine.history.records
    assert second["training loss"] < first["training loss"]
    assert fine.history.test is not None


@pytest.mark.parametrize("way", ["auto", "loop", "lockstep"])
def test_weights_that_explode_under_proximal_steps_stop_no_other_network(digits, way):
    recipes = [recipe_of(Penalised("es", strength=1e-4), epochs=2, lr=1e25, proximal=True)] * 2
    trained = fit_many(recipes, digits, way=way, progress=False)
    assert ["lower the strength" in one.ended for one in trained] == [True, True]


def test_the_way_follows_from_the_images_alone(digits, caplog):
    wide = hg.load_data("digits", device="cpu", image_size=17, limit=50)
    small = hg.load_data("digits", device="cpu", limit=50)
    both = [recipe_of(None, seed, width=0.1, epochs=1) for seed in (0, 1)]
    with caplog.at_level(logging.INFO, "hgsr_lite.training.many"):
        for recipes, data in ((both, small), (both, wide), (both[:1], small)):
            fit_many(recipes, data, progress=False)
    assert [record.args[0] for record in caplog.records] == ["lockstep", "loop", "loop"]


def test_recipes_of_several_kinds_come_back_in_the_order_given(digits):
    recipes = [
        recipe_of(None, seed, width, epochs=1)
        for seed in (0, 1)
        for width in (0.1, 0.25)
    ]  # fmt: skip
    trained = fit_many(recipes, digits, way="lockstep", progress=False)
    assert [one.recipe for one in trained] == recipes
    assert len({sum(p.numel() for p in one.model.parameters()) for one in trained}) == 2


def test_an_interrupted_loop_returns_the_networks_that_are_finished(digits, monkeypatch):
    recipes = [recipe_of(Penalised("gl", strength=1e-4), seed, 0.25, epochs=2) for seed in range(50)]
    fit_one, started = many.fit, []

    def fit_and_interrupt_the_third(*arguments, **options):
        started.append(arguments)
        if len(started) == 3:
            threading.Timer(0.02, _thread.interrupt_main).start()
        return fit_one(*arguments, **options)

    monkeypatch.setattr(many, "fit", fit_and_interrupt_the_third)
    trained = fit_many(recipes, digits, way="loop", progress=False)
    assert 0 < len(trained) < len(recipes)
    assert [one.recipe for one in trained] == recipes[: len(trained)]
    assert all(one.history.test is not None and not one.history.interrupted for one in trained)


def test_an_unknown_way_is_refused_with_the_nearest(digits):
    with pytest.raises(ValueError, match="did you mean 'lockstep'"):
        fit_many([recipe_of(None)], digits, way="lockstp")


@pytest.mark.parametrize("change", [{"method": Cut("random")}, {"finetune": 2}])
def test_a_recipe_in_two_parts_is_refused_with_where_to_go(digits, change):
    with pytest.raises(ValueError, match=r"trained in two parts.*make it with hgsr_lite.study.make_run"):
        fit_many([Recipe(**change)], digits)


@pytest.mark.parametrize("recipes", [Recipe(), "gl", [{"penalty": "gl"}], 3])
def test_what_is_no_list_of_recipes_is_refused(digits, recipes):
    with pytest.raises(TypeError, match=r"recipes must be a list of Recipe, not .*: give \[Recipe"):
        fit_many(recipes, digits)


def test_no_recipe_gives_no_network(digits):
    assert fit_many([], digits) == []
