"""The README's "how to add": a penalty, a network, an image set, an exercise and a figure, from outside."""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch
from torch.testing import assert_close

import hgsr_lite as hg
from hgsr_lite.data.sources import SETS
from hgsr_lite.models import MODELS

README = Path(__file__).resolve().parents[2] / "README.md"


@pytest.fixture(scope="module")
def added():
    """What the README's lines define; the tables are put back afterwards."""
    before = [(table, dict(table)) for table in (hg.PENALTIES, MODELS, SETS)]
    _, code = re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(code, "<README>", "exec"), names)
    yield names
    for table, rows in before:
        table.clear()
        table.update(rows)


@pytest.fixture
def weight():
    return torch.tensor([[[3.0, -4.0], [0.0, 0.0]], [[0.0, 1.0], [2.0, 0.0]]])


@pytest.mark.usefixtures("added")
def test_a_penalty_has_value_gradient_force_and_degree_at_once(weight):
    penalty = hg.Penalty("bridge", grouping="neuron")
    assert_close(penalty(weight), torch.tensor(5**0.5 + 0 + 1 + 2**0.5))
    assert hg.PENALTIES["bridge"].degree == 0.5
    assert_close(penalty(4 * weight), 2 * penalty(weight))
    by_hand = torch.zeros_like(weight)
    by_hand[0, 0] = torch.tensor([3.0, -4.0]) / (2 * 5**1.5)
    by_hand[1, 0, 1], by_hand[1, 1, 0] = 0.5, 0.5 / 2**0.5
    assert_close(penalty.gradient(weight), by_hand)
    assert_close(penalty.force(weight), torch.tensor([[0.5 / 5**0.5, 0.0], [0.5, 0.5 / 2**0.5]]))


@pytest.mark.trains
@pytest.mark.usefixtures("added")
def test_a_network_trains_on_an_image_set_under_a_penalty():
    data = hg.load_data("dots", device="cpu")
    assert (data.name, data.classes, data.image_size) == ("dots", ("even", "odd"), (8, 8))
    model = hg.build_model("tiny", in_channels=data.in_channels, num_classes=data.num_classes, seed=0)
    history = hg.fit(model, data, hg.Regularizer(model, "bridge", strength=1e-4), epochs=1, progress=False)
    assert history.test is not None


def test_an_exercise_knows_right_from_wrong(added, capsys):
    assert added["check_half"](lambda x: x * 0.5)
    assert not added["check_half"](lambda x: x + x)
    assert "You doubled." in capsys.readouterr().out


def test_a_figure_shows_what_it_is_given(added, weight):
    figure = added["kernel_norms"](weight)
    assert_close(torch.tensor(figure.axes[0].images[0].get_array().tolist()), hg.kernel_norms(weight))
    plt.close(figure)
