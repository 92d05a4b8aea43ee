"""How Sphinx makes the site: `python -m hgsr_lite site` lays the sources out in build/site-source first.

Everything is inside: no page asks the network for anything, mathematics is MathML that browsers draw
themselves, and pages work when opened from the disk.
"""

from __future__ import annotations

import latex2mathml.converter
import nbformat
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from hgsr_lite import live
from hgsr_lite.live.figure import figure_in_page
from hgsr_lite.series.committed import LIVE_FIGURE

project = "hgsr-lite"
author = "the hgsr-lite authors"
copyright = "the hgsr-lite authors, MIT licence"
language = "en"

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
root_doc = "index"
exclude_patterns = ["solutions/README*"]
html_theme = "furo"
html_title = "hgsr-lite"
html_static_path = ["_static"]
html_favicon = "_static/icon.svg"
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_show_search_summary = False  # it would fetch pages, which a browser refuses for files on the disk
html_last_updated_fmt = None

nb_execution_mode = "off"  # the outputs are those that were committed, and tested
nb_merge_streams = True
myst_enable_extensions = ["dollarmath", "amsmath", "html_image"]
myst_heading_anchors = 4
myst_heading_slug_func = "hgsr_lite.series.site.heading_slug"
suppress_warnings = ["mystnb.unknown_mime_type", "misc.highlighting_failure", "myst.header"]

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # signatures carry them already
default_role = "literal"

html_math_renderer = "mathml"
_LOG = logging.getLogger(__name__)


def _mathml(node: nodes.Node, display: str) -> str:
    try:
        return latex2mathml.converter.convert(node.astext(), display=display)
    except Exception as error:
        _LOG.warning("no MathML for %r: %s", node.astext(), error, location=node)
        return f"<code>{node.astext()}</code>"


def _inline(writer, node: nodes.math) -> None:
    writer.body.append(_mathml(node, "inline"))
    raise nodes.SkipNode


def _block(writer, node: nodes.math_block) -> None:
    writer.body.append(f'<div class="math-block" tabindex="0">{_mathml(node, "block")}</div>')
    raise nodes.SkipNode


def _formulas_as_they_stand(app, what, name, obj, options, lines: list[str]) -> None:
    """Docstrings show formulas as indented blocks: keep their line breaks; a bar is a bar."""
    made: list[str] = []
    for number, line in enumerate(lines):
        indented = line.startswith("    ") and not line.lstrip().startswith(">>>")
        fresh = number == 0 or (not lines[number - 1].strip() and not lines[number - 1].startswith("    "))
        if indented and fresh and not (made and made[-1].rstrip().endswith("::")):
            made += ["::", ""]
        made.append(line if line.startswith("    ") or "``" in line else line.replace("|", "\\|"))
    lines[:] = made


def _answering(app: Sphinx, docname: str, source: list[str]) -> None:
    """A notebook's live figures, committed as a still picture and a state, get their modules back.

    Pictures get the alt text of their cell, where MyST-NB looks for it.
    """
    if not str(app.env.doc2path(docname)).endswith(".ipynb"):
        return
    notebook = nbformat.reads(source[0], as_version=4)
    for number, cell in enumerate(notebook.cells):
        if "alt" in cell.metadata:
            cell.metadata["mystnb"] = {"image": {"alt": cell.metadata["alt"]}}
        for output in cell.get("outputs", []):
            figure = output.get("data", {}).get(LIVE_FIGURE)
            if figure:
                still, alt = output.data["image/png"], cell.metadata.get("alt", "")
                page = figure_in_page(figure["figure"], f"cell-{number}", figure["state"], still, alt)
                output.data = {"text/html": page}
    source[0] = nbformat.writes(notebook)


def _reachable(app, page: str, template: str, context: dict, doctree: nodes.document | None) -> None:
    """What Sphinx and the theme leave out for keyboards and screen readers."""
    for part in ("body", "furo_navigation_tree"):
        if part in context:
            for given, wanted in _REACHABLE.items():
                context[part] = context[part].replace(given, wanted)


_REACHABLE = {
    'role="heading"': 'role="heading" aria-level="2"',
    "<pre>": '<pre tabindex="0">',  # what may scroll can be reached, so that keys scroll it
    '<div class="cell_output': '<div tabindex="0" class="cell_output',
    '<div class="table-wrapper': '<div tabindex="0" class="table-wrapper',
}


class LiveFigure(SphinxDirective):
    """The figure of `hgsr_lite.live` that is named; the page's address holds its state."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The figure's HTML, as it is."""
        figure = getattr(live, self.arguments[0])()
        return [nodes.raw("", figure.page(address=True), format="html")]


def setup(app: Sphinx) -> dict[str, bool]:
    """Mathematics without a script, docstrings as they are written, and live figures."""
    app.add_directive("live", LiveFigure)
    app.add_html_math_renderer("mathml", inline_renderers=(_inline, None), block_renderers=(_block, None))
    app.connect("html-page-context", _reachable, priority=900)  # after the theme
    app.connect("source-read", _answering)
    app.connect("autodoc-process-docstring", _formulas_as_they_stand)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
