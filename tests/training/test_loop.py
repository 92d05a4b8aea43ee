"""A run is reproducible to the bit, can be killed and resumed, and says what goes wrong while it does."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest
import torch
from torch import nn

import hgsr_lite as hg
from hgsr_lite.training import DivergedError
from hgsr_lite.training.checkpoint import STATE, load_checkpoint, save_checkpoint
from hgsr_lite.training.history import MOST_SNAPSHOTS

pytestmark = pytest.mark.trains


@pytest.fixture(scope="module")
def data():
    return hg.load_data("digits", device="cpu", limit=300)


def new_model(seed=0):
    return hg.build_model("digits_cnn", in_channels=1, num_classes=10, seed=seed)


def plain_network():
    """Two convolutions without batch norm: quick to train, quick to kill (by epoch 6 to 8 of eight seeds)."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(),
            nn.Flatten(), nn.Linear(256, 10),
        )  # fmt: skip


def trained(data, *, epochs=3, **options):
    model = new_model()
    reg = hg.Regularizer(model, "hsq_gl12", strength=1e-4, warmup=0.5)
    return model, hg.fit(model, data, reg, epochs=epochs, batch_size=32, progress=False, **options)


def same_weights(one, other):
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def figures(history):
    return [{k: v for k, v in record.items() if k != "seconds"} for record in history.records]


@pytest.mark.parametrize("options", [{}, {"augment": True}, {"proximal": True}, {"bfloat16": True}])
def test_one_seed_makes_two_runs_equal_bit_for_bit(data, options):
    (one, first), (other, second) = trained(data, **options), trained(data, **options)
    assert same_weights(one, other)
    assert figures(first) == figures(second)
    assert first.test == second.test
    different, _ = trained(data, seed=1, **options)
    assert not same_weights(one, different)


def test_bfloat16_is_what_layers_compute_in_while_weights_and_the_fast_penalty_stay_float32(data):
    model, dtypes = new_model(), set()
    for layer in hg.weight_layers(model):
        layer.module.register_forward_hook(
            lambda module, _, output: dtypes.add(output.dtype) if module.training else None
        )
    reg = hg.Regularizer(model, "hsq_gl12", strength=1e-5)
    hg.fit(model, data, reg, epochs=1, bfloat16=True, progress=False)
    assert dtypes == {torch.bfloat16}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert reg.backend == "compiled"


def test_bfloat16_trains_as_well(data, surely):
    """To within 2 % of the training loss, seed by seed: over eight seeds it differed by 0.1 +- 0.3 %."""
    ratios = []
    for seed in range(5):
        loss = {}
        for bfloat16 in (False, True):
            model = hg.build_model("digits_cnn", in_channels=1, num_classes=10, width=0.25, seed=seed)
            reg = hg.Regularizer(model, "hsq_gl12", strength=1e-5)
            options = {"epochs": 8, "lr": 0.05, "batch_size": 32, "bfloat16": bfloat16}
            history = hg.fit(model, data, reg, seed=seed, progress=False, **options)
            loss[bfloat16] = history.records[-1]["training loss"]
        assert loss[False] < math.log(10) / 2, "it learnt too little to tell"
        ratios.append(math.log(loss[True] / loss[False]))
    low, high = surely(ratios)
    assert -0.02 < low <= high < 0.02


@pytest.mark.parametrize("options", [{"proximal": True}, {}])
def test_weights_that_are_no_longer_numbers_end_a_run_like_a_loss_that_is_none(data, options):
    with pytest.raises(DivergedError, match="lower the strength or the learning rate") as caught:
        trained(data, lr=1e25, **options)
    assert caught.value.history.records == []


def test_the_advice_names_bfloat16_where_it_is_on(data):
    with pytest.raises(FloatingPointError, match="or train without bfloat16"):
        trained(data, lr=1e25, bfloat16=True)


@pytest.mark.parametrize(
    "options", [{"tolerance": -1}, {"lr": "3"}, {"momentum": 1.0}, {"momentum": -1}, {"weight_decay": -1}]
)
def test_impossible_settings_are_refused_before_anything_is_trained(data, options):
    model = new_model()
    before = [parameter.clone() for parameter in model.parameters()]
    with pytest.raises(ValueError, match=next(iter(options))):
        hg.fit(model, data, epochs=1, progress=False, **options)
    assert all(map(torch.equal, before, model.parameters()))


