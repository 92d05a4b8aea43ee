"""A real browser: Debian's Chromium, driven by Playwright, with no way to the network."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium for the whole session; where there is none, a failure that says how to get it."""
    if os.environ.get("HGSR_SKIP_BROWSER") == "1":
        pytest.skip("HGSR_SKIP_BROWSER=1: nothing was tried in a browser")
    if CHROMIUM is None:
        pytest.fail("no Chromium: apt-get install chromium, or set HGSR_SKIP_BROWSER=1 to leave these out")
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
