"""Tests called again and again, each time in a fork of a process that has loaded everything.

A fault within a function is put into the functions that are there already: the tests that called one of them
are then run, quickest first, until one fails. A fault in what a file does on import needs the package anew,
in a fork of a process that has loaded all the rest, and is shown to every test.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any, TypeVar

import hypothesis
import pytest

from tests.lanes.faults import Place

T = TypeVar("T")
_FORK = multiprocessing.get_context("fork")
_PROFILE = "faults"
"""Hypothesis' examples are the same every time, and a failing one is not made smaller."""
_OPTIONS = (
    *("-qq", "-s", "--disable-warnings", "--timeout=60", "-pno:cacheprovider"),
    *("-m", "not slow"),  # a minute and more each, for every fault
    *("-ppytest_timeout", "-p_hypothesis_pytestplugin"),  # finding all that is installed takes long
    "--assert=plain",  # else pytest, not the usual loader, reads the files whose examples it runs
    f"--hypothesis-profile={_PROFILE}",
)


class NoAnswerError(RuntimeError):
    """A fork ended without an answer: it crashed, or was stopped from outside."""


def in_a_fork(work: Callable[[], T], seconds: float | None = None) -> T:
    """What `work` returns (or raises) in a fork; `TimeoutError`, `NoAnswerError` if it does neither."""
    receiver, sender = _FORK.Pipe(duplex=False)
    gc.freeze()  # a collection would touch, and so copy, all memory that a fork shares
    process = _FORK.Process(target=_send, args=(sender, work))
    process.start()
    sender.close()
    try:
        if not receiver.poll(seconds):
            raise TimeoutError
        answer = receiver.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer
    except EOFError:
        raise NoAnswerError("it ended without an answer") from None
    finally:
        process.kill()
        process.join()


def _send(sender: Connection, work: Callable[[], Any]) -> None:
    try:
        answer = work()
    except Exception as error:
        answer = error
    sender.send(answer)


class Calls:
    """Notes which functions of some files are called, while it is set."""

    def __init__(self, files: frozenset[str]) -> None:
        self.files = files
        self.seen: set[tuple[str, Place]] = set()

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        """The profiler's call."""
        code = frame.f_code
        if event == "call" and code.co_filename in self.files:
            self.seen.add((code.co_filename, (code.co_qualname, code.co_firstlineno)))

    @contextmanager
    def noted(self) -> Iterator[set[tuple[str, Place]]]:
        """The calls of a while, in a set of their own; an outer one gets them too."""
        outer, self.seen = self.seen, set()
        before = sys.getprofile()
        sys.setprofile(self)
        try:
            yield self.seen
        finally:
            sys.setprofile(before)
            outer |= self.seen
            self.seen = outer


@dataclass(frozen=True)
class Timed:
    """A test that passes: how long it takes, and which functions it calls, its fixtures' included."""

    name: str
    seconds: float
    calls: frozenset[tuple[str, Place]]


class Session:
    """pytest, up to the point where it has collected the tests: there `work` takes over."""

    def __init__(self, work: Callable[[Session], Any], files: frozenset[str] = frozenset()) -> None:
        self.work = work
        self.calls = Calls(files)
        self.answer: Any = None

    def run(self, tests: Sequence[str]) -> Any:
        """Collect the tests, and return what `work` makes of them; None if something cannot be imported."""
        with self.calls.noted() as on_import:
            self.on_import = on_import
            pytest.main([*_OPTIONS, *tests], plugins=[self])
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Called by pytest when all is collected."""
        sys.setprofile(None)
        self.session = session
        self.items = {item.nodeid: item for item in session.items}
        self.functions = functions_known(self.calls.files)
        if not session.testsfailed:
            try:
                self.answer = self.work(self)
            except Exception as error:  # pytest would print it, and go on
                self.answer = error
        return True

    def first_to_fail(self, names: Sequence[str]) -> str:
        """The first of these tests that fails, or nothing."""
        be_quiet()
        for name, following in pairwise([*names, None]):
            self._run(name, following)
            if self.session.testsfailed:
                return name
        return ""

    def _run(self, name: str, following: str | None) -> None:
        item = self.items[name]
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=self.items.get(following))

    def put_into_functions(self, path: Path, codes: Mapping[Place, CodeType]) -> None:
        """Give functions of a file another content, wherever they are known already."""
        for place, code in codes.items():
            for function in self.functions[str(path), place]:
                function.__code__ = code

    def timed(self) -> list[Timed]:
        """All tests once, in their own order; `ValueError` for one that fails without a fault."""
        be_quiet()
        self.shared: defaultdict[str, set[tuple[str, Place]]] = defaultdict(set)
        found = []
        for name, following in pairwise([*self.items, None]):
            started = time.perf_counter()
            with self.calls.noted() as calls:
                self._run(name, following)
            if self.session.testsfailed:
                raise ValueError(f"{name} fails without a fault")
            found.append(Timed(name, time.perf_counter() - started, frozenset(calls)))
        return [self._with_fixtures(test) for test in found]

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef) -> Any:
        """Note what a fixture calls that several tests share: it is made in the first of them only."""
        if fixturedef.scope == "function" or sys.getprofile() is None:
            return (yield)
        with self.calls.noted() as calls:
            made = yield
        self.shared[fixturedef.argname] |= calls
        return made

    def _with_fixtures(self, test: Timed) -> Timed:
        names = getattr(self.items[test.name], "fixturenames", ())
        return Timed(test.name, test.seconds, test.calls.union(*(self.shared[name] for name in names)))


def be_quiet() -> None:
    """What tests print belongs to no one here."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)


def functions_known(files: frozenset[str]) -> dict[tuple[str, Place], list[FunctionType]]:
    """The functions of some files that were imported: file and place -> all that were made there."""
    found = defaultdict(list)
    for each in gc.get_objects():
        if type(each) is FunctionType and each.__code__.co_filename in files:
            code = each.__code__
            found[code.co_filename, (code.co_qualname, code.co_firstlineno)].append(each)
    return found


def import_with(path: Path, text: str) -> None:
    """From now on, importing the file at `path` gives what `text` says."""
    usual = SourceFileLoader.get_code

    def get_code(loader: SourceFileLoader, name: str) -> CodeType | None:
        return compile(text, str(path), "exec") if loader.path == str(path) else usual(loader, name)

    SourceFileLoader.get_code = get_code


def load_all_but(tests: Sequence[str], own: tuple[str, ...]) -> None:
    """Load what these tests load, but the packages `own`."""
    hypothesis.settings.register_profile(
        _PROFILE,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
    )
    for name in in_a_fork(lambda: Session(lambda _: be_quiet() or list(sys.modules)).run(tests)):
        if name.partition(".")[0] not in own:
            try:
                __import__(name)
            except ImportError:  # a module that was made, not found
                continue
