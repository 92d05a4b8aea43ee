"""The lane that puts faults into the method's files: it knows them all, and tells what no test noticed."""

from __future__ import annotations

import sqlite3
import tomllib

import pytest

from tests.lanes import mutants


@pytest.mark.parametrize("name", mutants.TESTS)
def test_each_file_of_the_method_is_tried_with_tests_that_there_are(name):
    told = tomllib.loads(mutants.settings(name))["cosmic-ray"]
    assert (mutants.ROOT / told["module-path"]).is_file()
    tests = [part for part in told["test-command"].split() if part.startswith("tests/")]
    assert tests
    assert all((mutants.ROOT / test).is_file() for test in tests)


def test_what_was_not_noticed_is_told_with_its_line_and_its_change(tmp_path):
    with sqlite3.connect(tmp_path / "session") as database:
        database.execute("CREATE TABLE mutation_specs (job_id, start_pos_row, operator_name)")
        database.execute("CREATE TABLE work_results (job_id, worker_outcome, test_outcome, diff)")
        diff = "--- a\n+++ b\n-    return a < b\n+    return a <= b\n"
        for job, outcome in enumerate(("KILLED", "SURVIVED", None)):
            database.execute("INSERT INTO mutation_specs VALUES (?, ?, 'core/Lt')", (job, 10 * job))
            worker = "NORMAL" if outcome else "SKIPPED"
            database.execute("INSERT INTO work_results VALUES (?, ?, ?, ?)", (job, worker, outcome, diff))
    assert mutants.survivors(tmp_path / "session") == (
        2,
        ["line 10: Lt\n    -    return a < b\n    +    return a <= b"],
    )


def test_a_file_that_is_none_of_the_methods_is_refused(capsys):
    assert mutants.main(["zeroes"]) == 2
    assert "no file zeroes: choose of groups, table, proximal" in capsys.readouterr().err
