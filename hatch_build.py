"""Compiles src/native, if this machine can: without it the same is done in Python, only slower.

``INDELIBLE_PURE=1`` leaves it out: the wheel is then one for every machine.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Compile(BuildHookInterface):
    """The wheel's build hook, for an editable install too."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and put what came of it into the wheel, or for an editable install beside its source."""
        package = Path(self.root, "src", "indelible")
        name = f"_native{sysconfig.get_config_var('EXT_SUFFIX')}"
        if version == "editable":
            # What an installation before has left must not stand for what could not be made now.
            (package / name).unlink(missing_ok=True)
        if os.environ.get("INDELIBLE_PURE") == "1":
            return
        self._made = Path(tempfile.mkdtemp(prefix="indelible-build-"), name)
        if why := _compile(Path(self.root, "src", "native"), self._made):
            self.app.display_warning(f"not compiled, Python will do it, slower: {why}")
            return
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        if version == "editable":
            # In one step: processes that run have the one that was there.
            fresh = package / f".{name}.new"
            shutil.copyfile(self._made, fresh)
            fresh.replace(package / name)
        else:
            build_data["force_include"][str(self._made)] = f"indelible/{name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Take away what is in the wheel by now."""
        if (made := getattr(self, "_made", None)) is not None:
            shutil.rmtree(made.parent, ignore_errors=True)


def _compile(sources: Path, module: Path) -> str:
    """Why it could not be compiled; an empty text if it was."""
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    flags = ["-O2", "-fPIC", "-shared", "-fvisibility=hidden", f"-I{sysconfig.get_path('include')}"]
    if sys.platform == "darwin":
        flags += ["-undefined", "dynamic_lookup"]
    if shutil.which(compiler[0]) is None:
        compiler = ["cc"]
    try:
        done = subprocess.run(
            [*compiler, *flags, *map(str, sorted(sources.glob("*.c"))), "-o", str(module)],
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError as error:
        return str(error)
    return (done.stderr.strip() or f"{compiler[0]} failed")[-500:] if done.returncode else ""
