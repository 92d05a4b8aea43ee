"""The driver of a study with work that takes no time: what it hands out, writes, counts and gives back."""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from distributed import LocalCluster

from hgsr_lite.arguments import available_cores
from hgsr_lite.study import engine
from hgsr_lite.study.engine import Outcome, dask_executor, make_all
from hgsr_lite.study.job import Images, Job, WrongVersionsError
from hgsr_lite.study.runs import Claims, Run, RunFolder
from hgsr_lite.training.recipe import Penalised, Recipe
from hgsr_lite.training.settings import Settings

RECORD = {"ended": "finished", "metrics": {}, "layers": {}, "epochs": [], "seconds": 0.0, "environment": {}}
COUNT = 5
REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Quick(Job):
    """A job that trains nothing."""

    work: Callable[[int], dict[str, Any]] = lambda seed: RECORD

    def __call__(self) -> dict[str, Any]:
        return self.work(self.recipe.settings.seed)


def jobs(work: Callable[[int], dict[str, Any]] = lambda seed: RECORD) -> dict[str, Job]:
    recipes = [Recipe(method=Penalised("gl", fraction=1), settings=Settings(seed=at)) for at in range(COUNT)]
    made = [Quick(recipe, Images(), "abc", (), work=work) for recipe in recipes]
    return {Run(job.recipe, job.images, job.fingerprint, RECORD).key: job for job in made}


class Here:
    """An executor that works in this process at once, and keeps what it handed out."""

    def __init__(self) -> None:
        self.given: list[Future] = []

    def submit(self, job: Job) -> Future:
        self.given.append(future := Future())
        try:
            future.set_result(job())
        except Exception as error:
            future.set_exception(error)
        return future


class Later(Here):
    """An executor that begins nothing, and is interrupted at its third job."""

    def submit(self, job: Job) -> Future:
        if len(self.given) == 2:
            raise KeyboardInterrupt
        self.given.append(future := Future())
        return future


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    found = RunFolder(tmp_path / "runs")
    found.check_writable()
    return found


@pytest.fixture(autouse=True)
def no_long_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_LONG_WAIT", 0.02)


def assert_nothing_is_claimed(folder: RunFolder) -> None:
    other = Claims(folder.path / ".claims")
    for key in jobs():
        assert other.take(key), key
        other.give_back(key)


def test_every_job_is_done_once_in_order_and_so_many_at_once(folder):
    begun: list[int] = []
    under_way, most = 0, []
    lock = threading.Lock()

    def work(seed: int) -> dict[str, Any]:
        nonlocal under_way
        with lock:
            begun.append(seed)
            under_way += 1
            most.append(under_way)
        time.sleep(0.05)
        with lock:
            under_way -= 1
        return RECORD

    with ThreadPoolExecutor(COUNT) as executor:
        outcome = make_all(jobs(work), folder, executor, 2, progress=False)
    assert outcome == Outcome(written=COUNT)
    assert begun[:2] in ([0, 1], [1, 0])
    assert sorted(begun) == [*range(COUNT)]
    assert max(most) == 2
    assert folder.read().keys() == jobs().keys()
    assert_nothing_is_claimed(folder)


def test_jobs_are_handed_out_in_their_order(folder):
    executor, begun = Here(), []
    make_all(jobs(lambda seed: begun.append(seed) or RECORD), folder, executor, 1, progress=False)
    assert begun == [*range(COUNT)]


@pytest.mark.parametrize("progress", [True, False])
def test_a_bar_counts_the_runs_where_it_is_wanted(folder, progress, capsys):
    make_all(jobs(), folder, Here(), 2, progress=progress)
    said = capsys.readouterr().err
    assert (f"{COUNT}/{COUNT}" in said, "run/s" in said or "s/run" in said) == (progress, progress)


def test_a_bar_is_shown_unless_it_is_not_wanted(folder, capsys):
    make_all(jobs(), folder, Here(), 2)
    assert f"{COUNT}/{COUNT}" in capsys.readouterr().err


