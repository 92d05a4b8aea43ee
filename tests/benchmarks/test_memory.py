"""The peak that is told of a page is that of its own cells."""

from __future__ import annotations

import nbformat

from benchmarks.memory import peak_bytes
from hgsr_lite.series.run import kernel_environment


def test_what_a_page_held_for_a_moment_counts(tmp_path):
    peaks = []
    for size in (1, 200_000_000):
        cells = [nbformat.v4.new_code_cell(f"len(b'1' * {size})")]
        page = tmp_path / f"{size}.ipynb"
        nbformat.write(nbformat.v4.new_notebook(cells=cells), page)
        with kernel_environment(tmp_path):
            peaks.append(peak_bytes(page))
    assert peaks[1] - peaks[0] > 150_000_000
