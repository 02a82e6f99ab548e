import pytest

from jobs.lake.uri import join, local_path
from nightjar.storage import open_storage


@pytest.fixture
def storage(lake_uri):
    return open_storage(lake_uri)


def test_what_is_written_is_read_and_listed(storage, lake_uri):
    storage.write(join(lake_uri, "b/ä 1.txt"), b"one")
    storage.write(join(lake_uri, "a.txt"), b"first")
    storage.write(join(lake_uri, "a.txt"), b"second")
    assert storage.read(join(lake_uri, "a.txt")) == b"second"
    with storage.open(join(lake_uri, "b/ä 1.txt")) as stream:
        assert stream.read(2) == b"on"
    assert [(file.name, file.size) for file in storage.list_files(lake_uri)] == [("a.txt", 6), ("b/ä 1.txt", 3)]
    assert [storage.read(file.uri) for file in storage.list_files(lake_uri)] == [b"second", b"one"]


def test_a_file_is_listed_as_itself(storage, lake_uri):
    storage.write(join(lake_uri, "a.txt"), b"text")
    storage.write(join(lake_uri, "a.txt.bak"), b"other")
    [found] = storage.list_files(join(lake_uri, "a.txt"))
    assert (found.name, found.uri, found.size) == ("a.txt", join(lake_uri, "a.txt"), 4)


def test_a_folder_does_not_list_its_namesakes(storage, lake_uri):
    storage.write(join(lake_uri, "train/1"), b"")
    storage.write(join(lake_uri, "train2/1"), b"")
    assert [file.name for file in storage.list_files(join(lake_uri, "train"))] == ["1"]
    assert storage.list_files(join(lake_uri, "tra")) == []


def test_reading_what_is_not_there(storage, lake_uri):
    with pytest.raises(FileNotFoundError):
        storage.read(join(lake_uri, "none"))
    with pytest.raises(FileNotFoundError):
        storage.read_version(join(lake_uri, "none"))


def test_publishing_happens_once(storage, lake_uri):
    uri = join(lake_uri, "config.json")
    assert storage.publish(uri, b"mine")
    assert not storage.publish(uri, b"theirs")
    assert storage.read(uri) == b"mine"


def test_a_swap_needs_the_version_that_was_read(storage, lake_uri):
    uri = join(lake_uri, "champion.json")
    storage.write(uri, b"1")
    _, version = storage.read_version(uri)
    assert storage.swap(uri, b"2", version)
    assert not storage.swap(uri, b"3", version)
    assert storage.read(uri) == b"2"


def test_copy_and_delete(storage, lake_uri):
    storage.write(join(lake_uri, "runs/model"), b"weights")
    storage.copy(join(lake_uri, "runs/model"), join(lake_uri, "models/model"))
    storage.delete(join(lake_uri, "runs/model"))
    assert [file.name for file in storage.list_files(lake_uri)] == ["models/model"]
    assert storage.read(join(lake_uri, "models/model")) == b"weights"


def test_local_writes_leave_nothing_else(tmp_path):
    storage, uri = open_storage(tmp_path.as_uri()), (tmp_path / "a").as_uri()
    storage.write(uri, b"1")
    storage.publish(uri, b"2")
    storage.copy(uri, (tmp_path / "b").as_uri())
    assert sorted(path.name for path in local_path(uri).parent.iterdir()) == ["a", "b"]
