"""Installs Debian packages where that needs no password: as root, or by sudo that asks for none."""

import os
import shutil
import subprocess


def install_one_of(*packages: str) -> str | None:
    """Installs the first of several packages that this release of Debian or Ubuntu has.

    Args:
        *packages: Names, the preferred one first.

    Returns:
        The name of what was installed, or None where nothing could be.
    """
    apt_get = _command()
    if apt_get is None:
        return None
    print(f"setup: installing {' or '.join(packages)} by apt-get", flush=True)
    # A list of one of several sources that is out of reach is no reason to give up.
    subprocess.run([*apt_get, "update", "-qq"], check=False)
    for package in packages:
        if not _known(package):
            continue
        command = [*apt_get, "install", "-qq", "--no-install-recommends", package]
        done = subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
        return package if done.returncode == 0 else None
    return None


def _command() -> list[str] | None:
    """How apt-get is called here, or None where it is absent or would ask for a password."""
    if shutil.which("apt-get") is None:
        return None
    command = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "--yes"]
    if os.geteuid() == 0:
        return command
    if shutil.which("sudo") is None:
        return None
    asked = subprocess.run(["sudo", "-n", "true"], capture_output=True, check=False)
    return ["sudo", "-n", *command] if asked.returncode == 0 else None


def _known(package: str) -> bool:
    done = subprocess.run(["apt-cache", "show", package], capture_output=True, check=False)
    return done.returncode == 0
