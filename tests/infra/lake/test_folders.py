"""The folders of a lake on this machine, and who owns them."""

import os
import stat

import pytest

from infra.lake import folders, sample_corpus
from jobs.errors import InputError

OWNER = (1234, 567)
as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can give files to another user")


def owners(folder):
    """Return the owners of a folder and of everything in it."""
    paths = [folder, *folder.rglob("*")]
    return {(path.lstat().st_uid, path.lstat().st_gid) for path in paths}


def test_a_new_lake_has_a_folder_for_texts(tmp_path):
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
    with pytest.raises(InputError, match="may not write to the lake"):
        folders.make_folders(tmp_path / "lake")
