"""What is compiled of the request path, the append and sealing, where it is. All of it has its counterpart in Python."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any, Final

#: Whether it may be used: ``INDELIBLE_PURE=1`` asks for Python alone. Read here, where there are no settings yet.
wanted: Final = os.environ.get("INDELIBLE_PURE") != "1"
#: Of the module that this code was written with. Another one was left by an installation before.
_VERSION: Final = 7


def _compiled() -> Any:
    try:
        module = import_module("indelible._native")
    except ImportError:  # nothing could be compiled where this was installed
        return None
    return module if module.VERSION == _VERSION else None


#: The compiled module, or None.
native: Final[Any] = _compiled() if wanted else None
if native is not None:
    os.register_at_fork(after_in_child=native.forget)
