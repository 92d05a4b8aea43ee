"""What the package finds on Windows, pretended on another system: for its own code, and for nobody else's.

Windows itself cannot be had here. Third parties go their own ways on each system, so they keep what they
know of this one. The package is one code for all: where it asks for a module or name that only POSIX systems
have, it gets the error that a reader on Windows would see.
"""

from __future__ import annotations

import builtins
import os
import signal
import time
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any

PACKAGE = "hgsr_lite"


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Triton has no build there.
MISSING_MODULES = _names("fcntl grp posix posixshmem pty pwd resource syslog termios triton tty")
MISSING_IN_OS = _names(
    """
    chown chroot confstr ctermid environb fchdir fchown fdatasync fork forkpty fpathconf fstatvfs getegid
    geteuid getenvb getgid getgroups getloadavg getpgid getpgrp getpriority getresgid getresuid getsid getuid
    getxattr initgroups killpg lchown listxattr lockf major makedev memfd_create minor mkfifo mknod nice
    openpty pathconf pipe2 posix_fadvise posix_fallocate posix_spawn posix_spawnp pread preadv pwrite pwritev
    readv register_at_fork sched_getaffinity sched_getparam sched_getscheduler sched_setaffinity sched_yield
    sendfile setegid seteuid setgid setgroups setpgid setpriority setsid setuid setxattr statvfs sync sysconf
    tcgetpgrp tcsetpgrp ttyname uname wait wait3 wait4 waitid writev O_CLOEXEC O_DIRECTORY O_NOFOLLOW
    O_NONBLOCK O_SYNC WNOHANG
    """
)
PRESENT_SIGNALS = _names("SIGABRT SIGFPE SIGILL SIGINT SIGSEGV SIGTERM SIG_DFL SIG_IGN")
MISSING_IN_SIGNAL = _names("alarm getitimer pause pthread_kill setitimer siginterrupt sigwait")
MISSING_IN_TIME = _names("clock_getres clock_gettime clock_gettime_ns clock_settime tzset")


def pretend() -> None:
    """From now on, what the package imports in this process is what Windows has."""
    unknown_signals = {name for name in dir(signal) if name.startswith("SIG")} - PRESENT_SIGNALS
    modules = {
        "os": _without(os, MISSING_IN_OS),
        "signal": _without(signal, MISSING_IN_SIGNAL | unknown_signals),
        "time": _without(time, MISSING_IN_TIME),
    }
    everything = builtins.__import__

    def windows_import(
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Iterable[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        asking = str((globals or {}).get("__package__") or "")
        if level == 0 and asking.partition(".")[0] == PACKAGE:
            if name.partition(".")[0] in MISSING_MODULES:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
            if name in modules:
                return modules[name]
        return everything(name, globals, locals, fromlist, level)

    builtins.__import__ = windows_import


def _without(module: ModuleType, names: frozenset[str]) -> ModuleType:
    """A copy of the module that lacks these names."""
    copy = ModuleType(module.__name__)
    copy.__dict__.update({name: value for name, value in vars(module).items() if name not in names})
    return copy
