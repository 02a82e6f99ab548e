"""The archives for an Airflow elsewhere: unpacked alone, the DAGs import and build the same package."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

from infra.aws import bundle
from nightjar.packaging.build import PROJECT_ROOT, build

CODE = """
import nightjar.packaging.build, jobs.config, train_llm, reap_clusters
from nightjar import settings
places = [nightjar.packaging.build, jobs.config, train_llm]
print(*[place.__file__ for place in places], settings.load().package_root, sep="\\n")
print(nightjar.packaging.build.build(settings.load().package_root).sha256)
"""


def test_the_archives_are_all_that_airflow_needs(tmp_path: Path) -> None:
    home = tmp_path / "airflow"
    for name, entries in (("dags", bundle.dags()), ("plugins", bundle.plugins())):
        bundle.pack(tmp_path / f"{name}.zip", list(entries))
        zipfile.ZipFile(tmp_path / f"{name}.zip").extractall(home / name)
    assert "jobs/" in (home / "plugins" / ".airflowignore").read_text()
    env = {key: value for key, value in os.environ.items() if not key.startswith("NIGHTJAR")} | {
        "PYTHONPATH": f"{home / 'dags'}:{home / 'plugins'}",
        "NIGHTJAR_PACKAGE_ROOT": str(home / "plugins"),
    }
    done = subprocess.run(
        [sys.executable, "-c", CODE], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    *places, sha256 = done.stdout.splitlines()[-5:]
    assert all(place.startswith(str(home)) for place in places)
    assert not any(place.startswith(str(PROJECT_ROOT)) for place in places)
    assert sha256 == build().sha256
