"""The installation of the lock and of torch, with a uv and a pip that record what they receive."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from infra.setup import __main__ as setup
from infra.setup import packages
from infra.setup.java import Java
from tests.infra.setup.programs import program

pytestmark = pytest.mark.slow

LOCK = Path("requirements/dev.txt")
CPU = "--no-deps --require-hashes --requirement requirements/torch-cpu.txt"


class Recorder:
    """A uv and a Python with pip that write their arguments to a log and succeed at some of them."""

    def __init__(self, folder: Path, succeeds: str) -> None:
        self._log = folder / "log"
        body = (
            f'exec >>"{self._log}"\necho "$*"\ncase "$*" in *sync*) cat ;; esac\n'
            f'case "$(basename "$0") $*" in {succeeds}) ;; *) exit 1 ;; esac'
        )
        uv, python = program(folder / "uv", body), program(folder / "python", body)
        self.installer = packages.Installer(str(uv), str(python))

    @property
    def calls(self) -> list[str]:
        return self._log.read_text().splitlines()


def install_torch(recorder: Recorder, build: str, index: str | None = None) -> None:
    packages.install_torch("2.13.0", build, index, recorder.installer)


@pytest.fixture
def linux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.system", lambda: "Linux")


def venv_with_torch(venv: Path, version: str, *requirements: str) -> Path:
    needs = "".join(f"Requires-Dist: {requirement}\n" for requirement in requirements)
    for name, number, lines in ("torch", version, needs), ("nvidia-cublas", "1.2", ""), ("numpy", "2.4", ""):
        folder = venv / "lib" / "python3.12" / "site-packages" / f"{name}-{number}.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {number}\n{lines}")
    return venv


def test_uv_installs_the_lock_and_keeps_torch(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, "uv*")
    assert recorder.installer.sync(LOCK, ["torch==2.13.0+cpu"])
    command, kept = recorder.calls
    assert command.startswith("pip sync")
    assert command.endswith(f"{LOCK} -")
    assert kept == "torch==2.13.0+cpu"


def test_pip_installs_the_lock_if_uv_fails(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, "python*")
    assert recorder.installer.sync(LOCK, [])
    assert recorder.calls[1:] == [
        "-m ensurepip",
        f"-m pip --disable-pip-version-check install --require-hashes --requirement {LOCK}",
    ]


def test_uv_refuses_a_package_with_another_hash(tmp_path: Path) -> None:
    lock = tmp_path / "lock.txt"
    lock.write_text(f"iniconfig==2.3.0 --hash=sha256:{'0' * 64}\n")
    command = [sys.executable, "-m", "uv", "pip", "sync", "--target", str(tmp_path / "target"), str(lock), "-"]
    done = subprocess.run(command, input="", capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "hash" in done.stderr.lower()


@pytest.mark.usefixtures("linux")
def test_a_build_of_torch_is_recognised_by_its_requirements(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = venv_with_torch(tmp_path / "a", "2.13.0", "filelock", 'nvidia-cublas==1; platform_system == "Linux"')
    cpu = venv_with_torch(tmp_path / "b", "2.13.0+cpu", "filelock")
    assert sorted(packages.installed_torch("2.13.0", "cuda", cuda)) == ["nvidia-cublas==1.2", "torch==2.13.0"]
    assert "torch==2.13.0+cpu" in packages.installed_torch("2.13.0", "cpu", cpu)
    assert packages.installed_torch("2.13.0", "cpu", cuda) == []
    assert packages.installed_torch("2.13.0", "cuda", cpu) == []
    assert packages.installed_torch("2.14.0", "cpu", cpu) == []
    assert packages.installed_torch("2.13.0", "cpu", tmp_path) == []
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    assert "torch==2.13.0" in packages.installed_torch("2.13.0", "cpu", cuda)


@pytest.mark.usefixtures("linux")
def test_the_cpu_build_is_taken_from_pips_own_indexes_first(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, "python*torch-cpu*")
    install_torch(recorder, "cpu")
    assert recorder.calls == [f"-m pip --disable-pip-version-check install {CPU}"]


@pytest.mark.usefixtures("linux")
def test_the_cpu_index_is_next_and_no_call_matches_another_build(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, "nothing")
    with pytest.raises(packages.SetupError, match=r"\A.*TORCH_INDEX.*\Z"):
        install_torch(recorder, "cpu")
    assert [packages.CPU_INDEX in call for call in recorder.calls] == [False, True, True]
    assert all(CPU in call for call in recorder.calls)


@pytest.mark.usefixtures("linux")
def test_a_named_index_is_the_only_one_asked(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, "uv*mirror*")
    install_torch(recorder, "cpu", "https://mirror/cpu")
    assert len(recorder.calls) == 1


@pytest.mark.usefixtures("linux")
def test_cuda_is_installed_only_on_request_and_after_its_size(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorder = Recorder(tmp_path, "uv*torch===2.13.0*")
    install_torch(recorder, "cuda")
    assert "GB" in capsys.readouterr().out
    assert "--no-deps" not in recorder.calls[0]


def test_an_unknown_build_of_torch_is_refused_in_one_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "infra.setup", "uv"],
        env={**os.environ, "TORCH": "rocm"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == "setup: TORCH=rocm is not a build of torch: use TORCH=cpu or TORCH=cuda\n"


def test_a_version_is_read_from_the_lock() -> None:
    assert setup.pinned("pyspark", Path("requirements/job.txt")) == "4.0.2"
    with pytest.raises(packages.SetupError, match="make lock"):
        setup.pinned("nothing", Path("requirements/job.txt"))


def test_another_release_of_java_is_another_set_up(tmp_path, monkeypatch):
    monkeypatch.setattr(setup, "JAVA_HOME", tmp_path / "java_home")
    setup.JAVA_HOME.write_text(f"{tmp_path}\n")
    stamps = []
    for release in ("17.0.1", "17.0.2"):
        (tmp_path / "release").write_text(f'JAVA_VERSION="{release}"\n')
        stamps.append(setup._new_stamp())
    assert {key for key in stamps[0] if stamps[0][key] != stamps[1][key]} == {"archive"}


def test_a_java_home_prints_in_a_terminal_of_any_encoding(tmp_path, monkeypatch):
    (tmp_path / ".venv").mkdir()
    for name in ("STAMP", "JAVA_HOME"):
        monkeypatch.setattr(setup, name, tmp_path / getattr(setup, name))
    monkeypatch.setattr(setup, "find_or_install", lambda _: Java(Path("/home/jürg/java"), 17))
    monkeypatch.setattr(setup, "_install_packages", lambda *_: None)
    monkeypatch.setattr(setup, "_archive_classes", lambda *_: None)
    output = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr(sys, "stdout", output)
    monkeypatch.setattr(sys, "argv", ["setup", "uv"])
    assert setup.main() == 0
    output.flush()
    assert rb"setup: Java 17 in /home/j\xfcrg/java" in output.buffer.getvalue()