def test_a_last_batch_of_one_image_does_not_change_the_mean_loss(data):
    one = hg.Data(data.name, data.classes, hg.Split(data.train.images[:1], data.train.labels[:1]),
                  data.validation, data.test, data.mean, data.std, data.relevant_channels)  # fmt: skip
    model = new_model()
    with torch.no_grad():
        twice = nn.functional.cross_entropy(
            model.train()(one.train.images.repeat(2, 1, 1, 1)), one.train.labels.repeat(2)
        )
    history = hg.fit(new_model(), one, epochs=1, progress=False)
    assert history.records[0]["training loss"] == pytest.approx(twice.item(), rel=1e-5)


def test_a_run_leaves_the_global_random_state_alone(data):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    trained(data, epochs=1)
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("options", [{"lr": 0.05}, {"optimizer": "adam", "lr": 1e-2}])
def test_training_learns(data, surely, options):
    """The loss, 2.3 by chance, ends at 1.45 +- 0.06 (SGD) and 1.09 +- 0.05 (Adam) over eight seeds."""
    ends = []
    for seed in range(5):
        model = hg.build_model("digits_cnn", in_channels=1, num_classes=10, width=0.25, seed=seed)
        reg = hg.Regularizer(model, "hsq_gl12", strength=1e-5)
        history = hg.fit(model, data, reg, epochs=6, batch_size=32, seed=seed, progress=False, **options)
        ends.append(history.records[-1]["training loss"])
    assert surely(ends)[1] < 1.8


def test_every_epoch_is_recorded(data):
    model, history = trained(data, epochs=4)
    table = history.to_frame()
    assert list(table.index) == list(range(1, 5))
    assert history.test.accuracy == hg.accuracy(model, data.test)
    assert table["strength"].iloc[-1] == 1e-4
    assert "test accuracy" in str(history)


def test_a_share_has_one_name_and_one_value_in_report_record_and_test_result(data):
    model, history = trained(data, epochs=1)
    with torch.no_grad():
        hg.weight_layers(model)[0].weight[:3] = 0
    result, report = hg.test_result(model, data), hg.sparsity(model)
    shares = report.overall.shares()
    assert shares.keys() <= history.records[-1].keys()
    assert (shares["dead inputs"], shares["dead outputs"]) == (0, 3 / 160)
    for name, share in shares.items():
        attribute = name.replace(" ", "_")
        assert getattr(result, attribute) == getattr(report, attribute) == share


def test_the_schedule_is_a_fifth_after_each_third():
    from hgsr_lite.training.settings import Settings

    settings = Settings(9, 0, 0.01, 0.9, 0, 1, "sgd", False, False, 1e-3, False)
    rates = [settings.lr_in(epoch) for epoch in range(1, 10)]
    assert rates == pytest.approx([0.01] * 3 + [0.002] * 3 + [0.0004] * 3)


def test_a_regularised_step_is_the_textbook_step(data):
    model, twin = new_model(), new_model()
    reg = hg.Regularizer(model, "hsq_gl12", strength=1e-2, l1_mix=0.5)
    hg.fit(model, data, reg, epochs=1, batch_size=1000, weight_decay=0.0, progress=False)
    order = torch.Generator().manual_seed(0)
    images, labels = next(iter(data.train.batches(1000, order)))
    loss = nn.functional.cross_entropy(twin.train()(images), labels)
    (loss + hg.Regularizer(twin, "hsq_gl12", strength=1e-2, l1_mix=0.5)()).backward()
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter -= 0.01 * parameter.grad
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_proximal_training_gives_exact_zeros_where_the_gradient_gives_none(data):
    reached = {}
    for proximal in (False, True):
        model = new_model()
        reg = hg.Regularizer(model, "l1", strength=0.1)
        history = hg.fit(model, data, reg, epochs=3, batch_size=32, proximal=proximal, progress=False)
        reached[proximal] = history.test.exact_zeros
    assert reached[False] == 0
    assert reached[True] > 0.2  # 0.259 +- 0.002 over eight seeds


def test_snapshots_are_small_and_hold_the_first_and_the_last_epoch(data):
    epochs = 2 * MOST_SNAPSHOTS + 3
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 10))
    history = hg.fit(model, data, epochs=epochs, batch_size=300, progress=False)
    assert history.snapshot_epochs[0] == 0
    assert history.snapshot_epochs[-1] == epochs
    assert len(history.snapshot_epochs) <= MOST_SNAPSHOTS + 2
    assert history.snapshots["0"].shape == (len(history.snapshot_epochs), 2, 1)
    last = hg.kernel_norms(model[0].weight.detach())
    assert torch.allclose(history.snapshots["0"][-1].float(), last, rtol=1e-2)


KILLED = """
    import sys, torch, hgsr_lite as hg
    torch.set_num_threads(1)
    data = hg.load_data("digits", device="cpu", limit=300)
    model = hg.build_model("digits_cnn", in_channels=1, num_classes=10, seed=0)
    reg = hg.Regularizer(model, "hsq_gl12", strength=1e-4, warmup=0.5)
    hg.fit(model, data, reg, epochs=40, batch_size=32, checkpoint=sys.argv[1], augment=True, progress=False)
"""


