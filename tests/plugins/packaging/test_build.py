"""The package for the cluster: reproducible, complete and uploaded once."""

import hashlib
import io
import os
import platform
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from infra.cli.main import main
from jobs.lake.layout import Lake
from jobs.lake.store import Store
from jobs.lake.uri import base_name, join, local_path
from nightjar.packaging.build import PROJECT_ROOT, TORCH_FILES, PackageError, build
from nightjar.tasks.package import upload

pytestmark = pytest.mark.slow


@pytest.fixture
def copies(tmp_path):
    """Two copies of the code that differ in order of creation, dates, file modes and caches."""
    first, second = tmp_path / "one", tmp_path / "an other"
    shutil.copytree(PROJECT_ROOT / "jobs", first / "jobs", ignore=shutil.ignore_patterns("__pycache__"))
    for path in sorted((first / "jobs").rglob("*"), reverse=True):
        target = second / path.relative_to(first)
        if path.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
            target.chmod(0o600)
            os.utime(target, (1e9, 1e9))
    (second / "jobs" / "__pycache__").mkdir()
    (second / "jobs" / "__pycache__" / "config.cpython-311.pyc").write_bytes(b"cache")
    (second / "jobs" / ".notes.swp").write_bytes(b"editor")
    return first, second


def test_same_code_gives_the_same_bytes(copies):
    first, second = map(build, copies)
    assert first == second
    assert len(first.sha256) == 64


def test_any_change_gives_another_name(copies):
    first, second = copies
    before = build(first).sha256
    (second / "jobs" / "config.py").write_text("changed = True\n")
    assert build(second).sha256 != before
    (first / "requirements").mkdir()
    for name in ("job.txt", *TORCH_FILES):
        shutil.copy(PROJECT_ROOT / "requirements" / name, first / "requirements")
    assert build(first).sha256 != before


def test_requirements_are_the_lock_without_spark(copies):
    lines = build().files["requirements.txt"].decode().splitlines()
    locked = (PROJECT_ROOT / "requirements" / "job.txt").read_text().splitlines()
    assert any(line.startswith("numpy==") for line in lines)
    left_out = {line.partition("==")[0] for line in set(locked) - set(lines) if "==" in line}
    assert left_out == {"pyspark", "py4j"}


def test_name_is_the_hash_of_all_files():
    package = build()
    assert hashlib.sha256(package.files["SHA256SUMS"]).hexdigest() == package.sha256
    listed = dict(reversed(line.split("  ")) for line in package.files["SHA256SUMS"].decode().splitlines())
    assert listed == {
        name: hashlib.sha256(data).hexdigest() for name, data in package.files.items() if name != "SHA256SUMS"
    }


def test_import_that_is_not_locked_is_refused(copies):
    shutil.copytree(PROJECT_ROOT / "requirements", copies[0] / "requirements")
    build(copies[0])
    (copies[0] / "jobs" / "corpus" / "more.py").write_text("def f():\n    import scipy.stats\n")
    with pytest.raises(
        PackageError, match=r"jobs/corpus/more.py imports scipy, .* add it to requirements/job.in and run make lock"
    ):
        build(copies[0])
    (copies[0] / "jobs" / "corpus" / "more.py").write_text("from backports import csv\n")
    with pytest.raises(PackageError, match=r"jobs/corpus/more.py imports backports\.csv, "):
        build(copies[0])


def test_zip_has_only_code_and_presets(copies):
    names = zipfile.ZipFile(io.BytesIO(build(copies[1]).files["jobs.zip"])).namelist()
    assert names == sorted(names)
    assert {"jobs/__init__.py", "jobs/cli/main.py", "jobs/config/presets/demo.toml"} <= set(names)
    assert {Path(name).suffix for name in names} == {".css", ".html", ".py", ".toml"}


def test_the_packed_job_writes_reports(tmp_path):
    (tmp_path / "jobs.zip").write_bytes(build().files["jobs.zip"])
    code = "from jobs.results.report import template; print([len(template(n)) for n in ('report.html', 'style.css')])"
    environ = {**os.environ, "PYTHONPATH": str(tmp_path / "jobs.zip")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd="/", env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_launcher_starts_the_packed_job(tmp_path):
    for name, data in build().files.items():
        (tmp_path / name).write_bytes(data)
    command = [sys.executable, str(tmp_path / "launcher.py"), "train", "--help"]
    environ = {**os.environ, "PYTHONPATH": str(tmp_path / "jobs.zip")}
    done = subprocess.run(command, cwd="/", env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--config" in done.stdout


def test_folder_without_the_package_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no package jobs in this folder; set NIGHTJAR_PACKAGE_ROOT"):
        build(tmp_path)


class LoggingStore(Store):
    """A store that keeps the names of the files in the order in which they were written."""

    def __init__(self):
        super().__init__()
        self.written = []

    def write_bytes(self, uri, data):
        super().write_bytes(uri, data)
        self.written.append(base_name(uri))

    def publish(self, uri, data):
        self.written.append(base_name(uri))
        return super().publish(uri, data)


def test_package_is_uploaded_once_with_its_manifest_last(tmp_path):
    lake, store = Lake((tmp_path / "lake").as_uri()), LoggingStore()
    folder = upload(lake, PROJECT_ROOT, store)
    assert folder == lake.package(build().sha256)
    assert store.written[-1] == "_manifest.json"
    manifest = store.read_manifest(folder)
    store.verify_sizes(folder, manifest)
    assert {entry.name for entry in manifest.files} == set(build().files)
    count = len(store.written)
    assert upload(lake, PROJECT_ROOT, store) == folder
    assert len(store.written) == count
    store.delete_file(join(folder, "_manifest.json"))
    upload(lake, PROJECT_ROOT, store)
    assert len(store.written) == 2 * count


def test_package_check_uploads_without_airflow(tmp_path, capsys):
    elsewhere = "aarch64" if platform.machine() == "x86_64" else "x86_64"  # so that nothing is installed
    arguments = ["aws-package", "check", "--arch", elsewhere, "--lake"]
    assert main([*arguments, str(tmp_path / "my lake")]) == 0
    place = capsys.readouterr().out.splitlines()[-1].removeprefix("uploaded to ")
    assert place == Lake((tmp_path / "my lake").as_uri()).package(build().sha256)
    assert {path.name: path.read_bytes() for path in local_path(place).iterdir()} == build().files
    assert main([*arguments, "gs://lake"]) == 2
    assert "unknown scheme 'gs'" in capsys.readouterr().err
