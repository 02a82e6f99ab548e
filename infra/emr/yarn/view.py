"""The files that processes on a host see: those of this machine, with a few folders replaced.

A host has a name, a hosts file, a /tmp and an /opt of its own. At first, its /tmp is empty. Its /opt/nightjar/env is
the Python environment that a bootstrap action makes. A folder that the unprivileged user may not enter, such as /root,
is replaced by one that shows only what Spark and Python need from the original.
"""

from __future__ import annotations

import os
import pwd
import shlex
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from infra.emr.yarn import hosts
from jobs.errors import InputError

USER = "nobody"
"""The unprivileged user."""
_OPT, _TMP = Path("/opt"), Path("/tmp")  # noqa: S108 - each host has its own
_ENVIRONMENT = "nightjar/env"


@dataclass(frozen=True)
class Account:
    """The user that daemons, containers and drivers run as."""

    name: str
    uid: int
    gid: int

    def own(self, folder: Path) -> Path:
        """Make a folder that belongs to the user, and return it."""
        folder.mkdir(parents=True, exist_ok=True)
        os.chown(folder, self.uid, self.gid)
        return folder


def account() -> Account:
    """Return the unprivileged user."""
    try:
        found = pwd.getpwnam(USER)
    except KeyError:
        raise InputError(f"executors=yarn: this machine has no user {USER} to run containers; add the user") from None
    return Account(USER, found.pw_uid, found.pw_gid)


def needed(*others: Path) -> list[Path]:
    """Return the folders of Python and its packages, and `others`, without those that lie inside another one."""
    python = [Path(sys.prefix), Path(sys.base_prefix), *(Path(entry) for entry in sys.path if entry)]
    found = sorted({path.resolve() for path in (*python, *others) if path.exists()})
    return [path for path in found if not any(other in path.parents for other in found)]


def covered(paths: Iterable[Path]) -> dict[Path, list[Path]]:
    """Return a dict. Its keys are the folders that are replaced on a host.

    The value for a folder lists the paths inside it that stay visible on the host: those of `paths`, and in /opt
    everything except /opt/nightjar. Raise an `InputError` if the unprivileged user cannot enter one of `paths`.
    """
    covers: dict[Path, list[Path]] = {
        _TMP: [],
        _OPT: sorted(each for each in _OPT.iterdir() if each.name != "nightjar"),
    }
    for path in paths:
        if path in covers:  # /tmp or /opt itself, where a script may be
            continue
        way = [*reversed(path.parents), path]
        closed = next((each for each in way if each in (_TMP, _OPT) or not each.stat().st_mode & 0o001), None)
        if closed == path:
            raise InputError(f"executors=yarn: the user {USER} cannot enter {path}; run chmod a+rx on it")
        if closed is not None and closed != _OPT:
            covers.setdefault(closed, []).append(path)
    return covers


def write_entry(folder: Path, number: int, paths: Iterable[Path], environment: Path, user: Account) -> Path:
    """Write the script that runs a command on a host: ``sh SCRIPT WORKING-FOLDER COMMAND...``. Return its path."""
    lines = ["set -eu", f"hostname {hosts.host_name(number)}", f"mount --bind {hosts.WORK}/hosts /etc/hosts"]
    for place, shown in covered(paths).items():
        cover = folder / "cover" / str(place).strip("/").replace("/", "+")
        cover.mkdir(parents=True, exist_ok=True)
        cover.chmod(0o1777 if place == _TMP else 0o755)
        if place == _OPT:
            link = cover / _ENVIRONMENT
            link.parent.mkdir(exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(environment)
        for path in shown:
            target = cover / path.relative_to(place)
            if path.is_dir():
                target.mkdir(parents=True, exist_ok=True)
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.touch()
            lines.append(shlex.join(["mount", "--rbind", str(path), str(target)]))
        lines.append(shlex.join(["mount", "--rbind", str(cover), str(place)]))
    # /var/tmp may lie in a folder that was just replaced, so the working folder is entered last.
    rights = f"--reuid={user.uid} --regid={user.gid} --clear-groups --no-new-privs"
    lines += ['cd "$1"', "shift", f'exec setpriv {rights} "$@"']
    script = folder / "enter"
    script.write_text("\n".join(lines) + "\n", "utf-8")
    return script
