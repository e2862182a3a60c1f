"""What can keep the embedded services from running."""

from __future__ import annotations

from clicktide.errors import ClicktideError


class EmbeddedError(ClicktideError):
    """The embedded services cannot start or go on; its text is one line that names the thing."""

    code = "embedded"
