"""A study from its file to its table: read, plan, run, look how far it is, collect."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from hgsr_lite.arguments import as_path
from hgsr_lite.data import Data, find_device
from hgsr_lite.study.engine import Outcome, dask_executor, make_all
from hgsr_lite.study.forecast import predicted_seconds
from hgsr_lite.study.grid import Grid, placed, read_grid
from hgsr_lite.study.job import Images, Job, conditions, conditions_here, fingerprint, make_run, versions
from hgsr_lite.study.progress import Progress, in_lines, made_elsewhere, say
from hgsr_lite.study.runs import Run, RunFolder, probe_writing, run_key
from hgsr_lite.study.tables import (
    believed_layers,
    believed_rows,
    believed_table,
    frame_of,
    layer_rows,
    read_table,
    rows_of,
    write_table,
)
from hgsr_lite.training import FINISHED, Penalised, Recipe


class Study:
    """A grid of runs, the folder of its run files, and its table.

    `path` is the study's file, `runs` the folder of its run files (None: `runs/NAME` beside the file); the
    table is `NAME.csv` beside the file. Runs that stand in the table count as made.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp(), "small.toml")
    >>> _ = file.write_text("[images]\\nlimit = 100\\n[shared]\\nepochs = 1\\n[[grid]]\\nbaseline = 'dense'")
    >>> Study.read(file)
    Study('small': 1 run)
    """

    def __init__(self, path: Path, grid: Grid, runs: Path | None = None) -> None:
        if path.stem.endswith("_layers"):
            raise ValueError(
                f"{path}: NAME_layers.csv is the table of layers of NAME.toml: give this study another name"
            )
        self.path, self.grid = path, grid
        self.folder = RunFolder(path.parent / "runs" / path.stem if runs is None else Path(runs))

    @classmethod
    def read(cls, path: str | Path, runs: str | Path | None = None) -> Study:
        """Read and check a study's file; `ValueError` with the place of what is wrong."""
        path = as_path("path", path)
        return cls(path, read_grid(path), None if runs is None else as_path("runs", runs))

    @property
    def table(self) -> Path:
        """The committed table."""
        return self.path.with_suffix(".csv")

    @property
    def layers_table(self) -> Path:
        """The committed table of layers."""
        return self.path.with_name(f"{self.path.stem}_layers.csv")

    @cached_property
    def data(self) -> Data:
        """The images, without distractors, on the CPU."""
        with placed(f"{self.path}, [images]"):
            return self.grid.images.load()

    @cached_property
    def fingerprint(self) -> str:
        """See `fingerprint`."""
        return fingerprint(self.data)

    def keys(self) -> dict[str, Recipe]:
        """The recipe of every run by its key, in order."""
        images, seen = self.grid.images, self.fingerprint
        return {run_key(recipe, images, seen): recipe for recipe in self.grid.recipes}

    def check(self) -> None:
        """Build every network of the runs once, untrained, with each choice of layers.

        Raises `ValueError`, with the first run that is not possible, so that nothing is trained before it.
        """
        with placed(f"{self.path}, [images]"):
            data, seen = self.grid.images.of_run(self.data, 0), set()
        for recipe in self.grid.recipes:
            by = recipe.method
            layers = by.layers if isinstance(by, Penalised) else None
            like = (recipe.network, recipe.width, layers)
            if like not in seen:
                seen.add(like)
                with placed(f"{self.path}, {recipe.name}"):
                    replace(
                        recipe, method=None if layers is None else Penalised(strength=1.0, layers=layers)
                    ).build(data)

    def run(
        self, scheduler: str | None = None, workers: int | None = None, device: str = "cpu"
    ) -> pd.DataFrame:
        """Make every run that is missing, collect the tables, and return the table of runs; see `make`.

        Ctrl-C is passed on, once what was made is collected. Raises `ValueError` before anything is trained
        if the tables cannot be written.
        """
        try:
            probe_writing(self.path.parent)
        except OSError as error:
            raise ValueError(
                f"{self.table} cannot be written ({error.strerror}): copy {self.path.name} to another folder"
            ) from error
        outcome = self.make(scheduler, workers, device)
        table = self.collect()
        if outcome.interrupted:
            raise KeyboardInterrupt
        return table

    def make(
        self,
        scheduler: str | None = None,
        workers: int | None = None,
        device: str = "cpu",
        progress: bool = True,
    ) -> Outcome:
        """Make every run that is missing, with Dask; see `dask_executor` on where.

        What is damaged, and how many runs were made elsewhere, is said first (standard error).
        Raises `ValueError` before anything is trained if a network cannot be built, the run files cannot be
        written, the images are not there, or no scheduler answers; `WrongVersionsError` if a worker has other
        packages.
        """
        self.check()
        if scheduler is None:
            find_device(device)
        self.folder.check_writable()
        there, damaged = self._there()
        say(self._progress(there, damaged, device).notes())
        missing = {key: recipe for key, recipe in self.keys().items() if key not in there}
        if not missing:
            return Outcome()
        with dask_executor(scheduler, workers) as (executor, at_once):
            return make_all(self.jobs(missing.values(), device), self.folder, executor, at_once, progress)

    def jobs(self, recipes: Iterable[Recipe], device: str) -> dict[str, Job]:
        """What an executor needs to make these recipes on the study's images, by the runs' keys."""
        images, seen, here = self.grid.images, self.fingerprint, tuple(versions().items())
        return {run_key(recipe, images, seen): Job(recipe, images, seen, here, device) for recipe in recipes}

    def missing(self) -> dict[str, Recipe]:
        """The runs that neither the folder nor the table holds, in order."""
        there, _ = self._there()
        return {key: recipe for key, recipe in self.keys().items() if key not in there}

    def _there(self) -> tuple[dict[str, dict[str, str]], dict[str, str]]:
        """Of each run that is there how it ended and its environment; and what is damaged."""
        rows, damaged = believed_rows(self.table)
        runs = self.folder.read()
        made = {key: {"ended": run.record["ended"], **run.record["environment"]} for key, run in runs.items()}
        return rows | made, damaged | self.folder.damaged

    def status(self, device: str = "cpu") -> Progress:
        """How far the study is, and how many of its runs were made elsewhere than here; trains nothing."""
        there, damaged = self._there()
        return self._progress(there, damaged | believed_layers(self.layers_table)[1], device)

    def _progress(self, there: dict[str, dict[str, str]], damaged: dict[str, str], device: str) -> Progress:
        keys = self.keys()
        mine = [there[key] for key in keys if key in there]
        diverged = sum(run["ended"] != FINISHED for run in mine)
        elsewhere = made_elsewhere(map(conditions, mine), conditions_here(device))
        return Progress(len(keys), len(mine), diverged, damaged, len(there) - len(mine), elsewhere)

    def believed(self) -> tuple[pd.DataFrame, dict[str, str]]:
        """The table of the study's runs; what is damaged or another's is left out, and named by its place.

        It asks for no images. Raises `ValueError` if there is no table, or no row of it can be believed, or
        its runs saw different images.
        """
        rows, damaged = believed_rows(self.table)
        seen = {row["fingerprint"] for row in rows.values()}
        planned = {run_key(recipe, self.grid.images, each) for each in seen for recipe in self.grid.recipes}
        own = {key: row for key, row in rows.items() if key in planned}
        if others := len(rows) - len(own):
            damaged[f"{self.table.name}, {others} rows"] = f"of other settings than {self.path.name} has"
        if not own:
            said = [f"{self.table} holds no run: study collect {self.path}", *in_lines(damaged)]
            raise ValueError("\n".join(said))
        if len({row["fingerprint"] for row in own.values()}) > 1:
            raise ValueError(f"the runs of {self.table} saw different images: study collect {self.path}")
        return believed_table(self.table, own.values()), damaged

    def with_runs_beside(self, beside: Iterable[str]) -> pd.DataFrame:
        """The table of the study's runs that are there, and of others in its folder, by their keys."""
        rows, _ = believed_rows(self.table)
        rows |= {row["key"]: row for row in rows_of(self.folder.read().values())}
        wanted = dict.fromkeys([*self.keys(), *beside])
        return believed_table(self.table, [rows[key] for key in wanted if key in rows])

    def collect(self) -> pd.DataFrame:
        """Write the tables from the run files and what the tables hold already; return the table of runs.

        Rows stand in the study's order; runs of other settings or images are left out, and what is damaged:
        it is named (standard error). Raises `ValueError` where a row that is left out has no run file, so
        that nothing is lost.
        """
        rows, damaged = believed_rows(self.table)
        layers, damaged_layers = believed_layers(self.layers_table)
        own: list[Run] = list(self.folder.read().values())
        say(in_lines(damaged | damaged_layers | self.folder.damaged))
        rows |= {row["key"]: row for row in rows_of(own)}
        layers |= {(row["key"], row["layer"]): row for row in layer_rows(own)}
        order = {key: place for place, key in enumerate(self.keys())}
        if lost := len(rows.keys() - order.keys() - {run.key for run in own}):
            raise ValueError(
                f"{lost} runs of {self.table} are of other settings or images than {self.path.name}, and no "
                "run file holds them: they would be lost; move the table away, or take the file as it was"
            )
        if not order.keys() & rows.keys():
            raise ValueError(f"no run of {self.path.name} is there yet: study run {self.path}")
        write_table(self.table, [rows[key] for key in order if key in rows])
        kept = sorted((row for row in layers.values() if row["key"] in order), key=lambda r: order[r["key"]])
        write_table(self.layers_table, kept)
        table, known = read_table(self.table), {row["key"] for row in kept}
        if bare := len(set(table.loc[~table["diverged"], "key"]) - known):
            say([f"{bare} runs have no rows in {self.layers_table}, and no run file to take them from"])
        return table

    def predicted_seconds(self, device: str = "cpu") -> float:
        """Seconds of the missing runs one after the other on a device; see `forecast` and `check`."""
        self.check()
        return predicted_seconds(self.missing().values(), self.grid.images, self.data.to(device))

    def __repr__(self) -> str:
        count = len(self.grid.recipes)
        return f"Study({self.path.stem!r}: {count} run{'s' * (count != 1)})"


def make_here(
    recipes: Iterable[Recipe], data: Data, *, distractors: int = 0, kind: str = "noise", progress: bool = True
) -> pd.DataFrame:
    """Make runs one after the other in this process, without files: the table that `collect` would give.

    With `distractors`, each run sees that many more input channels that say nothing, drawn by its seed; see
    `Data.with_distractors`. The table's columns are the recipes' fields, the metrics, and those of
    `with_paths`.

    >>> from hgsr_lite.data import load_data
    >>> from hgsr_lite.study.grid import recipes_of
    >>> recipes = recipes_of({"epochs": 1}, {"penalty": ["gl", "es"], "fraction": 0.1})
    >>> make_here(recipes, load_data("digits", device="cpu", limit=100), progress=False)["method"].tolist()
    ['gl', 'es']
    """
    images = Images(data.name, distractors=distractors, distractor_kind=kind)
    bar = tqdm(list(recipes), "training", unit="run", disable=not progress, leave=False)
    return frame_of(
        Run(recipe, images, "", make_run(recipe, images.of_run(data, recipe.seed))) for recipe in bar
    )
