"""The figures' modules as one text: plain ES modules, put together where only one text is taken.

Each `.js` file here is a module that imports its neighbours by name, and is read and checked as such. A
widget, a page opened from the disk and a worker can each be given one text only.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent
_IMPORT = re.compile(r'^import \{[^}]*\} from "\./(\w+\.js)";\n', re.MULTILINE)


@cache
def one_text(name: str) -> str:
    """A module of this folder with everything it imports in front of it; nothing is left to import.

    All modules share one scope then, so no two of them may give one name to different things; Node says so.

    >>> one_text("network.js") in one_text("training.js")
    False
    >>> "export class DigitsNetwork" in one_text("network.js")
    True
    """
    *before, own = _ordered(name)
    return "\n".join([*(_without_exports(_body(other)) for other in before), _body(own)])


def as_script(name: str) -> str:
    """A module as a plain script: a page from the disk may start a worker from a script, not from a module.

    >>> "export" in as_script("network.js")
    False
    """
    return _without_exports(one_text(name))


def _without_exports(text: str) -> str:
    return re.sub(r"^export ", "", text, flags=re.MULTILINE)


def _body(name: str) -> str:
    return _IMPORT.sub("", (FOLDER / name).read_text(encoding="utf-8"))


def _ordered(name: str) -> list[str]:
    """The module's imports, theirs first, each once; then the module itself."""
    names: dict[str, None] = {}
    for needed in _IMPORT.findall((FOLDER / name).read_text(encoding="utf-8")):
        names.update(dict.fromkeys(_ordered(needed)))
    return [*names, name]
