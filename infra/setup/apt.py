"""Install Debian packages without a password: as root, or with sudo if sudo needs no password.

``setup.sh`` runs ``python3 -m infra.setup.apt PACKAGE...`` to install Python's module venv, before ``.venv`` exists. So
this module must work with Python versions that Nightjar does not support.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys


def install_one_of(*packages: str) -> str | None:
    """Install the first of `packages` that this release of Debian or Ubuntu has, and return its name.

    Return None if nothing was installed.
    """
    apt_get = _command()
    if apt_get is None:
        return None
    print(f"setup: installing with apt-get the first available of: {', '.join(packages)}", flush=True)
    # A failure of one source does not matter if another has the package.
    subprocess.run([*apt_get, "update", "-qq"], check=False)
    for package in packages:
        if subprocess.run(["apt-cache", "show", package], capture_output=True, check=False).returncode == 0:
            command = [*apt_get, "install", "-qq", "--no-install-recommends", package]
            done = subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
            return package if done.returncode == 0 else None
    return None


def _command() -> list[str] | None:
    """Return the start of an apt-get command. Return None if apt-get is missing.

    Also return None if the user is not root, and sudo is missing or needs a password.
    """
    if shutil.which("apt-get") is None:
        return None
    command = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "--yes"]
    if os.geteuid() == 0:
        return command
    if shutil.which("sudo") is None:
        return None
    asked = subprocess.run(["sudo", "-n", "true"], capture_output=True, check=False)
    return ["sudo", "-n", *command] if asked.returncode == 0 else None


if __name__ == "__main__":
    sys.exit(install_one_of(*sys.argv[1:]) is None)
