"""The table of a study: every run a sealed row, numbers in full, in the order of the study's file.

A row is believed as a run file is: its seal is a hash of its cells with their headings, so that a row cut
off, edited or shifted under other headings is named and left out. Two tables: `NAME.csv` has a row a run,
`NAME_layers.csv` a row a layer of each run.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pandas as pd

from hgsr_lite.study.job import Images
from hgsr_lite.study.runs import Run, run_key, short_hash, write_whole
from hgsr_lite.training import FIELDS, FINISHED, Recipe

_MEND_ROW = "take the table back as it was, or call study run, then study collect: the row is written anew"
_MEND_LAYER = "take the table back as it was, or call study collect where the run's file is still there"
_IMAGES = tuple(f"images {part.name}" for part in fields(Images))


def rows_of(runs: Iterable[Run]) -> list[dict[str, str]]:
    """The sealed rows of runs, each cell as the text that stands in the table."""
    return [_sealed(_cells(run)) for run in runs]


def _cells(run: Run) -> dict[str, Any]:
    record = run.record
    images = {f"images {name}": value for name, value in asdict(run.images).items()}
    ended = {"ended": record["ended"], "seconds": record["seconds"], **record["environment"]}
    known = {"key": run.key, **run.recipe.fields(), **images, "fingerprint": run.fingerprint}
    return {**known, **record["metrics"], **ended}


def layer_rows(runs: Iterable[Run]) -> list[dict[str, str]]:
    """The sealed rows of the layers of runs."""
    return [
        _sealed({"key": run.key, "layer": name, **counts})
        for run in runs
        for name, counts in run.record["layers"].items()
    ]


def _sealed(cells: Mapping[str, Any]) -> dict[str, str]:
    texts = {name: _text(value) for name, value in cells.items()}
    return {**texts, "seal": _seal(texts)}


def _seal(texts: Mapping[str, str]) -> str:
    """Empty cells do not count: another run's columns may be none of this one's."""
    return short_hash({name: text for name, text in texts.items() if text != "" and name != "seal"})[:12]


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)


def write_table(path: Path, rows: Iterable[Mapping[str, str]]) -> None:
    """Write rows as a CSV file, whole or not at all; every row's cells stand under their own headings.

    Headings that the file has keep their place: rows that were read know nothing of their empty cells.
    """
    rows = list(rows)
    named = dict.fromkeys(name for row in rows for name in row)
    kept = [name for name in _headings(path) if name in named or name in (*FIELDS, *_IMAGES)]
    headings = [name for name in dict.fromkeys([*kept, *named]) if name != "seal"]
    write_whole(path, _as_csv([*headings, "seal"], rows))


def _as_csv(headings: Sequence[str], rows: Iterable[Mapping[str, str]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, headings, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _headings(path: Path) -> list[str]:
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return next(csv.reader(file), [])


def read_rows(path: Path) -> tuple[list[dict[str, str]], dict[str, str]]:
    """The believable rows of a table, and what is wrong with the others by line and run; none without one.

    A row is a line, so that a stray quotation mark costs one. `ValueError` if the file is no text.
    """
    if not path.exists():
        return [], {}
    try:
        first, *lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: no text in UTF-8 ({error.reason}); {_MEND_ROW}") from error
    headings, believed, damaged = _row(first) or [], [], {}
    for number, line in enumerate(lines, 2):
        texts = _row(line)
        if line and (texts is None or len(texts) > len(headings)):
            damaged[f"{path.name}, line {number}, run {line[:20]}"] = (
                "changed or cut off after it was written"
            )
        elif line:
            cells = dict(zip(headings, texts, strict=False))
            if _seal(cells) == cells.get("seal"):
                believed.append({name: text for name, text in cells.items() if text != ""})
            else:
                place = f"{path.name}, line {number}, run {cells.get('key', 'unknown')[:20]}"
                damaged[place] = "changed or cut off after it was written"
    return believed, damaged


def _row(line: str) -> list[str] | None:
    """The cells of a line; None if it is none of a table."""
    try:
        return next(csv.reader([line], strict=True), [])
    except csv.Error:
        return None


def believed_rows(path: Path) -> tuple[dict[str, dict[str, str]], dict[str, str]]:
    """The believable rows of a table of runs by key; of the others what is wrong and how to mend it."""
    rows, damaged = read_rows(path)
    believed: dict[str, dict[str, str]] = {}
    twice = set()
    for row in rows:
        try:
            key = _key_of(row)
            if believed.setdefault(key, row)["seal"] != row["seal"]:
                twice.add(key)
        except (ValueError, KeyError, TypeError) as error:
            why = f"no {error}" if isinstance(error, KeyError) else str(error)
            damaged[f"{path.name}, run {row.get('key')}"] = why
    for key in twice:
        del believed[key]
        damaged[f"{path.name}, run {key}"] = "stands there twice, with different outcomes"
    return believed, {place: f"{why}; {_MEND_ROW}" for place, why in damaged.items()}


def believed_layers(path: Path) -> tuple[dict[tuple[str, str], dict[str, str]], dict[str, str]]:
    """The same for a table of layers; its rows by run and layer."""
    rows, damaged = read_rows(path)
    believed = {}
    for row in rows:
        if {"key", "layer"} <= row.keys():
            believed[row["key"], row["layer"]] = row
        else:
            damaged[f"{path.name}, run {row.get('key')}"] = "no row of a layer"
    return believed, {place: f"{why}; {_MEND_LAYER}" for place, why in damaged.items()}


def _key_of(row: Mapping[str, str]) -> str:
    """The key that a row's own cells give; `ValueError` if it is not the one that stands in it."""
    given = {name: _value(row[name]) for name in FIELDS if name in row}
    images = {name.removeprefix("images "): _value(row[name]) for name in _IMAGES if name in row}
    images["name"] = row["images name"]
    key = run_key(Recipe.from_fields(given), Images(**images), row["fingerprint"])
    if key != row["key"]:
        raise ValueError("made by other rules than this version's")
    return key


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def read_table(path: str | Path) -> pd.DataFrame:
    """A study's table with its numbers as numbers, and the columns of `with_paths`; every row is believed."""
    return with_paths(pd.read_csv(path))


