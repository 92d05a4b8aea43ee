"""The driver of a study: hands the runs that are missing to an executor and writes each as it comes back.

Any `concurrent.futures.Executor` will do. Dask is the one used here: of a worker that is killed in mid-run it
repeats the tasks, where the standard library's process pool gives all of them up.
"""

from __future__ import annotations

import errno
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from hgsr_lite.arguments import available_cores, check_count
from hgsr_lite.study.job import Job, WrongVersionsError
from hgsr_lite.study.progress import say
from hgsr_lite.study.runs import Claims, Run, RunFolder
from hgsr_lite.training import FINISHED

if TYPE_CHECKING:
    from distributed import Client

_LONG_WAIT = 5.0  # seconds between two looks at what another driver has done
_LOG = logging.getLogger(__name__)


@dataclass
class Outcome:
    """What became of the runs that were missing: how many were written, and why the others were not."""

    written: int = 0
    diverged: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    interrupted: bool = False


def make_all(
    jobs: Mapping[str, Job], folder: RunFolder, executor: Executor, at_once: int, progress: bool = True
) -> Outcome:
    """Make every job that has no file yet, some at once, in order; a file as soon as one is done.

    A job that another driver has claimed is left to it and looked at again at the end. A job that fails is
    named and does not stop the others; wrong versions and a full disk do. Ctrl-C gives back what was not
    begun, and counts as `interrupted`.
    """
    outcome, waiting = Outcome(), dict(jobs)
    pending: dict[Future, str] = {}
    with folder.claims() as claims, _bar(len(waiting), progress) as bar:
        try:
            while waiting or pending:
                _fill(waiting, pending, at_once, folder, claims, executor, bar)
                if not pending:
                    time.sleep(_LONG_WAIT)  # every run that is left is another driver's
                    continue
                for future in wait(pending, return_when=FIRST_COMPLETED).done:
                    key = pending.pop(future)
                    _keep(future, jobs[key], folder, outcome)
                    claims.give_back(key)
                    bar.update()
        except KeyboardInterrupt:
            outcome.interrupted = True
        finally:
            for future in pending:
                future.cancel()
    return outcome


def _bar(total: int, progress: bool) -> tqdm:
    # A rate over all runs so far: the first ones of a grid are no shorter than the last.
    return tqdm(total=total, desc="runs", unit="run", disable=not progress, smoothing=0.05)


def _fill(
    waiting: dict[str, Job],
    pending: dict[Future, str],
    at_once: int,
    folder: RunFolder,
    claims: Claims,
    executor: Executor,
    bar: tqdm,
) -> None:
    """Hand out jobs, in order, until `at_once` are under way or all that is left is claimed elsewhere."""
    for key in list(waiting):
        if len(pending) >= at_once:
            return
        if not claims.take(key):
            continue
        job = waiting.pop(key)
        if folder.holds(key):  # another driver wrote it since
            claims.give_back(key)
            bar.update()
            continue
        pending[executor.submit(job)] = key


def _keep(future: Future, job: Job, folder: RunFolder, outcome: Outcome) -> None:
    """Write what a job returned; count it."""
    try:
        record = future.result()
    except WrongVersionsError:
        raise
    except Exception as error:  # a fault of one run: named, and made again the next time
        reason = f"{type(error).__name__}: {error}"
        _LOG.debug("run %s", job.recipe.name, exc_info=error)
        outcome.failed[job.recipe.name] = reason
        say([f"failed: {job.recipe.name}: {reason}"])
        return
    try:
        folder.write(Run(job.recipe, job.images, job.fingerprint, record))
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        advice = (
            "make room and start again: what is written counts" if full else "start again once that works"
        )
        raise ValueError(
            f"a run could not be written to {folder.path} ({error.strerror}): {advice}"
        ) from error
    outcome.written += 1
    outcome.diverged += record["ended"] != FINISHED


def _deaf_to_ctrl_c(work: Callable[[], Any]) -> Any:
    """Start processes that leave Ctrl-C to this one, which a terminal sends to all of them; or end them.

    One that comes meanwhile is lost. (To block it and hear it afterwards does not reach the processes:
    `multiprocessing` takes the block away as it starts one.)
    """
    if threading.current_thread() is not threading.main_thread():
        return work()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return work()
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def dask_executor(scheduler: str | None = None, workers: int | None = None) -> Iterator[tuple[Executor, int]]:
    """A Dask executor and how many runs it can make at once.

    Without `scheduler`, workers of our own: `workers` processes with a thread each (None: one a core), gone
    at the end. With `scheduler`, an address such as `"tcp://host:8786"`: the workers that are there. Raises
    `ValueError` if Dask is not installed, nothing answers at the address, or it has no workers, or workers
    that would make several runs in one process.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise ValueError("a study needs Dask: pip install 'hgsr-lite[study]'") from error
    if scheduler is None:
        workers = available_cores() if workers is None else workers
        check_count("workers", workers)
        options: dict[str, Any] = {"n_workers": workers, "threads_per_worker": 1, "memory_limit": 0}
        options |= {"dashboard_address": None, "silence_logs": logging.CRITICAL}
        make: Callable[[], Client] = partial(_deaf_to_ctrl_c, partial(_with_memory_kept, Client, **options))
    else:
        make = lambda: Client(scheduler, timeout=10)  # noqa: E731
    try:
        client = make()
    except (OSError, ValueError) as error:
        raise ValueError(
            f"no Dask scheduler answers at {scheduler!r}: start one with `dask scheduler`"
        ) from error
    except RuntimeError as error:
        raise RuntimeError(
            f"the workers cannot be started ({error}): a script has to call this under "
            '`if __name__ == "__main__":`, since each worker reads the script, too'
        ) from error
    try:
        threads = client.nthreads()
        _check_workers(threads, scheduler)
        yield client.get_executor(pure=False), len(threads)
    finally:
        _deaf_to_ctrl_c(client.close)


def _check_workers(threads: Mapping[str, int], scheduler: str | None) -> None:
    """Refuse a scheduler without workers, or one whose workers, by address, have several threads.

    How many threads PyTorch takes is one number for a whole process: runs in threads of one worker would
    change it for each other, and with it the last digits of their sums.
    """
    start = f"`dask worker {scheduler} --nthreads 1 --nworkers N`"
    if not threads:
        raise ValueError(f"the scheduler at {scheduler!r} has no workers: start some with {start}")
    wrong = {address: count for address, count in threads.items() if count != 1}
    if wrong:
        address, count = next(iter(wrong.items()))
        raise ValueError(
            f"{len(wrong)} of {len(threads)} workers at {scheduler!r} have several threads ({address}: "
            f"{count}): a run needs a process with one; start N of them with {start} (`--nworkers auto` "
            "would set the threads itself)"
        )


def _with_memory_kept(client: Callable[..., Client], **options: Any) -> Client:
    """A client whose workers keep the memory that they free, for the next tensor.

    Dask tells its workers' allocator to give every freed block back (MALLOC_TRIM_THRESHOLD_). A training step
    frees all that it made, so that each step then waits for the system to hand out fresh pages.
    """
    import dask

    before_start = "distributed.nanny.pre-spawn-environ"
    kept = {**dask.config.get(before_start), "MALLOC_TRIM_THRESHOLD_": None}
    with dask.config.set({before_start: kept}):
        return client(**options)
