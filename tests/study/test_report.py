"""A report says what its table holds, no more: it is made again from the table, and names what is missing."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from hgsr_lite.study.report import accuracy_at, page, prepared
from hgsr_lite.study.study import Study
from hgsr_lite.study.tables import read_rows, read_table, with_paths

STUDIES = Path(__file__).resolve().parents[2] / "studies"


def run(method: str, amount: float, seed: int, removed: float, accuracy: float, **more) -> dict:
    is_penalty = method not in ("dense", "magnitude")
    names = {"penalty": method if is_penalty else None, "baseline": None if is_penalty else method}
    where = {"fraction": amount if is_penalty else None, "share": amount if method == "magnitude" else None}
    result = {
        "parameters": 100,
        "parameters left": 100 * (1 - removed),
        "MACs": 10,
        "MACs left": 10 - removed,
    }
    accuracies = {
        f"{part} accuracy {stage}": accuracy
        for part in ("validation", "test")
        for stage in ("after zeroing", "after fine-tuning")
    }
    rest = {"proximal": False, "start": "he", "seed": seed, "ended": "finished", "processor": "a processor"}
    zeros = {"below tolerance": removed, "dead kernels": removed, "calibrated strength": 1.0, "l1_mix": 0.0}
    return {**names, **where, **result, **accuracies, **rest, **zeros, **more}


@pytest.fixture
def table() -> pd.DataFrame:
    rows = [run("dense", 0, seed, 0, 0.9) for seed in (0, 1, 2)]
    for seed in (0, 1, 2):
        rows += [run("magnitude", 0.4, seed, 0.4, 0.80), run("magnitude", 0.6, seed, 0.6, 0.60)]
        rows += [run("gl", 1, seed, 0.4, 0.90), run("gl", 2, seed, 0.6, 0.80)]
    rows.append(run("es", 1, 0, 0.5, 0.1, ended="diverged: epoch 1"))
    return with_paths(pd.DataFrame(rows))


def test_accuracy_is_read_along_the_path_at_equal_parameters(table):
    found = accuracy_at(prepared(table), "parameters removed", [0.5, 0.7])
    means = found.set_index(["method", "level"])["mean"]
    assert means["gl", 0.5] == pytest.approx(0.85)
    assert means["magnitude", 0.5] == pytest.approx(0.70)
    assert means[["gl", "magnitude"]].loc[:, 0.7].isna().all(), "beyond its last point a path says nothing"


def test_the_page_names_runs_seeds_and_what_diverged_and_leaves_the_diverged_out(table):
    text = page(table, "A study")
    assert "16 runs (seed 0: 6, seed 1: 5, seed 2: 5), 1 of them diverged" in text
    assert "| es |" not in text
    assert "85.0 ± 0.0" in text
    assert "| gl | feature | gradient | he | 0.150 |" in text
    assert "Not yet: the table holds no path" in text, "there are no cuts of kernels in this table"


def test_one_seed_says_nothing_about_luck(table):
    text = page(table[table["seed"] == 0], "A study")
    assert "One seed says nothing about luck" in text
    assert "85.0 (one seed)" in text
    assert "±" not in text.split("## Test accuracy")[1].split("## Area")[0].replace("| ± |", "")


def test_a_study_that_has_hardly_begun_has_a_page(table):
    text = page(table[:1], "A study")
    assert "No path reaches any of these levels yet" in text


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.toml")), ids=lambda path: path.stem)
def test_committed_tables_are_whole_and_their_pages_made_from_them(path):
    study = Study.read(path)
    if not study.table.exists():
        pytest.skip("no table yet")
    rows, damaged = read_rows(study.table)
    layers, damaged_layers = read_rows(study.layers_table)
    assert damaged == damaged_layers == {}
    assert {row["key"] for row in layers} <= {row["key"] for row in rows}
    assert len(study._rows()[0]) == len(rows) > 0, "every row belongs to a run of this version"
    planned = f"{study.grid.title} ({len(study.grid.recipes)} runs planned)"
    assert path.with_suffix(".md").read_text(encoding="utf-8") == page(read_table(study.table), planned)