def test_a_killed_run_resumes_to_the_very_same_end(data, tmp_path):
    path = tmp_path / "run.pt"
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(KILLED), str(path)]) as process:
        deadline = time.monotonic() + 250
        while time.monotonic() < deadline:
            if path.exists() and load_checkpoint(path, {})["epoch"] > 0:
                break
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert 0 < load_checkpoint(path, {})["epoch"] < 40, "the run ended before it could be killed"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    resumed, history = trained(data, epochs=40, augment=True, checkpoint=path)
    straight, expected = trained(data, epochs=40, augment=True)
    torch.set_num_threads(threads)
    assert same_weights(resumed, straight)
    assert figures(history) == figures(expected)
    assert history.test == expected.test


def test_a_finished_run_is_read_back_without_training(data, tmp_path):
    path = tmp_path / "run.pt"
    model, history = trained(data, checkpoint=path)
    again, same = trained(data, checkpoint=path)
    assert same_weights(model, again)
    assert same.records == history.records
    assert same.test == history.test


def test_a_write_that_fails_leaves_the_earlier_checkpoint_whole(data, tmp_path):
    path = tmp_path / "run.pt"
    save_checkpoint(path, {**dict.fromkeys(STATE), "identity": {}, "epoch": 1})
    with pytest.raises(AttributeError):
        save_checkpoint(path, {"identity": {}, "bad": lambda: None})
    assert load_checkpoint(path, {})["epoch"] == 1
    assert os.listdir(tmp_path) == ["run.pt"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": 5}, "seed was 0, now 5"),
        ({"lr": 0.1}, r"lr was 0.01, now 0\.1"),
        ({"epochs": 4}, "epochs was 3, now 4"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_with_the_difference(data, tmp_path, options, message):
    path = tmp_path / "run.pt"
    trained(data, checkpoint=path)
    with pytest.raises(ValueError, match=message):
        trained(data, checkpoint=path, **options)


def test_a_damaged_checkpoint_is_named_and_kept(data, tmp_path):
    path = tmp_path / "run.pt"
    path.write_bytes(b"half a fi")
    with pytest.raises(ValueError, match=r"run\.pt is no readable checkpoint"):
        trained(data, checkpoint=path)
    assert path.read_bytes() == b"half a fi"


class Payload:
    def __reduce__(self):
        return os.mkdir, ("harm",)


def test_a_checkpoint_cannot_run_code(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"identity": {}, "evil": Payload()}, tmp_path / "run.pt")
    with pytest.raises(ValueError, match="no readable checkpoint"):
        trained(data, checkpoint=tmp_path / "run.pt")
    assert not (tmp_path / "harm").exists()


def test_a_loss_that_is_not_finite_stops_with_epoch_strength_and_advice(data):
    model = new_model()
    reg = hg.Regularizer(model, "hsq_es", strength=1e3)
    with pytest.raises(
        FloatingPointError, match=r"epoch 1: .* at strength 1000: lower the strength"
    ) as caught:
        hg.fit(model, data, reg, epochs=3, progress=False)
    assert caught.value.history.records == []


def says_one_class_always(accuracy, data):
    """Whether the accuracy is the share of one class in the test part."""
    shares = data.test.labels.bincount() / len(data.test.labels)
    return (shares - accuracy).abs().min() < 1e-6


@pytest.mark.filterwarnings("ignore:epoch")  # the other layer dies as well
def test_a_network_that_dies_is_reported_while_training(data):
    model = plain_network()
    reg = hg.Regularizer(model, "hsq_gl12", strength=0.03)
    message = r"epoch \d+: every weight of layer '0' .* the network is dead.*warmup"
    with pytest.warns(RuntimeWarning, match=message):
        history = hg.fit(model, data, reg, epochs=12, batch_size=16, progress=False)
    assert "Lower the strength (now 0.03)" in history.notes[0]
    assert int(history.notes[0].split()[1].rstrip(":")) < 12, "it was said only at the end"
    assert says_one_class_always(history.test.accuracy, data)


@pytest.mark.parametrize("warmup", [0.0, 1.0])
def test_a_network_whose_weights_swing_above_the_tolerance_at_chance_is_noticed(data, warmup):
    model = plain_network()
    reg = hg.Regularizer(model, "l1", strength=3.0, warmup=warmup)  # each step overshoots zero by far
    message = "the loss is at chance, though no layer is below tolerance as a whole. Lower the strength"
    with pytest.warns(RuntimeWarning, match=message):
        history = hg.fit(model, data, reg, epochs=6, lr=0.1, batch_size=32, momentum=0.0, progress=False)
    assert history.records[-1]["below tolerance"] < 1


def test_a_short_run_that_has_not_learnt_yet_is_not_blamed_on_the_penalty(data, recwarn):
    model = new_model()
    reg = hg.Regularizer(model, "gl", strength=1e-6)
    hg.fit(model, data, reg, epochs=1, lr=1e-6, batch_size=32, progress=False)
    assert not [one for one in recwarn if "chance" in str(one.message)]


class Interrupting(nn.Module):
    """A network whose reader presses Ctrl-C in the third epoch."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 10))
        self.calls = 0

    def forward(self, images):
        self.calls += self.training
        if self.calls > 2 * 3:
            signal.raise_signal(signal.SIGINT)
        return self.net(images)


def test_control_c_returns_what_there_is(data):
    history = hg.fit(Interrupting(), data, epochs=9, batch_size=100, progress=False)
    assert history.interrupted
    assert len(history.records) == 2
    assert history.test is None
    assert "(interrupted)" in str(history)


def test_progress_shows_accuracy_and_sparsity(data, capsys):
    hg.fit(new_model(), data, epochs=1)
    shown = capsys.readouterr().err
    assert "accuracy" in shown
    assert "below tolerance" in shown


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs must be a whole number of at least 1, not 0"),
        ({"batch_size": 2.5}, "batch_size must be a whole number of at least 1, not 2.5"),
        ({"lr": math.nan}, "lr nan must be a finite number > 0"),
        ({"optimizer": "sdg"}, "unknown optimizer 'sdg': choose one of sgd, adam .*'sgd'"),
        ({"optimizer": "adam", "proximal": True}, "Adam scales each weight's step by itself"),
    ],
)
def test_impossible_settings_are_refused_before_training(data, options, message):
    model = new_model()
    before = new_model()
    with pytest.raises(ValueError, match=message):
        hg.fit(model, data, hg.Regularizer(model, "gl"), progress=False, **options)
    assert same_weights(model, before)


def test_a_proximal_run_needs_a_regularizer(data):
    with pytest.raises(ValueError, match="needs a regularizer"):
        hg.fit(new_model(), data, proximal=True, progress=False)


def test_the_test_result_measures_again_with_the_small_weights_at_zero(data):
    model = new_model()
    hg.fit(model, data, epochs=2, batch_size=32, progress=False)
    before = [value.clone() for value in model.state_dict().values()]
    result = hg.test_result(model, data, tolerance=0.05)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), before, strict=True))
    assert result.accuracy == hg.accuracy(model, data.test)
    hg.zero_below_(model, 0.05)
    assert result.accuracy_after_zeroing == hg.accuracy(model, data.test)
    everything_at_zero = hg.test_result(model, data, tolerance=1e3)
    assert says_one_class_always(everything_at_zero.accuracy_after_zeroing, data)


def test_one_call_seeds_everything():
    import random

    import numpy as np

    draws = []
    for _ in range(2):
        hg.seed_everything(7)
        draws.append((random.random(), np.random.rand(), torch.rand(1).item()))
    assert draws[0] == draws[1]


def a_regularized_network():
    model = hg.build_model("digits_cnn", in_channels=1, num_classes=10, seed=0)
    return model, hg.Regularizer(model, "gl", strength=1e-3)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (lambda m, r, d: (m, d, "gl"), TypeError, r"regularizer must be a Regularizer, not 'gl'"),
        (lambda m, r, d: (m, (1, 2), r), TypeError, "data must be what load_data returns, not tuple"),
        (lambda m, r, d: ("digits_cnn", d, r), TypeError, "model must be a torch.nn.Module"),
        (lambda m, r, d: (a_regularized_network()[0], d, r), ValueError, "acts on another model"),
    ],
)
@pytest.mark.parametrize("proximal", [False, True])
def test_what_does_not_belong_together_is_refused_before_anything_is_changed(
    arguments, error, message, proximal
):
    model, reg = a_regularized_network()
    data = hg.load_data("digits", device="cpu", limit=100)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(error, match=message):
        hg.fit(*arguments(model, reg, data), epochs=1, proximal=proximal, progress=False)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("option", ["proximal", "augment", "relative", "bfloat16", "progress", "checkpoint"])
def test_every_option_is_checked_before_training(option):
    model, reg = a_regularized_network()
    data = hg.load_data("digits", device="cpu", limit=100)
    with pytest.raises(TypeError, match=f"{option} must be"):
        hg.fit(model, data, reg, **{"epochs": 1, "progress": False, option: 1})
