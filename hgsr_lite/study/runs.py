"""The truth on disk: one file a run, named by its key, written whole or not at all, sealed against change."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from hgsr_lite.study.job import Images
from hgsr_lite.training import Recipe

OUTCOME = 1
"""Raised by one when training or measuring changes on purpose: older runs then no longer count."""
_MEND = "study run makes the run anew, unless the table holds it: then take the file away"


def canonical(value: Any) -> str:
    """One text for one value: sorted names, no spaces, numbers in full."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


_PARTS = ("key", "recipe", "images", "fingerprint", "ended", "metrics", "layers", "environment", "seconds")
"""What every run file holds."""


def short_hash(value: Any) -> str:
    """Twenty hexadecimal digits of a value's SHA-256."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:20]


def probe_writing(folder: Path) -> None:
    """Write and take away a file of a run's size; `OSError` if that fails."""
    probe = folder / f".probe.{os.getpid()}"
    write_whole(probe, "x" * 4096)
    probe.unlink()


def run_key(recipe: Recipe, images: Images, fingerprint: str) -> str:
    """The name of a run: a hash of all that it is told to do; versions and device are no part of it.

    >>> recipe = Recipe()
    >>> run_key(recipe, Images(), "abc") == run_key(recipe, Images(), "xyz")
    False
    """
    decides = {"outcome": OUTCOME, "recipe": _plain(recipe.fields()), "images": asdict(images)}
    return short_hash({**decides, "fingerprint": fingerprint})


def _plain(fields: Mapping[str, Any]) -> dict[str, Any]:
    """1 and 1.0 are one number here, as they are one recipe."""
    return {name: float(value) if _is_like_a_float(value) else value for name, value in fields.items()}


def _is_like_a_float(value: object) -> bool:
    """A whole number that a float holds: greater seeds than 2**53 would become each other's."""
    return isinstance(value, int) and not isinstance(value, bool) and int(float(value)) == value


@dataclass(frozen=True, eq=False)
class Run:
    """A run that was made: its recipe, the images it saw, and its record (see `make_run`)."""

    recipe: Recipe
    images: Images
    fingerprint: str
    record: dict[str, Any]

    @property
    def key(self) -> str:
        """See `run_key`."""
        return run_key(self.recipe, self.images, self.fingerprint)

    def to_json(self) -> str:
        """The run file's text: all of it, and a seal that no change of it keeps."""
        body = {
            "key": self.key,
            "recipe": self.recipe.fields(),
            "images": asdict(self.images),
            "fingerprint": self.fingerprint,
            **self.record,
        }
        return json.dumps({**body, "seal": short_hash(body)}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Run:
        """The run of a file; `ValueError` if it is damaged, cut off or changed, or made by other rules."""
        try:
            body = json.loads(text)
            seal = body.pop("seal")
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
            raise ValueError("no whole run file") from error
        if seal != short_hash(body):
            raise ValueError("changed after it was written")
        if missing := [name for name in _PARTS if name not in body]:
            raise ValueError(f"no {', no '.join(missing)}")
        key = body.pop("key")
        recipe, images = Recipe.from_fields(body.pop("recipe")), Images(**body.pop("images"))
        run = cls(recipe, images, body.pop("fingerprint"), body)
        if run.key != key:
            raise ValueError("made by other rules than this version's")
        return run


class RunFolder:
    """The folder of a study's run files.

    Reading never fails as a whole: `damaged` maps the name of each file that cannot be believed to the
    reason and how to mend it, and the rest counts.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damaged: dict[str, str] = {}

    def check_writable(self) -> None:
        """Write and take away a file now, not after the first training; `ValueError` if that fails."""
        try:
            (self.path / ".claims").mkdir(parents=True, exist_ok=True)
            probe_writing(self.path)
        except OSError as error:
            raise ValueError(
                f"run files cannot be written to {self.path} ({error.strerror}): give another folder, --runs"
            ) from error

    def read(self) -> dict[str, Run]:
        """Every believable run by its key."""
        found: dict[str, Run] = {}
        self.damaged.clear()
        for file in sorted(self.path.glob("*.json")):
            try:
                run = Run.from_json(file.read_text(encoding="utf-8"))
                if run.key != file.stem:
                    raise ValueError("renamed: its name is not its key")
                found[run.key] = run
            except (OSError, ValueError, TypeError) as error:
                self.damaged[file.name] = f"{error}; {_MEND}"
        return found

    def holds(self, key: str) -> bool:
        """Whether a believable file of this key is there now; another driver may just have written it."""
        with suppress(OSError, ValueError, TypeError):
            return Run.from_json((self.path / f"{key}.json").read_text(encoding="utf-8")).key == key
        return False

    def write(self, run: Run) -> None:
        """Write a run's file, whole or not at all."""
        write_whole(self.path / f"{run.key}.json", run.to_json())

    @contextmanager
    def claims(self) -> Iterator[Claims]:
        """The claims of one driver, given back at the end; the system gives them back if the driver dies."""
        claims = Claims(self.path / ".claims")
        try:
            yield claims
        finally:
            for key in list(claims.held):
                claims.give_back(key)


class Claims:
    """Which runs this driver makes, so that a second driver makes others."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.held: dict[str, FileLock] = {}

    def take(self, key: str) -> bool:
        """Claim a run; False if another driver has it."""
        lock = FileLock(self.path / key, timeout=0)
        try:
            lock.acquire()
        except Timeout:
            return False
        self.held[key] = lock
        return True

    def give_back(self, key: str) -> None:
        """Give a claim back."""
        lock = self.held.pop(key)
        with suppress(OSError):  # on some systems a file in use cannot be taken away; it does no harm
            os.unlink(lock.lock_file)
        lock.release()


def write_whole(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old one or the new one, never a part, even on a full disk."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with part.open("w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
