"""Errors of the bootstrap action, each one clear line. `bootstrap_lab.py` runs all of it on a bare machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from infra.setup import packages
from nightjar import packaging as node
from nightjar.packaging.build import build

pytestmark = pytest.mark.slow

SCRIPT = Path("plugins/nightjar/packaging/bootstrap.sh")


@pytest.fixture
def package(tmp_path: Path) -> Path:
    built = build()
    folder = tmp_path / "packages" / built.sha256
    folder.mkdir(parents=True)
    for name, data in built.files.items():
        (folder / name).write_bytes(data)
    return folder


def bootstrap(*arguments: str, prefix: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(SCRIPT), *arguments, "--prefix", str(prefix)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environ})


def failure(done: subprocess.CompletedProcess[str], prefix: Path) -> str:
    """Check that a bootstrap action failed without leaving an environment, and return its last line."""
    assert done.returncode == 1, done.stdout
    assert not (prefix / "env").exists()
    assert not list(prefix.glob("bootstrap.*"))
    last = done.stderr.splitlines()[-1]
    assert last.startswith("bootstrap: FAILED: ")
    return last


def test_shellcheck_finds_nothing() -> None:
    shellcheck = Path(sys.executable).with_name("shellcheck")
    done = subprocess.run([str(shellcheck), str(SCRIPT)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--package is missing"),
        (["--package", "file:///x", "--torch", "rocm"], "use cpu or cuda"),
        (["--fast", "x"], "unknown argument --fast"),
        (["--package", "hdfs://x"], "hdfs://x: expected s3:// or file://"),
        (["--package", "file:///no/such/folder"], "cannot read file:///no/such/folder"),
    ],
)
def test_wrong_argument_is_one_line(arguments: list[str], message: str, tmp_path: Path) -> None:
    assert message in failure(bootstrap(*arguments, prefix=tmp_path / "opt"), tmp_path / "opt")


def test_changed_package_is_refused(package: Path, tmp_path: Path) -> None:
    (package / "jobs.zip").write_bytes(b"something else")
    done = bootstrap("--package", f"file://{package}", prefix=tmp_path / "opt")
    assert "wrong hash: a file of file://" in failure(done, tmp_path / "opt")
    (package / "SHA256SUMS").write_text("")
    done = bootstrap("--package", f"file://{package}", prefix=tmp_path / "opt")
    assert "wrong hash: SHA256SUMS of file://" in failure(done, tmp_path / "opt")


def test_script_and_modules_agree_on_the_nodes() -> None:
    lines = SCRIPT.read_text().splitlines()
    python = "python{}.{}".format(*node.PYTHON_VERSION)
    assert f"prefix={node.PREFIX}" in lines
    assert f"readonly TORCH_CPU_INDEX={node.TORCH_CPU_INDEX}" in lines
    assert f"readonly TORCH_CUDA_INDEX={node.TORCH_CUDA_INDEX}" in lines
    assert f'{python} -m venv "$target"' in SCRIPT.read_text()


def test_index_of_cpu_builds_is_the_same_everywhere() -> None:
    index = node.TORCH_CPU_INDEX
    assert index == packages.CPU_INDEX
    assert packages.CUDA_PREFIXES == node.CUDA_PREFIXES
    assert f"ARG TORCH_INDEX={index}" in Path("infra/compose/Dockerfile").read_text().splitlines()
    assert f"TORCH_INDEX: ${{TORCH_INDEX:-{index}}}" in Path("docker-compose.yaml").read_text()
