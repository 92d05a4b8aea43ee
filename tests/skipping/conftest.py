"""What the tests of skipping share."""

from __future__ import annotations

import pytest

from hgsr_lite.skipping import choice


@pytest.fixture
def never_dense(monkeypatch):
    """Every covered layer is taken, whatever this machine's clock says."""
    monkeypatch.setattr(choice, "_MARGIN", 0.0)
    monkeypatch.setattr(choice, "_ENOUGH", 0.01)