def test_a_run_that_another_driver_makes_is_waited_for_and_not_made_twice(folder, capsys):
    key, job = next(iter(jobs().items()))
    theirs = Claims(folder.path / ".claims")
    assert theirs.take(key)
    made: list[int] = []

    def finish() -> None:
        while len(list(folder.path.glob("*.json"))) < COUNT - 1:
            time.sleep(0.01)
        time.sleep(0.2)
        folder.write(Run(job.recipe, job.images, job.fingerprint, RECORD))
        theirs.give_back(key)

    other = threading.Thread(target=finish)
    other.start()
    outcome = make_all(jobs(lambda seed: made.append(seed) or RECORD), folder, Here(), 1)
    other.join()
    assert outcome == Outcome(written=COUNT - 1)
    assert made == [1, 2, 3, 4]
    assert f"{COUNT}/{COUNT}" in capsys.readouterr().err, "theirs counts as one that is there"
    assert_nothing_is_claimed(folder)


def test_a_run_that_is_there_already_keeps_no_other_waiting(folder, monkeypatch):
    monkeypatch.setattr(engine, "_LONG_WAIT", 100)
    job = next(iter(jobs().values()))
    folder.write(Run(job.recipe, job.images, job.fingerprint, RECORD))
    started = time.perf_counter()
    assert make_all(jobs(), folder, Here(), 1, progress=False) == Outcome(written=COUNT - 1)
    assert time.perf_counter() - started < 50


def test_a_run_that_a_dead_driver_had_claimed_is_made(folder):
    key = next(iter(jobs()))
    (folder.path / ".claims" / key).write_text("")
    assert make_all(jobs(), folder, Here(), 1, progress=False).written == COUNT


def test_what_diverged_is_written_and_counted_and_what_fails_is_named_and_left_out(folder, capsys):
    def work(seed: int) -> dict[str, Any]:
        if seed == 1:
            raise ZeroDivisionError("by zero")
        return {**RECORD, "ended": "diverged: lower the strength"} if seed == 2 else RECORD

    outcome = make_all(jobs(work), folder, Here(), 3, progress=False)
    ((name, why),) = outcome.failed.items()
    assert (outcome.written, outcome.diverged, outcome.interrupted) == (COUNT - 1, 1, False)
    assert name == [*jobs().values()][1].recipe.name
    assert why == "ZeroDivisionError: by zero"
    assert f"failed: {name}: {why}" in capsys.readouterr().err
    assert len(folder.read()) == COUNT - 1
    assert_nothing_is_claimed(folder)


def test_a_worker_of_other_versions_stops_the_study_and_nothing_stays_claimed(folder):
    def work(seed: int) -> dict[str, Any]:
        if seed == 1:
            raise WrongVersionsError("torch 1.0.0")
        return RECORD

    with pytest.raises(WrongVersionsError):
        make_all(jobs(work), folder, Here(), 1, progress=False)
    assert len(folder.read()) == 1
    assert_nothing_is_claimed(folder)


def test_an_interruption_takes_back_what_was_not_begun_and_says_so(folder):
    executor = Later()
    outcome = make_all(jobs(), folder, executor, 4, progress=False)
    assert outcome == Outcome(interrupted=True)
    assert [future.cancelled() for future in executor.given] == [True, True]
    assert_nothing_is_claimed(folder)


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "make room and start again: what is written counts"),
        (errno.EDQUOT, "make room and start again: what is written counts"),
        (errno.EIO, "start again once that works"),
    ],
)
def test_a_run_that_cannot_be_written_stops_the_study_with_advice(folder, monkeypatch, number, advice):
    def write(path: Path, text: str) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("hgsr_lite.study.runs.write_whole", write)
    said = f"a run could not be written to {folder.path} ({os.strerror(number)}): {advice}"
    with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
        make_all(jobs(), folder, Here(), 2, progress=False)
    assert_nothing_is_claimed(folder)


