"""The playground: the workbench without a browser, and the panel driven as a page would drive it."""

from __future__ import annotations

import time
from dataclasses import asdict, replace

import pytest
import torch

import hgsr_lite as hg
from hgsr_lite.live import panel as panel_module
from hgsr_lite.live.maps import plain_record
from hgsr_lite.live.panel import Playground, playground
from hgsr_lite.live.runs import ending
from hgsr_lite.live.workbench import SHOWN, Workbench, compare, newest_maps
from hgsr_lite.study import measure
from hgsr_lite.training import Penalised

pytestmark = pytest.mark.trains

PNG = b"\x89PNG"
USUAL = Penalised(strength=1e-4)


@pytest.fixture(scope="module")
def data() -> hg.Data:
    return hg.load_data("digits", device="cpu", limit=200)


@pytest.fixture
def bench(data: hg.Data) -> Workbench:
    return Workbench(data, epochs=2)


@pytest.fixture
def panel(bench: Workbench) -> Playground:
    return Playground(bench, Penalised(strength=1e-3))


def equal_weights(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def wait_until_idle(panel: Playground) -> None:
    panel._worker.join(timeout=60)
    assert not panel.busy


def test_the_same_recipe_gives_the_same_network_twice(bench: Workbench):
    assert equal_weights(bench.train(USUAL).model, bench.train(USUAL).model)


@pytest.mark.parametrize(
    ("method", "proximal"),
    [
        (None, False),
        (Penalised(strength=1e-4, l1_mix=0.5, warmup=0.5), False),
        (Penalised("gl12", "neuron", 1e-4), True),
    ],
)
def test_the_workbench_trains_as_fit_does(bench: Workbench, method: Penalised | None, proximal: bool):
    recipe = bench.recipe(method, proximal)
    model, regularizer = recipe.build(bench.data)
    hg.fit(model, bench.data, regularizer, **asdict(recipe.settings), progress=False)
    trained = bench.train(method, proximal=proximal)
    assert trained.recipe == recipe
    assert equal_weights(trained.model, model)


def test_a_stop_ends_the_run_within_a_batch(bench: Workbench):
    shares = []

    def watch(share: float, history: hg.History) -> bool:
        shares.append(share)
        return len(shares) == 3

    assert bench.train(USUAL, watch=watch).ended == "stopped in epoch 1 of 2"
    assert len(shares) == 3


def test_a_run_that_diverges_says_so_and_has_no_metrics(bench: Workbench):
    trained = bench.train(Penalised("hsq_es", strength=1e3))
    assert "lower the strength" in trained.ended
    assert ".history" not in trained.ended
    assert set(compare({"diverged": trained}, bench.data)["diverged"]) <= {"-"}


def test_a_dead_network_is_named_in_the_ending_and_not_warned_about(bench: Workbench, recwarn):
    deep = Workbench(bench.data, "alexnet", epochs=6, lr=0.02, batch_size=8)
    trained = deep.train(Penalised(strength=0.02))
    # Which layer empties first, and whether one does as a whole, depends on the processor's rounding.
    assert trained.finished
    assert "every weight of layer" in ending(trained) or "the loss is at chance" in ending(trained)
    assert not [warning for warning in recwarn if warning.category is RuntimeWarning]


def test_a_wrong_penalty_is_refused_in_words(bench: Workbench):
    with pytest.raises(ValueError, match="did you mean 'hsq_gl12'"):
        bench.train(Penalised("hsq_gl1", strength=1e-4))


def test_judging_changes_nothing_and_never_reads_the_test_part(data: hg.Data):
    blind = replace(data, test=None)
    trained = Workbench(blind, epochs=1).train(USUAL)
    before = {name: value.clone() for name, value in trained.model.state_dict().items()}
    table = compare({"one": trained}, blind, tolerance=0.1)
    assert list(table.index) == list(SHOWN)
    assert all(torch.equal(before[name], value) for name, value in trained.model.state_dict().items())


def test_metrics_follow_the_tolerance(bench: Workbench):
    model = bench.train(Penalised(strength=1e-3)).model
    metrics = [measure(model, bench.data, tolerance).metrics for tolerance in (0.0, 1e-3, 1.0)]
    shares = [each["below tolerance"] for each in metrics]
    assert shares == sorted(shares)
    assert metrics[2]["parameters left"] < metrics[0]["parameters left"]


def test_calibration_equates_the_gradients_at_the_start(bench: Workbench):
    first, second, tenth = (
        bench.calibrated(Penalised(key, fraction=fraction)).strength
        for key, fraction in (("hsq_gl12", 1.0), ("gl", 1.0), ("hsq_gl12", 0.1))
    )
    assert first < second
    assert tenth == pytest.approx(first / 10)


def test_the_maps_name_their_layers(bench: Workbench):
    dense, trained = bench.train(), bench.train(USUAL)
    assert len(newest_maps(dense.history, trained.history, "features.conv2")) == 2
    with pytest.raises(ValueError, match=r"features\.conv2"):
        newest_maps(dense.history, trained.history, "features.conv9")


def test_the_table_says_what_an_image_takes_once_small_weights_are_skipped(panel: Playground):
    panel.tolerance = 1.0  # every kernel is dead: what is left is pools and the last layer
    dense, last = (run["metrics"]["milliseconds an image"] for run in panel.runs)
    assert 0 < last < 5
    assert 0 < dense < 5
    assert "milliseconds an image" in panel.log


def test_the_panel_comes_up_with_both_runs(panel: Playground):
    assert [run["name"] for run in panel.runs] == ["0: dense", "1: hsq_gl12 0.001"]
    assert panel.method == Penalised(strength=1e-3)
    assert len(panel.log) == 1
    assert panel.still().startswith(PNG)
    kernels = sum(layer["outputs"] * layer["inputs"] for layer in panel.layers)
    assert len(panel.norms) == 4 * kernels


def answer(panel: Playground, do: str, **settings: object) -> None:
    """Do as a button of the page does."""
    panel._answer({"do": do, "settings": {**panel.controls, **settings}})


def test_train_runs_with_the_settings_shown_and_changes_the_map(panel: Playground):
    norms = panel.norms
    answer(panel, "train", penalty="gl12", grouping="neuron", strength=0.5)
    wait_until_idle(panel)
    assert panel.trained.recipe.method == Penalised("gl12", "neuron", 0.5)
    assert panel.norms != norms
    assert panel.progress["message"].startswith("finished")
    assert [record["epoch"] for record in panel.records] == [1, 2]
    assert list(panel.log["penalty"]) == ["hsq_gl12", "gl12"]


@pytest.fixture
def long_panel(data: hg.Data) -> Playground:
    panel = playground(data, epochs=1)
    panel.workbench = replace(panel.workbench, epochs=1000)
    panel.epochs = 1000
    return panel


def wait_for(panel: Playground, phase: str) -> None:
    until = time.monotonic() + 60
    while panel.progress["phase"] != phase and time.monotonic() < until:
        time.sleep(0.01)
    assert panel.progress["phase"] == phase


def test_stop_ends_the_run_and_keeps_what_it_reached(long_panel: Playground):
    answer(long_panel, "train")
    assert long_panel.busy
    answer(long_panel, "stop")
    wait_until_idle(long_panel)
    assert "stopped in epoch" in long_panel.progress["message"]
    assert len(long_panel.runs) == 3


def test_a_second_press_on_train_starts_no_second_run(long_panel: Playground):
    answer(long_panel, "train")
    worker = long_panel._worker
    answer(long_panel, "train", penalty="gl")
    assert long_panel._worker is worker
    assert long_panel.penalty == "hsq_gl12"
    long_panel.stop()
    assert not long_panel.busy


def test_one_epoch_holds_the_run_and_pause_lets_it_go_on(long_panel: Playground):
    answer(long_panel, "step")
    wait_for(long_panel, "paused")
    assert len(long_panel.records) == 1
    time.sleep(0.5)
    assert len(long_panel.records) == 1
    answer(long_panel, "pause")
    wait_for(long_panel, "running")
    answer(long_panel, "pause")
    wait_for(long_panel, "paused")
    long_panel.stop()
    assert not long_panel.busy


def test_metrics_of_the_last_run_are_marked_until_the_new_one_has_its_own(long_panel: Playground):
    marked = []
    long_panel.observe(lambda change: marked.append(change["new"]), names="stale")
    answer(long_panel, "step")
    wait_for(long_panel, "paused")
    assert marked == [True, False]
    long_panel.stop()


def test_reset_forgets_all_runs_but_the_dense_one(long_panel: Playground):
    answer(long_panel, "train")
    answer(long_panel, "reset")
    assert not long_panel.busy
    assert [run["penalty"] for run in long_panel.runs] == [None]


def test_the_buttons_come_back_when_a_run_fails(panel: Playground):
    panel.workbench = replace(panel.workbench, model_name="nonesuch")
    answer(panel, "train")
    wait_until_idle(panel)
    assert "unknown network" in panel.progress["message"]


def test_tolerance_needs_no_new_run(panel: Playground):
    metrics, trained = panel.runs[-1]["metrics"], panel.trained
    panel.tolerance = 0.1
    assert panel.runs[-1]["metrics"]["below tolerance"] > metrics["below tolerance"]
    assert panel.trained is trained
    assert "judged at tolerance 0.1" in panel.progress["message"]


def test_calibrate_moves_the_strength(panel: Playground):
    wanted = panel.workbench.calibrated(Penalised(fraction=panel_module.FRACTION)).strength
    answer(panel, "calibrate")
    assert panel.strength == pytest.approx(wanted, rel=0.01)
    assert "Strength" in panel.progress["message"]


def test_every_run_of_a_panel_acts_on_the_layers_it_was_given(bench: Workbench):
    panel = Playground(bench, Penalised(strength=1e-3, layers=("features.conv2",)))
    assert panel.method.layers == ("features.conv2",)
    panel.strength = 0.0
    panel.calibrate()
    alone = bench.calibrated(Penalised(fraction=1.0, layers=("features.conv2",))).strength
    assert panel.strength == pytest.approx(alone, rel=1e-2)


def test_numbers_that_json_does_not_know_become_nothing():
    assert plain_record({"epoch": 2, "loss": float("nan"), "share": 0.5}) == {
        "epoch": 2,
        "loss": None,
        "share": 0.5,
    }


def test_progress_is_told_while_the_kernel_is_free_for_other_work(long_panel: Playground):
    seen: list[dict] = []
    long_panel.observe(lambda change: seen.append(change["new"]), names="progress")
    long_panel.train()
    beats, until = 0, time.monotonic() + 60
    while len(seen) < 3 and time.monotonic() < until:
        beats += 1
        time.sleep(0.01)
    long_panel.stop()
    assert beats > 3
    assert seen[1]["left"] >= 0
    assert "stopped" in seen[-1]["message"]
