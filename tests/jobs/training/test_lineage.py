"""What a lineage says of code and of embeddings."""

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import jobs
from jobs.config import resolve
from jobs.lake import store
from jobs.lake.manifest import Manifest
from jobs.training.lineage import code_of, hash_of_embeddings, package_of

CODE = """
import json
from jobs.config import resolve
from jobs.training.lineage import code_of, package_of
print(json.dumps([code_of(resolve("none", "tiny")), package_of()]))
"""


def test_code_in_a_zip_file_has_the_same_hash_and_names_the_file(tmp_path):
    folder, path = Path(jobs.__file__).parent, tmp_path / "jobs.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in folder.rglob("*"):
            if file.suffix in (".py", ".toml"):
                archive.write(file, file.relative_to(folder.parent))
    command = [sys.executable, "-c", CODE]
    environment = {**os.environ, "PYTHONPATH": str(path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    code, package = json.loads(done.stdout)
    assert code == code_of(resolve("none", "tiny"))
    assert package == {"package": hashlib.sha256(path.read_bytes()).hexdigest()}
    assert package_of() == {}


def test_embeddings_are_hashed_as_a_file_or_as_a_dataset(tmp_path):
    (tmp_path / "v.csv").write_bytes(b"a,1")
    assert hash_of_embeddings(str(tmp_path / "v.csv")) == hashlib.sha256(b"a,1").hexdigest()
    assert hash_of_embeddings(str(tmp_path / "gone.csv")) == ""
    assert hash_of_embeddings(None) == hash_of_embeddings("embed") == ""
    store.publish_manifest(tmp_path.as_uri(), Manifest("embeddings", "f" * 64, ()))
    assert hash_of_embeddings(str(tmp_path)) == "f" * 64
