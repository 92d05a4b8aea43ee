"""A live figure as a page of its own: state, still picture, and what is committed of it."""

from __future__ import annotations

import base64
import json
import re

import ipywidgets
import nbformat
import pytest
from IPython.core.formatters import DisplayFormatter

from hgsr_lite.live import LiveFigure, Norms, Penalties
from hgsr_lite.series.committed import LIVE_FIGURE, clean


@pytest.fixture(params=[Norms, Penalties], ids=["norms", "penalties"])
def figure(request: pytest.FixtureRequest) -> LiveFigure:
    return request.param()


def output_of(figure: LiveFigure) -> nbformat.NotebookNode:
    return nbformat.v4.new_output("display_data", data=figure._repr_mimebundle_())


def test_a_page_holds_the_state_the_module_and_a_still_picture_in_words(figure: LiveFigure):
    page = figure.page()
    state = json.loads(re.search(r'data-figure="[^"]*">(.*?)</script>', page, re.DOTALL)[1])
    assert state == json.loads(json.dumps(figure.page_state()))
    still = re.search(r'<img alt="([^"]+)"[^>]*base64,([^"]+)"', page)
    assert still[1]
    assert base64.b64decode(still[2]).startswith(b"\x89PNG")
    assert page.count("</script>") == 2


def test_what_is_shown_never_asks_for_a_session_that_may_be_gone(figure: LiveFigure):
    assert set(figure._repr_mimebundle_()) == {"text/html", "text/plain"}


def test_ipython_shows_the_page_where_widgets_bring_a_display_of_their_own(
    figure: LiveFigure, monkeypatch: pytest.MonkeyPatch
):
    """As they do in ipywidgets 7; IPython asks for that first."""
    monkeypatch.setattr(ipywidgets.Widget, "_ipython_display_", lambda self: None, raising=False)
    assert set(DisplayFormatter().format(figure)[0]) == {"text/html", "text/plain"}


def test_a_committed_figure_is_its_picture_and_its_state_alike_after_every_run(tmp_path):
    outputs = []
    for figure in (Norms(key="gl"), Norms(key="gl")):
        cell = nbformat.v4.new_code_cell("Norms()", outputs=[output_of(figure)])
        outputs.append(clean(nbformat.v4.new_notebook(cells=[cell]), tmp_path).cells[0].outputs[0].data)
    assert outputs[0] == outputs[1]
    assert set(outputs[0]) == {"image/png", LIVE_FIGURE}
    assert outputs[0][LIVE_FIGURE]["figure"] == "norms.js"
    assert outputs[0][LIVE_FIGURE]["state"]["key"] == "gl"
    assert Norms(**outputs[0][LIVE_FIGURE]["state"]).key == "gl"


def test_traits_are_checked():
    with pytest.raises(Exception, match="hsq_gl13"):
        Norms(key="hsq_gl13")
    with pytest.raises(ValueError, match="did you mean 'hsq_gl12'"):
        Penalties(key="hsq_gl13")
