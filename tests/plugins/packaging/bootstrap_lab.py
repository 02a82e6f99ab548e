"""The bootstrap action on a bare Debian, online, offline and in failure: ``make test-bootstrap``.

The machine is a chroot made by debootstrap, with its own mount namespace. Offline, it also has its own network
namespace, without a route. Debian has no AWS CLI, so the package is on the disk. pip's configuration is this machine's,
passed on in environment variables.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.config import resolve
from jobs.lake.layout import Lake
from nightjar.packaging.build import Package, build
from nightjar.packaging.wheelhouse import make
from nightjar.packaging.wheels import Target

INSTALLED = "ca-certificates,python3.11,python3-venv"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
NODE_SECONDS = 180
FORWARDED = re.compile(r"(?i)(https?|no|all)_proxy|PIP_.*|SSL_CERT_.*|REQUESTS_CA_BUNDLE")

pytestmark = [
    pytest.mark.timeout(1200),
    pytest.mark.skipif(
        sys.platform != "linux" or os.getuid() != 0, reason="needs root on Linux, for chroot and mounts"
    ),
    pytest.mark.skipif(shutil.which("debootstrap") is None, reason="needs debootstrap"),
]


class Node:
    """A bare machine in a chroot, with this machine's pip configuration."""

    def __init__(self, root: Path, package: Package) -> None:
        self.root = root
        self.package = f"/packages/{package.sha256}"
        self.environ = {name: value for name, value in os.environ.items() if FORWARDED.fullmatch(name)}
        self.environ |= _pip_settings()
        # A mirror on a local disk has its files next to its index, the folder `simple`.
        self.shared = [
            path.removesuffix("/simple")
            for path in re.findall(r"(?<![\w.:/])/[\w./-]+", " ".join(self.environ.values()).replace("file://", " "))
        ]

    def run(self, command: str, *, offline: bool = False, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run a shell command on the node."""
        mounts = ["mount -t proc proc {root}/proc", "mount --rbind /dev {root}/dev"]
        for path in dict.fromkeys(self.shared):
            if Path(path).is_dir():
                (self.root / path.lstrip("/")).mkdir(parents=True, exist_ok=True)
                mounts.append(f"mount --bind -o ro {path} {{root}}{path}")
        script = " && ".join([*mounts, 'exec chroot {root} /bin/bash -c "$0"']).format(root=self.root)
        argv = ["unshare", "--mount", *(["--net"] if offline else []), "bash", "-c", script, command]
        env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8", **self.environ, **environ}
        return subprocess.run(argv, env=env, capture_output=True, text=True, check=False)

    def bootstrap(self, arguments: str = "", **options: str | bool) -> tuple[subprocess.CompletedProcess[str], float]:
        """Run the bootstrap action on the node, and return its result and duration in seconds."""
        started = time.monotonic()
        command = f"{self.package}/bootstrap.sh --package file://{self.package} {arguments}"
        done = self.run(command, **options)  # type: ignore[arg-type]  # only `offline` is a bool
        return done, time.monotonic() - started

    def tokenize(self, python: str, name: str) -> str:
        """Run the step with the launcher on the node, without a network, and return its stderr."""
        lake = self.root / "lakes" / name
        run = Lake(f"file:///lakes/{name}").run("one")
        (lake / "runs" / "one").mkdir(parents=True)
        (lake / "text.txt").write_text("The man starts with a question.\n\n" * 500)
        config = resolve(f"file:///lakes/{name}/text.txt", "tiny", {"tokenize.vocab_size": 300})
        (lake / "runs" / "one" / "config.json").write_text(config.to_json())
        command = f"{python} {self.package}/launcher.py tokenize --config {run.config} --engine inline"
        done = self.run(command, offline=True, PYTHONPATH=f"{self.package}/jobs.zip")
        assert done.returncode == 0, done.stderr
        assert list(lake.glob("datasets/tokens/*/_manifest.json"))
        return done.stderr


def _pip_settings() -> dict[str, str]:
    """Return this machine's pip configuration as environment variables."""
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    found = re.findall(r"^global\.([\w-]+)='(.*)'$", listed.stdout, re.MULTILINE)
    return {f"PIP_{name.replace('-', '_').upper()}": value for name, value in found}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    root, package = tmp_path_factory.mktemp("node") / "root", build()
    subprocess.run(
        ["debootstrap", "--variant=minbase", f"--include={INSTALLED}", "bookworm", str(root), *_mirror()],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    shutil.copy("/etc/resolv.conf", root / "etc" / "resolv.conf")
    shutil.copy("/etc/hosts", root / "etc" / "hosts")
    shutil.copyfile(CERTIFICATES, root / CERTIFICATES.relative_to("/"))
    folder = root / "packages" / package.sha256
    folder.mkdir(parents=True)
    for name, data in package.files.items():
        (folder / name).write_bytes(data)
        (folder / name).chmod(0o755)
    yield Node(root, package)
    shutil.rmtree(root)


def _mirror() -> list[str]:
    """Return the Debian mirror that this machine installs from."""
    for path in Path("/etc/apt").rglob("*.sources"):
        if found := re.search(r"^URIs:\s*(\S+)", path.read_text(), re.MULTILINE):
            return [found[1]]
    return []


def failure(done: subprocess.CompletedProcess[str], node: Node, prefix: str) -> str:
    assert done.returncode == 1, done.stdout
    assert not (node.root / prefix.lstrip("/") / "env").exists()
    return done.stderr.splitlines()[-1].removeprefix("bootstrap: FAILED: ")


def test_online_install(node: Node) -> None:
    done, seconds = node.bootstrap()
    assert done.returncode == 0, done.stderr[-2000:]
    sys.stdout.write(f"\nonline, {seconds:.0f} s: {done.stdout.splitlines()[-1]}\n")
    assert seconds < NODE_SECONDS
    node.tokenize("/opt/nightjar/env/bin/python", "online")
    again, seconds = node.bootstrap(offline=True)
    assert "already exists" in again.stdout
    assert seconds < 5


def test_offline_install_from_a_wheelhouse(node: Node, tmp_path_factory: pytest.TempPathFactory) -> None:
    wheelhouse = make(Target(os.uname().machine, "cpu"), tmp_path_factory.mktemp("wheels"))
    wheels = f"/wheelhouses/{wheelhouse.name}"
    shutil.copytree(wheelhouse, node.root / wheels.lstrip("/"))
    done, seconds = node.bootstrap(f"--wheels file://{wheels} --prefix /opt/offline", offline=True)
    assert done.returncode == 0, done.stderr[-2000:]
    sys.stdout.write(f"\noffline, {seconds:.0f} s: {done.stdout.splitlines()[-1]}\n")
    assert seconds < NODE_SECONDS
    node.tokenize("/opt/offline/env/bin/python", "offline")
    wheel = next((node.root / wheels.lstrip("/")).glob("numpy-*.whl"))
    wheel.write_bytes(wheel.read_bytes()[:-1])
    done, _ = node.bootstrap(f"--wheels file://{wheels} --prefix /opt/damaged", offline=True)
    assert failure(done, node, "/opt/damaged").startswith("wrong hash: a file of file:///wheelhouses/")


def test_unreachable_index_fails(node: Node) -> None:
    broken = {"PIP_INDEX_URL": "https://pypi.invalid/simple", "PIP_RETRIES": "0"}
    done, _ = node.bootstrap("--prefix /opt/broken", offline=True, **broken)
    assert failure(done, node, "/opt/broken").startswith("cannot install requirements.txt from pip's index")


def test_full_disk_fails(node: Node) -> None:
    command = f"mkdir -p /small && mount -t tmpfs -o size=50m none /small && {node.package}/bootstrap.sh"
    done = node.run(f"{command} --package file://{node.package} --prefix /small/opt")
    assert re.match(
        r"disk too small: \d+ MB free at /small/opt, 3000 MB needed; raise cluster.root_volume_gb",
        failure(done, node, "/small/opt"),
    )
