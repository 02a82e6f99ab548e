"""Install packages into the virtual environment of the running Python."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


class Installer:
    """An installer that uses uv, which takes seconds, and pip if uv fails.

    pip reads a configuration of its own, which may name the only index or certificate that works on a machine.
    """

    def __init__(self, uv: str, python: str = sys.executable) -> None:
        self._uv = [uv, "pip"]
        self._options = [*([] if sys.stderr.isatty() else ["--quiet"]), "--python", python]
        self._python = python

    def sync(self, lock: Path, kept: list[str]) -> bool:
        """Install a lock, check the hashes, and remove every other package except those in `kept`.

        Returns:
            Whether the lock is installed.
        """
        command = [*self._uv, "sync", *self._options, str(lock), "-"]
        if subprocess.run(command, input="\n".join(kept), text=True, check=False).returncode == 0:
            return True
        print("setup: uv failed; trying pip, which takes minutes", flush=True)
        ensured = subprocess.run([self._python, "-m", "ensurepip"], capture_output=True, check=False)
        return ensured.returncode == 0 and self.pip("--require-hashes", "--requirement", str(lock))

    def install(self, *arguments: str) -> bool:
        """Run ``uv pip install``, then ``pip install`` if that fails, and return whether one of them succeeded."""
        command = [*self._uv, "install", *self._options, *arguments]
        return subprocess.run(command, check=False).returncode == 0 or self.pip(*arguments)

    def pip(self, *arguments: str, quiet: bool = False) -> bool:
        """Run ``pip install``, without its output if `quiet`, and return whether it succeeded."""
        command = [self._python, "-m", "pip", "--disable-pip-version-check", "install", *arguments]
        return subprocess.run(command, capture_output=quiet, check=False).returncode == 0
