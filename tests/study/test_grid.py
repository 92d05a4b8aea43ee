"""A study's file is read whole and checked before anything runs; what is wrong is named with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from hgsr_lite.study.grid import read_grid
from hgsr_lite.training.recipe import Cut, Penalised, Recipe
from hgsr_lite.training.settings import Settings

STUDIES = Path(__file__).resolve().parents[2] / "studies"


def written(folder: Path, text: str) -> Path:
    path = folder / "study.toml"
    path.write_text(text)
    return path


def test_every_seed_is_complete_before_the_next_and_the_first_field_of_a_grid_changes_slowest(tmp_path):
    grid = read_grid(
        written(
            tmp_path,
            """
            [shared]
            seed = [0, 1]
            [[grid]]
            baseline = "dense"
            [[grid]]
            fraction = [0.1, 1]
            penalty = ["gl", "es"]
            """,
        )
    )
    assert [recipe.name for recipe in grid.recipes] == [
        f"{what} seed {seed}"
        for seed in (0, 1)
        for what in ("dense", *(f"{p} feature fraction {f}" for f in (0.1, 1) for p in ("gl", "es")))
    ]


def test_what_is_the_same_run_stands_once(tmp_path):
    text = '[shared]\nproximal = [true, false]\n[[grid]]\npenalty = ["l1", "gl"]\nfraction = 1\n'
    text += 'grouping = ["feature", "neuron"]\n[[grid]]\nbaseline = "dense"'
    recipes = read_grid(written(tmp_path, text)).recipes
    assert len(recipes) == len(set(recipes)) == 2 * (1 + 2) + 1


def test_a_grid_goes_before_what_is_shared_and_a_baseline_ignores_what_is_the_penalties(tmp_path):
    text = '[shared]\nwarmup = 0.3\nlr = 0.1\nepochs = 4\nfinetune = 2\n[[grid]]\nbaseline = "random"\n'
    text += 'unit = "kernel"\nshare = 0.9\nlr = 0.2\n[[grid]]\npenalty = "gl"\nstrength = 1'
    settings = Settings(epochs=4, lr=0.2)
    assert read_grid(written(tmp_path, text)).recipes == (
        Recipe(method=Cut("random", "kernel", 0.9), settings=settings, finetune=2),
        Recipe(
            method=Penalised("gl", strength=1, warmup=0.3), settings=Settings(epochs=4, lr=0.1), finetune=2
        ),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[grid]\n", "study.toml: no TOML: .*line 1"),
        ("[image]\n[[grid]]\nbaseline = 'dense'", "study.toml: unknown table 'image'.*did you mean 'images'"),
        (
            "[images]\nnam = 'digits'\n[[grid]]\nbaseline = 'dense'",
            r"\[images\]: .*'nam'.*did you mean 'name'",
        ),
        ("[images]\nlimit = '9'\n[[grid]]\nbaseline = 'dense'", r"\[images\]: limit '9' must be int"),
        ("[images]\ndistractors = -2\n[[grid]]\nbaseline = 'dense'", r"\[images\]: distractors must be .* 0"),
        ("[shared]\nepoch = 3\n[[grid]]\nbaseline = 'dense'", r"number 1: unknown field 'epoch'.*'epochs'"),
        (
            "[[grid]]\nbaseline = 'dense'\n[[grid]]\npenalty = 'gll'\nstrength = 1",
            "number 2: unknown penalty 'gll'",
        ),
        ("[[grid]]\npenalty = 'gl'", "number 1: strength None and fraction None: give one of them"),
        ("[[grid]]\npenalty = 'gl'\nstrength = 1\nshare = 0.5", "number 1: share says nothing to a penalty"),
        ("[[grid]]\nbaseline = 'dense'\nepochs = '3'", "epochs '3' must be a whole number"),
        ("[[grid]]\nbaseline = 'dense'\nepochs = 0", "epochs must be a whole number of at least 1, not 0"),
        ("[[grid]]\nbaseline = 'dense'\nproximal = 1", "proximal 1 must be true or false"),
        ("[[grid]]\nbaseline = 'dense'\nseed = []", "seed is an empty list"),
        ("[[grid]]\nbaseline = 'magnitude'\nshare = 1.0", "share 1.0 must be above 0 and below 1"),
        ("title = 'nothing'", r"no \[\[grid\]\]"),
        ("grid = 3", r"grid must be tables, \[\[grid\]\]"),
    ],
)
def test_a_mistake_is_one_line_with_its_place_and_the_nearest_valid_name(tmp_path, text, message):
    with pytest.raises(ValueError, match=message) as caught:
        read_grid(written(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"nothing.toml: cannot be read"):
        read_grid(tmp_path / "nothing.toml")


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_study_of_the_project_can_be_read_and_has_its_controls(path):
    grid = read_grid(path)
    assert any(recipe.method is None for recipe in grid.recipes)
    if not grid.images.distractors:  # their question is which channels are kept, not how few
        assert any(isinstance(recipe.method, Cut) for recipe in grid.recipes)
    budgets = {recipe.settings.epochs + recipe.finetune for recipe in grid.recipes}
    assert len(budgets) == 1, "every method gets the same budget"


def test_a_recipe_survives_its_flat_fields():
    for method in (
        None,
        Penalised("gl", fraction=0.1, layers=("features.conv1",)),
        Cut("random", "neuron", 0.3),
    ):
        recipe = Recipe("alexnet", 0.5, "pytorch", method, Settings(epochs=2, seed=7), finetune=1)
        assert Recipe.from_fields(recipe.fields()) == recipe
        assert hash(Recipe.from_fields(recipe.fields())) == hash(recipe)
