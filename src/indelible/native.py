"""The compiled part of the request path, where there is one. Everything in it has its counterpart in Python."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any, Final


def _compiled() -> Any:
    if os.environ.get("INDELIBLE_PURE") == "1":
        return None
    try:
        return import_module("indelible._native")
    except ImportError:  # nothing could be compiled where this was installed
        return None


#: The compiled module; None where it was not compiled, and where ``INDELIBLE_PURE=1`` asks for Python alone.
native: Final = _compiled()
