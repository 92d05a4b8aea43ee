"""How long a network takes: in turn with others, and as one that is used batch after batch."""

from __future__ import annotations

import time

import pytest
import torch
from torch import nn

from hgsr_lite.removal import latency
from hgsr_lite.removal.cost import seconds_in_turn

CPU = torch.device("cpu")


def test_a_short_call_is_repeated_before_the_one_that_counts_and_a_long_one_is_not():
    called: list[str] = []

    def long() -> None:
        called.append("long")
        time.sleep(0.02)

    found = seconds_in_turn({"short": lambda: called.append("short"), "long": long}, 4, CPU, settling=5e-3)
    assert {name: len(taken) for name, taken in found.items()} == {"short": 4, "long": 4}
    assert called.count("short") > 10 * called.count("long")
    assert called.count("long") <= 4 + 2 + 1, "two rounds of warm-up, and once to find that it is long"


def test_calls_take_turns_so_that_a_machine_that_slows_down_slows_them_all():
    called: list[str] = []
    seconds_in_turn({name: lambda name=name: called.append(name) for name in "ab"}, 3, CPU)
    assert called == list("ab" * 5)


@pytest.mark.parametrize("repeats", [0, 1])
def test_nothing_runs_where_no_time_is_wanted(repeats):
    ran: list[int] = []
    net = nn.Linear(2, 2)
    net.register_forward_hook(lambda *_: ran.append(1))
    taken = latency({"net": net}, torch.ones(1, 2), repeats)["net"]
    assert (bool(ran), taken > 0) == (bool(repeats), bool(repeats))
