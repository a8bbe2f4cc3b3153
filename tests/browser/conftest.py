"""A browser for the tests of the web page and of the notebooks."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.web_page import BROWSER_FLAGS, find_browser


@pytest.fixture(scope="session")
def launch():
    """A function that starts Chromium with more flags."""
    playwright = pytest.importorskip("playwright.sync_api",
                                     reason="needs Playwright: make test-browser")
    if find_browser() is None:
        pytest.skip("needs Chromium: install it, then make test-browser")
    with playwright.sync_playwright() as started:
        yield lambda *flags: started.chromium.launch(executable_path=find_browser(),
                                                     args=[*BROWSER_FLAGS, *flags])
