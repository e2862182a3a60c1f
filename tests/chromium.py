"""Debian's Chromium for the tests of pages: looked for when it is used, since the first run on a machine installs it after collecting."""

from __future__ import annotations

import os
import shutil

import pytest


def chromium() -> str:
    """Where it is; skips the test where it is not, or fails it under CI=true."""
    found = shutil.which("chromium")
    if found is None:
        missing = "chromium is not there: apt-get install chromium"
        pytest.fail(missing) if os.environ.get("CI") == "true" else pytest.skip(missing)
    return found
