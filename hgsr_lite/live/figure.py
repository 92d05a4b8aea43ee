"""What every live figure is: one ES module with its data, as a widget, as a page, and as a still picture."""

from __future__ import annotations

import base64
import json
import math
import sys
import uuid
from collections.abc import Mapping, Sequence
from html import escape
from io import BytesIO
from typing import Any, ClassVar

import anywidget
import matplotlib.pyplot as plt
import traitlets
from matplotlib.figure import Figure

from hgsr_lite.live.modules import one_text
from hgsr_lite.table import PENALTIES

PENALTY_ROWS = [
    {"key": key, "title": row.title, "norm": row.norm, "inner": row.inner, "outer": row.outer}
    for key, row in PENALTIES.items()
]
"""The table of penalties as the modules take it: they hold the one formula, not the table."""

# Of those notebooks that show a widget only in a frame of its own, so that the page cannot reach it.
_FRAMED_FRONTENDS = ("google.colab",)
_STILL_DPI = 80


class LiveFigure(anywidget.AnyWidget):
    """A figure that answers the hand, shown by being the last expression of a cell.

    What is shown is a page of its own: the module, its state, and a still picture for where no script runs.
    So it works in a saved notebook and in an exported page as well. While Python is there, the widget's
    traits and the figure on the screen follow each other.
    """

    module: ClassVar[str]
    """The ES module, in this folder."""
    address: ClassVar[Sequence[str]] = ()
    """The traits that belong in the address of a page that shows this figure alone."""
    place = traitlets.Unicode().tag(sync=True)
    # With ipywidgets 7 a widget has this, IPython asks for it first, and would never see the page.
    _ipython_display_ = None

    def __init_subclass__(cls, **settings: Any) -> None:
        if "module" in vars(cls):  # a widget makes a class of its own when it gets a trait
            cls._esm = one_text(cls.module)
        super().__init_subclass__(**settings)

    def __init__(self, **state: Any) -> None:
        super().__init__(place=uuid.uuid4().hex[:12], **state)

    def picture(self) -> Figure:
        """The still picture of the figure as it stands, drawn by matplotlib."""
        raise NotImplementedError

    def alt(self) -> str:
        """What the still picture shows, in words."""
        raise NotImplementedError

    def still(self) -> bytes:
        """The still picture as a PNG."""
        figure, buffer = self.picture(), BytesIO()
        figure.savefig(buffer, format="png", dpi=_STILL_DPI)
        plt.close(figure)
        return buffer.getvalue()

    def page_state(self) -> dict[str, Any]:
        """The traits of the figure itself, as JSON takes them: bytes as base64."""
        own = [key for key in self.keys if not key.startswith("_") and key not in _WIDGET_TRAITS]
        return {key: _as_json(getattr(self, key)) for key in own}

    def page(self, *, address: bool = False) -> str:
        """The figure as HTML that needs nothing else; with `address`, the page's address holds its state."""
        still = base64.b64encode(self.still()).decode()
        allowed = {key: self._allowed(key) for key in self.address} if address else {}
        return figure_in_page(self.module, self.place, self.page_state(), still, self.alt(), allowed)

    def _allowed(self, key: str) -> dict[str, Any]:
        """What a page's address may set a trait to."""
        trait = self.traits()[key]
        if isinstance(trait, traitlets.Enum):
            return {"values": list(trait.values)}
        limits = {"least": getattr(trait, "min", None), "most": getattr(trait, "max", None)}
        return {name: limit for name, limit in limits.items() if limit is not None and math.isfinite(limit)}

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any] | tuple[dict[str, Any], dict[str, Any]] | None:
        if any(name in sys.modules for name in _FRAMED_FRONTENDS):
            return super()._repr_mimebundle_()
        return {"text/html": self.page(), "text/plain": self.alt()}


def figure_in_page(
    module: str,
    place: str,
    state: Mapping[str, Any],
    still: str,
    alt: str,
    allowed: Mapping[str, Any] | None = None,
) -> str:
    """A figure as HTML that needs nothing else: its module, its state, and a still picture (PNG, base64).

    `place` is a word that no other figure of the page has; `allowed` says what the page's address may set.
    """
    shown, settings = json.dumps(state).replace("<", "\\u003c"), json.dumps(allowed or {})
    text = one_text(module).replace("</script", "<\\/script")
    return (
        f'<div data-hgsr="{place}"><img alt="{escape(alt)}" style="max-width:100%" '
        f'src="data:image/png;base64,{still}"></div>\n'
        f'<script type="application/json" data-hgsr-state="{place}" data-figure="{module}">{shown}</script>\n'
        f'<script type="module">\n{text}\nopenInPage("{place}", render, {settings});\n</script>\n'
    )


_WIDGET_TRAITS = frozenset(anywidget.AnyWidget().keys) - {"place"}


def _as_json(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Mapping):
        return {key: _as_json(part) for key, part in value.items()}
    return [_as_json(part) for part in value] if isinstance(value, list) else value
