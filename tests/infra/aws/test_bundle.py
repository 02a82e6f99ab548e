"""The archives for an Airflow elsewhere: once unpacked, the DAGs import and build the same package."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from infra.cli import aws
from nightjar.packaging.build import PROJECT_ROOT, build, zip_bytes

pytestmark = pytest.mark.slow

CODE = """
import nightjar.packaging.build, jobs.config, train_llm, reap_clusters
from nightjar import settings
modules = [nightjar.packaging.build, jobs.config, train_llm]
print(*[module.__file__ for module in modules], settings.load().package_root, sep="\\n")
print(nightjar.packaging.build.build(settings.load().package_root).sha256)
"""


def test_archives_are_all_that_airflow_needs(tmp_path: Path) -> None:
    home = tmp_path / "airflow"
    for name, files in (("dags", aws.bundled_dags()), ("plugins", aws.bundled_plugins())):
        zipfile.ZipFile(io.BytesIO(zip_bytes(files))).extractall(home / name)
    assert "jobs/" in (home / "plugins" / ".airflowignore").read_text()
    for folder in ("nightjar/web", "jobs/results"):  # what the pages are made of, which is no code
        ours = PROJECT_ROOT / ("plugins" if folder.startswith("nightjar") else ".") / folder
        wanted = {path.relative_to(ours) for path in ours.rglob("*.*") if path.suffix in (".css", ".html", ".js")}
        there = home / "plugins" / folder
        assert wanted
        assert wanted <= {path.relative_to(there) for path in there.rglob("*.*")}
    env = {key: value for key, value in os.environ.items() if not key.startswith("NIGHTJAR")} | {
        "PYTHONPATH": f"{home / 'dags'}:{home / 'plugins'}",
    }
    done = subprocess.run(
        [sys.executable, "-c", CODE], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    *modules, sha256 = done.stdout.splitlines()[-5:]
    assert all(path.startswith(str(home)) for path in modules)
    assert not any(path.startswith(str(PROJECT_ROOT)) for path in modules)
    assert sha256 == build().sha256