def test_what_is_started_leaves_ctrl_c_to_the_driver():
    ours = signal.getsignal(signal.SIGINT)

    def start() -> object:
        return signal.getsignal(signal.SIGINT)

    assert engine._deaf_to_ctrl_c(start) == signal.SIG_IGN
    assert signal.getsignal(signal.SIGINT) == ours
    with pytest.raises(ZeroDivisionError):
        engine._deaf_to_ctrl_c(lambda: 1 / 0)
    assert signal.getsignal(signal.SIGINT) == ours
    with ThreadPoolExecutor(1) as pool:  # only the main thread may set how signals are taken
        assert pool.submit(engine._deaf_to_ctrl_c, start).result() == ours


def test_our_own_workers_are_processes_of_one_thread_that_keep_their_memory_and_end_with_us():
    # Functions of a function travel whole: a worker need not import this file, and PyTorch with it.
    def allocator_gives_back_from() -> str | None:
        return os.environ.get("MALLOC_TRIM_THRESHOLD_")

    def here() -> dict[str, int | bool | None]:
        from distributed import get_worker

        time.sleep(0.2)
        return {
            "process": os.getpid(),
            "moment": time.perf_counter_ns(),
            "threads": get_worker().state.nthreads,
            "memory": get_worker().memory_manager.memory_limit,
            "deaf": signal.getsignal(signal.SIGINT) == signal.SIG_IGN,
        }

    ours = allocator_gives_back_from()
    with dask_executor(workers=2) as (executor, at_once):
        assert at_once == 2
        answers = [future.result(120) for future in [executor.submit(here) for _ in range(6)]]
        assert executor.submit(allocator_gives_back_from).result(120) == ours
    said = {name: {answer[name] for answer in answers} for name in answers[0]}
    assert len(said["process"]) == 2
    assert len(said["moment"]) == 6, "equal tasks are tasks of their own"
    assert (said["threads"], said["memory"], said["deaf"]) == ({1}, {None}, {True})
    assert not [process for process in said["process"] if psutil.pid_exists(process)]


def test_there_is_a_worker_for_each_core_and_never_none():
    with dask_executor() as (_, at_once):
        assert at_once == available_cores()
    with pytest.raises(ValueError, match="workers"), dask_executor(workers=0):
        pass


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nowhere at all"])
def test_a_scheduler_that_is_not_there_is_named(address):
    said = f"no Dask scheduler answers at {address!r}: start one with `dask scheduler`"
    with pytest.raises(ValueError, match=f"^{re.escape(said)}$"), dask_executor(address):
        pass


def test_a_scheduler_without_workers_is_named_with_the_command_that_starts_some():
    with (
        LocalCluster(n_workers=0, dashboard_address=None) as cluster,
        pytest.raises(ValueError, match=r"has no workers: start some with `dask worker \S+ --nthreads 1 "),
        dask_executor(cluster.scheduler_address),
    ):
        pass


def test_workers_of_several_threads_are_refused_with_the_command_that_starts_others():
    options = {"n_workers": 1, "threads_per_worker": 2, "memory_limit": 0, "dashboard_address": None}
    with LocalCluster(**options) as cluster:
        address = cluster.scheduler_address
        command = re.escape(f"`dask worker {address} --nthreads 1 --nworkers N`")
        said = rf"1 of 1 workers at '{address}' have several threads \(tcp://\S+: 2\): .*{command}"
        with pytest.raises(ValueError, match=said), dask_executor(address):
            pass


def test_the_documented_command_starts_workers_of_one_thread():
    """Dask's own `--nworkers auto` puts its number of threads in place of the one that is given."""
    said = (REPOSITORY / "studies" / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r"dask worker .*", said)
    assert any("--nthreads 1 --nworkers N" in command for command in commands)
    assert not [command for command in commands if "auto" in command]


def test_without_dask_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ValueError, match=r"pip install 'hgsr-lite\[study\]'"), dask_executor():
        pass
