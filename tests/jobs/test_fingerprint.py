"""What names a dataset."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import jobs
from jobs.fingerprint import code_version, fingerprint

PACKAGE = Path(jobs.__path__[0])


def test_fingerprint_depends_on_values_alone():
    assert fingerprint(a=1, b=[{"x": "é"}]) == fingerprint(b=[{"x": "é"}], a=1)
    assert len({fingerprint(a=1), fingerprint(a="1"), fingerprint(b=1)}) == 3


def test_code_version_depends_on_the_files_it_is_given():
    assert code_version("corpus") == code_version("corpus")
    assert len({code_version("corpus"), code_version("datasets"), code_version("corpus/reading.py")}) == 3


def test_code_version_is_the_same_in_a_zip(tmp_path):
    with zipfile.ZipFile(tmp_path / "jobs.zip", "w") as archive:
        for path in PACKAGE.rglob("*.py"):
            archive.write(path, Path("jobs") / path.relative_to(PACKAGE))
    program = "from jobs import fingerprint as f; print(f.__file__, f.code_version('corpus', 'tokenizer/bpe.py'))"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "jobs.zip")}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    where, version = done.stdout.split()
    assert "jobs.zip" in where
    assert version == code_version("corpus", "tokenizer/bpe.py")
