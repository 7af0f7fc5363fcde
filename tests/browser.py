"""A browser without a window, for tests that look at a page as a person would."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@contextmanager
def browser() -> Iterator:
    """Yield a Chromium that is installed: that of `REMOTE_CKPT_BROWSER`, which must then be there, or any we find."""
    named = os.environ.get("REMOTE_CKPT_BROWSER")
    path = shutil.which(named) if named else next((found for name in NAMES if (found := shutil.which(name))), None)
    if path is None and named:
        pytest.fail(f"REMOTE_CKPT_BROWSER is {named}, which cannot be run.")
    if path is None:
        pytest.skip("No Chromium on the PATH; Debian has it as the package chromium-headless-shell.")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Chromium's sandbox refuses root, and the page is our own.
        opened = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"] if os.geteuid() == 0 else [])
        try:
            yield opened
        finally:
            opened.close()
