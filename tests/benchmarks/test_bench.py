"""The quick benchmark runs through, is complete, and its variants agree in value. No test looks at a time."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_quick_benchmark_fills_its_table_and_its_variants_agree(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "hgsr_lite", "bench", "--quick", "--out", str(tmp_path)],
        cwd=REPOSITORY, check=True, capture_output=True, timeout=280,
    )  # fmt: skip
    record = json.loads((tmp_path / "bench.json").read_text())
    table = pd.DataFrame(record["rows"])
    assert set(record["machine"]) >= {"processor", "python", "torch", "numba"}
    penalties = table[table["what"] == "penalty"]
    variants = {"textbook autograd", "plain closed form", "add_gradient_", "prox_", "floor"}
    variants |= {"layers stacked"} if torch.cuda.is_available() else set()
    wanted = itertools.product(
        ("alexnet", "vgg11", "resnet18"), ("hsq_gl12", "gl"), ("feature", "neuron"), variants
    )
    found = penalties[["network", "penalty", "grouping", "variant"]].itertuples(index=False, name=None)
    assert sorted(found) == sorted(wanted)
    assert (penalties["agreement"] < 1e-5).all()
    assert (table["ms"] > 0).all()
    others = {"training step", "input pipeline", "training epoch", "many networks", "size"}
    assert others < set(table["what"])
    assert (table.loc[table["what"] == "many networks", "agreement"] < 1e-4).all()
    assert (tmp_path / "size.png").stat().st_size > 5000