def believed_table(path: Path, rows: Iterable[Mapping[str, str]]) -> pd.DataFrame:
    """What `read_table` would give if a table held these rows alone; they may be other runs' than its own."""
    rows = list(rows)
    headings = dict.fromkeys([*_headings(path), *(name for row in rows for name in row)])
    return with_paths(pd.read_csv(io.StringIO(_as_csv(list(headings), rows))))


def frame_of(runs: Iterable[Run]) -> pd.DataFrame:
    """The table of runs that were just made."""
    return with_paths(pd.DataFrame([_cells(run) for run in runs]))


def with_paths(table: pd.DataFrame) -> pd.DataFrame:
    """Columns more to group by: a path is a method and a grouping, its points are amounts.

    `method` is the penalty or the baseline; `grouping` is filled with a cut's unit; `amount` is a penalty's
    fraction, or its strength where that was given, or a cut's share; `strength` is filled with the calibrated
    one; `parameters removed` is a share; `diverged` is true or false.
    """
    table = table.copy()
    numbers = ("fraction", "strength", "calibrated strength", "share", "parameters", "parameters left")
    for name in (*FIELDS, *numbers):
        if name not in table:
            table[name] = None
    table[list(numbers)] = table[list(numbers)].astype(float)
    # As objects: pandas is about to refuse to fill a column of texts from one that may be empty.
    table["method"] = table["penalty"].astype(object).fillna(table["baseline"])
    table["grouping"] = table["grouping"].astype(object).fillna(table["unit"]).fillna("feature")
    table["amount"] = table["fraction"].fillna(table["strength"]).fillna(table["share"]).fillna(0.0)
    table["strength"] = table["strength"].fillna(table["calibrated strength"])
    table["parameters removed"] = 1 - table["parameters left"] / table["parameters"]
    table["diverged"] = table["ended"] != FINISHED
    return table
